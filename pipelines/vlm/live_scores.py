"""Scores while answers still come in: engine actors send the states of the clips they answered to one actor.

What is shown is partial and for the eye; nothing depends on it, and its loss loses nothing: it is filled again from
the committed rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from microg.errors import MicrogError
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.aggregator import clip_states, live_line, refill, start_aggregator
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.items import Task
from microg.texts.pairs import Pair, Pairs
from microg.texts.references import read_text_references

_EVERY_S, _ANSWER_S = 10.0, 30.0
# Computing partial scores may take this part of the time.
_SHARE = 0.05

Known = Mapping[tuple[Task, str], Sequence[Pair]]


@dataclass(frozen=True)
class LiveSender:
    """An engine actor's end. known: a reference to the pairs of each (task, clip), with the texts that there were."""

    aggregator: Any
    known: tuple[Any, ...]

    def send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the states of the clips that these rows answer, without waiting."""
        import ray

        known: Known = ray.get(self.known[0])
        good = [row for row in rows if row["status"] == "ok" and row["text"] is not None]
        for (task, clip_id), texts in _by_clip(good).items():
            pairs = _answered(known.get((task, clip_id), ()), texts)
            if pairs:
                self.aggregator.put.remote(task, clip_id, clip_states(pairs), time.time())


class LiveScores:
    """The driver's end: starts the actor with what earlier invocations answered, and says what scores are so far.

    Only items that have a reference take part; `open` returns None where none has.
    """

    def __init__(self, root: str, known: Known) -> None:
        import ray

        self._root, self._known = root, known
        self._aggregator = start_aggregator()
        said = self._fill()
        complete = {place: _told(pairs, said.get(place, {})) for place, pairs in known.items()}
        self.sender = LiveSender(self._aggregator, (ray.put(complete),))
        self._line, self._due = "", time.monotonic() + _EVERY_S

    @classmethod
    def open(cls, root: str, settings: GenerateSettings) -> LiveScores | None:
        """Start on the connected Ray for what `settings` ask."""
        try:
            truth = read_text_references(settings.dataset, split=settings.split, scheme=settings.scheme)
        except MicrogError:
            return None
        known: dict[tuple[Task, str], list[Pair]] = {}
        for key, references in truth.texts.items():
            if key.task in settings.tasks:
                pair = Pair(key, references, truth.questions.get(key), None, "missing")
                known.setdefault((key.task, key.clip_id), []).append(pair)
        return cls(root, known) if known else None

    def _fill(self) -> dict[tuple[Task, str], dict[int | None, str]]:
        """Send what is committed, as after the actor's loss, and return it."""
        said = _by_clip(answer_store.answered(self._root))
        pairs: dict[Task, list[Pair]] = {}
        for place, texts in said.items():
            pairs.setdefault(place[0], []).extend(_answered(self._known.get(place, ()), texts))
        self._filled: dict[Task, int] = {
            task: len({pair.key.clip_id for pair in items}) for task, items in pairs.items()
        }
        refill(self._aggregator, [Pairs(task, tuple(items)) for task, items in pairs.items()])
        return said

    def line(self) -> str:
        """Return the scores so far as one line; computed anew now and then."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        started = time.monotonic()
        if started < self._due:
            return self._line
        try:
            clips: Any = ray.get(self._aggregator.clips.remote(), timeout=_ANSWER_S)
            if any(clips.get(task, 0) < count for task, count in self._filled.items()):  # it was started anew
                self._fill()
                clips = ray.get(self._aggregator.clips.remote(), timeout=_ANSWER_S)
            self._filled = clips
            scores: Any = ray.get(self._aggregator.scores.remote(), timeout=_ANSWER_S)
            self._line = live_line(scores, clips)
        except (GetTimeoutError, RayError):
            self._line = ""
        took = time.monotonic() - started
        self._due = time.monotonic() + max(_EVERY_S, took / _SHARE)
        return self._line

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._aggregator)


def _by_clip(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Task, str], dict[int | None, str]]:
    """Return the texts of each (task, clip) by `qa_index`."""
    said: dict[tuple[Task, str], dict[int | None, str]] = {}
    for row in rows:
        said.setdefault((row["task"], row["clip_id"]), {})[row["qa_index"]] = row["text"]
    return said


def _told(pairs: Sequence[Pair], texts: Mapping[int | None, str]) -> list[Pair]:
    """Return the pairs, with these texts in place of their own."""
    return [
        replace(pair, text=texts[pair.key.qa_index], state="ok") if pair.key.qa_index in texts else pair
        for pair in pairs
    ]


def _answered(pairs: Sequence[Pair], texts: Mapping[int | None, str]) -> list[Pair]:
    """Return the pairs that have a text, now or from before."""
    return [pair for pair in _told(pairs, texts) if pair.text is not None]
