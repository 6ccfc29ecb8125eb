"""The default decoder: reads every file that FFmpeg knows, and of chosen frames only what they need.

Decoding dominates what a sample costs, so of a video only what the chosen frames need is decoded: from the last key
frame before the first of them, and without frames that no other frame refers to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from microg.video import decode_frames, decode_frames_at, is_indexed, open_video, upright_rgb

# More than any codec delays a frame: after so many further packets, the display order of earlier ones is known.
_MOST_REORDERED = 32


class PyAv:
    """FFmpeg's libraries, as PyAV brings them."""

    def check(self) -> None:
        """It is always there."""

    def frames(self, uri: str) -> Iterator[np.ndarray]:
        """Yield all frames."""
        return decode_frames(uri)

    def frames_at(self, uri: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Decode what is needed of a video whose packets tell their times; of any other, all up to the last frame."""
        if not numbers:
            return {}
        numbers, found = sorted(set(numbers)), {}
        with open_video(uri) as (container, stream):
            packets, times = [], []
            if is_indexed(container):
                packets, times = needed_packets(container, stream, numbers[0], numbers[-1] + _MOST_REORDERED)
            shown = sorted(times)
            wanted = {shown[number]: number for number in numbers if number < len(shown)}
            if len(wanted) == len(numbers) and len(set(times)) == len(times):
                context = stream.codec_context
                for packet in [*packets, None]:
                    context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
                    for frame in context.decode(packet):
                        if frame.pts in wanted:
                            found[wanted[frame.pts]] = upright_rgb(frame)
                    if len(found) == len(numbers):
                        return found
        return decode_frames_at(uri, numbers, upright_rgb)[1]


def needed_packets(container: Any, stream: Any, first: int, last: int) -> tuple[list[av.Packet], list[int]]:
    """Return the packets needed to decode frames `first` to `last`, and the times of all packets up to there.

    Packets before the last key frame that comes safely before `first` are dropped. Both lists are empty when packets
    do not tell their times.
    """
    packets: list[av.Packet] = []
    times: list[int] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None:
            return [], []
        if packet.is_keyframe and len(times) <= first - _MOST_REORDERED:
            packets.clear()
        packets.append(packet)
        if not packet.is_discard:
            times.append(packet.pts)
        if len(times) > last:
            break
    return packets, times
