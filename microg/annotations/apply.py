"""Accepting judgements into a dataset: its tables, its samples and the record of the rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from microg.annotations.accept import TABLE_OF, Acceptance, Accepted, accept
from microg.annotations.rows import DATASET, KINDS, Annotation, Kind, new_id, now, value_json
from microg.annotations.table import add_annotations, current, read_annotations
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.splits import make_samples


def recorded(dataset: Dataset) -> Acceptance:
    """Return the rule by which a dataset accepted judgements last, or the default."""
    stored = dataset.info.get("acceptance") or {}
    return Acceptance(**{name: stored[name] for name in ("rule", "least", "unreviewed") if name in stored})


def in_short(dataset: Dataset) -> list[str]:
    """Say how a dataset's judgements were accepted: by whom and which rule, what is settled and what open, by kind.

    Nothing where none were.
    """
    stored = dataset.info.get("acceptance")
    if not isinstance(stored, Mapping):
        return []
    people = ", ".join(map(str, stored.get("annotators") or ())) or "nobody"
    lines = [f"judged by {people}; accepted by the rule {stored.get('rule')}"]
    lines[0] += ", models' proposals where no person judged" if stored.get("unreviewed") else ""
    for kind, found in (stored.get("kinds") or {}).items():
        judged, settled = found.get("judged", 0), found.get("settled", 0)
        other = found.get("rule", stored.get("rule"))
        by = "" if other == stored.get("rule") else f", by the rule {other}"
        lines.append(f"{kind}: {judged:,} judged, {settled:,} settled, {judged - settled:,} open{by}")
    return lines


def accept_into(
    dataset: Dataset,
    how: Acceptance | None = None,
    kinds: Sequence[Kind] = KINDS,
    rebased: Collection[Kind] = (),
    added: Iterable[Annotation] = (),
    anew: Collection[str] | None = None,
) -> tuple[Accepted, list[str]]:
    """Accept all judgements of a dataset, whose folder the caller holds, into its tables.

    A crash on the way loses nothing: the same call again ends in the same tables.

    Args:
        dataset: The dataset.
        how: The rule; None takes the one recorded.
        kinds: Which kinds to accept.
        rebased: As in `accept`.
        added: Judgements to add first.
        anew: As in `accept`.

    Returns:
        What was accepted, and notes for the user.
    """
    how = how or recorded(dataset)
    add_annotations(dataset, added)
    said = read_annotations(dataset)
    tables = {name: dataset.table(name) for name in (*TABLE_OF.values(), "clips")}
    accepted = accept(tables, said, dataset.vocabulary, how, kinds, rebased, anew)
    # First what was there before: once it is in, the tables may be written any number of times.
    if rebased:
        replaced = [each for each in said if anew is None or each.clip_id in anew]
        accepted.before = [*_superseding(accepted.before, replaced, rebased)]
    add_annotations(dataset, accepted.before)
    for name, table in accepted.tables.items():
        dataset.write(name, table)
    notes = _remake_samples(dataset, accepted) if accepted.tables else []
    dataset.describe(acceptance=described(how, accepted, said, dataset.info.get("acceptance")))
    return accepted, notes


def accept_anew(
    dataset: Dataset, tables: Mapping[str, pa.Table], kinds: Sequence[Kind]
) -> tuple[Accepted, dict[str, Any]]:
    """Accept a dataset's judgements by its recorded rule on tables that were made anew and are not written yet.

    What the tables hold counts as what was there before people. Judgements of clips that are no longer there wait.

    Args:
        dataset: The dataset.
        tables: The new tables `clips` and those of the kinds.
        kinds: The kinds whose tables were made anew.

    Returns:
        What was accepted, its `before` to be added before the tables are written, and what `dataset.json` then says.
    """
    how = recorded(dataset)
    said = read_annotations(dataset)
    there = set(tables["clips"]["clip_id"].to_pylist())
    mine = [each for each in said if each.clip_id in there]
    accepted = accept(tables, mine, dataset.vocabulary, how, kinds, rebased=kinds)
    accepted.before = [*_superseding(accepted.before, mine, kinds)]
    return accepted, described(how, accepted, said, dataset.info.get("acceptance"))


def described(
    how: Acceptance, accepted: Accepted, said: Iterable[Annotation], before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what `dataset.json` says of an acceptance: the rule, its counts by kind, and who judged.

    Args:
        how: The rule.
        accepted: What it accepted.
        said: All judgements.
        before: What was said of the acceptance before: kinds that were not accepted now are as they were, by the rule
            of then.
    """
    annotators = sorted({each.annotator for each in said if each.annotator != DATASET})
    counts = {kind: {**found, **asdict(how)} for kind, found in accepted.counts.items()}
    kinds_before = (before or {}).get("kinds") or {}
    return {**asdict(how), "kinds": {**kinds_before, **counts}, "annotators": annotators}


def _superseding(
    made: Sequence[Annotation], said: Sequence[Annotation], rebased: Collection[Kind]
) -> Iterable[Annotation]:
    """Let records of what is there now supersede those of what was there before, where they differ."""
    old = {each.about: each for each in current(said) if each.annotator == DATASET}
    for each in made:
        before = old.pop(each.about, None)
        if before is None:
            yield each
        elif value_json(before.value) != value_json(each.value):
            yield replace(each, supersedes=before.annotation_id)
    for about, each in old.items():
        # of a person who has no boxes any more, or of what nobody judges: a later acceptance must not bring it back
        if about.kind in rebased and about.kind != "screening":
            yield replace(
                each,
                annotation_id=new_id(),
                value={"withdrawn": True},
                time=now(),
                supersedes=each.annotation_id,
            )


def _remake_samples(dataset: Dataset, accepted: Accepted) -> list[str]:
    """Make the samples anew from what the tables hold now, and say what else no longer fits."""
    if not {"boxes", "actions", "clips"} & set(accepted.tables) or not dataset.has("samples"):
        return []
    notes = []
    clips, boxes = dataset.kept_clips(), dataset.table("boxes")
    stored = dataset.table("samples")
    if not boxes.num_rows and stored.num_rows:
        return ["the dataset has samples and no boxes: the samples were kept as they are"]
    usable = boxes.filter(pc.is_in(boxes["clip_id"], clips["clip_id"]))
    unlabelled = stored["action_id"].null_count > 0 or not stored.num_rows
    samples = make_samples(usable, clips, dataset.table("actions"), keep_unlabelled=unlabelled)
    dataset.write("samples", samples)
    splits = dataset.table("splits")
    known = set(splits["clip_id"].to_pylist())
    if known and known != set(samples["clip_id"].to_pylist()):
        notes.append("other clips have samples now than when they were split: run 'microg data split' again")
    return notes


def counts_of(accepted: Accepted) -> dict[str, Any]:
    """Return what was accepted as plain numbers, for reports."""
    return {
        "kinds": accepted.counts,
        "open": len(accepted.open),
        "rows": {name: table.num_rows for name, table in accepted.tables.items()},
    }
