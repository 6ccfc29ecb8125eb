"""Scores of agreement with their 95% intervals: clips are drawn with replacement, all units of a clip together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from microg.annotations.rows import Kind
from microg.metrics.agreement.coefficients import Measure
from microg.metrics.bootstrap import resample_weights

_AT_ONCE = 250


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number, a row of the table `agreement`.

    Attributes:
        kind: Kind of what was judged.
        slice_kind: all, group, action, or what else the units are a part by.
        slice: Which part.
        metric: Name of the number.
        value: The number, None where it is undefined.
        low, high: Its 95% interval over clips, None where there is none.
        units: How many units it is of.
        raters: How many annotators judged them.
        annotator, other: Whose number it is, of one or of two; None where it is of all.
        reason: Why there is no value, or empty.
    """

    kind: Kind
    slice_kind: str
    slice: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    units: int
    raters: int
    annotator: str | None = None
    other: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Scorer:
    """Makes scores of measures of one kind.

    Attributes:
        kind: What was judged.
        clips: How many clips there are to draw, counted from 0 in measures.
        resamples: How often they are drawn; 0 for no intervals.
        seed: Decides the draws, with the number of clips.
    """

    kind: Kind
    clips: int
    resamples: int = 1000
    seed: int = 0

    def score(
        self,
        metric: str,
        measure: Measure,
        slice_kind: str = "all",
        slice_name: str = "all",
        annotator: str | None = None,
        other: str | None = None,
    ) -> Score:
        """Return the score of a measure, with its interval where it has a value and two clips or more."""
        low, high = (None, None) if measure.value is None else self._interval(measure)
        return Score(
            kind=self.kind,
            slice_kind=slice_kind,
            slice=slice_name,
            metric=metric,
            value=measure.value,
            low=low,
            high=high,
            units=measure.units,
            raters=measure.raters,
            annotator=annotator,
            other=other,
            reason=measure.reason,
        )

    def _interval(self, measure: Measure) -> tuple[float | None, float | None]:
        """Return the 95% percentile interval; none of one clip, or where most draws have no value."""
        if len(measure.parts) < 2 or self.resamples < 1:
            return None, None
        values = np.concatenate([measure.of(chunk[:, measure.clips] @ measure.parts) for chunk in self._weights])
        if np.isnan(values).mean() >= 0.5:
            return None, None
        low, high = np.nanquantile(values, (0.025, 0.975))
        return float(low), float(high)

    @cached_property
    def _weights(self) -> Sequence[np.ndarray]:
        """How often each clip is in each resample, chunks of (resamples, clips + 1)."""
        return list(resample_weights(self.clips, self.resamples, self.seed, _AT_ONCE))
