"""What `microg har score` prints for people."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.table import Table

from microg.jobs.commands.scoring import new_table, percent, span
from microg.metrics.har.registry import METRICS, published_columns, resampled
from microg.metrics.har.scores import ProtocolScores
from microg.metrics.har.scoring import Report
from microg.metrics.published import PublishedRow
from microg.screen import Screen, styled, wide_screen


def show(document: dict[str, Any], report: Report, published: PublishedRow | None) -> None:
    """Print overall scores, the published row, slices, classes, comparisons and warnings."""
    screen = wide_screen(150)
    counts = document["counts"]
    screen.print(
        f"{counts['predicted_boxes']:,} predicted boxes against {counts['true_boxes']:,} true boxes with "
        f"{counts['labels']:,} labels in {counts['key_frames']:,} key frames of {counts['clips']:,} clips; scores are "
        f"{'logits' if document['scores'] == 'logit' else 'probabilities'} of {document['label_space']}",
    )
    if "transfer" in document:
        _transfer(screen, document["transfer"])
    screen.print(_overall(document))
    if document.get("published", {}).get("metrics"):
        screen.print(_published(document["published"]))
    _thresholds(screen, document["thresholds"])
    screen.print(_slices(report.results))
    screen.print(_classes(report.results, published))
    if document.get("comparisons"):
        screen.print(_comparisons(document["comparisons"]))
    for finding in report.findings:
        screen.print(styled(("warning:", "yellow"), f" {finding}"))
    for note in document["notes"]:
        screen.print(styled(("note:", "yellow"), f" {note}"))


def _transfer(screen: Screen, covered: dict[str, Any]) -> None:
    total, scored = covered["classes"], len(covered["scored"])
    lines = [
        f"{scored} of the {total} classes of {covered['onto']} are scored, {covered['with_truth']} of them with truth: "
        f"those that predictions ({covered['predictions']}) and truth ({covered['truth']}) know as well",
        f"{covered['labels']:,} labels are scored; {covered['labels_left_out']:,} have no class there",
    ]
    if covered["unscored"]:
        lines.append(f"not scored: {', '.join(covered['unscored'])}")
    for line in lines:
        screen.print(styled(line))


def _thresholds(screen: Screen, found: dict[str, Any]) -> None:
    for name, values in found["protocols"].items() if found["chosen_by"] is not None else ():
        if "f1_chosen" not in values:
            continue
        low, high = values["gain_low"], values["gain_high"]
        sure = "" if low is None else f" (95% of the difference over clips: {span(low, high)})"
        line = f"F1, {name}: {percent(values['f1'])} at one threshold, {percent(values['f1_chosen'])} at those of "
        micro = f"micro {percent(values['f1_micro'])} and {percent(values['f1_chosen_micro'])}"
        about = f"for {values['chosen']} classes with at least {found['least_labels']} labels there; {micro}"
        screen.print(styled(f"{line}{found['chosen_by']}{sure}, {about}"))


def _overall(document: dict[str, Any]) -> Table:
    limits = document["protocols"].get("corrected", {}).get("intervals", {})
    units = [unit for unit in ("clip", "source") if any(unit in found for found in limits.values())]
    title = "scores in % (macro: paper averages all classes, corrected those with truth)"
    right = [*document["protocols"], *(f"95% over {unit}s" for unit in units)]
    table = new_table(title, "metric", "average", right=right)
    for name, metric in METRICS.items():
        for average in ("macro", "micro", "weighted"):
            values = [protocol[name].get(average) for protocol in document["protocols"].values()]
            if all(value is None for value in values):
                continue
            found = limits.get(f"{name}_{average}", {})
            spans = [span(found[unit]["low"], found[unit]["high"]) if unit in found else "" for unit in units]
            table.add_row(metric.title, average, *map(percent, values), *spans)
    return table


def _published(published: dict[str, Any]) -> Table:
    title = f"published row {published['row']} ({published['title']}), paper protocol"
    heads = ("published", "ours", "difference", "bracket of rounding and ties", "inside")
    table = new_table(title, "metric", right=heads)
    for row in published["metrics"]:
        difference = f"{100 * row['difference']:+.4f}" if row["difference"] is not None else "-"
        inside = styled(("yes", "green") if row["inside"] else ("no", "red"))
        bracket = span(row["bracket_low"], row["bracket_high"], 4)
        scores = (percent(row["published"], 3), percent(row["ours"], 4))
        table.add_row(METRICS[row["metric"]].title, *scores, difference, bracket, inside)
    return table


def _slices(results: dict[str, ProtocolScores]) -> Table:
    scores = [f"{name}\n{METRICS[metric].title}" for name in results for metric in published_columns()]
    table = new_table("slices, macro, in %", "slice", "part", right=("classes", "labels", "boxes", *scores))
    first = next(iter(results.values()))
    names = dict.fromkeys(key for result in results.values() for key in result.slices)
    shown = results.get("corrected", first)
    for key in names:
        part = shown.slices.get(key) or first.slices[key]
        values = []
        for result in results.values():
            own = result.slices.get(key)
            values += [percent(own.values[m]["macro"]) if own else "" for m in published_columns()]
        table.add_row(*key, f"{part.classes}", f"{part.labels:,}", f"{part.boxes:,}", *values)
    return table


def _classes(results: dict[str, ProtocolScores], row: PublishedRow | None) -> Table:
    shown = results.get("corrected") or next(iter(results.values()))
    space = shown.evaluation.arrays.space
    printed = [] if row is None or not row.ap else ["published AP"]
    heads = [metric.class_title or metric.title for metric in METRICS.values()]
    title = f"classes with truth, {shown.protocol.name} protocol, in %"
    table = new_table(title, "id", "action", right=["labels", heads[0], *printed, *heads[1:]])
    scores = shown.classes
    for c in np.argsort(-scores.support, kind="stable").tolist():
        if not scores.support[c]:
            continue
        action_id = space.ids[c]
        first, *others = [percent(float(scores.values[name][c])) for name in METRICS]
        middle = [percent(row.ap.get(action_id))] if row is not None and printed else []
        name = space.names[action_id]
        table.add_row(str(action_id), name, f"{scores.support[c]:,}", first, *middle, *others)
    return table


def _comparisons(rows: list[dict[str, Any]]) -> Table:
    title = (
        "this run against others, in % (P: share of resamples where this run is worse; in brackets shifted for bias)"
    )
    units = [unit for unit in ("clip", "source") if any(unit in row for row in rows)]
    heads = [head for unit in units for head in (f"95% over {unit}s", f"P over {unit}s")]
    table = new_table(title, "run", "protocol", "metric", right=("here", "there", "difference", *heads))
    for row in rows:
        cells = []
        for unit in units:
            found = row.get(unit)
            if found:
                cells += [span(found["low"], found["high"]), f"{found['p_worse']:.3f} ({found['p_worse_shifted']:.3f})"]
            else:
                cells += ["", ""]
        metric, average = resampled()[row["metric"]]
        title = f"micro {metric.title}" if average == "micro" else metric.title
        scores = (percent(row["here"]), percent(row["there"]), f"{100 * row['difference']:+.2f}")
        table.add_row(row["run"], row["protocol"], title, *scores, *cells)
    return table
