"""Multi-object tracking of one clip with BoT-SORT (ultralytics), fed by any detector's boxes.

Matches ultralytics' `model.track` frame by frame, including that a track is hidden until it is confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field

from microg.config import Config
from microg.models.detection.base import Boxes, Detections


class TrackerSettings(Config):
    """BoT-SORT parameters of the published pipeline (docs/protocols.md, "Curation")."""

    track_high_thresh: float = Field(
        default=0.5, description="Detections at or above this confidence are matched with tracks first."
    )
    track_low_thresh: float = Field(
        default=0.1, description="Detections above this confidence are matched second, with tracks left over."
    )
    new_track_thresh: float = Field(default=0.6, description="An unmatched detection starts a track from this on.")
    track_buffer: int = Field(default=30, description="Frames for which a lost track is kept.")
    match_thresh: float = Field(default=0.8, description="Largest distance (1 - IoU, fused) at which a match is made.")
    fuse_score: bool = Field(default=True, description="Multiply the IoU by the detection's confidence.")
    gmc_method: str = Field(
        default="sparseOptFlow", description="How ultralytics compensates the camera's motion; none does not."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks(Boxes):
    """Tracked boxes (float32) of one frame, clipped to it, in the tracker's order.

    Attributes:
        track_id: (N,) int32 from 1 within the clip.
        class_id: (N,) int32.
    """

    track_id: np.ndarray
    class_id: np.ndarray

    @classmethod
    def from_tracker(cls, rows: np.ndarray, width: int, height: int) -> Self:
        """Build from ultralytics' (N, 8) rows (x1, y1, x2, y2, track, confidence, class, detection)."""
        rows = np.asarray(rows, dtype=np.float32).reshape(-1, 8)
        return cls(
            boxes=rows[:, :4].clip(0, np.array([width, height, width, height], np.float32)),
            track_id=rows[:, 4].astype(np.int32),
            confidence=rows[:, 5].copy(),
            class_id=rows[:, 6].astype(np.int32),
        )


class BotSort:
    """Tracks one clip; make a new one for the next clip."""

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        from types import SimpleNamespace

        from ultralytics.trackers.bot_sort import BOTSORT

        values = (settings or TrackerSettings()).model_dump()
        self._tracker = BOTSORT(
            args=SimpleNamespace(
                **values,
                tracker_type="botsort",
                proximity_thresh=0.5,
                appearance_thresh=0.8,
                with_reid=False,
                model="auto",
                device="cpu",
            )
        )
        camera: Any = _CameraMotion(self._tracker)
        self._tracker.gmc = camera

    def update(self, detections: Detections, frame: np.ndarray) -> Tracks:
        """Advance by one frame, (H, W, 3) uint8 BGR, and return its tracked boxes."""
        from ultralytics.engine.results import Boxes as UltralyticsBoxes

        height, width = frame.shape[:2]
        rows = self._tracker.update(UltralyticsBoxes(detections.to_array(), (height, width)), frame)
        return Tracks.from_tracker(rows, width, height)


class _CameraMotion:
    """Stands in for the tracker's camera motion estimate, and makes it only where there is a track to be moved by it.

    The estimate between two frames depends on nothing but these frames, so leaving some out changes no other.
    """

    def __init__(self, tracker: Any) -> None:
        self._tracker, self._estimate = tracker, tracker.gmc
        self.method = self._estimate.method
        self._before: np.ndarray | None = None

    def apply(self, frame: np.ndarray, detections: Any = None) -> np.ndarray:
        if not self._tracker.tracked_stracks and not self._tracker.lost_stracks:
            self._before = frame
            return np.eye(2, 3)
        if self._before is not None:
            self._estimate.reset_params()
            self._estimate.apply(self._before)
            self._before = None
        return self._estimate.apply(frame, detections)
