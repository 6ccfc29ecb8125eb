"""What `microg data adjudicate` does: decisions come in, judgements are accepted, what is open is listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any, cast

from microg import storage
from microg.annotations.accept import TABLE_OF, Accepted, accept
from microg.annotations.apply import accept_into, recorded
from microg.annotations.decision_lists import disagreements_csv, read_decisions
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind
from microg.annotations.statements import renew
from microg.annotations.table import read_annotations
from microg.annotations.words import in_words
from microg.console import say
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError
from microg.locks import exclusive

_SHOWN = 10


def chosen_rule(**given: Any) -> dict[str, Any]:
    """Return the parts of a rule that the command line names; the others are those recorded."""
    return {name: value for name, value in given.items() if value is not None}


def adjudicate(
    dataset: str,
    rule: Mapping[str, Any],
    kinds: Sequence[str] | None,
    *,
    out: str | None = None,
    decisions: str | None = None,
    annotator: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Accept a dataset's judgements and return the report.

    Args:
        dataset: The dataset folder.
        rule: Parts of `Acceptance` that replace those recorded.
        kinds: Kinds to accept; None for all.
        out: CSV file for what is open.
        decisions: CSV file with decisions to take in first.
        annotator: Who decided.
        dry_run: Whether nothing is written to the dataset.

    Raises:
        AnnotationError: Nobody judged anything, or a rule, kind or decision is none.
    """
    if (decisions is None) != (annotator is None):
        raise AnnotationError(
            "a file of decisions and who decided belong together", "--decisions FILE --annotator NAME"
        )
    wanted = known_kinds(kinds)
    opened = Dataset.open(dataset)
    with nullcontext() if dry_run else exclusive(dataset):
        opened = Dataset.open(dataset)
        how = replace(recorded(opened), **rule)
        said = read_annotations(opened)
        report: dict[str, Any] = {"dataset": dataset, **asdict(how)}
        added: list[Annotation] = []
        if decisions is not None and annotator is not None:
            statements, empty = read_decisions(storage.read_bytes(decisions), decisions, opened, said)
            renewed = renew(
                said,
                statements,
                opened.vocabulary,
                annotator=annotator,
                source="import",
                taken={},
                adjudicated=True,
            )
            if renewed.refused:
                raise AnnotationError(f"{decisions}: {renewed.refused[0]}")
            added = renewed.added
            report["decisions"] = {"added": len(added), "there_before": renewed.same, "empty_rows": empty}
        if not any(each.kind in wanted and each.annotator != DATASET for each in [*said, *added]):
            raise AnnotationError(
                f"nobody judged {' or '.join(wanted)} in {dataset}", "'microg data import' brings in judgements"
            )
        accepted, notes = accepted_of(opened, how, wanted, added, said, dry_run)
        open_items = [each for each in accepted.open if each.about.kind in wanted]
        if out is not None:
            storage.write_bytes(out, disagreements_csv(open_items, opened.vocabulary).encode())
    return report | {
        "kinds": accepted.counts,
        "open": len(open_items),
        "examples": [_example(each.about, each.why, each.said, opened.vocabulary) for each in open_items[:_SHOWN]],
        "out": out,
        "written": not dry_run,
        "notes": notes,
    }


def accepted_of(
    dataset: Dataset,
    how: Any,
    kinds: Sequence[Kind],
    added: Sequence[Annotation],
    said: Sequence[Annotation],
    dry_run: bool,
) -> tuple[Accepted, list[str]]:
    """Accept judgements into a dataset that the caller holds, or with `dry_run` say what would be accepted."""
    if not dry_run:
        return accept_into(dataset, how, kinds, added=added)
    tables = {name: dataset.table(name) for name in (*TABLE_OF.values(), "clips")}
    return accept(tables, [*said, *added], dataset.vocabulary, how, kinds), []


def known_kinds(kinds: Sequence[str] | None) -> tuple[Kind, ...]:
    """Return these kinds, all without any. Raises `AnnotationError` for one that is none."""
    unknown = [each for each in kinds or () if each not in KINDS]
    if unknown:
        raise AnnotationError(f"there is no kind {unknown[0]!r}", f"kinds are {', '.join(KINDS)}")
    return tuple(cast(Kind, each) for each in kinds) if kinds else KINDS


def _example(about: Item, why: str, said: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "kind": about.kind,
        "clip_id": about.clip_id,
        "person_id": about.person_id,
        "item": about.index,
        "why": why,
        "said": {name: in_words(value, vocabulary) for name, value in said.items()},
    }


def show(report: dict[str, Any]) -> None:
    """Print what was settled by kind, some of what is open, and how to go on."""
    taken = report.get("decisions")
    if taken:
        say(
            f"{taken['added']:,} decisions taken in, {taken['there_before']:,} there before, "
            f"{taken['empty_rows']:,} rows without one"
        )
    show_accepted(report)
    for each in report["examples"]:
        person = "" if each["person_id"] is None else f", person {each['person_id']}"
        index = "" if each["item"] is None else f", question {each['item']}"
        said = ", ".join(f"{name}: {text}" for name, text in each["said"].items())
        say(f"  open: {each['kind']} of {each['clip_id']}{person}{index}: {each['why']} ({said})")
    if report["open"] > len(report["examples"]):
        say(f"  ... {report['open'] - len(report['examples']):,} more")
    for note in report["notes"]:
        say(f"note: {note}")
    if report["out"] is not None:
        say(f"wrote {report['out']}: fill in the column decision, then give it to --decisions with --annotator NAME")
    if report["open"]:
        say(f"somebody decides in 'microg review {report['dataset']}', mode adjudicate, or in the list of --out")
    if not report["written"]:
        say("the dataset was left as it is (--dry-run)")


def show_accepted(report: Mapping[str, Any]) -> None:
    """Print the rule and how much of each kind it settles."""
    more = f", {report['least']} annotators at least" if report["least"] > 1 else ""
    more += ", models' proposals where no person judged" if report["unreviewed"] else ""
    say(f"rule {report['rule']}{more}")
    for kind, found in report["kinds"].items():
        say(f"{kind}: {found['judged']:,} judged, {found['settled']:,} settled")
