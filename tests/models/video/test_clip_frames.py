"""Chosen frames of clips: the same pixels as decoding everything gives, from any codec, container or folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from microg.errors import VideoAccessError, VideoError
from microg.formats.ava import relative_path
from microg.models.video import clip_frames
from microg.models.video.clip_frames import FrameCache, count_clip_frames, read_clip_frames
from microg.models.video.decoders import pyav
from microg.video import decode_frames
from tests.support.footage import number_of, numbered, write_footage

FRAMES = 80
KINDS = {
    "no-b-frames.mp4": {"gop": 12},
    "b-frames.mp4": {"gop": 30, "options": {"bf": "3", "preset": "medium"}},
    "one-key-frame.mp4": {"gop": 300, "options": {"bf": "3", "preset": "medium"}},
    "hevc.mkv": {"codec": "libx265", "options": {"bf": "4", "preset": "fast", "x265-params": "log-level=error"}},
    "turned.mp4": {"rotation": 90, "options": {"bf": "2", "preset": "medium"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "stream.ts": {"options": {"bf": "2", "preset": "medium"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
}


@pytest.mark.parametrize("wanted", [[0, 1], [13, 21, 29, 37], [59, 60, 79], [79]], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_chosen_frames_are_those_of_the_whole_video(tmp_path: Path, name: str, wanted: list[int]) -> None:
    path = write_footage(tmp_path / name, FRAMES, **KINDS[name])
    everything = [frame[..., ::-1] for frame in decode_frames(str(path))]
    assert len(everything) == FRAMES
    found = read_clip_frames(str(path), wanted)
    assert sorted(found) == wanted
    for number, frame in found.items():
        np.testing.assert_array_equal(frame, everything[number])
        if name != "mpeg4.avi":
            assert number_of(frame) == number
    assert count_clip_frames(str(path)) == FRAMES


def test_frames_that_no_chosen_frame_needs_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_footage(tmp_path / "b.mp4", FRAMES, gop=12)
    given = []
    real = pyav.needed_packets
    monkeypatch.setattr(pyav, "needed_packets", lambda *args: given.append(real(*args)) or given[-1])
    assert sorted(read_clip_frames(str(path), [70])) == [70]
    packets, times = given[0]
    assert len(times) == FRAMES
    assert packets[0].is_keyframe
    assert packets[0].pts == times[36]  # the last key frame that is sure to come before


def test_real_videos_give_the_frames_of_a_full_decode(videos: Path) -> None:
    for name in ("kin_armwrestle.mp4", "nasa_13013.mp4", "carphone.mp4", "made_portrait_rot.mp4", "made_vfr.mp4"):
        wanted = list(range(13, 70, 8))
        found = read_clip_frames(str(videos / name), wanted)
        for number, frame in enumerate(decode_frames(str(videos / name))):
            if number in found:
                np.testing.assert_array_equal(found[number], frame[..., ::-1])
            if number > wanted[-1]:
                break


def test_a_folder_of_frames_is_read_by_name(tmp_path: Path) -> None:
    for frame in range(1, 6):
        target = tmp_path / "frames" / relative_path("a_000", frame)
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), numbered(frame))
    folder = f"{tmp_path}/frames/a_000/"
    found = read_clip_frames(folder, [0, 4])
    assert [number_of(found[0]), number_of(found[4])] == [1, 5]
    assert count_clip_frames(folder) == 5
    with pytest.raises(VideoAccessError, match="a_000_000006"):
        read_clip_frames(folder, [5])
    (tmp_path / "frames" / relative_path("a_000", 2)).write_bytes(b"no picture")
    with pytest.raises(VideoError, match="is no picture"):
        read_clip_frames(folder, [1])
    with pytest.raises(VideoAccessError, match="holds no frames"):
        count_clip_frames(f"{tmp_path}/frames/b_000/")


def test_a_frame_behind_the_end_is_named(tmp_path: Path) -> None:
    path = write_footage(tmp_path / "a.mp4", 10)
    with pytest.raises(VideoError, match="ends before frame 12"):
        read_clip_frames(str(path), [3, 11])


def test_the_cache_keeps_small_datasets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(write_footage(tmp_path / f"{number}.mp4", 10)) for number in range(3)]
    read, real = [], clip_frames.read_clip_frames
    monkeypatch.setattr(clip_frames, "read_clip_frames", lambda uri, *more: read.append(uri) or real(uri, *more))
    one = sum(frame.nbytes for frame in real(paths[0], [1, 2]).values())
    cache = FrameCache(2 * one)
    for _ in range(2):
        cache.read(paths[0], [2, 1, 2], clips=2)
        cache.read(paths[1], [1, 2], clips=2)
    assert len(read) == 2
    cache.read(paths[2], [1, 2], clips=3)
    cache.read(paths[2], [1, 2], clips=3)
    assert len(read) == 4  # a dataset that does not fit is not kept, and pushes nothing out
    cache.read(paths[0], [1, 2], clips=2)
    assert len(read) == 4
    cache.read(paths[2], [1, 2], clips=2)
    cache.read(paths[1], [1, 2], clips=2)
    assert len(read) == 6  # the one not used for longest went
