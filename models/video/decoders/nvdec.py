"""NVDEC, the video unit of NVIDIA's GPUs, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import cv2
import numpy as np
from av.codec.hwaccel import HWAccel

from microg.errors import ConfigError
from microg.video import decode_frames


class NvDec:
    """Decodes whole clips on the GPU; of chosen frames, all up to the last of them."""

    def check(self) -> None:
        """Raise `ConfigError` where this process reaches no such unit."""
        try:
            av.CodecContext.create("h264", "r", hwaccel=_accelerated())
        except (av.FFmpegError, OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"there is no nvdec here: {reason}",
                "use --decoder pyav, or a node with an NVIDIA GPU whose driver lets containers decode "
                "(NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)",
            ) from error

    def frames(self, uri: str) -> Iterator[np.ndarray]:
        """Yield all frames."""
        return decode_frames(uri, _accelerated())

    def frames_at(self, uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Return chosen frames."""
        found: dict[int, np.ndarray] = {}
        wanted = set(numbers)
        for number, frame in enumerate(self.frames(uri)):
            if number in wanted:
                found[number] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            if len(found) == len(wanted):
                break
        return found


def _accelerated() -> HWAccel:
    return HWAccel("cuda", allow_software_fallback=False)
