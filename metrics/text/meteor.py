"""METEOR 1.5 for English: alignment statistics from the published jar, summed and scored here.

Source: Denkowski and Lavie 2014, `meteor-1.5.jar -l en -norm`. The reported score is the formula on the corpus's summed
statistics, not the mean of items. The jar's own aggregation counts no chunks for segments matched word for word; so
does this one, to 1e-12, without the locale trouble of the jar's EVAL.
"""

from __future__ import annotations

import atexit
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from microg.errors import MetricError
from microg.metrics.text.items import Items, References, numbered
from microg.metrics.text.java import STALL_S, START_S, JavaError, JavaProgram, jar
from microg.metrics.text.paraphrases import Vocabulary, write_cut_table
from microg.metrics.text.state import ItemState
from microg.metrics.text.tokenize import one_line
from microg.system.hardware import usable_cores

# English parameters of the jar.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.20, 0.60, 0.75
_STAGES = ("exact", "stem", "synonym", "paraphrase")
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_SIDES = ("content", "reference_content", "function", "reference_function")
_CHUNKS = 20
# The jar's inner loops are short: what the second compiler gains it does not earn back on corpora of this size.
_FLAGS = ("-XX:TieredStopAtLevel=1",)
_AT_ONCE = 256
_CLOSE_TABLES, _MOST_TABLES = 3, 8
_TABLE = "paraphrases.gz"


