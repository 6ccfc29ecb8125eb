"""From judgements to tables: which actions, captions, questions, boxes and clips a dataset has, by a recorded rule.

Nothing that was said is lost by it: what the dataset held before stands beside it as judgements of `dataset`, and each
acceptance starts from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

from microg.annotations.boxes import box_rows, drawn, edited, tracks_of
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind, new_id, now
from microg.annotations.table import current
from microg.arrow import pc
from microg.data import schema
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError

Rule = Literal["single", "majority", "adjudicated"]
RULES: tuple[Rule, ...] = get_args(Rule)
TABLE_OF: dict[Kind, str] = {
    "screening": "decisions",
    "action": "actions",
    "caption": "captions",
    "qa": "qa",
    "box": "boxes",
}
# The stage of `decisions` that people are.
PEOPLE = "people"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """How judgements become what a dataset holds.

    Attributes:
        rule: single: the newest judgement counts; majority: what more than half of the annotators said; adjudicated:
            what all said, or an adjudicator decided. An adjudicator's word counts before all others under every rule.
        least: How many annotators have to have judged an item, unless somebody adjudicated it.
        unreviewed: Whether a model's proposal counts where no person judged.
    """

    rule: Rule = "majority"
    least: int = 1
    unreviewed: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise AnnotationError(f"there is no rule {self.rule!r}", f"rules are {', '.join(RULES)}")
        if self.least < 1:
            raise AnnotationError(f"{self.least} annotators decide nothing", "at least one")


@dataclass(frozen=True)
class Disagreement:
    """An item that the rule does not settle: what each annotator said, and why it is open."""

    about: Item
    said: Mapping[str, Mapping[str, Any]]
    why: str


@dataclass
class Accepted:
    """What was accepted.

    Attributes:
        tables: New tables, by name; only of the kinds that somebody judged.
        before: What the dataset held of the judged items, as judgements of `dataset`, to be added to the table.
        open: Items that are not settled.
        counts: By kind, how many items were judged and how many of these were settled.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    before: list[Annotation] = field(default_factory=list)
    open: list[Disagreement] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def accept(
    tables: Mapping[str, pa.Table],
    annotations: Iterable[Annotation],
    vocabulary: Vocabulary,
    how: Acceptance,
    kinds: Sequence[Kind] = KINDS,
    rebased: Collection[Kind] = (),
    anew: Collection[str] | None = None,
) -> Accepted:
    """Return what the rule makes of all judgements.

    Args:
        tables: The dataset's tables as they are; those of items that nobody judged stay.
        annotations: All judgements.
        vocabulary: The dataset's actions; labels given before a change count as it says.
        how: The rule.
        kinds: Which kinds to accept.
        rebased: Kinds whose tables were made anew, such as boxes by another filter: what they hold now counts as what
            was there before people.
        anew: The clips whose rows were made anew in these tables; None for all.

    Raises:
        AnnotationError: A rule or kind is unknown.
    """
    result = Accepted()
    standing = current(annotations)
    for kind in kinds:
        if kind not in TABLE_OF:
            raise AnnotationError(f"there is no kind {kind!r}", f"kinds are {', '.join(KINDS)}")
        mine = [each for each in standing if each.kind == kind]
        if kind in rebased:
            mine = [each for each in mine if each.annotator != DATASET or not (anew is None or each.clip_id in anew)]
        said = _by_item(mine)
        votes = {item: _votes(rows, how) for item, rows in said.items()}
        votes = {item: rows for item, rows in votes.items() if rows}
        # What was accepted once and has no judgement any more returns to what was there before.
        touched = {item: rows for item, rows in said.items() if item in votes or _before(rows) is not None}
        if not touched:
            continue
        made = _KINDS[kind](tables, touched, votes, vocabulary, how)
        result.tables |= made.tables
        result.before += made.before
        result.open += made.open
        result.counts[kind] = {
            "judged": len(votes),
            "settled": len(votes) - sum(each.about in votes for each in made.open),
        }
    return result


def _by_item(annotations: Iterable[Annotation]) -> dict[Item, list[Annotation]]:
    found: dict[Item, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.about, []).append(annotation)
    return found


