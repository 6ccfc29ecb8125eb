"""What annotation tools export as judgements: whose they are, and what an import adds to what was said before.

Nothing that anybody said is changed. An annotator's newer export supersedes what their older one said, as far as it
differs; what they, or others, said in the application stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from microg.annotations.rows import DATASET, MAX_NAME, Annotation, Item, Kind, Source, value_json
from microg.annotations.table import current
from microg.errors import AnnotationError

# The time of what a tool does not date: before everything that is dated.
UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
_STEP = timedelta(microseconds=1)


@dataclass(frozen=True)
class Held:
    """What a dataset held of a clip before people judged it.

    Attributes:
        people: Who has boxes.
        labelled: Who has actions.
        caption: Whether it has a caption.
        questions: The indices of its questions.
    """

    people: Collection[int] = ()
    labelled: Collection[int] = ()
    caption: bool = False
    questions: Collection[int] = ()


@dataclass(frozen=True)
class Import:
    """Judgements to add, and how many were there already, replace or take back what their annotator said before.

    Attributes:
        added: New judgements, those that replace or take back others among them.
        same: Judgements that were there already.
        replaced: How many of `added` say something else than the annotator's last import.
        withdrawn: How many of `added` take back what the annotator's export does not say any more.
        removed: How many of `added` remove what the dataset held and no annotator of the import left.
        older: How many judgements were left out, since their annotator's last import says something newer of the clip.
    """

    added: list[Annotation]
    same: int = 0
    replaced: int = 0
    withdrawn: int = 0
    removed: int = 0
    older: int = 0


def time_of(text: Any) -> datetime:
    """Return the time that a tool writes, in UTC; `UNDATED` where it writes none that can be read.

    >>> time_of("2026-02-01T10:00:00+02:00").isoformat()
    '2026-02-01T08:00:00+00:00'
    """
    try:
        found = datetime.fromisoformat(str(text).strip())
        return max((found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC), UNDATED)
    except (ValueError, OverflowError):
        return UNDATED


def annotator_name(text: Any, tool: str) -> str:
    """Return a tool's name of a person as one that `check_annotator` takes; the tool's own where there is none.

    >>> annotator_name(" ana\\n", "cvat"), annotator_name("", "cvat"), annotator_name("dataset", "cvat")
    ('ana', 'cvat', 'cvat-dataset')
    """
    plain = "".join(letter for letter in str(text or "") if letter.isprintable())
    name = plain.strip()[:MAX_NAME].strip()
    return f"{tool}-{name}" if name == DATASET else name or tool


def judgement(
    about: Item, value: Mapping[str, Any], *, annotator: str, source: Source, time: datetime, task: str
) -> Annotation:
    """Return what a tool's export says, named by what it says: the same export makes the same judgements.

    Args:
        about: What it is about.
        value: What was said, as the kind has it.
        annotator: Who said it.
        source: The tool, or `model`.
        time: When, in UTC.
        task: The tool's name of the task.
    """
    place = [str(each) for each in about]
    return Annotation(
        annotation_id=_digest(source, task, annotator, *place, time.isoformat(), value_json(value)),
        clip_id=about.clip_id,
        person_id=about.person_id,
        kind=about.kind,
        item=about.index,
        value=value,
        annotator=annotator,
        source=source,
        time=time,
    )


def fitted(
    imported: Sequence[Annotation], said: Sequence[Annotation], held: Mapping[str, Held], kinds: Collection[Kind]
) -> Import:
    """Return what an import adds to a dataset's judgements.

    An export is all that its annotators say of its clips: what an earlier import has of them and this one has not is
    withdrawn, and what the dataset held before people judged it, and no annotator of the import left, is removed in the
    name of the one who was last. An export that is older than the last one adds nothing: it would bring back what its
    annotator took away since.

    Args:
        imported: The judgements of the import.
        said: All judgements of the dataset.
        held: What the dataset held before people judged it, by clip id.
        kinds: The kinds that the import speaks of.

    Raises:
        AnnotationError: An annotator's name belongs to people where this is a model, or the reverse.
    """
    _check_names(imported, said)
    imported = sorted((each for each in imported if each.kind in kinds), key=lambda each: each.time)
    said_before = _ByAnnotator(said)
    everything, imported = imported, [each for each in imported if not said_before.is_older(each)]
    removals = list(_removals(imported, {each.about for each in everything}, held, kinds))
    added: list[Annotation] = []
    counts = {"same": 0, "replaced": 0, "withdrawn": 0, "removed": 0, "older": len(everything) - len(imported)}
    for number, each in enumerate([*imported, *removals]):
        made = said_before.new(each)
        if made is None:
            counts["same"] += number < len(imported)
            continue
        added.append(made)
        if number >= len(imported):
            counts["removed"] += 1
        else:
            counts["replaced"] += made.supersedes is not None
    spoken = [*everything, *removals]
    gone = list(_withdrawals(imported, spoken, said_before, kinds))
    return Import([*added, *gone], **{**counts, "withdrawn": len(gone)})


class _ByAnnotator:
    """What each annotator said of each item through each tool, the last of it."""

    def __init__(self, said: Sequence[Annotation]) -> None:
        self.known = {each.annotation_id for each in said}
        self.standing = {each.annotation_id for each in current(said)}
        self.last: dict[tuple[Item, str, str], Annotation] = {}
        for each in sorted(said, key=lambda each: each.time):
            if not each.adjudicated:
                self.last[each.about, each.annotator, each.source] = each
        self.newest: dict[tuple[Kind, str, str, str], datetime] = {}
        for about, annotator, source in self.last:
            whose = (about.kind, about.clip_id, annotator, source)
            self.newest[whose] = max(self.newest.get(whose, UNDATED), self.last[about, annotator, source].time)

    def is_older(self, each: Annotation) -> bool:
        """Tell whether the annotator's last import says something of this kind of the clip that is newer."""
        return UNDATED < each.time < self.newest.get((each.kind, each.clip_id, each.annotator, each.source), UNDATED)

    def new(self, each: Annotation) -> Annotation | None:
        """Return a judgement as it is to be added, None where it is there already."""
        last = self.last.get((each.about, each.annotator, each.source))
        if last is not None and not last.withdrawn and value_json(last.value) == value_json(each.value):
            return None
        if last is None:
            return None if each.annotation_id in self.known else each
        # what it follows is part of its name, so that A after B is another judgement than A at first
        name = f"{each.annotation_id}-{_digest(last.annotation_id)}" if each.time <= last.time else each.annotation_id
        return replace(each, annotation_id=name, time=max(each.time, last.time + _STEP), supersedes=last.annotation_id)


