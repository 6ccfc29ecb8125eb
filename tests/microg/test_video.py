"""Opening, probing and decoding whole videos, and what happens with those that cannot be."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from microg.errors import VideoError
from microg.frame_display import UPRIGHT, Orientation
from microg.video import decode_frames, probe
from tests.support.footage import damage_packet, number_of, write_footage


def test_a_probe_tells_size_rate_length_and_codec(tmp_path: Path):
    info = probe(str(write_footage(tmp_path / "a.mp4", 50, fps=25)))
    assert (info.width, info.height, info.orientation, info.pixel_aspect) == (80, 48, UPRIGHT, 1.0)
    assert (info.fps, info.num_frames, info.duration_s, info.codec) == (25.0, 50, 2.0, "h264")


@pytest.mark.parametrize(
    ("name", "one_clock", "seekable"),
    [
        ("a.mp4", True, True),
        ("a.mov", True, True),
        ("a.mkv", True, True),
        ("a.ts", False, False),
        ("a.avi", True, False),
    ],
)
def test_only_indexed_containers_are_read_from_the_middle(tmp_path: Path, name, one_clock, seekable):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    info = probe(str(write_footage(tmp_path / name, 12, codec=codec)))
    assert (info.one_clock, info.seekable, info.first_pts is not None) == (one_clock, seekable, True)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_are_probed_and_read_upright(tmp_path: Path, rotation):
    path = str(write_footage(tmp_path / "a.mov", 5, rotation=rotation))
    info = probe(path)
    frames = list(decode_frames(path))
    assert info.orientation == Orientation(rotation)
    assert (info.width, info.height) == ((48, 80) if rotation != 180 else (80, 48))
    assert {frame.shape for frame in frames} == {(info.height, info.width, 3)}
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 3, 4]


def test_real_rotated_footage_is_upright(videos: Path):
    info = probe(str(videos / "made_portrait_rot.mp4"))
    assert (info.width, info.height, info.orientation) == (280, 496, Orientation(90))
    assert next(decode_frames(str(videos / "made_portrait_rot.mp4"))).shape == (496, 280, 3)


def test_frames_are_bgr_and_in_order(tmp_path: Path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        for channel in range(3):
            picture = np.zeros((16, 32, 3), np.uint8)
            picture[..., channel] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="bgr0")))
        container.mux(stream.encode())
    assert [frame[8, 8].tolist() for frame in decode_frames(str(path))] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_the_larger_of_two_video_streams_is_read(videos: Path):
    info = probe(str(videos / "nasa_13013.mp4"))
    assert (info.width, info.height) == (480, 270)


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _all_damaged(path: Path) -> None:
    write_footage(path, 2, gop=1)
    for number in range(2):
        damage_packet(path, number)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_audio_only, "has no video stream"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("this is no video\n" * 40), "cannot be read"),
        (lambda path: path.write_bytes(b"\x00" * 5000), "cannot be read"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: None, "cannot be read"),
        (_all_damaged, "no frame that can be decoded"),
    ],
    ids=["audio only", "empty", "text", "zeros", "folder", "missing", "all damaged"],
)
def test_what_is_no_video_is_a_video_error(tmp_path: Path, make, message):
    path = tmp_path / "a.mp4"
    make(path)
    with pytest.raises(VideoError, match=message):
        probe(str(path))
    with pytest.raises(VideoError, match=r"a\.mp4"):
        list(decode_frames(str(path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_video_error(tmp_path: Path):
    path = write_footage(tmp_path / "a.mp4", 2)
    path.chmod(0)
    with pytest.raises(VideoError, match="cannot be read"):
        probe(str(path))


def test_a_header_that_claims_years_is_damaged(tmp_path: Path):
    path = write_footage(tmp_path / "a.mkv", [Fraction(0), Fraction(2_000_000)], fps=1)
    with pytest.raises(VideoError, match="claims to last 2e"):
        probe(str(path))


def test_a_damaged_clip_is_an_error_and_yields_no_frame_after_the_damage(tmp_path: Path):
    path = write_footage(tmp_path / "a.mp4", 30)
    damage_packet(path, 10)
    seen: list[int] = []
    with pytest.raises(VideoError, match=r"a\.mp4 is damaged"):
        seen.extend(number_of(frame) for frame in decode_frames(str(path)))
    assert seen == list(range(len(seen)))
    assert len(seen) <= 10


def test_a_truncated_clip_is_an_error(tmp_path: Path, videos: Path):
    with pytest.raises(VideoError, match="is damaged"):
        list(decode_frames(str(videos / "made_truncated_60pct.mp4")))


def test_videos_are_read_from_any_filesystem(tmp_path: Path):
    import fsspec

    content = write_footage(tmp_path / "a.mp4", 40, fps=20).read_bytes()
    with fsspec.open("memory://footage/ä b.mp4", "wb") as file:
        file.write(content)  # type: ignore[union-attr]
    assert probe("memory://footage/ä b.mp4").num_frames == 40
    assert [number_of(frame) for frame in decode_frames("memory://footage/ä b.mp4")] == list(range(40))
