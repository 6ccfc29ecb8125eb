"""Clips with the questions that a run asks about them, one row a clip, and an estimate of what they will take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import parse_schema, pc
from microg.data.dataset import Dataset
from microg.errors import DatasetError
from microg.models.vlm.base import Engine, Estimate, Frames
from microg.models.vlm.sampling import FramePolicy
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.items import ItemKey, Task

# One row a clip; `task`, `qa_index` (null for a caption) and `question` are those of its questions.
CLIPS = parse_schema(
    "clip_id uri: string, key_frame: int32, fps: float64, num_frames width height: int32, task: [string], qa_index: "
    "[int32], question: [string]"
)
# What clips are taken for that the dataset does not describe: the published ones are like this.
_FPS, _FRAMES, _WIDTH, _HEIGHT = 30.0, 90, 854, 480
_BYTES_PER_TOKEN = 4
QUESTION = ("task", "qa_index", "question")


@dataclass(frozen=True)
class ClipQuestions:
    """Rows of `CLIPS` in the dataset's order, its fingerprint, and what was noticed."""

    clips: pa.Table
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameSize:
    """What of a clip a model will be shown, before it is decoded: frames, and their width and height in pixels."""

    frames: int
    width: int
    height: int

    @property
    def num_bytes(self) -> int:
        """Size of the pixels."""
        return self.frames * self.width * self.height * 3


def read_questions(settings: GenerateSettings) -> ClipQuestions:
    """Read the clips that `settings` choose, with their questions.

    Only clips with status ok; every one of them is screened. Where the dataset has captions, captions are asked of the
    clips that have one, unless `settings.all_clips`. Raises `DatasetError` when there is nothing to ask.
    """
    dataset, notes = Dataset.open(settings.dataset), []
    clips = dataset.table("clips")
    kept = clips.filter(pc.equal(clips["status"], "ok"))
    if kept.num_rows < clips.num_rows:
        notes.append(f"{clips.num_rows - kept.num_rows} clips with status rejected or error were left out")
    if settings.split:
        kept = kept.filter(pc.is_in(kept["clip_id"], dataset.split_clips(settings.split, settings.scheme)))
    questions = _questions(dataset)
    captioned = set(dataset.table("captions")["clip_id"].to_pylist())
    everywhere = settings.all_clips or not captioned
    rows = []
    for row in kept.sort_by("clip_id").select([name for name in CLIPS.names if name in kept.column_names]).to_pylist():
        asks: list[tuple[Task, int | None, str | None]] = []
        if "caption" in settings.tasks and (everywhere or row["clip_id"] in captioned):
            asks.append(("caption", None, None))
        if "screening" in settings.tasks:
            asks.append(("screening", None, None))
        if "vqa" in settings.tasks:
            asks.extend(("vqa", index, text) for index, text in questions.get(row["clip_id"], ()))
        if asks:
            columns = dict(zip(QUESTION, zip(*asks, strict=True), strict=True))
            rows.append({**row, **columns, "uri": dataset.resolve(row["uri"], row["clip_id"]) if row["uri"] else None})
    if "vqa" in settings.tasks and not questions:
        raise DatasetError(
            f"dataset {settings.dataset} has no questions",
            "ask for --task caption only, or make some with 'microg data make-qa'",
        )
    if not rows:
        raise DatasetError(f"nothing can be asked of dataset {settings.dataset}: it has no usable clip for this")
    if len(rows) < kept.num_rows:
        notes.append(f"{kept.num_rows - len(rows)} clips have neither caption nor question and are not asked about")
    if settings.policy().kind == "key":
        keys = key_frames_of(dataset)
        rows = [{**row, "key_frame": keys.get(row["clip_id"])} for row in rows]
    table = pa.Table.from_pylist(rows[: settings.limit], schema=CLIPS)
    return ClipQuestions(table, dataset.fingerprint(), tuple(notes))


def items_of(clips: pa.Table) -> Iterator[ItemKey]:
    """Yield the items of rows of `CLIPS`, in order."""
    columns = (clips[name].to_pylist() for name in ("clip_id", "task", "qa_index"))
    for clip_id, tasks, indices in zip(*columns, strict=True):
        for task, index in zip(tasks, indices, strict=True):
            yield ItemKey(task, clip_id, index)


def without(clips: pa.Table, done: set[str]) -> pa.Table:
    """Return rows of `CLIPS` without the items whose `qualified_id` is in `done`."""
    rows = []
    for row in clips.to_pylist():
        left = [
            place
            for place, (task, index) in enumerate(zip(row["task"], row["qa_index"], strict=True))
            if ItemKey(task, row["clip_id"], index).qualified_id not in done
        ]
        if left:
            rows.append({**row, **{name: [row[name][i] for i in left] for name in QUESTION}})
    return pa.Table.from_pylist(rows, schema=CLIPS)


