"""What `microg data agreement` does: judgements of people and models, their agreement, the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from pydantic import Field
from rich.table import Table

from microg import storage
from microg.annotations.boxes import Tracks, tracks_of
from microg.annotations.proposals import as_annotations, read_proposals
from microg.annotations.rows import KINDS, Annotation, Item, Kind, value_json
from microg.annotations.table import current, read_annotations
from microg.config import Config
from microg.console import say
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError
from microg.locks import exclusive
from microg.metrics.agreement.report import Choice, KindAgreement, agreement
from microg.metrics.agreement.scores import Score
from microg.runs import Run
from microg.screen import styled, wide_screen

COMMAND = "data agreement"
# Numbers for the terminal: those of a whole kind, in this order.
_TERMINAL_ACTIONS = 15


class AgreementConfig(Config):
    """Which judgements are compared."""

    kinds: tuple[Kind, ...] = Field(default=KINDS, description="Kinds of judgements.")
    annotators: tuple[str, ...] = Field(default=(), description="Only these annotators; without any, all people.")
    runs: tuple[str, ...] = Field(
        default=(),
        description="Runs of 'har predict' or 'vlm generate' whose models join as annotators; may be given repeatedly.",
    )
    models: bool = Field(default=False, description="Let models join whose proposals the dataset holds.")
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Probability from which on a run of 'har predict' says an action."
    )
    resamples: int = Field(default=1000, ge=0, description="Resamples of clips for intervals; 0 gives none.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples.")


def compare(dataset: str, settings: AgreementConfig, run_folder: str | None) -> dict[str, Any]:
    """Compare the annotators of a dataset, write a run folder where one is named, and return the report.

    Raises:
        AnnotationError: Nobody judged anything, an annotator is not there, or a run is of something else.
    """
    opened = Dataset.open(dataset)
    with nullcontext() if run_folder is None else exclusive(run_folder):
        said, notes = _judgements(opened, settings)
        choice = Choice(
            kinds=settings.kinds,
            annotators=settings.annotators and (*settings.annotators, *_names_of_runs(said)),
            models=settings.models or bool(settings.runs),
            resamples=settings.resamples,
            seed=settings.seed,
        )
        found = agreement(said, opened.vocabulary, _held(opened, choice.kinds), choice)
        if not found:
            raise AnnotationError(
                f"nobody judged {' or '.join(settings.kinds)} in {dataset}", "'microg data import' brings in judgements"
            )
        report = _document(dataset, found, opened.vocabulary, notes)
        if run_folder is not None:
            run = Run.start(run_folder, COMMAND, settings, dataset=_state(opened))
            _write(run, opened, found, report)
    return report


def _state(dataset: Dataset) -> str:
    """Return what tells a dataset with other judgements apart: its fingerprint does not count them."""
    rows = dataset.table("annotations")["annotation_id"].to_pylist()
    return f"{dataset.fingerprint()}+{len(rows)}"


def _judgements(dataset: Dataset, settings: AgreementConfig) -> tuple[list[Annotation], list[str]]:
    """Return all judgements, those of the runs that join among them."""
    said = read_annotations(dataset)
    there = {each.annotator for each in said}
    missing = [name for name in settings.annotators if name not in there]
    if missing:
        raise AnnotationError(
            f"{dataset.root} has no judgements by {', '.join(map(repr, missing))}",
            f"annotators are {', '.join(sorted(there)) or 'none yet'}",
        )
    notes: list[str] = []
    if settings.runs and not settings.models:
        said = [each for each in said if each.source != "model"]
    for path in settings.runs:
        proposals = read_proposals(path, dataset, kinds=settings.kinds, threshold=settings.threshold)
        if any(each.annotator == proposals.name and each.source != "model" for each in said):
            raise AnnotationError(f"a person of {dataset.root} has the name of the run {path}", "rename the run folder")
        said = [each for each in said if each.annotator != proposals.name] + as_annotations(proposals)
        notes += [f"{proposals.name}: {note}" for note in proposals.notes]
    return said, notes


def _names_of_runs(said: Sequence[Annotation]) -> list[str]:
    return sorted({each.annotator for each in said if each.source == "model"})


def _held(dataset: Dataset, kinds: Sequence[Kind]) -> dict[str, Tracks]:
    if "box" not in kinds:
        return {}
    rows: dict[str, list[dict[str, Any]]] = {}
    judged = {each.clip_id for each in current(read_annotations(dataset)) if each.kind == "box"}
    for row in dataset.table("boxes").to_pylist():
        if row["clip_id"] in judged:
            rows.setdefault(row["clip_id"], []).append(row)
    return {clip: tracks_of(each) for clip, each in rows.items()}


def _document(
    dataset: str, found: Mapping[Kind, KindAgreement], vocabulary: Vocabulary, notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "vocabulary": vocabulary.name,
        "notes": list(notes),
        "kinds": {
            kind: {
                "annotators": dict(each.annotators),
                "units": each.units,
                "judged_by_one": each.alone,
                "differing": len(each.differing),
                "notes": each.notes,
                "scores": [_rounded(score) for score in each.scores],
                "confusions": [
                    {
                        "first": vocabulary.by_id[one.first].label,
                        "second": None if one.second is None else vocabulary.by_id[one.second].label,
                        "count": one.count,
                        "examples": [{"clip_id": item.clip_id, "person_id": item.person_id} for item in one.examples],
                    }
                    for one in each.confusions
                ],
            }
            for kind, each in found.items()
        },
    }


def _rounded(score: Score) -> dict[str, Any]:
    row = asdict(score)
    return row | {name: None if row[name] is None else round(row[name], 6) for name in ("value", "low", "high")}


def _write(run: Run, dataset: Dataset, found: Mapping[Kind, KindAgreement], report: dict[str, Any]) -> None:
    from microg.reports.pages.agreement_page import write_agreement_page

    scores = [asdict(score) | {"reason": score.reason or None} for each in found.values() for score in each.scores]
    run.write_table("agreement", schema.from_rows("agreement", scores))
    rows = [
        {**_columns(item), "annotator": name, "value": value_json(value)}
        for each in found.values()
        for item, by in each.differing.items()
        for name, value in sorted(by.items())
    ]
    run.write_table("disagreements", schema.from_rows("disagreements", rows))
    write_agreement_page(dataset, found, storage.join(run.root, "agreement.html"), notes=report["notes"])
    report["page"] = storage.join(run.root, "agreement.html")
    run.finish(report)


def _columns(item: Item) -> dict[str, Any]:
    return {"kind": item.kind, "clip_id": item.clip_id, "person_id": item.person_id, "item": item.index}


def show(report: dict[str, Any]) -> None:
    """Print each kind's numbers, those of annotators, pairs and actions, and confused labels."""
    screen = wide_screen()
    screen.print(styled((report["dataset"], "bold")))
    for kind, about in report["kinds"].items():
        people = ", ".join(f"{name} {count:,}" for name, count in about["annotators"].items())
        say(f"{kind}: {about['units']:,} judged by two or more, {about['judged_by_one']:,} by one; {people}")
        scores = about["scores"]
        whole = [each for each in scores if each["annotator"] is None and each["slice_kind"] != "action"]
        _print(screen, f"{kind}: all annotators", whole, ("slice", "metric"))
        own = [each for each in scores if each["annotator"] is not None and each["other"] is None]
        _print_wide(screen, f"{kind}: each annotator with the others", own, ("annotator",))
        pairs = [each for each in scores if each["other"] is not None and each["slice_kind"] != "action"]
        _print_wide(screen, f"{kind}: pairs", pairs, ("annotator", "other"))
        actions = [each for each in scores if each["slice_kind"] == "action" and each["metric"] == "alpha"]
        ordered = sorted(actions, key=lambda each: 2.0 if each["value"] is None else each["value"])
        _print(screen, f"{kind}: alpha of actions, lowest first", ordered[:_TERMINAL_ACTIONS], ("slice", "metric"))
        for each in about["confusions"][:5]:
            say(f"  {each['count']:>4} x {each['first']} where another said {each['second'] or 'nothing more'}")
        for note in about["notes"]:
            screen.print(styled(("note:", "yellow"), f" {note}"))
    for note in report["notes"]:
        screen.print(styled(("note:", "yellow"), f" {note}"))
    if "page" in report:
        say(f"wrote {report['page']}")


