"""What the engines that run a checkpoint themselves have in common: its files, its processor, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from microg.errors import MicrogError
from microg.models.vlm.base import Engine, Estimate, Request, Sampling
from microg.models.vlm.engines.chat import Chat, FramesAs, load_chat
from microg.models.vlm.engines.checkpoint import Checkpoint, find


@dataclass
class LocalEngine(Engine):
    """A checkpoint: a folder or a hub id, at `revision`.

    `dtype`: auto is what the weights are stored in. `context`: tokens of prompt and answer, at most what the model was
    made for. `chat_template`: Jinja, for models without one. `processor`: options of the model's processor, such as
    {size: {longest_edge: 200704}}. `trust_remote_code` runs the repository's own code: read it first.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    context: int | None = None
    frames_as: FramesAs = "auto"
    chat_template: str | None = None
    processor: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where the model's files are."""
        return find(self.model, self.revision)

    @cached_property
    def chat(self) -> Chat:
        """The model's processor and chat template."""
        return load_chat(self.checkpoint, self.frames_as, self.chat_template, self.trust_remote_code)

    @property
    def stored_as(self) -> str:
        """The number format that the model runs in."""
        return self.checkpoint.dtype if self.dtype == "auto" else self.dtype

    @cached_property
    def _uncountable(self) -> str:
        """Why the model's own processor cannot count tokens on this machine, or ""."""
        try:
            _ = self.chat
        except MicrogError as error:
            return error.what
        return ""

    @property
    def counting(self) -> str:
        """By the model's own processor, where its files are on this machine."""
        if self._uncountable:
            return f"by OpenAI's rule for pictures, as the model is not here: {self._uncountable}"
        return "by the model's own processor"

    @property
    def counts_slowly(self) -> bool:
        """Whether the processor counts."""
        return not self._uncountable

    def estimate(self, request: Request, sampling: Sampling, batch: bool = False) -> Estimate:
        """Return the tokens of a request (see `counting`), and the longest answer; no dollars."""
        if self._uncountable:
            return super().estimate(request, sampling, batch)
        return Estimate(self.chat.count(request, self.processor) + sampling.max_tokens, 0.0)

    def _fingerprint_fields(self, **more: Any) -> dict[str, Any]:
        """Return the checkpoint's content, number format, how frames are shown, and what of `more` is set."""
        own = {"frames_as": self.frames_as, "chat_template": self.chat_template, "processor": dict(self.processor)}
        kept = {name: value for name, value in {**own, **more}.items() if value}
        return {**self.checkpoint.identity, "dtype": self.stored_as, **kept}
