"""decord, which many published readers use: no longer maintained, and it dies of some odd files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import cv2
import numpy as np

from microg.errors import ConfigError, VideoError
from microg.models.video.decoders.ordinary import source_of
from microg.video import count_frames

_NAME = "decord"


class Decord:
    """Reads ordinary clips, on one thread."""

    def check(self) -> None:
        """Raise `ConfigError` where it is not installed."""
        try:
            import_module(_NAME)
        except (ImportError, OSError) as error:
            raise ConfigError(f"{_NAME} is not installed: {error}", "uv sync --extra decord") from error

    def frames(self, uri: str) -> Iterator[np.ndarray]:
        """Yield all frames."""
        with source_of(uri, _NAME) as source:
            reader = self._reader(source, uri)
            for number in range(len(reader)):
                yield cv2.cvtColor(reader[number].asnumpy(), cv2.COLOR_RGB2BGR)

    def frames_at(self, uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Return chosen frames."""
        with source_of(uri, _NAME) as source:
            reader = self._reader(source, uri)
            there = [number for number in sorted(set(numbers)) if number < len(reader)]
            return dict(zip(there, reader.get_batch(there).asnumpy() if there else (), strict=True))

    def _reader(self, source: Any, uri: str) -> Any:
        reader = import_module(_NAME).VideoReader(source, num_threads=1)
        if len(reader) != (stored := count_frames(uri)):  # it leaves out damaged parts, or repeats frames, in silence
            raise VideoError(f"{uri} is damaged: {_NAME} finds {len(reader)} of {stored} frames")
        return reader
