"""Colours: what is read is what was filmed, by the matrix and the range that a frame says it is in."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from microg.errors import VideoError
from microg.models.video.clip_frames import read_clip_frames
from microg.models.video.trim import TrimSettings, trim
from microg.video import decode_frames, probe, read_rgb

SIDE = 16
COLOURS = np.array([[220, 39, 39], [38, 198, 38], [39, 39, 219], [250, 250, 20], [16, 16, 16], [128, 128, 128]])
# FFmpeg's numbers of matrices, and what red and blue weigh in the brightness.
BT709, BT601, PAL, BT2020, UNTOLD = (1, 0.2126, 0.0722), (6, 0.299, 0.114), (5, 0.299, 0.114), (9, 0.2627, 0.0593), 2
CASES = [
    (matrix, full, bits)
    for matrix in (BT709, BT601, PAL, BT2020, (UNTOLD, 0.299, 0.114))
    for full in (False, True)
    for bits in (8, 10)
]


def write_colours(
    path: Path,
    matrix: tuple[int, float, float],
    *,
    full: bool = False,
    bits: int = 8,
    transfer: int = ColorTrc.UNSPECIFIED,
    primaries: int = ColorPrimaries.UNSPECIFIED,
) -> Path:
    """Write 31 frames of patches in `COLOURS`, lossless, as the matrix's own definition encodes them."""
    number, red, blue = matrix
    r, g, b = COLOURS.T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    planes = [y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)]
    most = 2**bits - 1
    scales = (
        [(most, 0), (most, 2 ** (bits - 1))]
        if full
        else [(219 << bits - 8, 16 << bits - 8), (224 << bits - 8, 128 << bits - 8)]
    )
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=30)
        stream.width, stream.height = SIDE * len(COLOURS), SIDE
        stream.pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = number, ColorRange.JPEG if full else ColorRange.MPEG
        context.color_primaries, context.color_trc = primaries, transfer
        frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
        kind = np.uint8 if bits == 8 else np.dtype("<u2")
        for plane, values, (scale, offset), side in zip(
            frame.planes, planes, [scales[0], scales[1], scales[1]], [SIDE, SIDE // 2, SIDE // 2], strict=True
        ):
            pixels = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
            row = np.repeat(np.clip(np.round(values * scale + offset), 0, most), side)
            pixels[:, : len(row)] = row
            plane.update(pixels.tobytes())
        for index in range(31):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patches(picture: np.ndarray) -> np.ndarray:
    """Return the colour in the middle of each patch."""
    width = picture.shape[1] // len(COLOURS)
    return picture[picture.shape[0] // 2, width // 2 :: width].astype(int)


@pytest.mark.parametrize(("matrix", "full", "bits"), CASES)
def test_colours_are_those_that_were_filmed_in_every_reader_and_in_clips(tmp_path: Path, matrix, full, bits):
    source = str(write_colours(tmp_path / "a.mkv", matrix, full=full, bits=bits))
    settings = TrimSettings(seconds=1, height=SIDE, crf=0)
    (clip,) = trim(source, "src", str(tmp_path / "clips"), probe(source), settings).clips
    for uri, off in ((source, 4), (clip.uri, 3)):  # FFmpeg's own conversion is off by 4 in one case
        for picture in (read_rgb(uri, 0), read_clip_frames(uri, [0])[0], next(decode_frames(uri))[..., ::-1]):
            assert np.abs(patches(picture) - COLOURS).max() <= off


def test_a_clip_is_tagged_with_its_sources_matrix_primaries_and_transfer_in_limited_range(tmp_path: Path):
    bt709 = ColorTrc.BT709, ColorPrimaries.BT709
    path = write_colours(tmp_path / "a.mkv", BT709, full=True, bits=10, transfer=bt709[0], primaries=bt709[1])
    source = str(path)
    (clip,) = trim(source, "src", str(tmp_path), probe(source), TrimSettings(seconds=1, height=SIDE)).clips
    with av.open(clip.uri) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (BT709[0], ColorRange.MPEG)
    assert (frame.color_primaries, frame.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)


@pytest.mark.parametrize(("transfer", "name"), [(ColorTrc.SMPTE2084, "PQ"), (ColorTrc.ARIB_STD_B67, "HLG")])
def test_footage_of_high_dynamic_range_is_refused_by_name(tmp_path: Path, transfer, name):
    source = str(write_colours(tmp_path / "a.mkv", BT2020, bits=10, transfer=transfer, primaries=ColorPrimaries.BT2020))
    for read in (
        lambda: read_rgb(source, 0),
        lambda: read_clip_frames(source, [0]),
        lambda: next(decode_frames(source)),
        lambda: trim(source, "src", str(tmp_path), probe(source), TrimSettings(seconds=1)),
    ):
        with pytest.raises(VideoError, match=rf"a\.mkv cannot be shown: the footage is HDR \({name}\)"):
            read()


def test_a_matrix_that_is_not_converted_is_refused_and_a_reserved_one_means_nothing(tmp_path: Path):
    with pytest.raises(VideoError, match="the matrix YCgCo"):
        read_rgb(str(write_colours(tmp_path / "a.mkv", (8, 0.299, 0.114))), 0)
    reserved = write_colours(tmp_path / "b.mkv", (3, 0.299, 0.114), transfer=3, primaries=3)
    found = read_rgb(str(reserved), 0)
    assert np.abs(patches(found) - COLOURS).max() <= 3


@pytest.mark.parametrize(("matrix", "full", "bits"), CASES)
def test_pixels_are_those_of_ffmpegs_own_conversion(tmp_path: Path, matrix, full, bits):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="pip install imageio-ffmpeg").get_ffmpeg_exe()
    source = write_colours(tmp_path / "a.mkv", matrix, full=full, bits=bits)
    command = [ffmpeg, "-v", "error", "-i", source, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    found = read_rgb(str(source), 0).astype(int)
    assert np.abs(found - np.frombuffer(done.stdout, np.uint8).reshape(found.shape)).max() <= 3
