"""Bootstrap over clips or source videos: confidence intervals, and how likely one model is worse than another.

Units are drawn with replacement and stand in as weights of their rows: nothing is matched again, and a weight of two is
exactly what a clip copied under a new name would give (ties are grouped). Rare classes drop out of resamples, which
lifts the mean over classes; intervals are therefore shifted by the resamples' mean less the estimate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from microg.data import schema
from microg.errors import MetricError

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal["clip", "source"]


@dataclass(frozen=True)
class Distribution:
    """Resampled values of each metric (resamples,) float64, and what they were drawn from.

    `drawn_from` is a hash of the units, their number, the seed and the number of resamples: distributions are paired
    when it is the same.
    """

    unit: Unit
    units: int
    seed: int
    drawn_from: str
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A 95% percentile interval shifted for bootstrap bias, the plain one, and the resamples' mean and deviation."""

    low: float
    high: float
    plain_low: float
    plain_high: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Comparison:
    """A against B on the same resamples: the difference A - B, its shifted 95% interval, and P(A worse than B).

    p_worse is the share of resamples in which A is below B (ties half); p_worse_shifted that after the interval's
    shift, which differs where rare classes drop out of resamples to the advantage of one of the two.
    """

    difference: float
    low: float
    high: float
    p_worse: float
    p_worse_shifted: float


def resample_weights(units: int, resamples: int, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """Yield chunks (at most `at_once`, units + 1) of draw counts as float64; the last column, of strays, is 1.

    Resample i depends on `seed` and i alone, so that chunks of any size give the same draws.
    """
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        chunk = np.ones((stop - start, units + 1))
        for row, number in enumerate(range(start, stop)):
            draws = np.random.default_rng((seed, number)).integers(0, units, units)
            chunk[row, :units] = np.bincount(draws, minlength=units)
        yield chunk


def digest(unit: Unit, seed: int, resamples: int, names: Iterable[str]) -> str:
    """Return the hash that tells which resamples can be paired: those of the same units, seed and number."""
    return hashlib.sha256("\n".join([unit, str(seed), str(resamples), *names]).encode()).hexdigest()[:16]


def distributions_table(name: str, rows: Iterable[tuple[Mapping[str, str], Distribution]]) -> pa.Table:
    """Return a run folder's table of resampled values; each distribution comes with the columns that name it."""
    tables = [schema.empty(name)]
    for keys, drawn in rows:
        for metric, values in drawn.values.items():
            count = len(values)
            texts = {**keys, "drawn_from": drawn.drawn_from, "metric": metric}
            columns = {column: [text] * count for column, text in texts.items()}
            tables.append(schema.conform(name, pa.table({**columns, "resample": np.arange(count), "value": values})))
    return pa.concat_tables(tables)


def resampled_values(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the values of each metric from the rows of one distribution."""
    ordered = rows.sort_values("resample")
    return {str(metric): part["value"].to_numpy() for metric, part in ordered.groupby("metric")}


def interval(values: np.ndarray, estimate: float) -> Interval:
    """Return the 95% interval of resampled `values` (resamples,) around `estimate`.

    >>> found = interval(np.array([1.0, 2.0, 3.0]), 1.5)
    >>> found.plain_low, found.low, found.mean
    (1.05, 0.55, 2.0)
    """
    low, high = (float(value) for value in np.quantile(values, (0.025, 0.975)))
    mean = float(values.mean())
    bias = mean - estimate
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Interval(low - bias, high - bias, low, high, mean, deviation)


def compare(first: Distribution, second: Distribution, estimates: tuple[float, float], metric: str) -> Comparison:
    """Compare two models on the same resamples; `estimates` are their scores on the test set itself.

    Raises `MetricError` when the resamples are not the same ones.
    """
    if first.drawn_from != second.drawn_from:
        raise MetricError(
            f"the {first.unit} resamples are of different test sets, seeds or numbers: they cannot be paired",
            "score both on the same truth with the same --seed and --resamples",
        )
    a, b = first.values[metric], second.values[metric]
    estimate = estimates[0] - estimates[1]
    found = interval(a - b, estimate)
    shifted = (a - b) - (found.mean - estimate)
    return Comparison(estimate, found.low, found.high, _share_below_zero(a - b), _share_below_zero(shifted))


def _share_below_zero(values: np.ndarray) -> float:
    return float((values < 0).mean() + 0.5 * (values == 0).mean())
