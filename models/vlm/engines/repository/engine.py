"""The engine for models whose code lies in their repository: transformers' own, with that code in the model's place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from microg.errors import ConfigError
from microg.models.vlm.engines.repository.consent import RepositoryCode
from microg.models.vlm.engines.repository.models import asking_class
from microg.models.vlm.engines.transformers import TransformersEngine, number_format


@dataclass
class RepositoryEngine(TransformersEngine):
    """A model that its repository's code runs, one request after another (see `TransformersEngine`).

    `trust_remote_code` is the consent without which none of that code is even imported. The code prepares frames and
    prompts, so `frames_as`, `chat_template` and `processor` have no meaning here.
    """

    batch_size: int = field(default=1, init=False)
    name: str = field(default="repository", init=False)
    # making inputs uses the model, too
    calls_at_once: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames_as != "auto" or self.chat_template is not None or self.processor:
            raise ConfigError(
                "the repository's own code prepares frames and prompts",
                "leave out the settings frames_as, chat_template and processor",
            )

    @cached_property
    def code(self) -> RepositoryCode:
        """The code that would run."""
        return RepositoryCode.of(self.checkpoint)

    def check_consent(self) -> str:
        """Return the code's hash or commit. Raises `ConfigError` where it may not run, or its model is not known."""
        asking_class(self.code)
        self.code.require_consent(self.trust_remote_code)
        return self.code.identity

    def fingerprint(self) -> dict[str, Any]:
        """Return what `TransformersEngine` does, with the exact code and how it was made to run."""
        kind = asking_class(self.code)
        return super().fingerprint() | {"code": self.code.record(), "adaptations": list(kind.adaptations)}

    @property
    def chat(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What makes inputs and reads answers: the model itself."""
        return self.load()

    @property
    def counting(self) -> str:
        """By a rule: the code that makes prompts is not run for a plan."""
        return "about, by OpenAI's rule for pictures: the repository's own code counts only while it answers"

    @cached_property
    def _uncountable(self) -> str:
        return "its own code makes prompts, and needs the model for that"

    def _load(self) -> Any:
        from microg.models.devices import resolve_device
        from microg.models.vlm.engines.repository.loading import folder_of, load

        self.check_consent()
        kind = asking_class(self.code)
        dtype, place = number_format(self.stored_as), resolve_device(self.device)
        return kind(*load(folder_of(self.checkpoint), self.code, kind.adaptations, kind.unused, dtype, place))
