"""From clips and lessons to training batches: each clip is decoded once, and kept as small as the model sees it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microg import storage
from microg.demo.tiny_vlm.learner import Batch, People, Positions
from microg.demo.tiny_vlm.lessons import Lesson, TrainingClip
from microg.demo.tiny_vlm.patches import Move, PatchRule, cell_labels, covered_cells, resize_frames
from microg.demo.tiny_vlm.settings import VlmTrainSettings
from microg.errors import TrainingError, VideoError
from microg.models.vlm.base import Frames
from microg.models.vlm.engines.checkpoint import Chat
from microg.models.vlm.frames import sample_frames
from microg.models.vlm.sampling import FramePolicy
from microg.models.vlm.tuning.packing import Example, pack, stack

_SIDES = ("left", "right")
_NO_FRAMES = Frames(np.zeros((1, 28, 28, 3), np.uint8), (0,), 1.0, 1)


@dataclass(frozen=True)
class ShiftedPolicy:
    """A policy's frames, each `share` of the distance between two of them later (earlier where negative)."""

    policy: FramePolicy
    share: float

    @property
    def resize(self) -> Any:
        """The policy's own."""
        return self.policy.resize

    def indices(self, num_frames: int, fps: float, key_frame: int | None = None) -> list[int]:
        """Return the indices of the frames to show; those beyond the clip are its first or last."""
        found = self.policy.indices(num_frames, fps, key_frame)
        step = (found[-1] - found[0]) / (len(found) - 1) if len(found) > 1 else num_frames / 2
        return [min(max(round(index + self.share * step), 0), num_frames - 1) for index in found]


def shares(views: int) -> list[float]:
    """Return how much later the frames of each view are taken; the first is the policy's own.

    >>> shares(1), shares(3)
    ([0.0], [0.0, 0.25, -0.25])
    """
    most = 0.25
    half = views // 2
    return [0.0, *(sign * most * (k + 1) / half for k in range(half) for sign in (1, -1))][:views]


