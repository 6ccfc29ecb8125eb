"""Hands out tasks and takes judgements: one door for all that annotators do, safe for many threads.

What is in memory here is what the SQLite file and the dataset say; each change is written to the file first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from microg.annotations.boxes import Tracks, edited
from microg.annotations.rows import Annotation, Item, checked
from microg.errors import AnnotationError
from microg.review.items import ADJUDICATE, Mode, RefusedError, TaskName
from microg.review.lines import Lines
from microg.review.material import Material
from microg.review.proposals import Proposal, Proposals
from microg.review.rules import Annotator, Rules
from microg.review.said import Judgements
from microg.review.store import Lease, Note, Store


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as it is handed out.

    Attributes:
        name: What is to be judged.
        until: When its lease ends.
        proposal: What a model says.
        held: What the dataset held before people judged.
        mine: What the annotator said before.
        edits: The annotator's edits of the clip's boxes, oldest first.
        said: What others said; only to adjudicate.
        notes: What was written beside it, as far as the annotator may read it.
        why: Why it comes now.
    """

    name: TaskName
    until: datetime
    proposal: Proposal | None
    held: Mapping[str, Any] | None
    mine: Annotation | None
    edits: Sequence[Annotation]
    said: Sequence[Annotation]
    notes: Sequence[Note]
    why: str


