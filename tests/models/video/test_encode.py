"""The mp4 writer: a whole file or none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import fsspec
import pytest

from microg.errors import VideoError, WriteError
from microg.models.video.encode import Mp4Writer
from microg.video import decode_frames
from tests.support.footage import number_of, numbered
from tests.support.small_disk import small_files


def _writer(target: str, size: tuple[int, int] = (80, 48)) -> Mp4Writer:
    return Mp4Writer(target, size, 30, crf=20, preset="ultrafast", key_interval=4)


def _write(writer: Mp4Writer, count: int) -> None:
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(numbered(number), format="bgr24")
        writer.write(frame.reformat(format="yuv420p"))


def test_a_finished_file_holds_every_frame_and_has_the_digest_that_was_returned(tmp_path: Path):
    target = tmp_path / "new" / "a.mp4"
    with _writer(str(target)) as writer:
        _write(writer, 10)
        assert not target.exists()
        digest = writer.finish()
    assert [number_of(frame) for frame in decode_frames(str(target))] == list(range(10))
    assert digest == hashlib.sha256(target.read_bytes()).hexdigest()
    assert list(target.parent.iterdir()) == [target]
    with av.open(str(target)) as container:
        assert [packet.is_keyframe for packet in container.demux(video=0) if packet.size][::4] == [True] * 3


def test_a_file_is_written_to_any_filesystem(tmp_path: Path):
    with _writer("memory://clips/a.mp4") as writer:
        _write(writer, 3)
        digest = writer.finish()
    with fsspec.open("memory://clips/a.mp4", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest  # type: ignore[union-attr]


def test_a_writer_left_early_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")

    def stop_early() -> None:
        with _writer(str(target)) as writer:
            _write(writer, 5)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_early()
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_frames_that_cannot_be_encoded_are_a_video_error_and_leave_nothing(tmp_path: Path):
    def encode_odd_size() -> None:
        with _writer(str(tmp_path / "a.mp4"), (63, 47)) as writer:
            writer.write(av.VideoFrame(63, 47, "yuv420p"))

    with pytest.raises(VideoError, match=r"a\.mp4 of 63 x 47 pixels cannot be encoded"):
        encode_odd_size()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_disk_does_not_take_says_nothing_about_the_video(tmp_path: Path):
    def encode_too_much() -> None:
        with _writer(str(tmp_path / "a.mp4")) as writer:
            _write(writer, 500)
            writer.finish()

    refused = pytest.raises(WriteError, match=r"a\.mp4 cannot be written: it would be larger than a file may be")
    with small_files(20_000), refused:
        encode_too_much()
    assert list(tmp_path.iterdir()) == []
