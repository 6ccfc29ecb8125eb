"""What a model is tuned on: clips of a split with their questions and the true answers, one row a clip."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from microg.arrow import parse_schema, pc
from microg.data.dataset import Dataset
from microg.errors import DatasetError
from microg.pipelines.vlm.questions import CLIPS, key_frames_of
from microg.pipelines.vlm.train.settings import TuneSettings
from microg.texts.items import Task

# `answer` is the true answer to each question of `CLIPS`.
LESSONS = pa.schema([*CLIPS, *parse_schema("answer: [string]")])


@dataclass(frozen=True)
class Lessons:
    """Rows of `LESSONS` by split, the dataset's fingerprint, and what was noticed."""

    train: pa.Table
    val: pa.Table
    fingerprint: str
    notes: tuple[str, ...] = ()

    def count(self, split: str) -> dict[str, int]:
        """Return how many clips, captions and answers a split has."""
        table: pa.Table = getattr(self, split)
        tasks = [task for row in table["task"].to_pylist() for task in row]
        return {"clips": table.num_rows, "captions": tasks.count("caption"), "answers": tasks.count("vqa")}


def read_lessons(path: str, settings: TuneSettings) -> Lessons:
    """Read the clips of the splits train and val that have texts.

    Raises:
        DatasetError: The train split has no usable text.
    """
    dataset = Dataset.open(path)
    texts = texts_of(dataset, settings.tasks)
    clips = dataset.kept_clips().sort_by("clip_id")
    keys = key_frames_of(dataset) if settings.policy().kind == "key" else {}
    columns = [name for name in CLIPS.names if name in clips.column_names]
    tables, without = {}, 0
    for split in ("train", "val"):
        chosen = clips.filter(pc.is_in(clips["clip_id"], dataset.split_clips(split, settings.scheme)))
        rows = []
        for row in chosen.select(columns).to_pylist():
            lessons = texts.get(row["clip_id"], [])
            if not lessons or not row["uri"]:
                without += 1
                continue
            tasks, indices, questions, answers = map(list, zip(*lessons, strict=True))
            row |= {"uri": dataset.resolve(row["uri"], row["clip_id"]), "key_frame": keys.get(row["clip_id"])}
            rows.append({**row, "task": tasks, "qa_index": indices, "question": questions, "answer": answers})
        tables[split] = pa.Table.from_pylist(rows[: settings.limit], schema=LESSONS)
    if not tables["train"].num_rows:
        raise DatasetError(
            f"the train split of {path} has no {' or '.join(settings.tasks)} to learn from",
            f"choose another with --scheme, or make one with 'microg data split {path}'",
        )
    notes = (f"{without} clips have no text or no video and are left out",) if without else ()
    return Lessons(tables["train"], tables["val"], dataset.fingerprint(), notes)


def texts_of(dataset: Dataset, tasks: tuple[Task, ...]) -> dict[str, list[tuple[Task, int | None, str | None, str]]]:
    """Return (task, qa_index, question, answer) of each clip's captions and answers, by clip id."""
    found: dict[str, list[tuple[Task, int | None, str | None, str]]] = {}
    if "caption" in tasks:
        for row in dataset.table("captions").to_pylist():
            if row["caption"]:
                found.setdefault(row["clip_id"], []).append(("caption", None, None, row["caption"]))
    if "vqa" in tasks:
        for row in dataset.table("qa").sort_by([("clip_id", "ascending"), ("qa_index", "ascending")]).to_pylist():
            if row["question"] and row["answer"]:
                found.setdefault(row["clip_id"], []).append(("vqa", row["qa_index"], row["question"], row["answer"]))
    return found
