"""What `microg data accept` does: proposals of a run become judgements, and what people accepted is accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from microg import storage
from microg.annotations.apply import recorded
from microg.annotations.decision_lists import read_reviewed
from microg.annotations.proposals import Proposals, read_proposals
from microg.annotations.rows import DATASET, Annotation, Kind
from microg.annotations.statements import Renewed, Statement, renew
from microg.annotations.table import current, read_annotations
from microg.console import say
from microg.data.dataset import Dataset
from microg.errors import AnnotationError
from microg.jobs.commands.data_adjudicate import accepted_of, chosen_rule, known_kinds, show_accepted
from microg.locks import exclusive

_MAKES_QUESTIONS = "data make-qa"


@dataclass(frozen=True, kw_only=True)
class AcceptOptions:
    """What is taken from a run.

    Attributes:
        kinds: Kinds of proposals; None for all.
        name: What to call the model; None for the run folder's name.
        threshold: Probability from which on an action is said.
        unreviewed: Whether proposals count where no person judged.
        annotator: Who reviewed the run's list.
        reviewed: The list; None for `review.csv` of the run.
        rule: The rule; None for the one recorded.
        limit: Only so many clips.
    """

    kinds: Sequence[str] | None = None
    name: str | None = None
    threshold: float = 0.5
    unreviewed: bool = False
    annotator: str | None = None
    reviewed: str | None = None
    rule: str | None = None
    limit: int | None = None


def accept_run(run: str, dataset: str, options: AcceptOptions, *, dry_run: bool = False) -> dict[str, Any]:
    """Take a run's proposals into a dataset and return the report.

    Raises:
        AnnotationError: The run is of something else, or a list was reviewed wrongly; nothing is written then.
    """
    wanted = known_kinds(options.kinds)
    opened = Dataset.open(dataset)
    with nullcontext() if dry_run else exclusive(dataset):
        opened = Dataset.open(dataset)
        proposals = read_proposals(
            run,
            opened,
            kinds=wanted,
            name=options.name,
            threshold=options.threshold,
            limit=options.limit,
        )
        said = read_annotations(opened)
        taken = _highest_questions(opened)
        whole = options.limit is None and options.kinds is None
        model = renew(
            said,
            proposals.statements,
            opened.vocabulary,
            annotator=proposals.name,
            source="model",
            taken=taken,
            whole=whole,
        )
        added = list(model.added)
        reviewed = _reviewed(run, proposals, model, options)
        report: dict[str, Any] = {"run": run, "dataset": dataset, "model": proposals.name}
        if reviewed is not None and options.annotator is not None:
            statements, untouched = reviewed
            person = renew(
                said, statements, opened.vocabulary, annotator=options.annotator, source="import", taken=taken
            )
            if person.refused:
                raise AnnotationError(person.refused[0])
            added += person.added
            report["reviewed"] = {
                "annotator": options.annotator,
                "added": len(person.added),
                "there_before": person.same,
                "not_judged": untouched,
            }
        how = replace(recorded(opened), **chosen_rule(rule=options.rule, unreviewed=options.unreviewed or None))
        kinds: tuple[Kind, ...] = tuple(sorted({each.about.kind for each in proposals.statements}))
        accepted, notes = accepted_of(opened, how, kinds, added, said, dry_run)
    refused = [f"{len(model.refused)} proposals cannot be saved: {model.refused[0]}"] if model.refused else []
    return report | {
        "command": proposals.command,
        "proposed": dict(Counter(each.about.kind for each in proposals.statements)),
        "added": len(model.added) - model.replaced - model.withdrawn,
        "there_before": model.same,
        "replaced": model.replaced,
        "withdrawn": model.withdrawn,
        "waiting": _waiting(model, proposals.statements, [*said, *added]),
        **asdict(how),
        "kinds": accepted.counts,
        "open": len(accepted.open),
        "written": not dry_run,
        "notes": [*proposals.notes, *refused, *notes],
    }


def _highest_questions(dataset: Dataset) -> dict[str, int]:
    highest: dict[str, int] = {}
    for row in dataset.table("qa").to_pylist():
        highest[row["clip_id"]] = max(highest.get(row["clip_id"], -1), row["qa_index"])
    return highest


def _reviewed(
    run: str, proposals: Proposals, model: Renewed, options: AcceptOptions
) -> tuple[list[Statement], int] | None:
    """Return what somebody said of a run's questions in a list, and how many rows say nothing; None without a list."""
    if options.annotator is None:
        if options.reviewed is not None:
            raise AnnotationError(f"who reviewed {options.reviewed} is missing", "--annotator NAME")
        return None
    if proposals.command != _MAKES_QUESTIONS:
        raise AnnotationError(
            f"{run} is a run of '{proposals.command}', which has no list to review",
            "people judge its proposals in 'microg review'",
        )
    path = options.reviewed or storage.join(run, "review.csv")
    if not storage.exists(path):
        raise AnnotationError(f"the reviewed list {path} is not there", "--reviewed FILE")
    numbered = {
        each.key: replace(each, about=model.items[each.key]) for each in proposals.statements if each.key in model.items
    }
    return read_reviewed(storage.read_bytes(path), path, numbered)


def _waiting(model: Renewed, statements: Sequence[Statement], said: Sequence[Annotation]) -> dict[str, int]:
    """Return by kind how many proposals no person judged."""
    judged = {each.about for each in current(said) if each.source != "model" and each.annotator != DATASET}
    items = [model.items[each.key] for each in statements]
    return dict(Counter(item.kind for item in items if item not in judged))


def show(report: dict[str, Any]) -> None:
    """Print what was proposed, what was accepted, and what waits for people."""
    proposed = ", ".join(f"{count:,} of kind {kind}" for kind, count in report["proposed"].items()) or "nothing"
    say(f"{report['model']} proposes {proposed}")
    say(
        f"{report['added']:,} are new, {report['there_before']:,} were there, {report['replaced']:,} replace others, "
        f"{report['withdrawn']:,} were withdrawn"
    )
    person = report.get("reviewed")
    if person:
        say(
            f"{person['annotator']} judged {person['added'] + person['there_before']:,} of the list, "
            f"{person['added']:,} of them new; {person['not_judged']:,} rows say nothing"
        )
    show_accepted(report)
    if report["open"]:
        say(f"{report['open']:,} are open: 'microg data adjudicate {report['dataset']}' lists them")
    for note in report["notes"]:
        say(f"note: {note}")
    waiting = ", ".join(f"{count:,} of kind {kind}" for kind, count in report["waiting"].items())
    if waiting:
        # questions that are new got indices of their own here, under which the dataset's table proposes them
        shown = "" if report["command"] == _MAKES_QUESTIONS else f" --proposals {report['run']}"
        say(f"wait for people: {waiting}; 'microg review {report['dataset']}{shown}'")
    if not report["written"]:
        say("the dataset was left as it is (--dry-run)")