def sizes_of(clips: pa.Table, policy: FramePolicy) -> list[FrameSize]:
    """Return what each clip of `CLIPS` will show, as far as the dataset tells."""
    result = []
    for row in clips.select(["fps", "num_frames", "width", "height", "key_frame"]).to_pylist():
        num_frames, key = row["num_frames"] or _FRAMES, row["key_frame"]
        try:
            count = len(policy.indices(num_frames, row["fps"] or _FPS, None if key is None else key - 1))
        except Exception:  # a clip that the policy refuses is an error row later
            count = 0
        size = row["width"] or _WIDTH, row["height"] or _HEIGHT
        result.append(FrameSize(count, *(size if policy.resize is None else policy.resize.target(*size))))
    return result


def blocks_of(clips: pa.Table, sizes: Sequence[FrameSize], most_clips: int, most_bytes: int) -> list[pa.Table]:
    """Cut clips into blocks of at most so many clips and bytes of pixels, at least one clip each."""
    blocks, start, size = [], 0, 0
    for place, each in enumerate(sizes):
        if place > start and (place - start >= most_clips or size + each.num_bytes > most_bytes):
            blocks.append(clips.slice(start, place - start).combine_chunks())
            start, size = place, 0
        size += each.num_bytes
    return [*blocks, clips.slice(start).combine_chunks()] if len(sizes) else []


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run will take.

    Attributes:
        rows: Answers to make.
        tokens: Tokens of prompts and answers, about.
        cost: US dollars at most, None where no price is known.
        counted: How tokens were counted, in words.
        longest: Tokens of the longest request, with its answer.
    """

    rows: int
    tokens: int
    longest: int
    cost: float | None
    counted: str


def estimate_run(
    clips: pa.Table, sizes: Sequence[FrameSize], settings: GenerateSettings, engine: Engine
) -> RunEstimate:
    """Estimate answers, tokens and cost of a run before it starts.

    An engine that processes frames to count is asked once for each prompt and size of frames; other questions then
    differ by their length.

    Args:
        clips: Rows of `microg.pipelines.vlm.questions.CLIPS`.
        sizes: What of each clip the model will see.
        settings: The run's settings, resolved.
        engine: The engine, opened and not loaded.
    """
    prompts = {task: settings.prompt_of(task) for task in settings.tasks}
    samplings = {task: settings.sampling.of(prompt) for task, prompt in prompts.items()}
    slow = engine.counts_slowly
    rows, tokens, longest, cost = 0, 0, 0, 0.0
    known: dict[Any, tuple[Estimate, int]] = {}
    columns = zip(clips["task"].to_pylist(), clips["question"].to_pylist(), sizes, strict=True)
    for tasks, questions, size in columns:
        pixels = np.broadcast_to(np.uint8(0), (size.frames, size.height, size.width, 3))  # takes no memory
        frames = Frames(pixels, tuple(range(size.frames)), 30.0, size.frames)
        for task, question in zip(tasks, questions, strict=True):
            fields = {} if question is None else {"question": question}
            request = prompts[task].request("", frames, **fields)
            rows += 1
            if not slow:
                takes, more = engine.estimate(request, samplings[task], settings.batch), 0
            else:
                length = len(request.prompt.encode())
                if (task, size) not in known:
                    pixels = np.zeros(frames.pixels.shape, np.uint8)  # a processor wants memory that can be written
                    whole = replace(request, frames=replace(frames, pixels=pixels))
                    known[task, size] = engine.estimate(whole, samplings[task]), length
                takes, first_length = known[task, size]
                more = round((length - first_length) / _BYTES_PER_TOKEN)
            tokens, cost = tokens + takes.tokens + more, cost + (takes.cost or 0.0)
            longest = max(longest, takes.tokens + more)
    priced = engine.runs_here or engine.price is not None
    return RunEstimate(
        rows=rows, tokens=tokens, longest=longest, cost=cost if priced else None, counted=engine.counting
    )


def _questions(dataset: Dataset) -> dict[str, list[tuple[int, str]]]:
    questions: dict[str, list[tuple[int, str]]] = {}
    for row in dataset.table("qa").sort_by([("clip_id", "ascending"), ("qa_index", "ascending")]).to_pylist():
        questions.setdefault(row["clip_id"], []).append((row["qa_index"], row["question"]))
    return questions


def key_frames_of(dataset: Dataset) -> dict[str, int]:
    """Return the key frame of each clip that has exactly one; of the others the policy takes the middle."""
    frames: dict[str, set[int]] = {}
    for row in dataset.table("samples").select(["clip_id", "frame"]).to_pylist():
        frames.setdefault(row["clip_id"], set()).add(row["frame"])
    return {clip_id: keys.pop() for clip_id, keys in frames.items() if len(keys) == 1}
