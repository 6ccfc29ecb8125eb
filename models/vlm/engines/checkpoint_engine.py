"""What the engines that run a checkpoint themselves have in common: its files, its processor, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from microg.models.vlm.api.prices import Estimate
from microg.models.vlm.base import Request, Sampling
from microg.models.vlm.engines.chat import Chat, FramesAs, load_chat
from microg.models.vlm.engines.checkpoint import Checkpoint, find


@dataclass
class LocalEngine:
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

    def estimate(self, request: Request, sampling: Sampling) -> Estimate:
        """Return the tokens of a request, counted by the model's own processor, and the longest answer; no dollars."""
        return Estimate(self.chat.count(request, self.processor) + sampling.max_tokens, 0.0)

    def _what_decides(self, **more: Any) -> dict[str, Any]:
        """Return the checkpoint's content, number format, how frames are shown, and what of `more` is set."""
        own = {"frames_as": self.frames_as, "chat_template": self.chat_template, "processor": dict(self.processor)}
        kept = {name: value for name, value in {**own, **more}.items() if value}
        return {**self.checkpoint.identity, "dtype": self.stored_as, **kept}
