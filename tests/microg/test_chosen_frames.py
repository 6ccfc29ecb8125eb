"""Single frames: the right one, upright, and a clear error for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microg.errors import VideoError
from microg.video import decode_frames_at, read_rgb
from tests.support.helpers import moving_scene, write_video


def test_a_frame_is_the_one_asked_for(tmp_path: Path) -> None:
    frames = moving_scene(4)
    path = write_video(tmp_path / "clip.mp4", frames, crf=10)
    for number in (0, 5, 11):
        differences = [np.abs(read_rgb(str(path), number).astype(int) - frame).mean() for frame in frames]
        assert int(np.argmin(differences)) == number


def test_counting_reads_the_whole_file_and_decodes_only_what_is_needed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", moving_scene(4))
    seen: list[int] = []
    facts, found = decode_frames_at(str(path), [0, 3], lambda frame: seen.append(frame.pts) or len(seen), count=True)
    assert (facts.width, facts.height, facts.fps, facts.num_frames) == (96, 64, 30.0, 12)
    assert sorted(found) == [0, 3]
    assert len(seen) == 2


def test_a_frame_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", moving_scene(4))
    with pytest.raises(VideoError, match="has no frame 13"):
        read_rgb(str(path), 12)


@pytest.mark.parametrize("content", [b"", b"this is not a video"])
def test_what_is_no_video_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="cannot be read"):
        read_rgb(str(tmp_path / "clip.mp4"), 0)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be read"):
        read_rgb(str(tmp_path / "clip.mp4"), 0)


def test_files_on_other_filesystems_are_read(tmp_path: Path) -> None:
    import fsspec

    data = write_video(tmp_path / "clip.mp4", moving_scene(4)).read_bytes()
    with fsspec.open("memory://frames/clip.mp4", "wb") as file:
        file.write(data)  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(read_rgb("memory://frames/clip.mp4", 5), read_rgb(str(tmp_path / "clip.mp4"), 5))


def test_a_rotated_video_comes_upright(videos: Path) -> None:
    facts, _ = decode_frames_at(str(videos / "made_portrait_rot.mp4"), [0], lambda frame: None)
    picture = read_rgb(str(videos / "made_portrait_rot.mp4"), 0)
    assert picture.shape[:2] == (facts.height, facts.width)
    assert facts.height > facts.width
