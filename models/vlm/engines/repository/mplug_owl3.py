"""mPLUG-Owl3 as its page asks it about a video: `init_processor`, `<|video|>` before the question, `generate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microg.models.vlm.base import Request
from microg.models.vlm.engines.checkpoint import pictures
from microg.models.vlm.engines.repository.asking import OwnCodeModel

# Its `generate` pads with this token, which is a "!", and its reading drops it wherever it stands.
_PAD = 0


class MplugOwl3(OwnCodeModel):
    """mPLUG-Owl3: frames go through its own processor, each as one picture that is not cut, as it does with videos."""

    adaptations = (
        "cache-methods",
        "generation-mixin",
        "plain-loading",
        "position-ids",
        "siglip-name",
        "token-ids",
    )

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self._processor = model.init_processor(tokenizer)

    def ends(self) -> Sequence[str]:
        """Return what the code calls terminators."""
        return self.model.terminators

    def ask(self, request: Request) -> Mapping[str, Any]:
        """Return tokens, pixels, and how many frames each token may look at (`media_offset`)."""
        video = [] if request.frames is None else [pictures(request.frames)]
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [
            {"role": "user", "content": ("<|video|>\n" if video else "") + request.prompt},
            {"role": "assistant", "content": ""},
        ]
        return self._processor(messages, images=None, videos=video or None)

    def answer(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Return what `generate` adds; like its page, it is given no mask."""
        own = {name: value for name, value in inputs.items() if name != "attention_mask"}
        return self.model.generate(**own, tokenizer=self.tokenizer, **options)

    def decode(self, ids: Sequence[int]) -> str:
        """Return an answer as the code reads it: without its padding token."""
        return super().decode([token for token in ids if token != _PAD])