class Meteor:
    """The jar as a server of statistics: `workers` programs, started when they are needed, restarted when they fail.

    They read the part of the paraphrase table that the texts can match, and start anew when later texts can match more:
    a few times by neighbouring words, then by words, and in the end they read the whole table. stall_s: seconds without
    an answer after which one counts as hung.
    """

    def __init__(self, *, workers: int | None = None, stall_s: float = STALL_S) -> None:
        self._workers = workers or max(1, min(4, int(usable_cores())))
        self._stall_s = stall_s
        self._programs: list[JavaProgram | None] = [None] * self._workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._there = Vocabulary.empty()
        self._tables = 0
        self._stopped = False

    def statistics(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the jar's statistics (n, 23) int64 of the best reference of each item; equal items are asked once.

        After a failure a program is started again and asked again from the item on; raises `MetricError`, with the
        item's name, when that item makes it fail again.
        """
        pairs = zip(predictions, references, strict=True)
        lines = [" ||| ".join(["SCORE", *map(one_line, true), one_line(said)]) for said, true in pairs]
        distinct = list(dict.fromkeys(lines))
        if not distinct:
            return np.empty((0, len(MeteorState.columns)), np.int64)
        self._read_table_for(distinct)
        self._stopped = False
        try:
            known = dict(zip(distinct, self._answers(distinct), strict=True))
        except _ItemError as error:
            item = lines.index(error.line)
            raise MetricError(
                f"METEOR fails at item {names[item] if names else item!r} "
                f"({len(predictions[item].split())} words): {error.what}",
                "shorten or remove this text; many repeated words on both sides take METEOR minutes",
            ) from error
        numbers = np.array([known[line].split() for line in lines], np.float64)
        return numbers.astype(np.int64)

    def _read_table_for(self, lines: Sequence[str]) -> None:
        """Cut the paraphrase table anew, and end the programs, when it was not cut for what is in `lines`."""
        if self._tables > _MOST_TABLES:
            return
        there = Vocabulary.of(text for line in lines for text in line.split(" ||| ")[1:])
        if self._folder is not None and self._there.covers(there, closely=self._tables <= _CLOSE_TABLES):
            return
        self.close()  # which ends the programs that read the table before
        self._tables, self._there = self._tables + 1, self._there | there
        if self._tables <= _MOST_TABLES:
            self._folder = tempfile.TemporaryDirectory(prefix="microg-meteor-")
            path = Path(self._folder.name, _TABLE)
            write_cut_table(self._there, path, closely=self._tables <= _CLOSE_TABLES)

    def _answers(self, lines: list[str]) -> list[str]:
        """Return the answer to each line; programs take the next few lines when they have answered the last."""
        parts = [lines[start : start + _AT_ONCE] for start in range(0, len(lines), _AT_ONCE)]
        answers: list[list[str]] = [[] for _ in parts]
        left = deque(range(len(parts)))

        def work(place: int) -> None:
            while True:
                try:
                    number = left.popleft()
                except IndexError:
                    return
                answers[number] = self._part(place, parts[number])

        with ThreadPoolExecutor(self._workers) as pool:
            running = [pool.submit(work, place) for place in range(min(self._workers, len(parts)))]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:  # an item that fails, or Ctrl-C: nobody waits for the rest
                left.clear()
                self._stopped = True
                self._end_programs()
                raise
        return [answer for part in answers for answer in part]

    def _part(self, place: int, lines: list[str]) -> list[str]:
        answers: list[str] = []
        failed_at = -1
        while len(answers) < len(lines):
            program = self._running(place)
            try:
                answers += program.ask(lines[len(answers) :], stall_s=self._stall_s)
            except JavaError as error:
                answers += error.answers
                if self._stopped or len(answers) == failed_at:
                    raise _ItemError(lines[len(answers)], error.what) from error
                failed_at = len(answers)
        return answers

    def _running(self, place: int) -> JavaProgram:
        program = self._programs[place]
        if program is None or program.closed:
            arguments = ["-jar", str(jar("meteor", "meteor-1.5.jar")), "-", "-", "-stdio", "-l", "en", "-norm"]
            if self._folder is not None:
                arguments += ["-a", str(Path(self._folder.name, _TABLE))]
            program = self._programs[place] = JavaProgram("METEOR", _FLAGS, arguments)
            if self._stopped:  # Ctrl-C came while it started: whoever ended the others did not see it
                program.kill()
            program.ask(["SCORE ||| a ||| a"], stall_s=START_S)  # starting is no hanging, however busy the machine
        return program

    def close(self) -> None:
        """End the programs; asking again starts them again."""
        self._end_programs()
        self._programs = [None] * self._workers
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _end_programs(self) -> None:
        for program in self._programs:
            if program is not None:
                program.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ItemError(Exception):
    """A line at which the jar fails again and again."""

    def __init__(self, line: str, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


_shared: Meteor | None = None


def shared(workers: int | None = None) -> Meteor:
    """Return this process's METEOR; it ends with the process. The first call says how many programs it has."""
    global _shared
    if _shared is None:
        _shared = Meteor(workers=workers)
        atexit.register(_shared.close)
    return _shared


class MeteorState(ItemState):
    """The jar's 23 integers of each item: lengths, function words, matches of four kinds, chunks, matched words."""

    columns: ClassVar[tuple[str, ...]] = (
        "words",
        "reference_words",
        "function_words",
        "reference_function_words",
        *(f"{stage}_{side}" for stage in _STAGES for side in _SIDES),
        "chunks",
        "matched",
        "reference_matched",
    )
    values = ("meteor",)

    def measure(self, items: Items) -> np.ndarray:
        """Return the statistics (n, 23); chunks of segments matched word for word are set to 0."""
        found = shared().statistics(items.predictions, items.references, items.ids)
        return without_perfect_chunks(np.where(items.empty()[:, None] & (np.arange(23) >= 4), 0, found))

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return METEOR, 0 to 1, of summed statistics (..., 23)."""
        totals = np.asarray(totals, np.float64)
        matches = totals[..., 4:_CHUNKS].reshape(*totals.shape[:-1], len(_STAGES), len(_SIDES))
        precision = _weighted(matches[..., 0], matches[..., 2], totals[..., 0], totals[..., 2])
        recall = _weighted(matches[..., 1], matches[..., 3], totals[..., 1], totals[..., 3])
        mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
        matched = (totals[..., _CHUNKS + 1] + totals[..., _CHUNKS + 2]) / 2
        penalty = _GAMMA * _ratio(totals[..., _CHUNKS], matched) ** _BETA
        return {"meteor": mean * (1 - penalty)}


def meteor(predictions: Iterable[Any], references: References) -> float:
    """Return METEOR, 0 to 1, of a corpus; starts this process's Java program at the first call."""
    items = numbered(predictions, references)
    return MeteorState.empty().take(items, items).compute()["meteor"]


def without_perfect_chunks(statistics: np.ndarray) -> np.ndarray:
    """Return statistics (n, 23) in which segments that match word for word, in one chunk, have none."""
    words, reference_words = statistics[:, 0], statistics[:, 1]
    chunks, matched, reference_matched = statistics[:, _CHUNKS], statistics[:, _CHUNKS + 1], statistics[:, _CHUNKS + 2]
    perfect = (chunks == 1) & (matched == words) & (reference_matched == reference_words)
    result = statistics.copy()
    result[perfect, _CHUNKS] = 0
    return result


def _weighted(content: np.ndarray, function: np.ndarray, words: np.ndarray, function_words: np.ndarray) -> np.ndarray:
    """Return matches (..., stages) over words, content words weighing `_DELTA`."""
    matches = ((_DELTA * content + (1 - _DELTA) * function) * _WEIGHTS).sum(axis=-1)
    return _ratio(matches, _DELTA * (words - function_words) + (1 - _DELTA) * function_words)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0)
