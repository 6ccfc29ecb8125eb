"""Small footage, stored detections and observed clips, made on the spot for tests of the curation."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from microg.models.curation.observe import Observation
from microg.models.curation.tracking import Tracks
from microg.models.detection.base import Detections
from microg.pipelines.curate import observations
from tests.support.helpers import moving_scene, write_video

WIDTH, HEIGHT, FRAMES = 64, 48, 90
# Covers a third of the frame: above the area floor of the published rule, below its focus on one person.
PERSON_BOX = (16.0, 4.0, 40.0, 44.0)


def observed_row(
    clip_id: str = "a_000",
    *,
    frames: int = FRAMES,
    person_frames: int | None = None,
    confidence: float = 0.9,
    cuts: tuple[int, ...] = (),
    box: tuple[float, float, float, float] = PERSON_BOX,
    **changes: Any,
) -> dict[str, Any]:
    """Return an observations row: one person in the first `person_frames` frames, scene cuts at frames `cuts`."""
    person_frames = frames if person_frames is None else person_frames
    boxes = np.array([box], np.float32)
    none = np.empty((0, 4), np.float32)
    detections, tracks = [], []
    for frame in range(frames):
        there = frame < person_frames
        found = Detections(
            boxes=boxes if there else none,
            confidence=np.full(int(there), confidence, np.float32),
            class_id=np.zeros(int(there), np.int32),
        )
        detections.append(found)
        tracks.append(Tracks(**vars(found), track_id=np.ones(int(there), np.int32)))
    seen = Observation(
        num_frames=frames,
        width=WIDTH,
        height=HEIGHT,
        measured={
            "content_scores": [80.0 if frame in cuts else 2.0 for frame in range(frames)],
            "motion_published": 10.0,
            "motion_euclidean": 7.0,
        },
        detections=detections,
        tracks=tracks,
        seconds={"decode": 0.1},
    )
    return source_row(clip_id.rsplit("_", 1)[0], clip_id=clip_id, status="ok", **observations.to_row(seen)) | changes


def source_row(source_id: str = "a", *, clip_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return an observations row without an observation: a source's, or a clip's that failed."""
    row: dict[str, Any] = {
        "key": clip_id or f"{source_id}#0",
        "clip_id": clip_id,
        "source_id": source_id,
        "stretch": 0,
        "stretches": 1,
        "stretch_clips": 1 if clip_id else 0,
        "status": "empty",
        "error": "",
        "damaged": "",
        "source_uri": f"/raw/{source_id}.mp4",
        "source_fingerprint": "1-1",
        "source_size": 1000,
        "origin": "real",
        "source_fps": 30.0,
        "source_width": 640,
        "source_height": 360,
        "source_duration_s": 3.5,
        "decode_errors": [],
        "tail_s": 0.5,
        "written": 1,
    }
    if clip_id:
        row |= {"sequence": int(clip_id.rsplit("_", 1)[1]), "uri": f"/out/videos/{clip_id}.mp4", "fps": 30.0}
    return row | changes


def table_of(*rows: dict[str, Any]) -> pa.Table:
    """Return rows as an observations table."""
    return pa.Table.from_pylist(list(rows), schema=observations.SCHEMA)


def write_footage(path: Path, *, seconds: float = 3.5, fps: int = 30, seed: int = 0) -> Path:
    """Write a small video of a moving square."""
    return write_video(path, moving_scene(seed, round(seconds * fps), WIDTH, HEIGHT), fps=fps)


def write_audio_only(path: Path) -> Path:
    """Write half a second of silence in an mp4 without a video stream."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=8000)
        frame.sample_rate, frame.pts = 16000, 0
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_variable_rate(path: Path) -> Path:
    """Write 3.5 s whose frames last 1/30 s first and 1/10 s later."""
    times = [*range(0, 1500, 33), *range(1500, 3500, 100)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for milliseconds, picture in zip(times, moving_scene(3, len(times), WIDTH, HEIGHT), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = milliseconds, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_detections(folder: Path, clip_id: str, *, person_frames: int = FRAMES, height: int = HEIGHT) -> Path:
    """Store detections of one person, drifting slowly, in the first `person_frames` frames of a clip so high."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{clip_id}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)  # noqa: TID251 (a file to read)
        writer.writerow(["frame", "x1", "y1", "x2", "y2", "conf", "cls"])
        for frame in range(1, person_frames + 1):
            x1, y1, x2, y2 = (value * height / HEIGHT for value in PERSON_BOX)
            writer.writerow([frame, x1 + frame / 20, y1, x2 + frame / 20, y2, 0.9, 0])
    return path
