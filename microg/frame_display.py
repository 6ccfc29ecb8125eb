"""What a decoded frame says about how it is to be shown: which side is up, and what its numbers mean as colours.

All readers of frames and all writers of clips go through here, so that none of them turns or colours a frame
differently from another. Colours are those of FFmpeg's own conversion, to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc

from microg.errors import VideoError

# A filter of FFmpeg, and its arguments.
Filter = tuple[str, str]

_TURN: dict[int, tuple[Filter, ...]] = {
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes an upright one: it is mirrored left to right, then turned.

    Attributes:
        rotation: Degrees (0, 90, 180 or 270) of the turn, anticlockwise.
        mirrored: Whether the picture is mirrored before, as that of a front camera may be.
    """

    rotation: int = 0
    mirrored: bool = False

    @property
    def sideways(self) -> bool:
        """Whether width and height change places."""
        return self.rotation in (90, 270)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a stored picture, (height, width, ...), upright."""
        mirrored = picture[:, ::-1] if self.mirrored else picture
        return np.ascontiguousarray(np.rot90(mirrored, k=self.rotation // 90))

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters of FFmpeg that do the same as `apply`."""
        return ((("hflip", ""),) if self.mirrored else ()) + _TURN[self.rotation]


UPRIGHT = Orientation()


def _display_matrix(orientation: Orientation) -> np.ndarray:
    """Return the 2 x 2 part of the display matrix that asks for `orientation`; y points down."""
    turns = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), orientation.rotation // 90)
    return (turns @ np.diag([-1 if orientation.mirrored else 1, 1])).T


_MATRICES = {
    orientation: _display_matrix(orientation)
    for orientation in (Orientation(turn, mirrored) for mirrored in (False, True) for turn in _TURN)
}


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how to stand a frame upright: of the eight orientations the one nearest to its display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    part = np.frombuffer(bytes(matrix), np.int32)[[0, 1, 3, 4]].reshape(2, 2).astype(np.float64)
    return max(_MATRICES, key=lambda orientation: float((_MATRICES[orientation] * part).sum()))


# FFmpeg's numbers of matrices of colours; nobody tells of many videos, which are then read as BT.601, in SMPTE 170M.
_UNSPECIFIED, _SMPTE_170M = 2, 6
_RGB_MATRIX = 0
# Those that FFmpeg converts: RGB, BT.709, FCC, BT.470BG, SMPTE 170M and 240M, BT.2020 with constant weights. Numbers
# that are reserved mean nothing, and are taken for unspecified; the rest are known to be something else.
_MATRICES_READ = frozenset({_RGB_MATRIX, 1, 4, 5, 6, 7, 9})
_MATRICES_REFUSED = {8: "YCgCo", 10: "BT.2020 constant luminance", 11: "SMPTE 2085", 14: "ICtCp", 15: "IPT-C2"}
_HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}


def matrix_of_clip(frame: av.VideoFrame) -> int:
    """Return the matrix in which a clip of such frames is written: their own, so that no colour is rounded twice."""
    matrix = _matrix(frame)
    return _SMPTE_170M if matrix in (_UNSPECIFIED, _RGB_MATRIX) else matrix


class ColourError(VideoError):
    """A frame's colours cannot be converted; whoever opened the video names it."""


class Converter:
    """Runs frames through filters of FFmpeg, with the colours that each frame says it has.

    Frames may change their size, format or colours on the way. Raises `ColourError` for colours that would come out
    wrong: those of high dynamic range, and encodings that FFmpeg does not convert.
    """

    def __init__(self, *filters: Filter) -> None:
        self._filters = filters
        self._shape: tuple[Any, ...] | None = None
        self._graph: Any = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        shape = (frame.width, frame.height, frame.format.name, _matrix(frame), frame.color_range)
        if frame.color_trc in _HDR:
            raise ColourError(
                f"the footage is HDR ({_HDR[ColorTrc(frame.color_trc)]}): shown as it is, its colours would be flat",
                "convert it to standard range (BT.709) first, for example with ffmpeg's zscale and tonemap filters",
            )
        if shape != self._shape:
            self._shape, self._graph = shape, self._make_graph(*shape)
        with _without_tone(frame):
            self._graph.push(frame)
            converted = self._graph.pull()
        converted.color_primaries, converted.color_trc = frame.color_primaries, frame.color_trc
        return converted

    def _make_graph(self, width: int, height: int, pixel_format: str, matrix: int, colour_range: int) -> Any:
        graph = av.filter.Graph()
        graph.threads = 1
        source = f"video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/90000"
        nodes = [graph.add("buffer", f"{source}:colorspace={matrix}:range={colour_range}")]
        nodes += [graph.add(name, arguments or None) for name, arguments in self._filters]
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes)
        graph.configure()
        return graph


def _matrix(frame: av.VideoFrame) -> int:
    if (matrix := frame.colorspace) in _MATRICES_REFUSED:
        raise ColourError(f"colours in the matrix {_MATRICES_REFUSED[matrix]} are not read", "convert them to BT.709")
    return matrix if matrix in _MATRICES_READ else _UNSPECIFIED


@contextmanager
def _without_tone(frame: av.VideoFrame) -> Iterator[None]:
    """Hide primaries and transfer for a while: FFmpeg would refuse reserved values, which old files are full of."""
    primaries, transfer, matrix = frame.color_primaries, frame.color_trc, frame.colorspace
    frame.color_primaries, frame.color_trc = ColorPrimaries.UNSPECIFIED, ColorTrc.UNSPECIFIED
    frame.colorspace = _matrix(frame)
    try:
        yield
    finally:
        frame.color_primaries, frame.color_trc, frame.colorspace = primaries, transfer, matrix


_kept = threading.local()


def to_array(frame: av.VideoFrame, pixel_format: str, orientation: Orientation | None = None) -> np.ndarray:
    """Return a frame, upright, as (height, width, 3) uint8 in `pixel_format`, such as `rgb24`.

    `orientation` is for frames that do not tell it. Raises `ColourError` for colours that cannot be converted.
    """
    converters = _kept.__dict__
    if pixel_format not in converters:
        converters[pixel_format] = Converter(("scale", "flags=bicubic"), ("format", pixel_format))
    return (orientation or orientation_of(frame)).apply(converters[pixel_format](frame).to_ndarray())
