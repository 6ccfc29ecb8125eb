"""torchcodec, PyTorch's decoder: needs FFmpeg's shared libraries on the system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import cv2
import numpy as np

from microg.errors import ConfigError
from microg.models.video.decoders.ordinary import source_of

_NAME = "torchcodec"


class TorchCodec:
    """Reads ordinary clips, on one thread."""

    def check(self) -> None:
        """Raise `ConfigError` where it is not installed, or finds no FFmpeg."""
        try:
            self._reader(b"no video")
        except ImportError as error:
            raise ConfigError(f"{_NAME} is not installed: {error}", "uv sync --extra torchcodec") from error
        except (RuntimeError, OSError, ValueError) as error:
            if "libtorchcodec" in str(error):  # it looks for FFmpeg when it first opens something
                raise ConfigError(
                    f"{_NAME} finds no shared libraries of FFmpeg 4 to 9",
                    "install FFmpeg on the system (apt install ffmpeg), or use --decoder pyav",
                ) from error

    def frames(self, uri: str) -> Iterator[np.ndarray]:
        """Yield all frames."""
        with source_of(uri, _NAME) as source:
            reader = self._reader(source)
            for number in range(len(reader)):
                yield cv2.cvtColor(reader.get_frame_at(number).data.numpy(), cv2.COLOR_RGB2BGR)

    def frames_at(self, uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Return chosen frames."""
        with source_of(uri, _NAME) as source:
            reader = self._reader(source)
            there = [number for number in sorted(set(numbers)) if number < len(reader)]
            return dict(zip(there, reader.get_frames_at(there).data.numpy() if there else (), strict=True))

    def _reader(self, source: Any) -> Any:
        decoders = import_module("torchcodec.decoders")
        return decoders.VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1)
