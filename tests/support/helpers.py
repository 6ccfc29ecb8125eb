"""Tiny videos and datasets made on the spot, for tests of validation, statistics and reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset

WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 12, 30


def moving_scene(seed: int, frames: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """Return RGB frames of a smooth random background with a square drifting over it; the seed makes the scene."""
    import cv2

    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    background = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    colour = random.integers(0, 256, 3)
    result = []
    for index in range(frames):
        frame = background.copy()
        left = 10 + 2 * index
        frame[20:40, left : left + 20] = colour
        result.append(frame)
    return result


def write_video(path: Path, frames: list[np.ndarray], fps: int = FPS, crf: int = 23) -> Path:
    """Encode RGB frames as H.264 in mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def tiny_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a small, faultless, fully annotated dataset: 4 clips of 3 sources, 6 people."""
    clip_ids = ["filmA_000", "filmA_001", "tourB_000", "walkC_000"]
    origins = ["movie", "movie", "real", "real"]
    people = {"filmA_000": 1, "filmA_001": 2, "tourB_000": 2, "walkC_000": 1}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in schema.TABLES}
    for clip_id, origin in zip(clip_ids, origins, strict=True):
        source_id, sequence = clip_id.rsplit("_", 1)
        rows["clips"].append(
            {
                "clip_id": clip_id,
                "source_id": source_id,
                "sequence": int(sequence),
                "uri": f"videos/{clip_id}.mp4",
                "origin": origin,
                "fps": float(FPS),
                "num_frames": FRAMES,
                "width": WIDTH,
                "height": HEIGHT,
                "duration_s": FRAMES / FPS,
                "status": "ok",
            }
        )
        rows["decisions"].append(
            {"clip_id": clip_id, "stage": "person", "keep": True, "reason": "", "score": 100.0, "threshold": 60.0}
        )
        for person_id in range(1, people[clip_id] + 1):
            for frame in range(1, FRAMES + 1):
                left = 8.0 + 2 * frame + 15 * person_id
                box = {"x1": left, "y1": 18.0, "x2": left + 24, "y2": 42.0}
                rows["boxes"].append(
                    {"clip_id": clip_id, "frame": frame, "person_id": person_id, **box, "confidence": 0.9}
                )
            for action_id in (12, 17 if person_id == 1 else 80):
                rows["actions"].append({"clip_id": clip_id, "person_id": person_id, "action_id": action_id})
                rows["samples"].append(
                    {
                        "clip_id": clip_id,
                        "frame": 6,
                        "person_id": person_id,
                        "action_id": action_id,
                        "x1": 0.2,
                        "y1": 0.3,
                        "x2": 0.5,
                        "y2": 0.7,
                    }
                )
        rows["captions"].append({"clip_id": clip_id, "caption": f"An astronaut floats through module {clip_id[-1]}."})
        questions = [
            "What floats?",
            "Who is there?",
            "How many people are there?",
            "Is the hatch open?",
            "Where is the camera?",
            "Why does the hair float?",
        ]
        for index, question in enumerate(questions):
            answer = "Not mentioned." if index == 5 else f"Answer {index}, about {clip_id}."
            rows["qa"].append({"clip_id": clip_id, "qa_index": index, "question": question, "answer": answer})
    for source_id in ("filmA", "tourB", "walkC"):
        rows["sources"].append({"source_id": source_id, "uri": f"raw/{source_id}.mp4", "clips": 1, "status": "ok"})
    for clip_id, split in zip(clip_ids, ("train", "train", "val", "test"), strict=True):
        rows["splits"] += [{"clip_id": clip_id, "split": split, "scheme": "source"}]
    return rows


def make_dataset(
    root: Path, change: Callable[[dict[str, list[dict[str, Any]]]], object] | None = None, videos: bool = True
) -> Dataset:
    """Write the dataset of `tiny_rows` after `change` edited its rows; tables without rows are not written."""
    rows = tiny_rows()
    if change is not None:
        change(rows)
    dataset = Dataset.create(str(root), name="tiny")
    if videos:
        for number, row in enumerate(tiny_rows()["clips"]):
            path = write_video(root / row["uri"], moving_scene(number))
            for clip in rows["clips"]:
                if clip["clip_id"] == row["clip_id"]:
                    clip.setdefault("sha256", storage.sha256(path))
    for name, table_rows in rows.items():
        if table_rows:
            dataset.write(name, schema.from_rows(name, table_rows))
    return dataset
