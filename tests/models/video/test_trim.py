"""Trimming: which source frame every frame of every clip shows, for any container, codec, rate, size and damage."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microg.config import load_config
from microg.errors import ConfigError, VideoError
from microg.models.video.trim import TrimResult, TrimSettings, clip_size, trim
from microg.video import decode_frames, probe
from tests.support.footage import HEIGHT, damage_packet, number_of, write_footage

QUICK = TrimSettings(seconds=1.0, height=HEIGHT, preset="ultrafast")


def cut(path: Path, settings: TrimSettings = QUICK, **options: Any) -> TrimResult:
    return trim(str(path), "src", str(path.parent / "clips"), probe(str(path)), settings, **options)


def numbers(uri: str) -> list[int]:
    return [number_of(frame) for frame in decode_frames(uri)]


def shown(result: TrimResult) -> dict[int, list[int]]:
    """Return, by clip, the numbers of the source frames that it shows."""
    return {clip.sequence: numbers(clip.uri) for clip in result.clips}


def expected(times: list[Fraction], clip: int, fps: int = 30, length: int = 30) -> list[int]:
    """Return which source frame each frame of a clip must show: the last one whose time rounds to it or earlier."""
    slots = [int(time * fps + Fraction(1, 2)) for time in times]
    return [max(j for j, slot in enumerate(slots) if slot <= k) for k in range(clip * length, (clip + 1) * length)]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", {"bf": "3", "preset": "veryfast"}),
        ("a.mkv", "libx264", "yuv420p", {}),
        ("a.ts", "libx264", "yuv420p", {"bf": "2", "preset": "veryfast"}),
        ("a.mp4", "libx265", "yuv420p", {"x265-params": "log-level=error"}),
        ("a.mov", "mpeg4", "yuv420p", {"b": "2M"}),
        ("a.avi", "mpeg4", "yuv420p", {"b": "2M", "bf": "2"}),
        ("a.avi", "libx264", "yuv420p", {"bf": "3", "preset": "veryfast"}),
        ("a.avi", "mjpeg", "yuvj420p", {}),
        ("a.mov", "mjpeg", "yuvj422p", {}),
        ("a.mpg", "mpeg2video", "yuv420p", {"b": "2M", "bf": "2"}),
        ("a.webm", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "2M"}),
        ("a.mkv", "ffv1", "yuv444p", {}),
        ("a.wmv", "wmv2", "yuv420p", {"b": "2M"}),
    ],
)
def test_every_container_and_codec_gives_the_same_frames(tmp_path: Path, name, codec, pix_fmt, options):
    source = write_footage(tmp_path / name, 80, fps=25, codec=codec, pix_fmt=pix_fmt, options=options)
    times = [Fraction(index, 25) for index in range(80)]
    result = cut(source)
    assert shown(result) == {clip: expected(times, clip) for clip in range(3)}
    assert (result.count, result.errors) == (3, [])
    assert result.tail_s == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("fps", [10, Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60, 120])
def test_every_frame_rate_is_resampled_by_nearest_time(tmp_path: Path, fps):
    count = int(2 * fps) + 2
    source = write_footage(tmp_path / "a.mp4", count, fps=fps)
    times = [index / Fraction(fps) for index in range(count)]
    assert shown(cut(source)) == {clip: expected(times, clip) for clip in range(2)}


def test_a_pause_of_a_variable_frame_rate_is_filled_with_the_frame_on_show(tmp_path: Path):
    steps = [Fraction(1, 20), Fraction(1, 60), Fraction(1, 7), Fraction(1, 30)]
    times = [Fraction(0)]
    for index in range(40):
        times.append(times[-1] + (Fraction(17, 10) if index == 20 else steps[index % 4]))
    result = cut(write_footage(tmp_path / "vfr.mkv", times))
    whole = int(times[-1])
    assert whole >= 4
    assert shown(result) == {clip: expected(times, clip) for clip in range(whole)}
    assert [clip.damaged for clip in result.clips] == [""] * whole


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_hole_in_the_footage_leaves_out_clips_and_moves_no_later_one(tmp_path: Path, name):
    before, after = [Fraction(i, 10) for i in range(15)], [Fraction(i, 10) for i in range(145, 180)]
    source = write_footage(tmp_path / name, before + after, fps=10)
    in_one = cut(source)
    assert shown(in_one) == {clip: expected(before + after, clip) for clip in (0, 15, 16, 17)}
    assert (in_one.count, in_one.left_out) == (18, list(range(1, 15)))
    for first, stop, sequences in ((0, 5, [0]), (5, 12, []), (12, 16, [15]), (16, None, [16, 17])):
        part = cut(source, first=first, stop=stop)
        assert [clip.sequence for clip in part.clips] == sequences
        assert part.left_out == [k for k in in_one.left_out if first <= k < (stop or 18)]
        assert cut(source, first=first, stop=stop, skip=in_one.left_out).left_out == []
        assert [clip.sha256 for clip in part.clips] == [c.sha256 for c in in_one.clips if c.sequence in sequences]


def test_a_transport_stream_whose_clock_and_size_change_is_one_piece_of_footage(tmp_path: Path):
    parts = [
        write_footage(tmp_path / "1.ts", 40, fps=25),
        write_footage(tmp_path / "2.ts", 20, fps=Fraction(25, 2), size=(160, 96), first_number=40),
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert not probe(str(joined)).seekable
    times = [*(Fraction(index, 25) for index in range(40)), *(Fraction(40 + 2 * index, 25) for index in range(20))]
    assert shown(cut(joined)) == {clip: expected(times, clip) for clip in range(3)}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_clips_cut_in_stretches_are_those_cut_in_one(tmp_path: Path, name):
    options = {"bf": "3", "preset": "veryfast", "x264-params": "open-gop=1"}
    source = write_footage(tmp_path / name, 190, fps=25, gop=35, options=options)
    in_one = {clip.sequence: clip.sha256 for clip in cut(source).clips}
    assert list(in_one) == list(range(7))
    parts = [cut(source, first=first, stop=stop) for first, stop in ((0, 3), (3, 4), (4, None))]
    assert {clip.sequence: clip.sha256 for part in parts for clip in part.clips} == in_one
    assert [part.count for part in parts] == [3, 1, 3]
    assert [round(part.tail_s, 2) for part in parts] == [0.0, 0.0, 0.6]


def test_a_source_that_starts_late_on_its_clock_starts_at_its_first_frame(tmp_path: Path):
    times = [Fraction(13, 2) + Fraction(index, 25) for index in range(80)]
    source = write_footage(tmp_path / "late.mkv", times)
    from_zero = [time - times[0] for time in times]
    assert shown(cut(source)) == {clip: expected(from_zero, clip) for clip in range(3)}
    assert [clip.sequence for clip in cut(source, first=2).clips] == [2]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_metadata_is_applied(tmp_path: Path, rotation):
    source = write_footage(tmp_path / "a.mov", 35, rotation=rotation)
    result = cut(source, QUICK.replaced(height=96))
    sideways = rotation in (90, 270)
    assert (result.clips[0].width, result.clips[0].height) == ((58, 96) if sideways else (160, 96))
    assert numbers(result.clips[0].uri) == list(range(30))


def test_odd_sizes_become_even(tmp_path: Path):
    source = write_footage(tmp_path / "a.mkv", 31, codec="ffv1", pix_fmt="yuv444p", size=(81, 47))
    clip = cut(source).clips[0]
    assert (clip.width, clip.height) == (82, 48)
    assert numbers(clip.uri) == list(range(30))


def test_anamorphic_footage_keeps_its_stored_shape_unless_square_pixels_are_wanted(tmp_path: Path):
    source = write_footage(tmp_path / "a.mp4", 31, pixel_aspect=Fraction(3, 2))
    assert cut(source).clips[0].width == 80
    assert cut(source, QUICK.replaced(square_pixels=True)).clips[0].width == 120
    turned = write_footage(tmp_path / "b.mp4", 31, pixel_aspect=Fraction(3, 2), rotation=90, size=(96, 48))
    # Stored 96 x 48 with wide pixels: displayed 48 wide and 144 tall.
    assert cut(turned, QUICK.replaced(square_pixels=True)).clips[0].width == 16


def test_a_clip_has_the_published_form(tmp_path: Path):
    source = write_footage(tmp_path / "a.mp4", 200, fps=60, audio=True)
    clip = cut(source, TrimSettings(height=96)).clips[0]
    assert clip.uri.endswith("/clips/src_000.mp4")
    with av.open(clip.uri) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate, stream.frames) == (160, 96, 30, 90)
        frames = list(container.decode(stream))
    assert [frame.time for frame in frames] == pytest.approx([k / 30 for k in range(90)])
    assert frames[0].key_frame
    assert (clip.num_frames, clip.sha256) == (90, hashlib.sha256(Path(clip.uri).read_bytes()).hexdigest())


@pytest.mark.parametrize(("frames", "clips", "tail"), [(1, 0, 1), (29, 0, 29), (30, 1, 0), (59, 1, 29)])
def test_a_rest_shorter_than_a_clip_is_dropped_and_counted(tmp_path: Path, frames, clips, tail):
    result = cut(write_footage(tmp_path / "a.mp4", frames))
    assert (len(result.clips), result.count) == (clips, clips)
    assert result.tail_s == pytest.approx(tail / 30)
    assert len(list((tmp_path / "clips").glob("*"))) == clips


def test_skipped_clips_are_counted_and_not_written(tmp_path: Path):
    source = write_footage(tmp_path / "a.mp4", 125)
    every = {clip.sequence: clip.sha256 for clip in cut(source).clips}
    for file in (tmp_path / "clips").iterdir():
        file.unlink()
    result = cut(source, skip={0, 2})
    assert {clip.sequence: clip.sha256 for clip in result.clips} == {k: every[k] for k in (1, 3)}
    assert result.count == 4
    assert sorted(file.name for file in (tmp_path / "clips").iterdir()) == ["src_001.mp4", "src_003.mp4"]


def test_the_same_source_gives_the_same_bytes(tmp_path: Path):
    source = write_footage(tmp_path / "a.mp4", 65, fps=25, size=(142, 82))
    settings = TrimSettings(seconds=1.0, height=62)
    first = [clip.sha256 for clip in cut(source, settings).clips]
    assert first == [clip.sha256 for clip in cut(source, settings).clips]
    assert len(first) == 2


@pytest.mark.parametrize(
    ("gop", "packet", "damaged"), [(15, 40, [1]), (60, 25, [0, 1]), (30, 29, [0]), (30, 30, [1]), (15, 0, [0])]
)
def test_damage_marks_the_clips_up_to_the_next_key_frame(tmp_path: Path, gop, packet, damaged):
    options = {"x264-params": f"scenecut=0:keyint={gop}:min-keyint={gop}"}
    source = write_footage(tmp_path / "a.mp4", 95, gop=gop, options=options)
    damage_packet(source, packet)
    result = cut(source)
    if packet == 0:
        # The source then begins with its second key frame: what is lost before it shifts no clip within itself.
        assert [clip.damaged for clip in result.clips] == [""] * len(result.clips)
        assert [numbers(clip.uri)[0] for clip in result.clips] == [15, 45]
    else:
        assert [clip.sequence for clip in result.clips if clip.damaged] == damaged
        assert len(result.clips) == 3
    assert len(result.errors) >= 1
    assert all(clip.damaged in result.errors for clip in result.clips if clip.damaged)


def test_each_undecodable_part_is_reported_by_one_stretch(tmp_path: Path):
    source = write_footage(tmp_path / "a.mp4", 250, gop=15)
    damage_packet(source, 100)
    damage_packet(source, 190)
    parts = [cut(source, first=first, stop=stop) for first, stop in ((0, 3), (3, 5), (5, None))]
    assert [len(part.errors) for part in parts] == [0, 1, 1]
    assert [clip.sequence for part in parts for clip in part.clips if clip.damaged] == [3, 6]


def test_a_truncated_file_gives_its_whole_clips_and_an_error(tmp_path: Path, videos: Path):
    result = trim(
        str(videos / "made_truncated_60pct.mp4"),
        "cut",
        str(tmp_path),
        probe(str(videos / "made_truncated_60pct.mp4")),
        TrimSettings(height=96, preset="ultrafast"),
    )
    assert [clip.sequence for clip in result.clips] == [0]
    assert (result.clips[0].damaged, len(result.errors)) == ("", 1)
    assert result.tail_s > 2


@pytest.mark.parametrize(
    ("name", "size", "clips"),
    [("made_portrait_rot.mp4", (270, 480), 2), ("made_60fps.mp4", (502, 480), 1), ("carphone.mp4", (586, 480), 1)],
)
def test_real_footage_has_the_size_and_number_of_clips_of_the_reference(tmp_path: Path, videos, name, size, clips):
    path = str(videos / name)
    result = trim(path, "real", str(tmp_path), probe(path), TrimSettings(preset="ultrafast"))
    assert [(clip.width, clip.height, clip.num_frames) for clip in result.clips] == [(*size, 90)] * clips


def test_a_sliver_of_a_video_is_a_video_error_and_leaves_nothing(tmp_path: Path):
    source = write_footage(tmp_path / "a.mkv", 31, codec="ffv1", pix_fmt="gray", size=(2000, 2))
    with pytest.raises(VideoError, match=r"2000 x 2 pixels is too wide for clips 48"):
        cut(source)
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize("override", ["height=481", "seconds=0", "fps=0", "preset=slowest", "crf=99"])
def test_settings_that_cannot_be_encoded_are_refused(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(TrimSettings, None, [override])


@given(st.integers(1, 8000), st.integers(1, 8000), st.integers(8, 1000).map(lambda half: 2 * half))
def test_clip_width_is_the_nearest_even_one(width: int, height: int, target: int):
    got, same = clip_size(width, height, target)
    assert (same, got % 2) == (target, 0)
    assert abs(got - width * target / height) <= 1 + 1e-9 or got == 2
