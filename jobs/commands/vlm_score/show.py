"""What `microg vlm score` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from microg.jobs.commands.scoring import new_table, percent, span
from microg.metrics.text import registry
from microg.metrics.text.registry import title
from microg.screen import Screen, styled, wide_screen
from microg.texts.items import Task

_KINDS = {"answer_type": "answer type", "question_type": "question", "qa_kind": "kind", "origin": "origin"}
_CUT = 110


def show(document: dict[str, Any]) -> None:
    """Print coverage, scores beside baselines and the published row, slices, examples, comparisons and notes."""
    screen = wide_screen(150)
    for task, by_protocol in document["tasks"].items():
        screen.print(_coverage(task, document["coverage"][task]))
        screen.print(_overall(task, by_protocol, document))
        for protocol, found in by_protocol.items():
            if found["lengths"]:
                screen.print(_lengths(protocol, found["lengths"]))
        first = next(iter(by_protocol.values()))
        if first["slices"]:
            screen.print(_slices(task, next(iter(by_protocol)), first["slices"]))
        screen.print(_examples(document["examples"][task]))
        if task in document.get("judge", {}):
            screen.print(_judge(document["judge"][task]))
    if document.get("comparisons"):
        screen.print(_comparisons(document["comparisons"]))
    _remarks(screen, document)


def _coverage(task: str, counts: Mapping[str, int]) -> Text:
    parts = [f"{counts['answered']:,} of {counts['items']:,} items of {counts['clips']:,} clips answered"]
    parts += [f"{counts[name]:,} {name}" for name in ("missing", "failed", "empty", "extra") if counts[name]]
    return styled((task, "bold"), f": {', '.join(parts)}")


def _overall(task: Task, by_protocol: Mapping[str, Any], document: dict[str, Any]) -> Table:
    published = document.get("published", {}).get("tasks", {}).get(task, [])
    name = document.get("published", {}).get("title", "")
    heads: list[str] = []
    for protocol, found in by_protocol.items():
        heads.append(protocol)
        heads += ["95%"] if found["intervals"] else []
        heads += ["answered only"] if found["valid"] is not None else []
    heads += ["published", "difference"] if published else []
    heading = f"{task}: scores x 100 with 95% intervals over clips"
    table = new_table(heading + (f"; published: {name}" if published else ""), "score", right=heads)
    systems = list(dict.fromkeys(name for found in by_protocol.values() for name in found["baselines"]))
    for system in systems:
        table.add_column(system, justify="right", style="dim")
    first = next(iter(by_protocol.values()))
    columns = {row["column"]: row for row in published}
    for score in dict.fromkeys(name for found in by_protocol.values() for name in found["scores"]):
        cells = []
        for found in by_protocol.values():
            cells.append(percent(found["scores"].get(score)))
            if found["intervals"]:
                cells.append(_span(found["intervals"].get(score)))
            if found["valid"] is not None:
                cells.append(percent(found["valid"]["scores"].get(score)))
        if published:
            row = columns.get(registry.column(score, task) or "")
            doubt = "?" if row and row["doubt"] else ""
            cells.append(f"{row['published']:.2f}{doubt}" if row else "")
            cells.append(f"{row['difference']:+.2f}" if row and row["difference"] is not None else "")
        table.add_row(title(score), *cells, *(percent(first["baselines"].get(name, {}).get(score)) for name in systems))
    return table


def _lengths(protocol: str, found: Mapping[str, float]) -> str:
    return (
        f"lengths ({protocol}): {found['words']:.1f} words against {found['reference_words']:.1f} (ratio "
        f"{found['ratio']:.2f}); CIDEr-D's length penalty takes {100 * found['cider_penalty_share']:.0f}% of the "
        f"{100 * found['cider_without_penalty']:.2f} it would be"
    )


def _slices(task: Task, protocol: str, slices: Mapping[str, Any]) -> Table:
    scores = [name for name in registry.sliced(task) if any(name in part["scores"] for part in slices.values())]
    heads = ("items", *map(title, scores))
    table = new_table(f"{task}: slices, {protocol} protocol, x 100", "slice", "part", right=heads)
    for key, part in slices.items():
        kind, _, name = key.partition("/")
        values = [percent(part["scores"].get(score)) for score in scores]
        table.add_row(_KINDS[kind], name, f"{part['items']:,}", *values)
    return table


def _examples(found: Mapping[str, Any]) -> Table:
    by = found["by"]
    table = new_table(f"best and worst by {title(by)}" if by else "no examples: no score of single items", "item")
    table.add_column(title(by) if by else "", justify="right")
    table.add_column("said")
    table.add_column("true")
    for name in ("best", "worst"):
        for row in found[name]:
            question = (f"{_short(row['question'])} " if row["question"] else "", "dim")
            said = styled(question, _short(row["text"]) or ("(empty)", "dim"))
            table.add_row(row["item"], percent(row["scores"].get(by)), said, _short(row["reference"]))
        table.add_section()
    return table


def _comparisons(rows: Sequence[Mapping[str, Any]]) -> Table:
    heading = "this run against others, x 100 (P: share of resamples of clips where this run is better)"
    right = ("here", "there", "difference", "95%", "P better")
    table = new_table(heading, "run", "task", "protocol", "score", right=right)
    for row in rows:
        p = f"{row['p_better']:.3f}" if "p_better" in row else ""
        scores = (percent(row["here"]), percent(row["there"]), f"{100 * row['difference']:+.2f}")
        names = (row["run"], row["task"], row["protocol"], title(row["metric"]))
        table.add_row(*names, *scores, _span(row) if p else "", p)
    return table


def _judge(found: Mapping[str, Any]) -> Text:
    if not found["judged"]:
        return styled(f"judge {found['model']}: none of {found['items']} items could be judged")
    text = (
        f"judge {found['model']} ({found['prompt_id']}, {found['prompt_hash'][:12]}): "
        f"{percent(found['accuracy'])}% of {found['judged']:,} correct"
    )
    if found["cost"]:
        text += f", {found['cost']:.4f} dollars"
    if not found["failed"]:
        return styled(text)
    limits = f"between {percent(found['accuracy_low'])}% and {percent(found['accuracy_high'])}% whatever they are"
    return styled(f"{text}; ", (f"{found['failed']:,} could not be judged", "yellow"), f": {limits}")


def _remarks(screen: Screen, document: dict[str, Any]) -> None:
    for by_protocol in document["tasks"].values():
        for name, number in next(iter(by_protocol.values()))["over_length"].items():
            if number:
                text = f"{number:,} items have a text longer than the encoder of {name} takes; it was cut"
                screen.print(styled(("note:", "yellow"), f" {text}"))
    for task, rows in document.get("published", {}).get("tasks", {}).items():
        for row in rows:
            if row["doubt"]:
                text = f"the published {task} {row['column']} is doubtful: {row['doubt']}"
                screen.print(styled(("note:", "yellow"), f" {text}"))
    for task, names in document["extra"].items():
        text = f"{len(names)} {task} predictions without reference were left out: {', '.join(names[:5])}"
        screen.print(styled(("note:", "yellow"), f" {text}"))
    for name, reason in document["skipped"].items():
        screen.print(styled((f"skipped {name}:", "yellow"), f" {reason}"))
    for note in document["notes"]:
        screen.print(styled(("note:", "yellow"), f" {note}"))


def _span(limits: Mapping[str, float] | None) -> str:
    return "" if limits is None else span(limits["low"], limits["high"])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CUT else text[: _CUT - 3] + "..."
