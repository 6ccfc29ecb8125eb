"""A small dataset of videos whose frames tell their own number, for tests of action samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microg.data import schema
from microg.data.dataset import Dataset
from microg.models.har.backbones.spec import BackboneSpec
from tests.support import footage

FRAMES = 30
ACTIONS = (12, 17, 80, 14)


# Four frames, every third, 32 pixels.
SMALL_SPEC = BackboneSpec(
    "SMALL", "Small", "tiny", 4, 3, 0, "tests:none", train_crop=32, train_jitter=(32, 40), test_short_side=32
)


def make_clips(
    root: Path,
    clips: int = 6,
    *,
    split: str = "test",
    sizes: tuple[tuple[int, int], ...] = ((80, 48),),
    key_frames: tuple[int, ...] = (15,),
    people: int = 2,
) -> Dataset:
    """Write numbered videos and their samples: each person of each key frame has one or two of `ACTIONS`."""
    dataset = Dataset.create(str(root), "clips")
    rows: dict[str, list[dict[str, Any]]] = {"clips": [], "samples": [], "splits": [], "actions": []}
    for number in range(clips):
        clip_id = f"src{number % 3}_{number:03d}"
        width, height = sizes[number % len(sizes)]
        footage.write_footage(root / f"videos/{clip_id}.mp4", FRAMES, size=(width, height), gop=8)
        rows["clips"].append(
            {
                "clip_id": clip_id,
                "source_id": f"src{number % 3}",
                "sequence": number,
                "uri": f"videos/{clip_id}.mp4",
                "origin": "real",
                "fps": 30.0,
                "num_frames": FRAMES,
                "width": width,
                "height": height,
                "status": "ok",
            }
        )
        rows["splits"].append({"clip_id": clip_id, "split": split, "scheme": "published"})
        for frame in key_frames:
            for person in range(1, people + 1):
                left = 0.1 + 0.3 * (person - 1)
                for action_id in ACTIONS[: 1 + (number + person) % 2]:
                    rows["samples"].append(
                        {
                            "clip_id": clip_id,
                            "frame": frame,
                            "person_id": person,
                            "x1": left,
                            "y1": 0.2,
                            "x2": left + 0.25,
                            "y2": 0.8,
                            "action_id": action_id,
                        }
                    )
    for name, table in rows.items():
        dataset.write(name, schema.from_rows(name, table))
    return dataset
