"""Where a local engine's model is: a folder or a repository of the Hugging Face hub, and what names its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from microg import storage
from microg.errors import ConfigError, describe

_GB = 1e9
_DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A model's files. `source` is what engines load: the folder, or the hub's id at the commit `revision`."""

    source: str
    revision: str | None
    config: dict[str, Any]
    folder: Path | None = None

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of config.json."""
        return {**self.config, **(self.config.get("text_config") or self.config.get("llm_config") or {})}

    @property
    def dtype(self) -> str:
        """The type that weights are stored in, as torch calls it."""
        for config in (self.config, self.text_config):
            found = config.get("dtype") or config.get("torch_dtype")
            if isinstance(found, str):
                return found.removeprefix("torch.")
        return "bfloat16"

    @property
    def context(self) -> int:
        """Tokens that the language model was made for."""
        found = self.text_config.get("max_position_embeddings")
        return found if isinstance(found, int) else _DEFAULT_CONTEXT

    @property
    def weights_gb(self) -> float | None:
        """Size of the weights in GB (10^9 bytes); None where they are not on this machine."""
        sizes = [file.stat().st_size for file in self._weights()]
        return sum(sizes) / _GB if sizes else None

    @cached_property
    def identity(self) -> dict[str, str]:
        """What names the content: the hub's id and commit, or a hash over all files of the folder."""
        if self.folder is None or self.revision is not None:
            return {"model": self.source, "revision": str(self.revision)}
        return {"model": self.folder.name, "sha256": _folder_hash(str(self.folder))}

    def kv_bytes_per_token(self, value_bytes: int) -> int:
        """Return what one token takes in the cache of keys and values."""
        text = self.text_config
        heads = text.get("num_attention_heads") or 1
        size = text.get("head_dim") or (text.get("hidden_size") or 4096) // heads
        return (
            2 * (text.get("num_hidden_layers") or 32) * (text.get("num_key_value_heads") or heads) * size * value_bytes
        )

    def _weights(self) -> list[Path]:
        if self.folder is None:
            return []
        return [*self.folder.glob("*.safetensors")] or [*self.folder.glob("*.bin")]


@cache
def find(model: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint `model`, a folder or a hub id; downloads at most its config.json.

    A hub id is pinned to the commit that `revision` (None: the main branch) stands for now. Raises `ConfigError` when
    there is none.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{folder} is a folder, which has no revisions", "leave out the setting revision")
        return Checkpoint(str(folder.resolve()), None, _config(folder / "config.json"), folder.resolve())
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ConfigError(f"there is no model folder {model}", "give a folder with config.json, or a hub id")
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(model, "config.json", revision=revision))
    except Exception as error:  # its own errors, requests' and OSError, all of which mean the same to a user
        raise ConfigError(
            f"the model {model} is neither on this machine nor to be had from the hub: {describe(error)[:200]}",
            f"'hf download {model}' on a machine with internet access, then give the folder",
        ) from None
    # the cache keeps a commit's files in snapshots/<commit>
    return Checkpoint(model, file.parent.name, _config(file), file.parent)


def _config(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read: {describe(error)}", "give a checkpoint saved by transformers"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file} is no model's configuration", "give a checkpoint saved by transformers")
    return found


@cache
def _folder_hash(folder: str) -> str:
    """Hash what decides answers: every file but hidden ones and documents, by name and content."""
    found = hashlib.sha256()
    for file in sorted(Path(folder).iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix not in (".md", ".txt", ".log"):
            found.update(f"{file.name}:{storage.sha256(file)}\n".encode())
    return found.hexdigest()
