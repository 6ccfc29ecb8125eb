"""How much a clip moves: sparse optical flow over sampled groups of frames (docs/protocols.md, "Curation")."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from microg.models.curation.measure import Measure

GROUP_FRAMES = 30
SAMPLED_FRACTION = 0.10
HIGH_MOTION_ABOVE = 95.0

_CORNERS = {"maxCorners": 100, "qualityLevel": 0.3, "minDistance": 7, "blockSize": 7}
_FLOW = {"winSize": (15, 15), "maxLevel": 2, "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)}


class MotionMeter:
    """Measures one clip's motion while its frames stream by.

    `published` sums |dx| + |dy| over the tracked points of a step (the reference takes its norm over the wrong axis);
    `euclidean` sums the lengths of the displacements. Both are means over steps, in pixels.
    """

    def __init__(self, num_frames: int) -> None:
        self._starts = group_starts(num_frames)
        self._index = 0
        self._left = 0
        self._grey: np.ndarray | None = None
        self._points: np.ndarray | None = None
        self._sums: list[tuple[float, float]] = []

    def update(self, frame: np.ndarray) -> None:
        """Add the next frame, (H, W, 3) uint8 BGR."""
        if self._index in self._starts:
            self._left = GROUP_FRAMES
            self._grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            self._points = cv2.goodFeaturesToTrack(self._grey, mask=None, **_CORNERS)
        elif self._left > 1 and self._points is not None and self._grey is not None and len(self._points):
            self._left -= 1
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            moved, status, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, self._points, None, **_FLOW)  # type: ignore[call-overload]
            good = status.ravel() == 1
            step = moved.reshape(-1, 2)[good] - self._points.reshape(-1, 2)[good]
            if len(step):  # a step that lost every point counts for nothing
                self._sums.append((float(np.abs(step).sum()), float(np.hypot(step[:, 0], step[:, 1]).sum())))
            self._points = moved.reshape(-1, 1, 2)[good]
            self._grey = grey
        self._index += 1

    @property
    def published(self) -> float:
        """Mean of the steps' sums of |dx| + |dy|; 0 without corners or steps."""
        return float(np.mean([a for a, _ in self._sums])) if self._sums else 0.0

    @property
    def euclidean(self) -> float:
        """Mean of the steps' sums of displacement lengths; 0 without corners or steps."""
        return float(np.mean([b for _, b in self._sums])) if self._sums else 0.0

    def columns(self) -> dict[str, Any]:
        """Return both means."""
        return {"motion_published": self.published, "motion_euclidean": self.euclidean}


def group_starts(num_frames: int) -> frozenset[int]:
    """Return the 0-based first frames of the sampled groups: about 10% of the clip, at least one, evenly spaced."""
    groups = max(1, int(num_frames * SAMPLED_FRACTION) // GROUP_FRAMES)
    spacing = max(1, num_frames // groups)
    return frozenset(index * spacing for index in range(groups))


def motion_level(value: float) -> str:
    """Return `high` above 95 pixels a step, else `low`."""
    return "high" if value > HIGH_MOTION_ABOVE else "low"


# Which people are published depends on it (`microg.models.curation.box_rule`); it rejects no clip.
MEASURE = Measure(
    name="motion",
    columns=pa.schema([("motion_published", pa.float64()), ("motion_euclidean", pa.float64())]),
    meter=MotionMeter,
)
