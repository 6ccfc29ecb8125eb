"""A dataset's clips, people and texts in compact memory, read once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg.annotations.accept import PEOPLE
from microg.annotations.boxes import Tracks
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Clip:
    """A clip as people see it."""

    clip_id: str
    source_id: str
    sequence: int
    uri: str
    origin: str
    fps: float
    num_frames: int
    width: int
    height: int
    duration_s: float


class Clips:
    """The clips that people may judge: those that were kept, and those that only people dropped, by source and time.

    Attributes:
        ids: Their ids; a clip's number is its place here.
        kept: Which of them have status `ok`, as booleans.
    """

    def __init__(self, dataset: Dataset) -> None:
        table = dataset.table("clips")
        dropped = pc.starts_with(pc.fill_null(table["error"], ""), f"{PEOPLE}: ")
        ok = pc.equal(pc.fill_null(table["status"], "ok"), "ok")
        by_people = pc.and_(pc.equal(table["status"], "rejected"), dropped)
        table = table.filter(pc.or_(ok, pc.fill_null(by_people, False)))
        keys = [(name, "ascending") for name in ("source_id", "sequence", "clip_id")]
        self._table = table.sort_by(keys).combine_chunks()
        self.ids: list[str] = self._table["clip_id"].to_pylist()
        self.kept = pc.equal(pc.fill_null(self._table["status"], "ok"), "ok").to_numpy(zero_copy_only=False)
        self._numbers = {clip_id: number for number, clip_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, clip_id: str) -> int | None:
        """Return a clip's number, None for one that is not here."""
        return self._numbers.get(clip_id)

    def numbers(self, clip_ids: pa.ChunkedArray) -> np.ndarray:
        """Return the numbers of a column of clip ids as int32, -1 for those that are not here."""
        found = pc.index_in(clip_ids.combine_chunks(), pa.array(self.ids, pa.string()))
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)

    def clip(self, number: int) -> Clip:
        """Return a clip by its number; what the table does not say is 0 or empty."""
        row = {name: self._table[name][number].as_py() for name in self._table.column_names}
        frames, fps = row["num_frames"] or 0, row["fps"] or 0.0
        return Clip(
            clip_id=row["clip_id"],
            source_id=row["source_id"] or "",
            sequence=row["sequence"] or 0,
            uri=row["uri"] or "",
            origin=row["origin"] or "",
            fps=fps,
            num_frames=frames,
            width=row["width"] or 0,
            height=row["height"] or 0,
            duration_s=row["duration_s"] or (frames / fps if fps else 0.0),
        )

    def before(self, number: int) -> int | None:
        """Return the clip of the same source that comes right before a clip, None where there is none."""
        if number == 0:
            return None
        sources = self._table["source_id"]
        source = sources[number].as_py()
        return number - 1 if source and sources[number - 1].as_py() == source else None


class Boxes:
    """The rows of table `boxes` of these clips, by clip."""

    def __init__(self, dataset: Dataset, clips: Clips) -> None:
        table = dataset.table("boxes")
        number = clips.numbers(table["clip_id"])
        inside = np.flatnonzero(number >= 0)
        # by clip, and as in the table within one: of two boxes on a frame the first counts
        order = inside[np.argsort(number[inside], kind="stable")]
        self.clip = number[order]
        self.person = _integers(table["person_id"])[order]
        self._frame = _integers(table["frame"])[order]
        self._corners = np.stack([_floats(table[name])[order] for name in _CORNERS], axis=1)
        self._confidence = _floats(table["confidence"])[order]
        self._starts = np.searchsorted(self.clip, np.arange(len(clips) + 1))

    def tracks(self, number: int) -> Tracks:
        """Return the boxes of a clip's people by frame."""
        tracks: Tracks = {}
        for row in range(self._starts[number], self._starts[number + 1]):
            x1, y1, x2, y2 = (round(float(each), 2) for each in self._corners[row])
            confidence = float(self._confidence[row])
            box = (x1, y1, x2, y2, None if np.isnan(confidence) else confidence)
            tracks.setdefault(int(self.person[row]), {}).setdefault(int(self._frame[row]), box)
        return tracks


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, 0).to_numpy().astype(np.int32)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(np.float32)