def _withdrawals(
    imported: Sequence[Annotation], everything: Sequence[Annotation], before: _ByAnnotator, kinds: Collection[Kind]
) -> Iterable[Annotation]:
    """Yield what takes back what annotators' earlier imports said and this one does not."""
    spoken = {(each.about, each.annotator, each.source) for each in everything}
    speaks = {(each.clip_id, each.annotator, each.source): each.time for each in imported}
    for (about, annotator, source), last in before.last.items():
        time = speaks.get((about.clip_id, annotator, source))
        if time is None or about.kind not in kinds or (about, annotator, source) in spoken:
            continue
        older = UNDATED < time < last.time
        if last.annotation_id not in before.standing or older:
            continue
        yield replace(
            last,
            annotation_id=_digest("withdrawn", last.annotation_id),
            value={"withdrawn": True},
            time=max(time, last.time + _STEP),
            supersedes=last.annotation_id,
        )


def _removals(
    imported: Sequence[Annotation], spoken: Collection[Item], held: Mapping[str, Held], kinds: Collection[Kind]
) -> Iterable[Annotation]:
    newest = {each.clip_id: each for each in imported}  # they are sorted by time
    for clip_id, last in newest.items():
        there = held.get(clip_id, Held())
        lost: list[tuple[Item, dict[str, Any]]] = []
        lost += [(Item("box", clip_id, person), {"op": "delete"}) for person in there.people]
        lost += [(Item("action", clip_id, person), {"actions": []}) for person in there.labelled]
        if there.caption:
            lost.append((Item("caption", clip_id), {"verdict": "reject", "caption": ""}))
        rejected = {"verdict": "reject", "question": "", "answer": ""}
        lost += [(Item("qa", clip_id, None, index), rejected) for index in there.questions]
        for about, value in lost:
            if about.kind in kinds and about not in spoken:
                how = {"annotator": last.annotator, "source": last.source, "time": last.time}
                yield judgement(about, value, **how, task="removed")


def _check_names(imported: Sequence[Annotation], said: Iterable[Annotation]) -> None:
    models = {each.annotator: each.source == "model" for each in said}
    for each in imported:
        if models.setdefault(each.annotator, each.source == "model") != (each.source == "model"):
            raise AnnotationError(
                f"{each.annotator!r} is both a person and a model in this dataset",
                "rename one of them where it comes from",
            )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
