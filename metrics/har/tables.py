"""Scores as tables of a run folder (`microg.data.schema.RUN_TABLES`) and as a plain document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from microg.data import schema
from microg.data.taxonomy import group_name
from microg.errors import DatasetError
from microg.metrics.bootstrap import Distribution, Interval, Unit, distributions_table, interval, resampled_values
from microg.metrics.har.detection import precision_recall
from microg.metrics.har.registry import METRICS, resampled
from microg.metrics.har.scores import Averages, ProtocolScores
from microg.metrics.har.thresholds import Applied, ClassThresholds, f1_curve
from microg.metrics.published import PublishedRow

# Published values are rounded to five decimals.
_HALF_DIGIT = 5.000001e-6

Intervals = Mapping[tuple[str, str], Mapping[Unit, Interval]]


def intervals(
    scores: ProtocolScores, distributions: Iterable[Distribution]
) -> dict[tuple[str, str], dict[Unit, Interval]]:
    """Return the intervals of each resampled (metric, average) by unit."""
    result: dict[tuple[str, str], dict[Unit, Interval]] = {}
    for distribution in distributions:
        for key, (metric, average) in resampled().items():
            known = distribution.values[key][~np.isnan(distribution.values[key])]
            if len(known):
                limits = interval(known, scores.overall.values[metric.name][average])
                result.setdefault((metric.name, average), {})[distribution.unit] = limits
    return result


def scores_table(results: Iterable[ProtocolScores], found: Intervals) -> pa.Table:
    """Return the table `har_scores`; `found` are the intervals of the corrected protocol."""
    rows: list[dict[str, Any]] = []
    for result in results:
        parts: dict[tuple[str, str], Averages] = {("all", "all"): result.overall, **result.slices}
        for (kind, name), part in parts.items():
            for metric, by_average in part.values.items():
                for average, value in by_average.items():
                    row = {
                        "protocol": result.protocol.name,
                        "slice_kind": kind,
                        "slice": name,
                        "metric": metric,
                        "average": average,
                        "value": _plain(value),
                        "classes": part.classes,
                        "labels": part.labels,
                        "boxes": part.boxes,
                    }
                    if kind == "all" and result.protocol.name == "corrected":
                        for unit, limits in found.get((metric, average), {}).items():
                            row |= {f"{unit}_low": limits.low, f"{unit}_high": limits.high}
                    rows.append(row)
    return schema.from_rows("har_scores", rows)


def classes_table(results: Iterable[ProtocolScores], published: PublishedRow | None = None) -> pa.Table:
    """Return the table `har_classes`, a row for every class of the label space; null where undefined."""
    rows = []
    for result in results:
        scores, space = result.classes, result.evaluation.arrays.space
        for c, action_id in enumerate(space.ids):
            group = space.group(action_id)
            floats = {
                column: (scores.values[name] if ties is None else scores.by_ties[name][ties])[c]
                for name, metric in METRICS.items()
                for column, ties in metric.class_columns().items()
            }
            counts = {"support": scores.support, "hits": scores.hits, "wrong": scores.wrong, "missed": scores.missed}
            rows.append(
                {
                    "protocol": result.protocol.name,
                    "action_id": action_id,
                    "action": space.names[action_id],
                    "group": group_name(group) if group else None,
                    "ap_published": published.ap.get(action_id) if published else None,
                    **{name: _plain(value) for name, value in floats.items()},
                    **{name: int(values[c]) for name, values in counts.items()},
                }
            )
    return schema.from_rows("har_classes", rows)


def curves_table(results: Iterable[ProtocolScores]) -> pa.Table:
    """Return the table `har_curves`."""
    tables = [schema.empty("har_curves")]
    for result in results:
        boxes, hits = result.evaluation.boxes, result.evaluation.hits
        for c, action_id in enumerate(result.evaluation.arrays.space.ids):
            present = boxes.rows[c] >= 0
            threshold, recall, precision = precision_recall(
                boxes.scores[c][present], hits[c][present], int(result.classes.support[c])
            )
            count = len(threshold)
            columns = [[result.protocol.name] * count, [action_id] * count, threshold, recall, precision]
            tables.append(pa.table(dict(zip(schema.RUN_TABLES["har_curves"].names, columns, strict=True))))
    return pa.concat_tables([schema.conform("har_curves", table) for table in tables])


def thresholds_table(
    results: Iterable[ProtocolScores], found: Mapping[str, ClassThresholds], applied: Mapping[str, Applied]
) -> pa.Table:
    """Return the table `har_thresholds`; `found` and `applied` are by protocol."""
    rows = []
    for result in results:
        name, space = result.protocol.name, result.evaluation.arrays.space
        own, chosen = found[name], applied.get(name)
        for c, action_id in enumerate(space.ids):
            values = {"best": own.best[c], "f1_best": own.f1_best[c], "f1": own.f1[c]}
            values |= {} if chosen is None else {"chosen": chosen.thresholds[c], "f1_chosen": chosen.f1[c]}
            rows.append(
                {
                    "protocol": name,
                    "action_id": action_id,
                    "action": space.names[action_id],
                    "support": int(result.classes.support[c]),
                    **{key: float(value) for key, value in values.items()},
                }
            )
    return schema.from_rows("har_thresholds", rows)


def f1_curves_table(results: Iterable[ProtocolScores]) -> pa.Table:
    """Return the table `har_f1_curves`."""
    tables = [schema.empty("har_f1_curves")]
    for result in results:
        cells = result.evaluation.cells
        for c, action_id in enumerate(result.evaluation.arrays.space.ids):
            curve = f1_curve(cells.scores[c], cells.truth[c])
            count = int(curve.positive.sum())
            values = [curve.threshold[curve.positive], curve.f1[curve.positive]]
            columns = [[result.protocol.name] * count, [action_id] * count, *values]
            names = schema.RUN_TABLES["har_f1_curves"].names
            tables.append(schema.conform("har_f1_curves", pa.table(dict(zip(names, columns, strict=True)))))
    return pa.concat_tables(tables)


def bootstrap_table(distributions: Iterable[Distribution]) -> pa.Table:
    """Return the table `har_bootstrap`."""
    return distributions_table("har_bootstrap", (({"unit": drawn.unit}, drawn) for drawn in distributions))


def read_distributions(table: pa.Table, units: int, seed: int) -> dict[Unit, Distribution]:
    """Return the distributions stored in a table `har_bootstrap`. Raises `DatasetError` when it is damaged."""
    result: dict[Unit, Distribution] = {}
    frame = table.to_pandas()
    for (unit, drawn_from), part in frame.groupby(["unit", "drawn_from"], sort=False):
        if unit in result:
            raise DatasetError("table har_bootstrap holds two sets of resamples", "score that run again")
        result[unit] = Distribution(unit, units, seed, str(drawn_from), resampled_values(part))
    return result


def beside_published(result: ProtocolScores, published: PublishedRow) -> list[dict[str, Any]]:
    """Return a row a published metric: it, ours under the paper protocol, the bracket, and whether it is inside."""
    rows = []
    for metric, (low, high) in result.bracket.items():
        if metric not in published.scores:
            continue
        theirs = published.scores[metric]
        ours = result.overall.values[metric]["macro"]
        inside = low - _HALF_DIGIT <= theirs <= high + _HALF_DIGIT
        rows.append(
            {
                "metric": metric,
                "published": theirs,
                "ours": _plain(ours),
                "difference": _plain(ours - theirs),
                "bracket_low": _plain(low),
                "bracket_high": _plain(high),
                "inside": bool(inside),
            }
        )
    return rows


def published_subset(result: ProtocolScores, published: PublishedRow) -> PublishedRow:
    """Return a published row for the classes scored only: the mean of their published average precisions.

    Nothing else can be told for some classes; and nothing at all where one of those with truth was not published.
    """
    ids = np.array(result.evaluation.arrays.space.ids)[result.classes.support > 0].tolist()
    known = [published.ap[action_id] for action_id in ids if action_id in published.ap]
    scores = {"map": float(np.mean(known))} if known and len(known) == len(ids) else {}
    return replace(published, scores=scores)


def document(result: ProtocolScores, found: Intervals) -> dict[str, Any]:
    """Return a protocol's scores as plain values; nan becomes None."""
    rules = {rule: _plain(float(np.nanmean(values))) for rule, values in result.classes.by_ties["map"].items()}
    document: dict[str, Any] = {
        "definition": dict(vars(result.protocol)),
        **_averages(result.overall),
        "map_by_tie_rule": rules,
        "bracket": {name: [*map(_plain, limits)] for name, limits in result.bracket.items()},
        "slices": {f"{kind}/{name}": _averages(part) for (kind, name), part in result.slices.items()},
    }
    if result.at_half:
        document["at_p_0.5"] = {name: _plain(value) for name, value in result.at_half.items()}
    if result.protocol.name == "corrected":
        document["intervals"] = {
            f"{metric}_{average}": {
                unit: {name: _plain(value) for name, value in vars(limits).items()} for unit, limits in by_unit.items()
            }
            for (metric, average), by_unit in found.items()
        }
    return document


def _averages(part: Averages) -> dict[str, Any]:
    scores = {
        metric: {average: _plain(value) for average, value in values.items()} for metric, values in part.values.items()
    }
    return {**scores, "classes": part.classes, "labels": part.labels, "boxes": part.boxes}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
