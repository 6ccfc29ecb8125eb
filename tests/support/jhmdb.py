"""A small folder in JHMDB's published layout, whose masks and boxes are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.label_space import JHMDB_21_SPACE
from tests.support import footage

WIDTH, HEIGHT, FRAMES = 80, 48, 12


def box_of(number: int, frame: int) -> tuple[int, int, int, int]:
    """Return the least and greatest column and row of the mask of a video's frame (from 0), as (x1, y1, x2, y2)."""
    left, top = 5 + 4 * (number % 7) + frame, 6 + number % 3
    return left, top, left + 14, top + 30


def video_name(action: str, number: int, film: str = "Film") -> str:
    """Return a name as HMDB51 gives them."""
    return f"{film}{number}_{action}_u_cm_np1_fr_med_{number % 4}"


def write_jhmdb(
    root: Path,
    actions: dict[str, int],
    *,
    train: int = 0,
    pictures: bool = False,
    frames: int = FRAMES,
    compressed: bool = True,
) -> dict[str, tuple[str, int]]:
    """Write `actions` (test videos each) with `train` more each; returns (action, number) by the name of a test video.

    Frames are those of `footage.numbered`; masks have body parts numbered from 1 and a hole.
    """
    tests: dict[str, tuple[str, int]] = {}
    number = 0
    for action, count in actions.items():
        lines = []
        for place in range(count + train):
            name = video_name(action, number)
            lines.append(f"{name}.avi {2 if place < count else 1}")
            if place < count:
                tests[name] = (action, number)
            mask = np.zeros((HEIGHT, WIDTH, frames), np.uint8)
            for frame in range(frames):
                x1, y1, x2, y2 = box_of(number, frame)
                mask[y1 : y2 + 1, x1 : x2 + 1, frame] = 1 + frame % 10
                mask[y1 + 5, x1 + 5, frame] = 0
            folder = root / "puppet_mask" / action / name
            folder.mkdir(parents=True)
            savemat(folder / "puppet_mask.mat", {"part_mask": mask}, do_compression=compressed)
            if pictures:
                folder = root / "Rename_Images" / action / name
                folder.mkdir(parents=True)
                for frame in range(frames):
                    picture = footage.numbered(number * 20 + frame, WIDTH, HEIGHT)
                    cv2.imwrite(str(folder / f"{frame + 1:05d}.png"), picture)
            else:
                folder = root / "ReCompress_Videos" / action
                folder.mkdir(parents=True, exist_ok=True)
                size = (WIDTH, HEIGHT)
                footage.write_footage(
                    folder / f"{name}.avi", frames, codec="mpeg4", size=size, first_number=number * 20
                )
            number += 1
        (root / "splits").mkdir(parents=True, exist_ok=True)
        for split in (1, 2):
            text = "\n".join(lines if split == 1 else reversed(lines)) + "\n"
            (root / "splits" / f"{action}_test_split{split}.txt").write_text(text)
    return tests


def jhmdb_dataset(root: Path, actions: tuple[str, ...] = ("run", "golf")) -> Dataset:
    """Write a dataset of JHMDB's actions without videos: one key frame with one person for each of `actions`."""
    dataset = Dataset.create(str(root), "jhmdb", label_space=JHMDB_21_SPACE.name)
    ids = {name: action_id for action_id, name in JHMDB_21_SPACE.names.items()}
    box = {"x1": 0.2, "y1": 0.2, "x2": 0.6, "y2": 0.8}
    rows = {"clips": [], "samples": [], "splits": []}
    for number, action in enumerate(actions):
        clip = {"clip_id": f"Film{number}_{action}_000"}
        rows["clips"].append(clip | {"source_id": f"Film{number}_{action}", "sequence": 0, "status": "ok"})
        rows["samples"].append(clip | {"frame": 3, "person_id": 1, **box, "action_id": ids[action]})
        rows["splits"].append(clip | {"split": "test", "scheme": "published"})
    for name, table in rows.items():
        dataset.write(name, schema.from_rows(name, table))
    return dataset
