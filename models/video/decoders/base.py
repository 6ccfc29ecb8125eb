"""What a decoder of clips is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np


class ClipDecoder(Protocol):
    """Reads the frames of clips, upright and in their right colours, (height, width, 3) uint8.

    The pixels of an ordinary clip (`microg.models.video.decoders.ordinary`) do not depend on the decoder. Each method
    raises `VideoError` for a clip that it cannot read whole or would show wrongly, and `VideoAccessError` where the
    file cannot be reached.
    """

    def check(self) -> None:
        """Raise `ConfigError` where this process cannot use the decoder."""
        ...

    def frames(self, uri: str) -> Iterator[np.ndarray]:
        """Yield all frames of a clip in order, BGR."""
        ...

    def frames_at(self, uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Return frames by their 0-based number in the order of show, RGB; one that the clip lacks is left out."""
        ...