class Feed:
    """Batches of packed questions for one model, frames kept under `folder`."""

    def __init__(self, chat: Chat, positions: Positions, settings: VlmTrainSettings, folder: str) -> None:
        self._chat, self._positions, self._settings, self._folder = chat, positions, settings, folder
        self._rule = PatchRule.of(chat.processor)
        tokenizer = chat.tokenizer
        self._end: int = tokenizer.convert_tokens_to_ids(tokenizer.eos_token)
        self._pad: int = tokenizer.pad_token_id
        self._tokens: dict[Lesson, Example] = {}

    def keep(self, clip: TrainingClip, views: int) -> None:
        """Decode a clip once, unless that was done, and keep its frames. Raises `VideoError`."""
        file = self._file(clip)
        if storage.exists(file):
            return
        policies: Any = [ShiftedPolicy(self._settings.frames, share) for share in shares(views)]
        stored: dict[str, np.ndarray] = {}
        for view, frames in enumerate(sample_frames(clip.uri, policies)):
            pixels, seconds = resize_frames(self._chat.processor, frames)
            stored |= {
                f"frames{view}": pixels,
                f"seconds{view}": np.array(seconds),
                f"boxes{view}": _boxes(clip, frames),
            }
        buffer = io.BytesIO()
        np.savez(buffer, **stored)  # pyright: ignore[reportArgumentType]
        storage.write_bytes(file, buffer.getbuffer())

    def batches(
        self, clips: Sequence[TrainingClip], epoch: int, first: int = 0, questions: bool = True
    ) -> Iterator[Batch]:
        """Yield the training batches of an epoch from the `first` on: clips in random order, each a little moved.

        questions: with them, and not only what the heads on the encoder need. Everything is drawn from the seed, the
        epoch and the clip: the same arguments give the same batches.
        """
        order = np.random.default_rng([self._settings.seed, epoch]).permutation(len(clips))
        size = self._settings.batch
        for start in range(first * size, len(clips), size):
            yield self._batch(
                [
                    self._draw(clips[at], np.random.default_rng([self._settings.seed, epoch, int(at)]), questions)
                    for at in order[start : start + size]
                ]
            )

    def validation_batches(self, clips: Sequence[TrainingClip]) -> Iterator[tuple[list[Lesson], Batch]]:
        """Yield the lessons of clips with the batch of their questions, as an engine asks them."""
        for start in range(0, len(clips), self._settings.batch):
            some = clips[start : start + self._settings.batch]
            views = [_ClipView(clip, list(clip.lessons), 0, Move()) for clip in some]
            yield [lesson for view in views for lesson in view.lessons], self._batch(views, validation=True)

    def _draw(self, clip: TrainingClip, chance: np.random.Generator, questions: bool) -> _ClipView:
        settings = self._settings
        words = " ".join(clip.texts).lower()
        mirror = settings.mirror and not any(side in words for side in _SIDES)
        often = settings.shares
        lessons = [each for each in clip.lessons if chance.random() < often.get(each.kind, 1.0)] or [clip.lessons[0]]
        if len(lessons) > settings.lessons:
            lessons = [lessons[at] for at in sorted(chance.permutation(len(lessons))[: settings.lessons])]
        more = min(settings.asked_more, settings.lessons - len(lessons))
        for turn in range(more if "vqa" in settings.tasks else 0):
            if choice := clip.more[turn % 2]:
                lessons.append(choice[int(chance.integers(len(choice)))])
        view = int(chance.integers(settings.views))
        return _ClipView(clip, lessons if questions else [], view, Move.draw(chance, mirror, settings.move))

    def _batch(self, views: Sequence[_ClipView], validation: bool = False) -> Batch:
        rows, patches, grids, cells = [], [], [], []
        people: list[tuple[np.ndarray, np.ndarray]] = []
        for each in views:
            with np.load(io.BytesIO(storage.read_bytes(self._file(each.clip)))) as kept:
                pixels, seconds = kept[f"frames{each.view}"], float(kept[f"seconds{each.view}"])
                boxes = kept[f"boxes{each.view}"]
            if not validation:
                pixels, boxes = each.move.frames(pixels), each.move.boxes(boxes)
            grid = self._rule.grid(pixels)
            if each.lessons:
                examples = [self._example(lesson, grid) for lesson in each.lessons]
                rows.append(pack(examples, self._positions_of(grid, seconds)))
            patches.append(self._rule.cut(pixels))
            grids.append(grid)
            if not validation and self._settings.cells:
                covered = self._cover(boxes, grid)
                first = sum(map(len, cells))
                people += [
                    (first + np.flatnonzero(covered[:, person]), labels)
                    for person, labels in enumerate(each.clip.labels)
                    if covered[:, person].any()
                ]
                labels = cell_labels(covered, each.clip.labels)
                cells.append(labels.reshape(-1, labels.shape[-1]))
        return Batch(
            stack(rows, self._pad) if rows else None,
            np.concatenate(patches),
            np.array(grids, np.int64),
            np.concatenate(cells) if cells else None,
            _join_people(people),
            None if validation else np.stack([each.clip.words for each in views]),
        )

    def _cover(self, boxes: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
        """Return which cells hold whom in any frame of a patch: (grid[0], persons, rows, columns) bool."""
        merge, frames = self._rule.merge, self._rule.frames
        covered = covered_cells(boxes[: grid[0] * frames], grid[1] // merge, grid[2] // merge)
        return np.logical_or.reduce(covered.reshape(grid[0], frames, *covered.shape[1:]), axis=1)

    def _positions_of(self, grid: tuple[int, int, int], seconds: float) -> Callable[[tuple[int, ...]], np.ndarray]:
        return lambda row: self._positions.of(row, grid, seconds)

    def _example(self, lesson: Lesson, grid: tuple[int, int, int]) -> Example:
        """Return the tokens of a lesson, exactly those of an engine's request."""
        if lesson not in self._tokens:
            prompt = self._settings.prompt_of(lesson.task)
            fields = {} if lesson.question is None else {"question": lesson.question}
            text = self._chat.text(prompt.request("", _NO_FRAMES, **fields))
            answer = self._chat.tokenizer(lesson.answer, add_special_tokens=False)["input_ids"]
            self._tokens[lesson] = Example(tuple(self._chat.ids(text)), (*answer, self._end))
        plain = self._tokens[lesson]
        return Example(self._positions.expand_prompt(plain.prompt, grid), plain.answer)

    def _file(self, clip: TrainingClip) -> str:
        return storage.join(self._folder, f"{clip.clip_id}.npz")


@dataclass(frozen=True)
class _ClipView:
    """One showing of a clip: its questions, which version of its frames, and how these are moved."""

    clip: TrainingClip
    lessons: list[Lesson]
    view: int
    move: Move


def _join_people(people: Sequence[tuple[np.ndarray, np.ndarray]]) -> People | None:
    """Join people, given as the cells of each and what each does."""
    if not people:
        return None
    cells, labels = zip(*people, strict=True)
    return People(np.concatenate(cells), np.array([len(one) for one in cells]), np.stack(labels))


def _boxes(clip: TrainingClip, frames: Frames) -> np.ndarray:
    """Return where people are in the frames shown, (t, persons, 4), nan where somebody is not there; t is even."""
    found = np.full((len(frames.indices), len(clip.labels), 4), np.nan)
    for row, index in enumerate(frames.indices):
        rows = clip.frames == index + 1
        found[row, clip.people[rows]] = clip.boxes[rows]
    return np.concatenate([found, found[-1:]]) if len(found) % 2 else found


def keep_all(
    feed: Feed, clips: Sequence[TrainingClip], views: int, on_clip: Callable[[str | None], None]
) -> tuple[list[TrainingClip], list[str]]:
    """Keep the frames of all clips; return those that can be used, and what is wrong with the others.

    `on_clip` gets the error of each clip, or None. Raises `TrainingError` when there is no usable clip.
    """
    good, failures = [], []
    for clip in clips:
        error = None
        try:
            feed.keep(clip, views)
            good.append(clip)
        except VideoError as wrong:
            error = f"{clip.clip_id}: {wrong.what}"
            failures.append(error)
        on_clip(error)
    if clips and not good:
        raise TrainingError(f"none of {len(clips)} clips can be used; the first: {failures[0]}")
    return good, failures