def _before(rows: Sequence[Annotation]) -> Annotation | None:
    """Return what the dataset held before."""
    return next((each for each in rows if each.annotator == DATASET), None)


def _votes(rows: Sequence[Annotation], how: Acceptance) -> list[Annotation]:
    """Return the judgements that count of one item, oldest first: people's, else models' where those may."""
    people = [each for each in rows if each.source != "model" and each.annotator != DATASET]
    return people or [each for each in rows if each.source == "model" and how.unreviewed]


def _decide(votes: Sequence[Annotation], how: Acceptance, say: Callable[[Annotation], Any]) -> tuple[Any, str | None]:
    """Return what was decided, with None, or None with why nothing was. `say` returns what can be compared."""
    settled = [each for each in votes if each.adjudicated]
    if settled:
        return say(settled[-1]), None
    if len(votes) < how.least:
        return None, f"{len(votes)} of at least {how.least} annotators"
    if how.rule == "single":
        return say(votes[-1]), None
    counted = Counter(say(each) for each in votes)
    (most, times), *others = counted.most_common()
    if not others:
        return most, None
    if how.rule == "majority" and 2 * times > len(votes):
        return most, None
    return None, f"{len(counted)} different judgements by {len(votes)} annotators"


def _disagreement(item: Item, votes: Sequence[Annotation], why: str) -> Disagreement:
    return Disagreement(item, {each.annotator: each.value for each in votes}, why)


def record(item: Item, value: Mapping[str, Any]) -> Annotation:
    """Return what a dataset holds of an item as a judgement of `dataset`, to be added before it changes."""
    return Annotation(
        annotation_id=new_id(),
        clip_id=item.clip_id,
        person_id=item.person_id,
        kind=item.kind,
        item=item.index,
        value=value,
        annotator=DATASET,
        round=0,
        source="import",
        time=now(),
    )


def _without(table: pa.Table, items: Iterable[Item], *columns: str) -> pa.Table:
    """Return a table without the rows of items, told by clip id and `columns`."""
    keys = {tuple(each for each in (item.clip_id, item.person_id, item.index) if each is not None) for item in items}
    values = zip(*(table[name].to_pylist() for name in ("clip_id", *columns)), strict=True)
    return table.filter(pa.array([row not in keys for row in values], pa.bool_()))


def _actions(
    tables: Mapping[str, pa.Table],
    touched: Mapping[Item, Sequence[Annotation]],
    votes: Mapping[Item, Sequence[Annotation]],
    vocabulary: Vocabulary,
    how: Acceptance,
) -> Accepted:
    """Accept actions one by one: a majority may agree on one of a person's actions and not on another."""
    result = Accepted()
    table = tables["actions"]
    held: dict[tuple[str, int], list[int]] = {}
    for row in table.to_pylist():
        held.setdefault((row["clip_id"], row["person_id"]), []).append(row["action_id"])
    rows = []
    for item, said in touched.items():
        assert item.person_id is not None
        first = _before(said)
        if first is None:
            first = record(item, {"actions": sorted(set(held.get((item.clip_id, item.person_id), [])))})
            result.before.append(first)
        if item not in votes:
            labels, why = _in_use(first.value["actions"], vocabulary)
            if why:  # somebody has to say which of the new actions it is
                result.open.append(_disagreement(item, [first], why))
        else:
            labels, why = _decide_actions(votes[item], vocabulary, how)
            if why:
                result.open.append(_disagreement(item, votes[item], why))
        rows += [{"clip_id": item.clip_id, "person_id": item.person_id, "action_id": each} for each in labels]
    kept = _without(table, touched, "person_id")
    result.tables["actions"] = pa.concat_tables([kept, schema.from_rows("actions", rows)])
    return result


def _in_use(actions: Iterable[int], vocabulary: Vocabulary) -> tuple[list[int], str | None]:
    """Return labels as they are called now, and why one of them has no name any more."""
    known = [each for each in actions if each in vocabulary.by_id or each in vocabulary.replaced]
    meant = {each: vocabulary.in_use(each) for each in known}
    split = [each for each, now_called in meant.items() if now_called is None]
    why = f"action {split[0]} was split since" if split else None
    return sorted({each for each in meant.values() if each is not None}), why


