"""Give a curated dataset the labels of the synthetic footage that it was made from."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from microg.arrow import pc
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.ids import source_ids
from microg.demo.synthetic import truth

MIN_IOU = 0.5
MIN_COVERAGE = 0.95  # of a clip's time within one shot; a clip across a cut gets no labels

Boxes = npt.NDArray[np.float64]


def iou(box: Boxes, others: Boxes) -> Boxes:
    """Return the intersection over union of `box` (4,) with each of `others` (n, 4), corners x1, y1, x2, y2."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / np.maximum(areas - shared, 1e-12)


class _FileTruth:
    """The truth of one file, indexed by frame."""

    def __init__(self, file: dict[str, Any], shots: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> None:
        self.name, self.fps, self.frames = str(file["file"]), int(file["fps"]), int(file["frames"])
        self.shots = shots
        self._people: dict[int, list[int]] = defaultdict(list)
        self._boxes: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        for row in boxes:
            self._people[row["frame"]].append(row["person_id"])
            self._boxes[row["frame"]].append((row["x1"], row["y1"], row["x2"], row["y2"]))

    def shot_of(self, start_s: float, end_s: float) -> dict[str, Any] | None:
        """Return the shot that covers this span but for a small rest, None when a cut divides it."""
        for shot in self.shots:
            shared = min(end_s, shot["end_s"]) - max(start_s, shot["start_s"])
            if shared >= MIN_COVERAGE * (end_s - start_s):
                return shot
        return None

    def person_at(self, time_s: float, box: Boxes) -> int | None:
        """Return who fills the normalised `box` at `time_s`, None when nobody overlaps by `MIN_IOU`."""
        frame = min(max(round(time_s * self.fps), 0), self.frames - 1) + 1
        if frame not in self._people:
            return None
        overlaps = iou(box, np.asarray(self._boxes[frame]))
        best = int(overlaps.argmax())
        return self._people[frame][best] if overlaps[best] >= MIN_IOU else None


def _load(folder: str) -> dict[str, _FileTruth]:
    files = truth.read(folder, "files").to_pylist()
    by_file: dict[str, dict[str, list[dict[str, Any]]]] = {name: defaultdict(list) for name in ("shots", "boxes")}
    for name, groups in by_file.items():
        for row in truth.read(folder, name).to_pylist():
            groups[row["file"]].append(row)
    ids = source_ids(file["file"] for file in files)
    return {
        ids[file["file"]]: _FileTruth(file, by_file["shots"][file["file"]], by_file["boxes"][file["file"]])
        for file in files
    }


def _grouped(table: pa.Table, *keys: str) -> dict[tuple, list[dict[str, Any]]]:
    groups: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def _identify(clip: dict[str, Any], boxes: list[dict[str, Any]], start_s: float, known: _FileTruth) -> dict[int, int]:
    """Map tracked person ids of a clip to true ones: the true person that most of the boxes overlap, if over half."""
    size = np.array((clip["width"], clip["height"], clip["width"], clip["height"]), dtype=np.float64)
    votes: dict[int, Counter[int | None]] = defaultdict(Counter)
    for row in boxes:
        box = np.array((row["x1"], row["y1"], row["x2"], row["y2"])) / size
        votes[row["person_id"]][known.person_at(start_s + (row["frame"] - 1) / clip["fps"], box)] += 1
    found = {}
    for tracked, counts in votes.items():
        true_id, count = counts.most_common(1)[0]
        if true_id is not None and 2 * count > counts.total():
            found[tracked] = true_id
    return found


def annotate(dataset: Dataset, truth_folder: str) -> dict[str, int]:
    """Write `actions`, `captions` and `qa` of the kept clips of a dataset that was curated from synthetic footage.

    Clip k of a source covers the seconds [k * duration, (k + 1) * duration). Tracked boxes are matched with the true
    ones at the nearest frame by IoU >= 0.5, a person by the majority of their boxes; a tracked person who matches
    nobody gets no labels. A clip that a cut divides gets no rows. Rows of clips from other sources are kept.

    Returns counts: clips annotated, people matched and unmatched, clips across a cut, and clips of other sources.
    Raises `DatasetError` when `truth_folder` (or its `truth` folder) has no truth tables.
    """
    folder = truth.truth_folder(truth_folder)
    files = _load(folder)
    labels = _grouped(truth.read(folder, "actions"), "file", "shot", "person_id")
    pairs = _grouped(truth.read(folder, "qa"), "file", "shot")
    boxes = _grouped(dataset.table("boxes"), "clip_id")
    counts = Counter(clips=0, people_matched=0, people_unmatched=0, clips_across_cuts=0, clips_of_other_sources=0)
    rows: dict[str, list[dict[str, Any]]] = {"actions": [], "captions": [], "qa": []}
    replaced: list[str] = []
    for clip in dataset.kept_clips().to_pylist():
        clip_id, known = clip["clip_id"], files.get(clip["source_id"])
        if known is None:
            counts["clips_of_other_sources"] += 1
            continue
        replaced.append(clip_id)
        start_s = clip["sequence"] * clip["duration_s"]
        shot = known.shot_of(start_s, start_s + clip["duration_s"])
        if shot is None:
            counts["clips_across_cuts"] += 1
            continue
        counts["clips"] += 1
        people = _identify(clip, boxes[(clip_id,)], start_s, known)
        counts["people_matched"] += len(people)
        counts["people_unmatched"] += len({row["person_id"] for row in boxes[(clip_id,)]} - set(people))
        for tracked, true_id in sorted(people.items()):
            rows["actions"] += [
                {"clip_id": clip_id, "person_id": tracked, "action_id": row["action_id"]}
                for row in labels[(known.name, shot["shot"], true_id)]
            ]
        rows["captions"].append({"clip_id": clip_id, "caption": shot["caption"]})
        rows["qa"] += [
            {"clip_id": clip_id, **{key: row[key] for key in ("qa_index", "question", "answer")}}
            for row in pairs[(known.name, shot["shot"])]
        ]
    for name, new in rows.items():
        old = dataset.table(name)
        kept = old.filter(pc.invert(pc.is_in(old["clip_id"], value_set=pa.array(replaced, pa.string()))))
        dataset.write(name, pa.concat_tables([kept, schema.from_rows(name, new)]))
    return dict(counts)
