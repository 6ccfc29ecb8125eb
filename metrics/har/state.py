"""The mergeable state that HAR metrics share: rows, kept until they are all there."""

from __future__ import annotations

from typing import Any, Self

import pyarrow as pa

from microg.actions.rows import PREDICTION_BOXES, TRUTH_ROWS
from microg.data.label_space import LabelSpace
from microg.metrics.har.arrays import ScoringArrays, arrays_from_rows


class RowState:
    """Prediction and truth rows gathered from shards; `compute` gives the same bits however they were cut and merged.

    Rows carry their place in the original file (`row`), in which they are put back before anything is computed.
    """

    def __init__(self, space: LabelSpace) -> None:
        self.space = space
        self._predictions: list[pa.Table] = []
        self._truth: list[pa.Table] = []

    @classmethod
    def empty(cls, space: LabelSpace) -> Self:
        """Return a state without rows."""
        return cls(space)

    def update(self, *, predictions: pa.Table | None = None, truth: pa.Table | None = None) -> Self:
        """Add checked rows of schema `PREDICTION_BOXES` and `TRUTH_ROWS`; returns the state itself."""
        if predictions is not None:
            self._predictions.append(predictions.cast(PREDICTION_BOXES))
        if truth is not None:
            self._truth.append(truth.cast(TRUTH_ROWS))
        return self

    def merge(self, other: Self) -> Self:
        """Add the rows of another state; returns the state itself."""
        self._predictions += other._predictions
        self._truth += other._truth
        return self

    def arrays(self) -> ScoringArrays:
        """Return all rows as arrays. Raises `MetricError` when a row is there twice."""
        return arrays_from_rows(
            pa.concat_tables([PREDICTION_BOXES.empty_table(), *self._predictions]),
            pa.concat_tables([TRUTH_ROWS.empty_table(), *self._truth]),
            self.space,
        )

    def compute(self) -> dict[str, Any]:
        """Return the metric's values."""
        raise NotImplementedError
