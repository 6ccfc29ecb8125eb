"""InternVideo2.5 as its page asks it about a video: one square a frame, a line `Frame1: <image>` for each, `chat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microg.models.vlm.base import Frames, Request
from microg.models.vlm.engines.checkpoint import pictures
from microg.models.vlm.engines.repository.asking import OwnCodeModel

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class InternVideo(OwnCodeModel):
    """InternVideo2.5: the model merges the patches of groups of four frames, so the last frame fills up its group."""

    adaptations = ("generation-mixin", "plain-loading", "position-ids", "tuple-cache")
    # heads of its training, which the published code does not have
    unused = (
        "action_embed",
        "box_token",
        "cg_criterion",
        "cg_model",
        "loc_decoder",
        "loc_encoder",
        "sam",
        "temporal_embed",
        "temporal_token",
        "track_embed",
        "track_token",
    )

    def ends(self) -> Sequence[str]:
        """Return the end of a turn, as the conversation's template has it."""
        return [self.model.conv_template.sep.strip()]

    def ask(self, request: Request) -> Mapping[str, Any]:
        """Return what `chat` gives to `generate`, which is stopped before it starts."""
        pixels, question, count = None, request.prompt, 0
        if request.frames is not None:
            pixels = self._pixels(request.frames)
            count = len(pixels)
            question = "".join(f"Frame{at + 1}: <image>\n" for at in range(count)) + question
        made: dict[str, Any] = {}

        def generate(**inputs: Any) -> Any:
            made.update(inputs)
            raise _Asked

        told = self.model.system_message
        self.model.system_message = request.system or told
        self.model.generate = generate
        try:
            self.model.chat(self.tokenizer, pixels, question, {}, num_patches_list=[1] * count)
        except _Asked:
            pass
        finally:
            del self.model.generate
            self.model.system_message = told
        names = ("input_ids", "attention_mask", "pixel_values")
        return {name: made[name] for name in names if made[name] is not None}

    def answer(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Return what `generate` adds."""
        return self.model.generate(
            **{"pixel_values": None, **inputs}, eos_token_id=self.generation_config.eos_token_id, **options
        )

    def _pixels(self, frames: Frames) -> Any:
        """Return (frames, 3, side, side) as ImageNet's colours, the last frame repeated to a multiple of the group."""
        import torch
        from PIL import Image

        side = self.model.config.force_image_size or self.model.config.vision_config.image_size
        shown = pictures(frames)
        shown += shown[-1:] * (-len(shown) % self.model.local_num_frames)
        squares = np.stack([np.asarray(each.resize((side, side), Image.Resampling.BICUBIC)) for each in shown])
        scaled = (squares.astype(np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
        return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


class _Asked(Exception):
    """`chat` has made its inputs."""