class Desk:
    """Hands out tasks and takes judgements.

    Args:
        material: The dataset.
        before: Judgements that the dataset's table holds.
        store: The SQLite file.
        rules: How the review goes.
        proposals: What models say.

    Raises:
        ConfigError: Nothing tells the order.
    """

    def __init__(
        self,
        material: Material,
        before: Iterable[Annotation],
        store: Store,
        rules: Rules,
        proposals: Proposals | None = None,
    ) -> None:
        self.material, self.rules = material, rules
        self._store, self._proposals = store, proposals or Proposals()
        self._lock = threading.RLock()
        rows = {each.annotation_id: each for each in before}
        rows |= {each.annotation_id: each for _, each in store.judgements()}
        self._judgements = Judgements(material.vocabulary, rows.values())
        self._lines = Lines(material, self._judgements, rules, self._proposals)
        for clip_id, annotator in store.finished(rules.round):
            self._lines.judge(Item("box", clip_id), annotator)
        for lease in store.leases():
            self._lease_again(lease)

    def _lease_again(self, lease: Lease) -> None:
        """Take over a lease from before the process started, where its task is still there."""
        try:
            name = TaskName.parse(lease.task_id)
            if name.mode in self.rules.modes:
                self._lines.lease(name, lease.annotator, lease.until)
        except RefusedError:
            return

    def next(
        self, who: Annotator, mode: Mode, count: int = 1, *, again: bool = False, have: Sequence[str] | None = None
    ) -> tuple[list[Task], int]:
        """Lease tasks to an annotator.

        Args:
            who: The annotator.
            mode: What they want to judge.
            count: How many tasks at most.
            again: Give those that they judged already, the one judged longest ago first.
            have: Tasks on their screen. Others that they still hold, such as before their browser was closed, come
                first; None if those are not to come again.

        Returns:
            The tasks, and how many are left for them in the mode, these among them.

        Raises:
            RefusedError: The mode is not part of this review, or they do not adjudicate.
        """
        with self._lock:
            self._check_mode(who, mode)
            until = self._expire()
            names = self._lines.take(mode, who, count, until, again=again, have=have)
            if names:
                self._store.lease([Lease(str(name), who.name, until) for name in names])
            return [self._task(name, who, until) for name in names], self._lines.left(mode, who)

    def save(
        self,
        who: Annotator,
        task_id: str,
        annotation_id: str,
        value: Mapping[str, Any],
        seconds: float | None = None,
        person_id: int | None = None,
    ) -> Annotation:
        """Save a judgement; it is on the disk when this returns. The same again is saved once.

        Args:
            who: The annotator.
            task_id: The task, which they hold.
            annotation_id: The judgement's own name.
            value: What they said, as its kind has it.
            seconds: How long it took them.
            person_id: The person whose boxes an edit changes; of other kinds the task says it.

        Raises:
            RefusedError: The lease is over, or somebody else's; or the id was used for something else.
            AnnotationError: The value is not fit to be saved.
        """
        with self._lock:
            name = TaskName.parse(task_id)
            about = name.item._replace(person_id=person_id) if name.mode == "boxes" else name.item
            annotation = checked(
                Annotation(
                    annotation_id=annotation_id,
                    clip_id=about.clip_id,
                    kind=about.kind,
                    person_id=about.person_id,
                    item=about.index,
                    value=value,
                    annotator=who.name,
                    source="app",
                    time=self._store.clock(),
                    round=self.rules.round,
                    adjudicated=name.mode == ADJUDICATE,
                ),
                self.material.vocabulary,
            )
            if (stored := self._store.judgement(annotation_id)) is not None:
                return _check_repeated(stored, annotation, task_id)
            if annotation.withdrawn:
                raise AnnotationError("nothing is taken back by saving", "undo it")
            self._check_mode(who, name.mode)
            self._expire()
            self._check_lease(name, who)
            if name.mode == "boxes":
                self._check_edit(annotation, who)
            previous = self._judgements.by(about, who.name, adjudicated=annotation.adjudicated)
            annotation = Annotation(
                **{
                    **vars(annotation),
                    "time": self._store.time(),
                    "supersedes": previous.annotation_id if previous else None,
                }
            )
            self._store.save(annotation, task_id, seconds, ends=name.mode != "boxes")
            self._take(annotation)
            return annotation

    def done(self, who: Annotator, task_id: str, seconds: float | None = None) -> None:
        """End a task of mode boxes: its annotator is content with the clip's boxes.

        Raises:
            RefusedError: The lease is over, or somebody else's.
        """
        with self._lock:
            name = TaskName.parse(task_id)
            if name.mode != "boxes":
                raise RefusedError(f"{task_id} ends when it is saved", "only clips' boxes are done so", 422)
            self._check_mode(who, name.mode)
            self._expire()
            if self._lines.judged(name.item, who.name) and not self._lines.holds(name, who):
                return  # it was said twice
            self._check_lease(name, who)
            self._store.finish(name.item.clip_id, who.name, self.rules.round, task_id, seconds)
            self._lines.judge(name.item, who.name)

    def reopen(self, who: Annotator, task_id: str) -> Task:
        """Give exactly this task to its annotator, also when they judged it; boxes that were done are open again.

        Raises:
            RefusedError: Somebody else has it, or it is settled.
        """
        with self._lock:
            name = self._named(who, task_id)
            until = self._expire()
            judged = self._lines.judged(name.item, who.name)
            if not (judged or self._lines.holds(name, who) or self._lines.may_have(name, who)):
                raise RefusedError(f"somebody else has the task {name}, or it is done", "take another one")
            if judged and name.mode == "boxes":
                self._store.unfinish(name.item.clip_id, who.name, self.rules.round)
                self._lines.take_back(name.item, who.name)
            self._lines.lease(name, who.name, until)
            self._store.lease([Lease(task_id, who.name, until)])
            return self._task(name, who, until)

    def undo(self, who: Annotator, annotation_id: str) -> Task:
        """Take a judgement back, and give its task to its annotator again.

        Raises:
            RefusedError: It is not theirs, or they said something else since.
        """
        with self._lock:
            stored = self._store.judgement(annotation_id)
            if stored is None or stored[0].annotator != who.name:
                raise RefusedError(f"you made no judgement {annotation_id[:40]!r} here", status=404)
            annotation, task_id = stored
            name = TaskName.parse(task_id)
            self._check_mode(who, name.mode)
            until = self._expire()
            withdrawal = f"{annotation_id}-withdrawn"
            if self._store.judgement(withdrawal) is None:
                if not self._judgements.stands(annotation):
                    raise RefusedError("you said something else of it since", "undo that first")
                taken_back = {
                    "annotation_id": withdrawal,
                    "value": {"withdrawn": True},
                    "supersedes": annotation_id,
                    "time": self._store.time(),
                }
                gone = Annotation(**{**vars(annotation), **taken_back})
                self._store.save(gone, task_id, None, ends=False)
                self._take(gone)
            elif not self._lines.holds(name, who):
                raise RefusedError("it was undone before", "take its task with /api/next")
            self._lines.lease(name, who.name, until)
            self._store.lease([Lease(task_id, who.name, until)])
            return self._task(name, who, until)

    def renew(self, who: Annotator, task_ids: Iterable[str]) -> tuple[datetime, list[str], list[str]]:
        """Renew an annotator's leases; one that is over is given again when nobody else has the item.

        Returns:
            Until when, the tasks that they hold, and those that they lost.
        """
        with self._lock:
            until = self._expire()
            kept, lost = [], []
            for task_id in task_ids:
                name = self._named(who, task_id)
                if self._lines.holds(name, who) or self._lines.may_have(name, who):
                    self._lines.lease(name, who.name, until)
                    kept.append(task_id)
                else:
                    lost.append(task_id)
            self._store.lease([Lease(task_id, who.name, until) for task_id in kept])
            return until, kept, lost

    def release(self, who: Annotator, task_id: str) -> None:
        """Give a task back: others may have it at once, its annotator when nothing else is left."""
        with self._lock:
            name = self._named(who, task_id)
            self._lines.release(name, who.name)
            self._store.release(task_id, who.name)

    def note(self, who: Annotator, task_id: str, text: str) -> None:
        """Keep a note beside a task's item; others read it once they judged.

        Raises:
            RefusedError: There is no such item, or the text is empty.
        """
        with self._lock:
            name = self._named(who, task_id)
            if not text.strip():
                raise RefusedError("the note is empty", status=422)
            self._store.note(name.item, who.name, text.strip())

    def progress(self, who: Annotator) -> list[dict[str, Any]]:
        """Return how far each mode is, as plain values."""
        with self._lock:
            self._expire()
            return self._lines.progress(who)

    def tracks(self, who: Annotator, clip_id: str) -> Tracks:
        """Return a clip's boxes as they were before people edited them, with this annotator's own edits.

        Raises:
            RefusedError: There is no such clip.
        """
        with self._lock:
            first = self._judgements.boxes_before(clip_id)
            tracks = edited({}, first) if first else self.material.boxes.tracks(self.clip_number(clip_id))
            return edited(tracks, self._own_edits(who, clip_id))

    def clip_number(self, clip_id: str) -> int:
        """Return a clip's number. Raises `RefusedError` for one that is not here."""
        number = self.material.clips.number(clip_id)
        if number is None:
            raise RefusedError(f"there is no clip {clip_id[:100]!r}", status=404)
        return number

    def mine(self, who: Annotator, item: Item) -> Annotation | None:
        """Return what an annotator said of an item."""
        with self._lock:
            return self._judgements.by(item, who.name)

    def _check_mode(self, who: Annotator, mode: Mode) -> None:
        if mode not in self.rules.modes:
            raise RefusedError(f"mode {mode} is not part of this review", f"modes: {', '.join(self.rules.modes)}", 422)
        if mode == ADJUDICATE and not who.adjudicator:
            raise RefusedError(f"{who.name} is no adjudicator", "the review's owner names them", 403)

    def _named(self, who: Annotator, task_id: str) -> TaskName:
        """Return a task that an annotator names, when there is such a one for them."""
        name = TaskName.parse(task_id)
        self._check_mode(who, name.mode)
        self._lines.check(name)
        return name

    def _expire(self) -> datetime:
        """End the leases that are over, and return until when new ones hold."""
        time = self._store.clock()
        self._lines.expire(time)
        return time + timedelta(seconds=self.rules.lease_s)

    def _check_lease(self, name: TaskName, who: Annotator) -> None:
        if not self._lines.holds(name, who):
            raise RefusedError(
                f"you do not hold the task {name}: its lease is over, or somebody else has it",
                "renew it or take another one",
            )

    def _own_edits(self, who: Annotator, clip_id: str) -> list[Annotation]:
        return [each for each in self._judgements.edits(clip_id) if each.annotator == who.name]

    def _task(self, name: TaskName, who: Annotator, until: datetime) -> Task:
        item, settling = name.item, name.mode == ADJUDICATE
        said = sorted(self._judgements.of(item).values(), key=lambda each: each.time) if settling else []
        may_read = settling or self._lines.judged(item, who.name)
        return Task(
            name=name,
            until=until,
            proposal=self._proposals.of(item),
            held=self._held(item),
            mine=self._judgements.by(item, who.name, adjudicated=settling),
            edits=self._own_edits(who, item.clip_id) if item.kind == "box" else [],
            said=said,
            notes=[each for each in self._store.notes(item) if may_read or each.annotator == who.name],
            why=self._lines.why(name),
        )

    def _held(self, item: Item) -> Mapping[str, Any] | None:
        """Return what the dataset held before people judged: what was accepted since would tell what others said."""
        before = self._judgements.before(item)
        if before is not None:
            return before.value
        clip = self.clip_number(item.clip_id)
        if item.kind == "screening":
            return {"keep": bool(self.material.clips.kept[clip])}
        if item.kind == "action":
            labels = self.material.labels.get(clip, item.person_id or 0)
            return {"actions": labels} if labels else None
        if item.kind == "box":
            return None
        texts = self.material.captions if item.kind == "caption" else self.material.questions
        found = texts.get(clip, item.index)
        return {"verdict": "accept", **found} if found else None

    def _check_edit(self, edit: Annotation, who: Annotator) -> None:
        """Refuse an edit of boxes that says nothing: of people or frames that are not there."""
        people = self.tracks(who, edit.clip_id)
        op, value, frames = edit.value["op"], edit.value, self.material.clips.clip(self.clip_number(edit.clip_id))
        where = f"boxes of {edit.clip_id!r}"
        if op != "draw" and edit.person_id not in people:
            raise AnnotationError(f"{where}: there is no person {edit.person_id}")
        if op == "merge" and (value["into"] not in people or value["into"] == edit.person_id):
            raise AnnotationError(f"{where}: person {edit.person_id} cannot become person {value['into']}")
        if op == "split" and value["new"] in people:
            raise AnnotationError(f"{where}: there is a person {value['new']} already", "split to a new number")
        last = max((int(box[0]) for stretch in value.get("stretches", ()) for box in stretch), default=0)
        if frames.num_frames and last > frames.num_frames:
            raise AnnotationError(f"{where}: the clip has no frame {last}", f"it has {frames.num_frames}")

    def _take(self, annotation: Annotation) -> None:
        """Take in a judgement that was just saved."""
        item, annotator = annotation.about, annotation.annotator
        self._judgements.remember(annotation)
        if annotation.kind == "box":
            if annotation.withdrawn:
                self._store.unfinish(annotation.clip_id, annotator, self.rules.round)
                self._lines.take_back(Item("box", annotation.clip_id), annotator)
            return
        if annotation.adjudicated:
            self._lines.settle(item)
        elif annotation.withdrawn:
            self._lines.take_back(item, annotator)
        else:
            self._lines.judge(item, annotator)
        self._lines.compare([item])


def _check_repeated(stored: tuple[Annotation, str], annotation: Annotation, task_id: str) -> Annotation:
    """Return the judgement that was saved before, if this is the same."""
    known, of = stored
    same = (known.annotator, known.value, of) == (annotation.annotator, annotation.value, task_id)
    if not same or known.about != annotation.about:
        raise RefusedError(
            f"annotation {annotation.annotation_id!r} is there already, and says something else", "use another id"
        )
    return known
