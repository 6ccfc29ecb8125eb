"""Bootstrap of text metrics over clips: all texts of a clip are drawn together, and all metrics with the same draws.

A metric is a function of summed item statistics, so a resample is one matrix product and needs no text. Document
frequencies of CIDEr stay those of the whole corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from microg.errors import MetricError
from microg.metrics.bootstrap import Distribution, digest, resample_weights

_AT_ONCE = 500


class Scored(Protocol):
    """What is resampled: statistics of items, and how their sums become scores (`ItemState`, or one that is frozen)."""

    def statistics(self) -> tuple[list[str], np.ndarray]:
        """Return ids (n) and statistics (n, k)."""
        ...

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return scores of summed statistics."""
        ...


def bootstrap_texts(
    states: Mapping[str, Scored], clip_of: Mapping[str, str], *, resamples: int = 2000, seed: int = 0
) -> Distribution:
    """Return resampled values (resamples,) of every score of the states; `clip_of` maps item ids to clips.

    States must hold the same items. Distributions of other models on the same items, seed and number are paired (see
    `compare_texts`). Raises `MetricError` when there are fewer than two clips, or items differ.
    """
    ids: list[str] | None = None
    parts: dict[str, tuple[Scored, np.ndarray]] = {}
    for name, state in states.items():
        found, statistics = state.statistics()
        if ids is not None and found != ids:
            raise MetricError(f"metric {name} holds other items than the metrics before it")
        ids = found
        parts[name] = (state, statistics)
    names, clip = np.unique([clip_of[item] for item in ids or []], return_inverse=True)
    if len(names) < 2:
        raise MetricError(f"there is only {len(names)} clip: nothing to resample", "use --resamples 0")
    counts = np.bincount(clip, minlength=len(names)).astype(np.float64)
    sums = {name: _per_clip(statistics, clip, len(names)) for name, (_, statistics) in parts.items()}
    values: dict[str, list[np.ndarray]] = {}
    for chunk in resample_weights(len(names), resamples, seed, _AT_ONCE):
        weights = chunk[:, :-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, (state, _) in parts.items():
                for score, drawn in state.score(weights @ sums[name], weights @ counts).items():
                    values.setdefault(score, []).append(drawn)
    joined = {name: np.concatenate(drawn) for name, drawn in values.items()}
    return Distribution("clip", len(names), seed, digest("clip", seed, resamples, ids or []), joined)


def text_intervals(drawn: Distribution, estimates: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the 95% percentile interval of each score; scores that are undefined, or in most resamples, have none."""
    return {
        name: _middle(values)
        for name, values in drawn.values.items()
        if estimates.get(name, np.nan) == estimates.get(name) and np.isnan(values).mean() < 0.5
    }


def compare_texts(
    first: Distribution, second: Distribution, estimates: tuple[float, float], metric: str
) -> dict[str, float]:
    """Return how `first` stands to `second`: difference, its 95% interval, and P(first better), ties counted half.

    Raises `MetricError` when the resamples are not the same ones.
    """
    if first.drawn_from != second.drawn_from:
        raise MetricError(
            "the resamples are of different items, seeds or numbers: they cannot be paired",
            "score both on the same references with the same --seed and --resamples",
        )
    difference = first.values[metric] - second.values[metric]
    known = difference[~np.isnan(difference)]
    low, high = _middle(known)
    better = float((known > 0).mean() + 0.5 * (known == 0).mean())
    return {"difference": estimates[0] - estimates[1], "low": low, "high": high, "p_better": better}


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def _per_clip(statistics: np.ndarray, clip: Sequence[int] | np.ndarray, clips: int) -> np.ndarray:
    result = np.zeros((clips, statistics.shape[1]))
    np.add.at(result, clip, statistics)
    return result
