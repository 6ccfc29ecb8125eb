"""Where the positives of one class stand among its scores: what average precision and the ROC curve are made of.

Ranking ties are resolved by a named rule. `stable`: in file order (`reversed`: against it). `grouped`: precision and
recall only at distinct scores. `best` and `worst`: positives first or last among equal scores, which brackets whatever
an unstable sort does; for average precision `worst` equals `grouped`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Ties = Literal["stable", "reversed", "grouped", "best", "worst"]
ALL_TIES: tuple[Ties, ...] = get_args(Ties)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Positives (p,) by falling score, and where they stand among all.

    Attributes:
        above, through: How many (of any kind) have a higher, and an equal or higher score, (p,) int64.
        hits_above, hits_through: Positives likewise.
        scores: Their scores (p,).
        index: Their places (p,) in the ranking.
    """

    above: np.ndarray
    through: np.ndarray
    hits_above: np.ndarray
    hits_through: np.ndarray
    scores: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve with ties counted half, and its bounds when ties fall against or for the positives."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The scores of one class, and which of them are positive: a class's cells, or its detections.

    Attributes:
        scores: (n,) float64; -inf where nobody scored a cell.
        marks: (n,) bool, the positives: cells with truth, or detections that found a true box.
        truth: How many positives there should be; more than are marked where true boxes were not found.
        ordered: The scores (n,), rising.
        rows: Places in the file (n,); None is the given order.
    """

    scores: np.ndarray
    marks: np.ndarray
    truth: int
    ordered: np.ndarray
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, scores: np.ndarray, marks: np.ndarray, truth: int, rows: np.ndarray | None = None) -> Ranking:
        """Rank scores in any order."""
        return cls(scores=scores, marks=marks, truth=truth, ordered=np.sort(scores), rows=rows)

    @cached_property
    def ranked(self) -> Ranked:
        """The positives by falling score."""
        index = np.flatnonzero(self.marks)
        scores = self.scores[index]
        falling = np.argsort(-scores, kind="stable")
        hit_scores = scores[falling]
        rising = hit_scores[::-1]
        total, hits = len(self.ordered), len(scores)
        return Ranked(
            above=total - np.searchsorted(self.ordered, hit_scores, "right"),
            through=total - np.searchsorted(self.ordered, hit_scores, "left"),
            hits_above=hits - np.searchsorted(rising, hit_scores, "right"),
            hits_through=hits - np.searchsorted(rising, hit_scores, "left"),
            scores=hit_scores,
            index=index[falling],
        )

    @cached_property
    def auroc(self) -> Auroc:
        """The area under the ROC curve; nan unless both kinds are there.

        Pairs are counted in integers, so that the result does not depend on any order.
        """
        ordered, positive = self.ordered, np.sort(self.scores[self.marks])
        pos, neg = len(positive), len(ordered) - len(positive)
        if not pos or not neg:
            return Auroc(float("nan"), float("nan"), float("nan"))
        below = np.searchsorted(ordered, positive, "left") - np.searchsorted(positive, positive, "left")
        through = np.searchsorted(ordered, positive, "right") - np.searchsorted(positive, positive, "right")
        low, high, pairs = int(below.sum()), int(through.sum()), pos * neg
        return Auroc((low + high) / (2 * pairs), low / pairs, high / pairs)