class Numbered:
    """Items of one kind: pairs of a clip's number and a person's or a question's (-1 where the clip is the item).

    They are sorted by both, without repeats; an item's place is its place here.

    Args:
        clip: Clips' numbers, from 0.
        number: As many numbers, from -1.
    """

    def __init__(self, clip: np.ndarray, number: np.ndarray) -> None:
        keys = (clip.astype(np.int64) << 32) | (number.astype(np.int64) + 1)
        # tracks repeat a pair many times in a row: those go first, as sorting is what takes time
        new = np.flatnonzero(np.diff(keys, prepend=-1))
        keys = np.unique(keys[new])
        self.clip, self.number = (keys >> 32).astype(np.int32), ((keys & 0xFFFFFFFF) - 1).astype(np.int32)

    def __len__(self) -> int:
        return len(self.clip)

    def of_clip(self, clip: int) -> range:
        """Return the places of a clip's items."""
        return range(*(int(each) for each in np.searchsorted(self.clip, [clip, clip + 1])))

    def place(self, clip: int, number: int | None) -> int | None:
        """Return an item's place, None when it is not here."""
        wanted = -1 if number is None else number
        return next((place for place in self.of_clip(clip) if self.number[place] == wanted), None)


class Texts:
    """The rows of a table of texts (captions, qa) by clip and question, kept as Arrow holds them."""

    def __init__(self, dataset: Dataset, clips: Clips, table: str, columns: tuple[str, ...]) -> None:
        rows = dataset.table(table)
        self._columns = columns
        self._rows = rows
        self.clip = clips.numbers(rows["clip_id"])
        self.number = _integers(rows["qa_index"]) if "qa_index" in rows.column_names else np.full(rows.num_rows, -1)
        pairs = zip(self.clip.tolist(), self.number.tolist(), strict=True)
        self._places = {pair: row for row, pair in enumerate(pairs) if pair[0] >= 0}

    def get(self, clip: int, number: int | None) -> dict[str, Any] | None:
        """Return what the table says, None when nothing."""
        row = self._places.get((clip, -1 if number is None else number))
        return None if row is None else {name: self._rows[name][row].as_py() or "" for name in self._columns}


class Labels:
    """The actions of people: rows of table `actions`."""

    def __init__(self, dataset: Dataset, clips: Clips) -> None:
        rows = dataset.table("actions")
        self.clip = clips.numbers(rows["clip_id"])
        self.person = _integers(rows["person_id"])
        self.action = _integers(rows["action_id"])
        self._held: dict[tuple[int, int], list[int]] = {}
        for clip, person, action in zip(self.clip.tolist(), self.person.tolist(), self.action.tolist(), strict=True):
            if clip >= 0:
                self._held.setdefault((clip, person), []).append(action)

    def get(self, clip: int, person: int) -> list[int]:
        """Return a person's actions."""
        return sorted(set(self._held.get((clip, person), ())))


@dataclass(frozen=True)
class Material:
    """All that a dataset gives people to judge, as it was at the start.

    Attributes:
        name: The dataset's name.
        vocabulary: Its actions.
        clips: Its clips.
        boxes: People's boxes.
        labels: People's actions.
        captions: Captions of clips.
        questions: Questions of clips, with their answers.
    """

    name: str
    vocabulary: Vocabulary
    clips: Clips
    boxes: Boxes
    labels: Labels
    captions: Texts
    questions: Texts


def read_material(dataset: Dataset) -> Material:
    """Read a dataset's tables."""
    clips = Clips(dataset)
    return Material(
        str(dataset.info.get("name") or dataset.root),
        dataset.vocabulary,
        clips,
        Boxes(dataset, clips),
        Labels(dataset, clips),
        Texts(dataset, clips, "captions", ("caption",)),
        Texts(dataset, clips, "qa", ("question", "answer")),
    )
