"""Everything curation needs to know of one clip, in one pass: decoded once, detected once, tracked, measured.

Filter and tracker share the detections. Frames stream in small batches, so memory does not depend on the clip's
length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from microg.errors import FormatError, VideoError
from models.detection.base import Detections, Detector
from models.motion import MotionMeter
from models.scenes import SceneScorer
from models.tracking import BotSort, TrackerSettings, Tracks
from models.video import read_frames


@dataclass
class Observation:
    """What was seen in one clip. `detections` and `tracks` hold one entry a frame; `seconds` is CPU time by stage."""

    num_frames: int
    width: int
    height: int
    content_scores: list[float]
    motion_published: float
    motion_euclidean: float
    detections: list[Detections]
    tracks: list[Tracks]
    seconds: dict[str, float] = field(default_factory=dict)


def observe(
    uri: str,
    detector: Detector | None,
    *,
    num_frames: int,
    stored: Sequence[Detections] | None = None,
    tracker: TrackerSettings | None = None,
    batch_size: int = 8,
) -> Observation:
    """Observe a clip with a detector, or with `stored` detections of its frames instead.

    `num_frames` is what the clip should hold: sampling of motion depends on it. Raises `VideoError` when the clip
    cannot be decoded whole or holds no frame, and `FormatError` when `stored` are of another number of frames.
    """
    if detector is None and stored is None:
        raise ValueError("either a detector or stored detections are needed")
    scenes, motion, tracking = SceneScorer(), MotionMeter(num_frames), BotSort(tracker)
    name, replayed = uri.rsplit("/", 1)[-1], list(stored or ())
    detections: list[Detections] = []
    tracks: list[Tracks] = []
    clock = _StageClock()
    size = (0, 0)
    for batch in _batches(uri, batch_size, clock):
        size = batch[0].shape[:2]
        with clock("detect"):
            if detector is not None:
                found = detector.detect(batch)
            else:
                found = replayed[len(detections) : len(detections) + len(batch)]
        if len(found) < len(batch):
            raise FormatError(f"{name} has more frames than the {len(replayed)} with stored detections")
        for frame, frame_detections in zip(batch, found, strict=True):
            with clock("scenes"):
                scenes.update(frame)
            with clock("motion"):
                motion.update(frame)
            with clock("track"):
                tracks.append(tracking.update(frame_detections, frame))
        detections += found
    if not detections:
        raise VideoError(f"{name} holds no frame")
    if len(detections) < len(replayed):
        raise FormatError(f"{name} has {len(detections)} frames, stored detections {len(replayed)}")
    return Observation(
        num_frames=len(detections),
        width=size[1],
        height=size[0],
        content_scores=scenes.scores,
        motion_published=motion.published,
        motion_euclidean=motion.euclidean,
        detections=detections,
        tracks=tracks,
        seconds=clock.seconds,
    )


def _batches(uri: str, batch_size: int, clock: _StageClock) -> Iterator[list[np.ndarray]]:
    frames = read_frames(uri)
    while True:
        batch: list[np.ndarray] = []
        with clock("decode"):
            for frame in frames:
                batch.append(frame)
                if len(batch) == batch_size:
                    break
        if not batch:
            return
        yield batch


class _StageClock:
    """Sums CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str) -> _StageClock:
        self._stage = stage
        return self

    def __enter__(self) -> None:
        self._started = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.process_time() - self._started