def _print(screen: Any, title: str, scores: Sequence[dict[str, Any]], heads: Sequence[str]) -> None:
    if not scores:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in (*heads, "value", "95%", "units"):
        table.add_column(head, justify="left" if head in heads else "right")
    table.add_column("")
    for each in scores:
        middle = "" if each["low"] is None else f"{each['low']:.3f} to {each['high']:.3f}"
        value = "undefined" if each["value"] is None else f"{each['value']:.3f}"
        table.add_row(*(str(each[head]) for head in heads), value, middle, f"{each['units']:,}", each["reason"])
    screen.print(table)


def _print_wide(screen: Any, title: str, scores: Sequence[dict[str, Any]], heads: Sequence[str]) -> None:
    """Print a row an annotator or a pair, with a column a metric."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for each in scores:
        column = each["metric"].replace("_", " ") + {"decided": ", decided", "text": f", {each['slice']}"}.get(
            each["slice_kind"], ""
        )
        value = "undefined" if each["value"] is None else f"{each['value']:.3f}"
        rows.setdefault(tuple(each[head] for head in heads), {})[column] = value
    if not rows:
        return
    columns = list(dict.fromkeys(column for values in rows.values() for column in values))
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in (*heads, *columns):
        table.add_column(head, justify="left" if head in heads else "right")
    for names, values in rows.items():
        table.add_row(*names, *(values.get(column, "") for column in columns))
    screen.print(table)
