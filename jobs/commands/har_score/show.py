"""What `microg har score` prints for people."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microg.metrics.har.registry import METRICS, published_columns, resampled
from microg.metrics.har.scores import ProtocolScores
from microg.metrics.har.scoring import Report
from microg.metrics.published import PublishedRow


def show(document: dict[str, Any], report: Report, published: PublishedRow | None) -> None:
    """Print overall scores, the published row, slices, classes, comparisons and warnings."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    counts = document["counts"]
    console.print(
        f"{counts['predicted_boxes']:,} predicted boxes against {counts['true_boxes']:,} true boxes with "
        f"{counts['labels']:,} labels in {counts['key_frames']:,} key frames of {counts['clips']:,} clips; scores are "
        f"{'logits' if document['scores'] == 'logit' else 'probabilities'} of {document['label_space']}",
        highlight=False,
    )
    if "transfer" in document:
        _transfer(console, document["transfer"])
    console.print(_overall(document))
    if document.get("published", {}).get("metrics"):
        console.print(_published(document["published"]))
    console.print(_slices(report.results))
    console.print(_classes(report.results, published))
    if document.get("comparisons"):
        console.print(_comparisons(document["comparisons"]))
    for finding in report.findings:
        console.print(f"[yellow]warning:[/] {escape(str(finding))}", highlight=False)
    for note in document["notes"]:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    console.print(f"wrote {len(document['files'])} files to {escape(document['run'])}", highlight=False)


def _transfer(console: Console, covered: dict[str, Any]) -> None:
    total, scored = covered["classes"], len(covered["scored"])
    lines = [
        f"{scored} of the {total} classes of {covered['onto']} are scored, {covered['with_truth']} of them with truth: "
        f"those that predictions ({covered['predictions']}) and truth ({covered['truth']}) know as well",
        f"{covered['labels']:,} labels are scored; {covered['labels_left_out']:,} have no class there",
    ]
    if covered["unscored"]:
        lines.append(f"not scored: {', '.join(covered['unscored'])}")
    for line in lines:
        console.print(escape(line), highlight=False)


def _overall(document: dict[str, Any]) -> Table:
    table = _table("scores in % (macro: paper averages all classes, corrected those with truth)", "metric", "average")
    for name in document["protocols"]:
        table.add_column(name, justify="right")
    limits = document["protocols"].get("corrected", {}).get("intervals", {})
    units = [unit for unit in ("clip", "source") if any(unit in found for found in limits.values())]
    for unit in units:
        table.add_column(f"95% over {unit}s", justify="right")
    for name, metric in METRICS.items():
        for average in ("macro", "micro", "weighted"):
            values = [protocol[name].get(average) for protocol in document["protocols"].values()]
            if all(value is None for value in values):
                continue
            found = limits.get(f"{name}_{average}", {})
            spans = [_span(found[unit]["low"], found[unit]["high"]) if unit in found else "" for unit in units]
            table.add_row(metric.title, average, *map(_percent, values), *spans)
    return table


def _published(published: dict[str, Any]) -> Table:
    table = _table(f"published row {published['row']} ({published['title']}), paper protocol", "metric")
    for head in ("published", "ours", "difference", "bracket of rounding and ties", "inside"):
        table.add_column(head, justify="right")
    for row in published["metrics"]:
        difference = f"{100 * row['difference']:+.4f}" if row["difference"] is not None else "-"
        inside = "[green]yes[/]" if row["inside"] else "[red]no[/]"
        bracket = _span(row["bracket_low"], row["bracket_high"], 4)
        table.add_row(
            METRICS[row["metric"]].title,
            _percent(row["published"], 3),
            _percent(row["ours"], 4),
            difference,
            bracket,
            inside,
        )
    return table


def _slices(results: dict[str, ProtocolScores]) -> Table:
    table = _table("slices, macro, in %", "slice", "part")
    for head in ("classes", "labels", "boxes"):
        table.add_column(head, justify="right")
    for name in results:
        for metric in published_columns():
            table.add_column(f"{name}\n{METRICS[metric].title}", justify="right")
    first = next(iter(results.values()))
    names = dict.fromkeys(key for result in results.values() for key in result.slices)
    shown = results.get("corrected", first)
    for key in names:
        part = shown.slices.get(key) or first.slices[key]
        values = []
        for result in results.values():
            own = result.slices.get(key)
            values += [_percent(own.values[m]["macro"]) if own else "" for m in published_columns()]
        table.add_row(*key, f"{part.classes}", f"{part.labels:,}", f"{part.boxes:,}", *values)
    return table


def _classes(results: dict[str, ProtocolScores], row: PublishedRow | None) -> Table:
    shown = results.get("corrected") or next(iter(results.values()))
    space = shown.evaluation.arrays.space
    table = _table(f"classes with truth, {shown.protocol.name} protocol, in %", "id", "action")
    printed = [] if row is None or not row.ap else ["published AP"]
    heads = [metric.class_title or metric.title for metric in METRICS.values()]
    for head in ["labels", heads[0], *printed, *heads[1:]]:
        table.add_column(head, justify="right")
    scores = shown.classes
    for c in np.argsort(-scores.support, kind="stable").tolist():
        if not scores.support[c]:
            continue
        action_id = space.ids[c]
        columns = [float(scores.values[name][c]) for name in METRICS]
        middle = [_percent(row.ap.get(action_id))] if row is not None and printed else []
        table.add_row(
            str(action_id),
            escape(space.names[action_id]),
            f"{scores.support[c]:,}",
            _percent(columns[0]),
            *middle,
            *map(_percent, columns[1:]),
        )
    return table


def _comparisons(rows: list[dict[str, Any]]) -> Table:
    title = (
        "this run against others, in % (P: share of resamples where this run is worse; in brackets shifted for bias)"
    )
    table = _table(title, "run", "protocol", "metric")
    units = [unit for unit in ("clip", "source") if any(unit in row for row in rows)]
    for head in ("here", "there", "difference"):
        table.add_column(head, justify="right")
    for unit in units:
        table.add_column(f"95% over {unit}s", justify="right")
        table.add_column(f"P over {unit}s", justify="right")
    for row in rows:
        cells = []
        for unit in units:
            found = row.get(unit)
            cells += (
                [_span(found["low"], found["high"]), f"{found['p_worse']:.3f} ({found['p_worse_shifted']:.3f})"]
                if found
                else ["", ""]
            )
        metric, average = resampled()[row["metric"]]
        table.add_row(
            escape(row["run"]),
            row["protocol"],
            f"micro {metric.title}" if average == "micro" else metric.title,
            _percent(row["here"]),
            _percent(row["there"]),
            f"{100 * row['difference']:+.2f}",
            *cells,
        )
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head)
    return table


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or value != value else f"{100 * value:.{digits}f}"


def _span(low: float | None, high: float | None, digits: int = 2) -> str:
    return f"{_percent(low, digits)} to {_percent(high, digits)}"
