"""Annotated previews."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from microg.errors import VideoError
from microg.models.video.encode import draw_boxes, person_colour, write_preview
from microg.video import decode_frames, probe
from tests.support.footage import damage_packet, write_footage


def test_boxes_are_drawn_where_they_are_in_the_persons_colour():
    frame = np.full((120, 160, 3), 60, np.uint8)
    drawn = draw_boxes(frame, [(1, 20.4, 30.0, 90.0, 110.0), (2, 100.0, 40.0, 150.0, 100.0)])
    assert (frame == 60).all()
    assert drawn[80, 20].tolist() == list(person_colour(1))
    assert drawn[110, 50].tolist() == list(person_colour(1))
    assert drawn[100, 120].tolist() == list(person_colour(2))
    assert drawn[80, 60].tolist() == [60, 60, 60]


def test_a_box_beyond_the_frame_is_drawn_as_far_as_it_reaches():
    drawn = draw_boxes(np.zeros((60, 80, 3), np.uint8), [(3, -20.0, -5.0, 300.0, 40.0)])
    assert drawn[40, 70].tolist() == list(person_colour(3))


def test_neighbouring_ids_have_colours_well_apart():
    for person_id in range(1, 30):
        a, b = np.array(person_colour(person_id)), np.array(person_colour(person_id + 1))
        assert np.abs(a - b).max() > 100


@pytest.mark.parametrize("size", [(160, 96), (161, 97)])
def test_a_preview_shows_each_frames_boxes_at_the_clips_rate(tmp_path: Path, size: tuple[int, int]):
    source = write_footage(tmp_path / "a.mkv", 6, fps=Fraction(30000, 1001), codec="ffv1", pix_fmt="yuv444p", size=size)
    target = tmp_path / "previews" / "a.mp4"
    write_preview(str(source), {2: [(4, 30.0, 20.0, 130.0, 80.0)]}, str(target), probe(str(source)).fps)
    before, after = list(decode_frames(str(source))), list(decode_frames(str(target)))
    assert len(after) == 6
    assert after[0].shape == (96, 160, 3)
    assert probe(str(target)).fps == pytest.approx(29.97, abs=0.001)
    changed = [np.abs(a.astype(int) - b[:96, :160]).mean() for a, b in zip(after, before, strict=True)]
    assert [number for number, change in enumerate(changed, start=1) if change > 5] == [2]
    assert np.abs(after[1][50, 30].astype(int) - person_colour(4)).max() < 60


def test_a_video_that_cannot_be_read_whole_leaves_no_preview(tmp_path: Path):
    damaged = write_footage(tmp_path / "a.mp4", 30)
    damage_packet(damaged, 12)
    silent = write_footage(tmp_path / "empty.mkv", 0, audio=True)
    for source, message in ((damaged, "is damaged"), (silent, "holds no frame")):
        with pytest.raises(VideoError, match=message):
            write_preview(str(source), {}, str(tmp_path / "previews" / "a.mp4"), 30.0)
    assert not list(tmp_path.glob("previews/*"))
