"""How well a detector finds rendered people, by how far the body is turned on screen, without and with rotations.

    python benchmarks/synthetic_recall.py --weights yolo11n.pt --people 12

Each person is rendered once a bucket, with the same clothes, posture and background, only turned. A person counts as
found when a person box of confidence > 0.6 overlaps the exact box with IoU >= 0.5. `x4` looks at the frame turned by
0, 90, 180 and 270 degrees and merges what it finds (`--rotations 4` of the curation).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.demo.synthetic.annotate import iou
from microg.demo.synthetic.dataset import Settings, make_clip_shot, source_of
from microg.demo.synthetic.render import ShotRenderer
from microg.demo.synthetic.scenes import draw_module
from microg.demo.synthetic.shots import Drift
from microg.jobs.common import JsonOption, make_app, print_json, run

BUCKETS = ((0, 30), (30, 60), (60, 90), (90, 135), (135, 180))
CONFIDENCE, MIN_IOU = 0.6, 0.5


def render_turned(seed: int, index: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a BGR frame (480, 854, 3) with one person turned clockwise by `degrees`, and the exact box (4,)."""
    settings = Settings(seed, 854, 480, 1.0, "mix")
    shot = make_clip_shot(settings, index)
    person = replace(
        shot.people[0],
        centre=(0.5, 0.5),
        scale=0.66,
        roll=float(np.radians(degrees)),
        roll_drift=Drift(0.0, 8.0, 0.0),
        offset=0.0,
        meeting=None,
    )
    background = draw_module(source_of(settings, index)[1], np.random.default_rng((seed, index)), 854, 480)
    frame = ShotRenderer(replace(shot, people=(person,)), background, 854, 480).frame(1.0)
    box = frame.boxes[0]
    if box is None:
        raise RuntimeError(f"person of clip {index} is out of the frame at {degrees:.0f} degrees")
    return frame.image, np.asarray(box)


def found(detections: Any, box: np.ndarray) -> bool:
    """Tell whether a confident person box overlaps `box`."""
    people = detections.persons(CONFIDENCE)
    return bool(len(people)) and bool((iou(box, people.boxes.astype(np.float64)) >= MIN_IOU).any())


def measure(weights: str, people: int, seed: int, backend: str) -> list[dict[str, Any]]:
    """Return one row a bucket: people, recall with one look and recall with four."""
    from microg.models.detection.base import DetectorSettings
    from microg.models.detection.load import load_detector

    plain, turning = (
        load_detector(DetectorSettings.model_validate({"weights": weights, "backend": backend, "rotations": rotations}))
        for rotations in (1, 4)
    )
    rng = np.random.default_rng(seed)
    rows = []
    for low, high in BUCKETS:
        hits = np.zeros(2)
        for index in range(people):
            # five clips share a source: steps of five take another module and crew each time
            turned = float(rng.uniform(low, high)) * float(rng.choice((-1, 1)))
            image, box = render_turned(seed, index * 5, turned)
            hits += [found(detector.detect([image])[0], box) for detector in (plain, turning)]
        rows.append({"rotation": f"{low}-{high}", "people": people, "x1": hits[0] / people, "x4": hits[1] / people})
    return rows


def main(
    weights: Annotated[str, typer.Option(help="Detector weights: a name or a path.")] = "yolo11n.pt",
    people: Annotated[int, typer.Option(min=1, help="People a bucket.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    backend: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Print recall by body rotation, with one look at each frame and with four."""
    rows = measure(weights, people, seed, backend)
    if as_json:
        print_json(rows)
        return
    print(f"recall at confidence > {CONFIDENCE}, IoU >= {MIN_IOU}, {people} people a row\n")
    print("body rotation   one look   four looks")
    for row in rows:
        print(f"{row['rotation']:>9} deg   {row['x1']:8.2f}   {row['x4']:10.2f}")


if __name__ == "__main__":
    app = make_app("Recall of a person detector on rendered people.")
    app.command()(main)
    run(app)
