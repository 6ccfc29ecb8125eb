"""Boxes: fields that do not belong together are refused, and some boxes are picked with all that is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from microg.models.curation.tracking import Tracks
from microg.models.detection.base import Detections

ROWS = np.array([[0, 0, 10, 20, 0.9, 0], [5, 5, 30, 40, 0.8, 2], [1, 2, 3, 4, 0.3, 0]])


@pytest.mark.parametrize("name", ["boxes", "confidence", "class_id"])
def test_fields_of_another_shape_are_refused(name: str):
    fields = vars(Detections.from_array(ROWS))
    with pytest.raises(ValueError, match=f"{'confidence' if name == 'boxes' else name} of Detections must have shape"):
        Detections(**(fields | {name: fields[name][:2]}))
    with pytest.raises(ValueError, match="boxes of Detections must have shape"):
        Detections(**(fields | {"boxes": fields["boxes"][:, :3]}))


def test_chosen_boxes_keep_all_that_is_known_of_them():
    found = Detections.from_array(ROWS)
    assert len(found) == 3
    np.testing.assert_array_equal(found.select(slice(1, 2)).to_array(), ROWS[1:2].astype(np.float32))
    np.testing.assert_array_equal(found.persons(0.5).to_array(), ROWS[:1].astype(np.float32))
    assert len(found.select(slice(0, 0))) == 0


def test_tracks_are_clipped_to_the_frame():
    tracks = Tracks.from_tracker(np.array([[-4, 2, 70, 50, 3, 0.9, 0, 1]]), 64, 48)
    assert tracks.boxes.dtype == np.float32
    assert tracks.boxes.tolist() == [[0, 2, 64, 48]]
    assert (tracks.track_id.tolist(), tracks.class_id.tolist()) == ([3], [0])
    assert len(Tracks.from_tracker(np.empty((0, 8)), 64, 48)) == 0
