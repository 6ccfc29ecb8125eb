"""From messages and frames to tokens, pixels and `media_offset`: how many pictures stand before a token.

A picture is one token in the text; what is seen in it enters by the layers that look at pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers.image_processing_utils import BatchFeature

from .image_processing_mplugowl3 import mPLUGOwl3ImageProcessor

_IMAGE, _VIDEO = "<|image|>", "<|video|>"
_NO_MEDIA = -1000000


class mPLUGOwl3Processor:
    """A tokenizer and a picture processor."""

    def __init__(self, image_processor: mPLUGOwl3ImageProcessor, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    def __call__(
        self, messages: list[dict[str, str]], images: Sequence[Any] | None = None, videos: Any = None, **_: Any
    ) -> BatchFeature:
        if videos:
            waiting = iter(videos)
            for message in messages:
                parts = message["content"].split(_VIDEO)
                message["content"] = parts[0] + "".join(_IMAGE * len(next(waiting)) + part for part in parts[1:])
            images = [frame for video in videos for frame in video]
        if sum(message["content"].count(_IMAGE) for message in messages) != len(images or ()):
            raise AssertionError("as many pictures as the text has places for")
        ids: list[int] = []
        places: list[int] = []
        for text in self._pieces(messages):
            if text == _IMAGE:
                places.append(len(ids))
            ids += self.tokenizer(text).input_ids
        at = torch.arange(len(ids))
        seen = (at[:, None] > torch.tensor(places)[None]).sum(1) if places else torch.full_like(at, _NO_MEDIA)
        made = {
            "input_ids": torch.tensor([ids]),
            "media_offset": torch.stack([torch.zeros_like(seen), seen], dim=1)[None],
        }
        if images:
            made |= self.image_processor(images, cut_enable=not videos)
        return BatchFeature(made)

    def _pieces(self, messages: Sequence[dict[str, str]]) -> list[str]:
        """Return the conversation in ChatML up to where the last turn is to be said, cut at the pictures."""
        pieces = [] if messages[0]["role"] == "system" else ["<|im_start|>system\n<|im_end|>"]
        for message in messages:
            begin = "" if message["role"] == "system" else "\n"
            begin += f"<|im_start|>{message['role']}\n"
            if message["role"] == "assistant":
                pieces.append(begin)
            else:
                pieces += re.split(f"({re.escape(_IMAGE)})", f"{begin}{message['content']}<|im_end|>")
        return pieces