def _decide_actions(
    votes: Sequence[Annotation], vocabulary: Vocabulary, how: Acceptance
) -> tuple[list[int], str | None]:
    settled = [each for each in votes if each.adjudicated]
    able = settled[-1:] or [each for each in votes if not each.value.get("cannot_tell")]
    said = [_in_use(each.value["actions"], vocabulary) for each in able]
    split = next((why for _, why in said if why), None)
    if settled:
        return said[0][0], split
    if len(votes) < how.least:
        return [], f"{len(votes)} of at least {how.least} annotators"
    if not able:
        return [], "nobody could tell"
    if how.rule == "single":
        return said[-1][0], split
    counted = Counter(action for labels, _ in said for action in labels)
    if how.rule == "adjudicated":
        differing = [action for action, times in counted.items() if times < len(able)]
        if differing or len(able) < len(votes):
            return [], split or "the annotators differ"
        return sorted(counted), split
    tied = [action for action, times in counted.items() if 2 * times == len(able)]
    agreed = sorted(action for action, times in counted.items() if 2 * times > len(able))
    why = f"half of the annotators said {', '.join(vocabulary.by_id[each].label for each in sorted(tied))}"
    return agreed, split or (why if tied else None)


def _texts(
    tables: Mapping[str, pa.Table],
    touched: Mapping[Item, Sequence[Annotation]],
    votes: Mapping[Item, Sequence[Annotation]],
    how: Acceptance,
    name: str,
    columns: tuple[str, ...],
) -> Accepted:
    """Accept captions or questions whole: a text is what an annotator accepted or wrote, or nothing."""
    result = Accepted()
    table = tables[name]
    numbered = ("qa_index",) if name == "qa" else ()
    held = {tuple(row[key] for key in ("clip_id", *numbered)): row for row in table.to_pylist()}
    rows = []
    for item, said in touched.items():
        key = (item.clip_id,) if item.index is None else (item.clip_id, item.index)
        first = _before(said)
        if first is None:
            row = held.get(key)
            verdict = "reject" if row is None else "accept"
            first = record(item, {"verdict": verdict, **{c: (row[c] or "") if row else "" for c in columns}})
            result.before.append(first)
        text = _text_of(first, columns)
        if item in votes:
            decided, why = _decide(votes[item], how, lambda each: _text_of(each, columns))
            if why:
                result.open.append(_disagreement(item, votes[item], why))
            else:
                text = decided
        if text is not None:
            rows.append(
                {"clip_id": item.clip_id, **dict(zip(numbered, key[1:], strict=True))}
                | dict(zip(columns, text, strict=True))
            )
    kept = _without(table, touched, *numbered)
    made = pa.concat_tables([kept, schema.from_rows(name, rows)])
    result.tables[name] = made.sort_by([(each, "ascending") for each in ("clip_id", *numbered)])
    return result


