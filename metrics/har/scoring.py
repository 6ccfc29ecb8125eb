"""From predictions and truth to a full report: findings, both protocols, slices and intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from microg.actions.rows import Predictions, Truth
from microg.metrics.bootstrap import Distribution, Interval, Unit
from microg.metrics.har import findings
from microg.metrics.har.arrays import ScoringArrays, arrays_from_rows
from microg.metrics.har.detection import MatchOrder
from microg.metrics.har.findings import Finding
from microg.metrics.har.protocols import CORRECTED, Protocol, evaluate
from microg.metrics.har.resampling import bootstrap, units_of
from microg.metrics.har.scores import ProtocolScores, make_slices, score_protocol
from microg.metrics.har.tables import intervals

_UNITS: tuple[Unit, ...] = ("clip", "source")


@dataclass(frozen=True)
class Report:
    """All that scoring found: by protocol, the resampled values and the intervals of the corrected one."""

    arrays: ScoringArrays
    findings: tuple[Finding, ...]
    results: dict[str, ProtocolScores]
    distributions: tuple[Distribution, ...]
    intervals: dict[tuple[str, str], dict[Unit, Interval]]


def score(
    predictions: Predictions,
    truth: Truth,
    protocols: Sequence[Protocol],
    *,
    resamples: int = 0,
    seed: int = 0,
    match_order: MatchOrder = "file",
) -> Report:
    """Score predictions under each protocol; `resamples` > 0 adds bootstrap intervals to the corrected one.

    Raises `MetricError` when predictions and truth share no key frame.
    """
    arrays = arrays_from_rows(predictions.boxes, truth.rows, predictions.space)
    findings.check_overlap(arrays)
    found = [*findings.find(arrays)]
    kind = predictions.score_kind
    results: dict[str, ProtocolScores] = {}
    distributions: list[Distribution] = []
    for protocol in (replace(protocol, match_order=match_order) for protocol in protocols):
        evaluation = evaluate(arrays, protocol)
        parts = make_slices(arrays, evaluation.support(), truth.origins)
        results[protocol.name] = score_protocol(evaluation, kind, parts)
        if protocol.name != CORRECTED.name or not resamples:
            continue
        for unit in _UNITS:
            names, _ = units_of(evaluation, unit)
            if len(names) < 2:
                found.append(
                    Finding("no-interval", 1, f"there is only one {unit} with truth: no interval over {unit}s")
                )
                continue
            drawn = bootstrap(evaluation, protocol.threshold(kind), unit=unit, resamples=resamples, seed=seed)
            distributions.append(drawn)
    corrected = results.get(CORRECTED.name)
    limits = intervals(corrected, distributions) if corrected is not None else {}
    return Report(arrays, tuple(found), results, tuple(distributions), limits)


def rows_digest(rows: pa.Table, *, ordered: bool) -> str:
    """Return a short hash of rows, whatever file form they came in; the file order counts when `ordered`."""
    column = rows["clip_id"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    names = np.array(column.dictionary.to_pylist(), dtype=object)
    distinct = sorted(set(names.tolist()))
    rank = {name: place for place, name in enumerate(distinct)}
    clip = np.array([rank[name] for name in names], np.int64)[column.indices.to_numpy(zero_copy_only=False)]
    values = [clip]
    for name in rows.schema.names:
        if name not in ("row", "clip_id"):
            values.append(rows[name].fill_null(-1).to_numpy())
    order = np.argsort(rows["row"].to_numpy(), kind="stable") if ordered else np.lexsort(values[::-1])
    digest = hashlib.sha256("\n".join(distinct).encode())
    for value in values:
        digest.update(np.ascontiguousarray(value[order]).tobytes())
    return digest.hexdigest()[:16]
