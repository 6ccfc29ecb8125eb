"""Scene cuts inside a clip: PySceneDetect's content score per frame, and the cuts a threshold finds in the scores.

Scores are stored, so that another threshold needs no second decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field
from scenedetect import ContentDetector, FrameTimecode
from scenedetect.detector import FlashFilter
from scenedetect.scene_manager import compute_downscale_factor

from microg.config import Config
from microg.models.curation.measure import Decision, Measure

# PySceneDetect's default; the reference did not change it.
_MIN_SCENE_FRAMES = 15


class SceneScorer:
    """Feeds frames of one clip to PySceneDetect and collects `content_val`, mean HSV change per pixel, 0..255.

    Frames are downscaled first exactly as `SceneManager` does it, without decoding the video a second time.
    """

    def __init__(self) -> None:
        self.scores: list[float] = []
        self._detector = _ScoringDetector()

    def update(self, frame: np.ndarray) -> None:
        """Add the next frame, (H, W, 3) uint8 BGR; the first frame of a clip scores 0."""
        height, width = frame.shape[:2]
        factor = compute_downscale_factor(max(width, height))
        if factor > 1.0:
            size = (max(1, round(width / factor)), max(1, round(height / factor)))
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        self.scores.append(self._detector.score(frame, len(self.scores)))

    def columns(self) -> dict[str, Any]:
        """Return the scores, one a frame."""
        return {"content_scores": self.scores}


class _ScoringDetector(ContentDetector):
    def score(self, frame: np.ndarray, index: int) -> float:
        self.process_frame(FrameTimecode(index, 30.0), frame)
        return float(self._frame_score or 0.0)


def scene_cuts(scores: Sequence[float], threshold: float = 40.0) -> list[int]:
    """Return the 0-based frames that start a new scene: what `ContentDetector(threshold)` reports on these scores.

    Cuts closer than 15 frames to the clip's start or to each other are merged, as PySceneDetect does by default.
    """
    merge = FlashFilter(mode=FlashFilter.Mode.MERGE, length=_MIN_SCENE_FRAMES)
    cuts: list[int] = []
    for index, score in enumerate(scores):
        cuts += [cut.frame_num for cut in merge.filter(FrameTimecode(index, 30.0), score >= threshold)]
    return cuts


class SceneThresholds(Config):
    """A clip is kept when it has few scene cuts."""

    scene_threshold: float = Field(
        default=40.0, gt=0, description="A frame is a scene cut when its content score reaches this."
    )
    max_cuts: int = Field(default=0, ge=0, description="Most scene cuts that a kept clip may have.")


def decide_scenes(row: Mapping[str, Any], thresholds: SceneThresholds) -> Decision:
    """Decide by the number of scene cuts of an observed clip."""
    cuts = scene_cuts(row["content_scores"], thresholds.scene_threshold)
    where = f" at frame {', '.join(str(cut + 1) for cut in cuts)}" if cuts else ""
    reason = f"{len(cuts)} scene cuts at content score {thresholds.scene_threshold:g}{where}"
    return Decision(len(cuts) <= thresholds.max_cuts, reason, len(cuts), thresholds.max_cuts)


MEASURE = Measure(
    name="scenes",
    columns=pa.schema([("content_scores", pa.list_(pa.float32()))]),
    meter=lambda num_frames: SceneScorer(),
    thresholds=SceneThresholds,
    decide=decide_scenes,
)
