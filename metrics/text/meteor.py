"""METEOR 1.5 for English: alignment statistics from the published jar, summed and scored here.

Source: Denkowski and Lavie 2014, `meteor-1.5.jar -l en -norm`. The reported score is the formula on the corpus's summed
statistics, not the mean of items. The jar's own aggregation counts no chunks for segments matched word for word; so
does this one, to 1e-12, without the locale trouble of the jar's EVAL.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from metrics.text.items import Items, References
from metrics.text.java import STALL_S, JavaError, JavaProgram, jar
from metrics.text.state import ItemState
from metrics.text.tokenize import one_line
from microg.errors import MetricError

# English parameters of the jar.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.20, 0.60, 0.75
_STAGES = ("exact", "stem", "synonym", "paraphrase")
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_SIDES = ("content", "reference_content", "function", "reference_function")
_CHUNKS = 20


class Meteor:
    """The jar as a server of statistics; started when it is first asked, restarted when it hangs or dies.

    `stall_s`: seconds without an answer after which it counts as hung.
    """

    def __init__(self, *, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self._program: JavaProgram | None = None

    def statistics(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the jar's statistics (n, 23) int64 of the best reference of each item; equal items are asked once.

        After a failure the jar is restarted and asked again from the item on; raises `MetricError`, with the item's
        name, when that item makes it fail again.
        """
        lines = [" ||| ".join(["SCORE", *map(one_line, true), one_line(said)])
                 for said, true in zip(predictions, references, strict=True)]  # fmt: skip
        distinct = list(dict.fromkeys(lines))
        answers: list[str] = []
        failed_at = -1
        while len(answers) < len(distinct):
            try:
                answers += self._running().ask(distinct[len(answers) :], stall_s=self._stall_s)
            except JavaError as error:
                answers += error.answers
                if len(answers) == failed_at:
                    item = lines.index(distinct[failed_at])
                    raise MetricError(
                        f"METEOR fails at item {names[item] if names else item!r} "
                        f"({len(predictions[item].split())} words): {error.what}",
                        "shorten or remove this text; many repeated words on both sides take METEOR minutes",
                    ) from error
                failed_at = len(answers)
        known = {line: np.array(answer.split(), np.float64) for line, answer in zip(distinct, answers, strict=True)}
        rows = [known[line] for line in lines]
        return np.array(rows, np.float64).astype(np.int64).reshape(-1, len(MeteorState.columns))

    def _running(self) -> JavaProgram:
        if self._program is None or self._program.closed:
            arguments = ["-jar", str(jar("meteor", "meteor-1.5.jar")), "-", "-", "-stdio", "-l", "en", "-norm"]
            self._program = JavaProgram("METEOR", [], arguments)
        return self._program

    def close(self) -> None:
        """End the jar; asking again starts it again."""
        if self._program is not None:
            self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: Meteor | None = None


def shared() -> Meteor:
    """Return this process's METEOR; it ends with the process."""
    global _shared
    if _shared is None:
        _shared = Meteor()
        atexit.register(_shared.close)
    return _shared


class MeteorState(ItemState):
    """The jar's 23 integers of each item: lengths, function words, matches of four kinds, chunks, matched words."""

    columns: ClassVar[tuple[str, ...]] = (
        "words", "reference_words", "function_words", "reference_function_words",
        *(f"{stage}_{side}" for stage in _STAGES for side in _SIDES),
        "chunks", "matched", "reference_matched",
    )  # fmt: skip
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
    said = list(predictions)
    return MeteorState.empty().update(map(str, range(len(said))), said, references).compute()["meteor"]


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
