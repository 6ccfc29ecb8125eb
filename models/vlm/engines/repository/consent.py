"""A repository's own code: what would run, and whether whoever runs it has agreed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm.engines.checkpoint import Checkpoint

# Text of a hub's class reference that points into another repository.
_ELSEWHERE = "--"


@dataclass(frozen=True)
class RepositoryCode:
    """The code that a checkpoint brings.

    Attributes:
        model: The repository: a folder or the hub's id.
        commit: Commit on the hub; None for a folder.
        classes: The checkpoint's `auto_map`: transformers' auto class -> `module.Class` of the repository.
        files: Names of the Python files.
        sha256: Hash over the files of a folder; None for the hub, where the commit says it.
    """

    model: str
    commit: str | None
    classes: dict[str, str]
    files: tuple[str, ...]
    sha256: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RepositoryCode:
        """Return the code of a checkpoint, of which nothing is run.

        Raises `ConfigError` where it has none, or where its classes lie in a second repository.
        """
        named = checkpoint.config.get("auto_map")
        named = named if isinstance(named, dict) else {}
        classes = {name: each for name, each in named.items() if isinstance(each, str)}
        if "AutoModel" not in classes or "AutoConfig" not in classes:
            raise ConfigError(
                f"{checkpoint.name} brings no code of its own",
                "config.json of such a repository names its classes (auto_map); another engine may run the model",
            )
        strangers = sorted({each.partition(_ELSEWHERE)[0] for each in classes.values() if _ELSEWHERE in each})
        if strangers:
            raise ConfigError(
                f"the code of {checkpoint.name} lies in another repository, {', '.join(strangers)}, and is not pinned",
                "download both, put the Python files beside config.json, and take the other's name out of auto_map",
            )
        if checkpoint.revision is not None or checkpoint.folder is None:
            files = sorted({f"{each.partition('.')[0]}.py" for each in classes.values()})
            return cls(checkpoint.name, checkpoint.revision, classes, tuple(files), None)
        found = sorted(checkpoint.folder.glob("*.py"))
        return cls(checkpoint.name, None, classes, tuple(file.name for file in found), _hash(found))

    @property
    def identity(self) -> str:
        """What names exactly this code: `commit:` or `sha256:` and the value."""
        return f"sha256:{self.sha256}" if self.commit is None else f"commit:{self.commit}"

    def require_consent(self, given: bool) -> None:
        """Raise `ConfigError` unless consent is `given`: says whose code it is, where to read and how to allow it."""
        if given:
            return
        from huggingface_hub import constants

        place = self.model if self.commit is None else f"{constants.ENDPOINT}/{self.model}/tree/{self.commit}"
        raise ConfigError(
            f"{self.model} runs code of its own ({', '.join(self.files)}), which nobody here wrote or checked",
            f"read it at {place}, then allow it with --trust-remote-code",
        )

    def record(self) -> dict[str, Any]:
        """Return what is recorded of a run's engine."""
        return {"files": list(self.files), "identity": self.identity}


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{storage.sha256(file)}\n".encode())
    return digest.hexdigest()
