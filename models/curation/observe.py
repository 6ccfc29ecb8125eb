"""Everything curation needs to know of one clip, in one pass: decoded once, detected once, tracked, measured.

Filter and tracker share the detections. Frames stream in small batches, so memory does not depend on the clip's
length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microg.errors import FormatError, VideoError
from microg.models.curation.registry import MEASURES
from microg.models.curation.tracking import BotSort, TrackerSettings, Tracks
from microg.models.detection.base import Detections, Detector
from microg.models.detection.sparse import detect_every
from microg.models.video.decoders.registry import open_decoder


@dataclass(kw_only=True)
class Observation:
    """What was seen in one clip.

    Attributes:
        num_frames: Frames that were decoded.
        width: Width in pixels.
        height: Height in pixels.
        measured: Columns of the measures in `microg.models.curation.registry`.
        detections: Of each frame.
        tracks: Of each frame.
        seconds: CPU time by step.
    """

    num_frames: int
    width: int
    height: int
    measured: dict[str, Any]
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
    frame_step: int = 1,
    decoder: str = "auto",
) -> Observation:
    """Observe a clip with a detector on every `frame_step`-th frame, or with `stored` detections of its frames instead.

    `num_frames` is what the clip should hold: sampling of motion depends on it. Raises `VideoError` when the clip
    cannot be decoded whole or holds no frame, and `FormatError` when `stored` are of another number of frames.
    """
    if detector is None and stored is None:
        raise ValueError("either a detector or stored detections are needed")
    meters = [(measure.name, measure.meter(num_frames)) for measure in MEASURES]
    tracking = BotSort(tracker)
    name = uri.rsplit("/", 1)[-1]
    detections: list[Detections] = []
    tracks: list[Tracks] = []
    clock = _StageClock()
    size = (0, 0)
    frames = _clocked(open_decoder(decoder).frames(uri), clock)
    if detector is not None:
        detected = detect_every(_clocked_detect(detector, clock), frames, step=frame_step, batch_size=batch_size)
    else:
        detected = _replay(stored or (), frames, name)
    for frame, boxes in detected:
        size = frame.shape[:2]
        for step, meter in meters:
            with clock(step):
                meter.update(frame)
        with clock("track"):
            tracks.append(tracking.update(boxes, frame))
        detections.append(boxes)
    if not detections:
        raise VideoError(f"{name} holds no frame")
    return Observation(
        num_frames=len(detections),
        width=size[1],
        height=size[0],
        measured={name: value for _, meter in meters for name, value in meter.columns().items()},
        detections=detections,
        tracks=tracks,
        seconds=clock.seconds,
    )


def _clocked(frames: Iterator[np.ndarray], clock: _StageClock) -> Iterator[np.ndarray]:
    while True:
        with clock("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _clocked_detect(detector: Detector, clock: _StageClock) -> Callable[[Sequence[np.ndarray]], list[Detections]]:
    def detect(frames: Sequence[np.ndarray]) -> list[Detections]:
        with clock("detect"):
            return detector.detect(frames)

    return detect


def _replay(
    stored: Sequence[Detections], frames: Iterator[np.ndarray], name: str
) -> Iterator[tuple[np.ndarray, Detections]]:
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count > len(stored):
            raise FormatError(f"{name} has more frames than the {len(stored)} with stored detections")
        yield frame, stored[count - 1]
    if 0 < count < len(stored):
        raise FormatError(f"{name} has {count} frames, stored detections {len(stored)}")


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