def _text_of(annotation: Annotation, columns: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the texts that somebody accepted or wrote, None where they rejected them."""
    if annotation.value["verdict"] == "reject":
        return None
    return tuple(annotation.value[name] for name in columns)


def _screening(
    tables: Mapping[str, pa.Table],
    touched: Mapping[Item, Sequence[Annotation]],
    votes: Mapping[Item, Sequence[Annotation]],
    how: Acceptance,
) -> Accepted:
    """Accept people's decisions about clips: rows of stage `people`, and the status of the clips themselves.

    A clip that people drop is `rejected`; one that only people had dropped is `ok` again when they keep it.
    """
    result = Accepted()
    rows = []
    for item, said in touched.items():
        if _before(said) is None:
            result.before.append(record(item, {"keep": True}))
        if item not in votes:
            continue
        keep, why = _decide(votes[item], how, lambda each: bool(each.value["keep"]))
        share = sum(bool(each.value["keep"]) for each in votes[item]) / len(votes[item])
        if why:
            result.open.append(_disagreement(item, votes[item], why))
            continue
        reasons = [each.value.get("reason") for each in votes[item] if each.value["keep"] == keep]
        named = [each for each in reasons if each]
        reason = Counter(named).most_common(1)[0][0] if named else ("kept" if keep else "dropped")
        rows.append({"clip_id": item.clip_id, "stage": PEOPLE, "keep": keep, "reason": reason, "score": share})
    decisions, clips = tables["decisions"], tables["clips"]
    others = decisions.filter(pc.not_equal(decisions["stage"], PEOPLE))
    untouched = decisions.filter(pc.equal(decisions["stage"], PEOPLE))
    untouched = _without(untouched, touched)
    made = pa.concat_tables([others, untouched, schema.from_rows("decisions", rows)])
    result.tables["decisions"] = made
    result.tables["clips"] = with_people(clips, made)
    return result


def with_people(clips: pa.Table, decisions: pa.Table) -> pa.Table:
    """Return table `clips` with what people decided: dropped clips are rejected, others as without people.

    Args:
        clips: Table `clips`.
        decisions: Table `decisions`, with rows of stage `people`.
    """
    people = decisions.filter(pc.equal(decisions["stage"], PEOPLE)).to_pylist()
    dropped = {row["clip_id"]: f"{PEOPLE}: {row['reason']}" for row in people if not row["keep"]}
    rows = clips.select(["clip_id", "status", "error"]).to_pylist()
    status, error = [], []
    for row in rows:
        only_people = row["status"] == "rejected" and (row["error"] or "").startswith(f"{PEOPLE}: ")
        if row["status"] not in ("ok", None) and not only_people:
            status.append(row["status"])
            error.append(row["error"])
            continue
        why = dropped.get(row["clip_id"])
        status.append("rejected" if why else "ok")
        error.append(why or ("" if only_people else row["error"]))
    for name, values in (("status", status), ("error", error)):
        clips = clips.set_column(clips.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return clips


def _boxes(
    tables: Mapping[str, pa.Table],
    touched: Mapping[Item, Sequence[Annotation]],
    votes: Mapping[Item, Sequence[Annotation]],
) -> Accepted:
    """Apply edits of boxes to what the dataset held, clip by clip, oldest first and an adjudicator's last."""
    result = Accepted()
    table = tables["boxes"]
    clip_ids = list(dict.fromkeys(item.clip_id for item in touched))
    mine = table.filter(pc.is_in(table["clip_id"], pa.array(clip_ids, pa.string())))
    held: dict[str, list[dict[str, Any]]] = {}
    for row in mine.to_pylist():
        held.setdefault(row["clip_id"], []).append(row)
    edits: dict[str, list[Annotation]] = {}
    first: dict[str, list[Annotation]] = {}
    for item, said in touched.items():
        edits.setdefault(item.clip_id, []).extend(votes.get(item, []))
        first.setdefault(item.clip_id, []).extend(each for each in said if each.annotator == DATASET)
    rows: list[dict[str, Any]] = []
    for clip_id in clip_ids:
        if first[clip_id]:
            tracks = edited({}, first[clip_id])
        else:
            tracks = tracks_of(held.get(clip_id, []))
            people = tracks or {0: {}}  # no boxes are a statement, too
            result.before += [record(Item("box", clip_id, each), drawn(track)) for each, track in people.items()]
        ordered = sorted(edits[clip_id], key=lambda each: (each.adjudicated, each.time, each.annotation_id))
        rows += box_rows(clip_id, edited(tracks, ordered))
    others = table.filter(pc.invert(pc.is_in(table["clip_id"], pa.array(clip_ids, pa.string()))))
    result.tables["boxes"] = pa.concat_tables([others, schema.from_rows("boxes", rows)])
    return result


_KINDS: dict[Kind, Callable[..., Accepted]] = {
    "screening": lambda tables, touched, votes, _, how: _screening(tables, touched, votes, how),
    "action": _actions,
    "caption": lambda tables, touched, votes, _, how: _texts(tables, touched, votes, how, "captions", ("caption",)),
    "qa": lambda tables, touched, votes, _, how: _texts(tables, touched, votes, how, "qa", ("question", "answer")),
    "box": lambda tables, touched, votes, _vocabulary, _how: _boxes(tables, touched, votes),
}
