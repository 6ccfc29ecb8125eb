"""Hands out tasks and takes judgements: one door for all that annotators do, safe for many threads.

What is in memory here is what the SQLite file and the dataset say; each change is written to the file first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np

from microg.annotations.accept import TABLE_OF, Acceptance, accept
from microg.annotations.boxes import Tracks, edited
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind, checked
from microg.annotations.table import current
from microg.data import schema
from microg.errors import AnnotationError
from microg.review.items import ADJUDICATE, KIND_OF, MODE_OF, MODES, Mode, RefusedError, TaskName, items_of
from microg.review.material import Material, Numbered
from microg.review.order import Order, check_order, draw, ranked
from microg.review.proposals import Proposal, Proposals
from microg.review.queues import Queue
from microg.review.store import Lease, Note, Store

_EMPTY = {name: schema.empty(name) for name in (*TABLE_OF.values(), "clips")}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a review goes.

    Attributes:
        modes: What is judged.
        lease_s: Seconds that somebody holds a task without a sign of life.
        each: How many annotators judge each item.
        second: Share of items, from 0 to 1, that one annotator more judges, blind.
        round: Number of the round: judgements of earlier rounds do not count as done.
        order: What comes first.
        seed: Chooses the items of the second annotation, and the order `random`.
    """

    modes: tuple[Mode, ...] = MODES
    lease_s: float = 300.0
    each: int = 1
    second: float = 0.0
    round: int = 1
    order: Order = "dataset"
    seed: int = 0


@dataclass(frozen=True)
class Annotator:
    """Who is asking."""

    name: str
    adjudicator: bool = False


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
    """

    def __init__(
        self,
        material: Material,
        before: Iterable[Annotation],
        store: Store,
        rules: Rules,
        proposals: Proposals | None = None,
    ) -> None:
        self.material, self.rules, self.store = material, rules, store
        self.proposals = proposals or Proposals()
        self._lock = threading.RLock()
        self._held: dict[Item, Mapping[str, Any]] = {}
        self._first_boxes: dict[str, list[Annotation]] = {}
        self._said: dict[Item, dict[str, Annotation]] = {}
        self._settled: dict[Item, dict[str, Annotation]] = {}
        self._edits: dict[str, dict[str, Annotation]] = {}
        self._disputes: dict[Item, None] = {}
        self._disputed: dict[Item, tuple[str, datetime]] = {}  # leases of those
        self._items: dict[Mode, Numbered] = {}
        self._queues: dict[Mode, Queue] = {}
        self._why: dict[Mode, Any] = {}
        self._read(before)
        self._line_up()

    # Beginning

    def _read(self, before: Iterable[Annotation]) -> None:
        """Take in all that was said before."""
        rows = {each.annotation_id: each for each in before if each.source != "model"}
        rows |= {each.annotation_id: each for _, each in self.store.judgements()}
        for each in current(rows.values()):
            if each.annotator == DATASET and each.kind == "box":
                self._first_boxes.setdefault(each.clip_id, []).append(each)
            elif each.annotator == DATASET:
                self._held[each.about] = each.value
            else:
                self._remember(each)
        for kind in KINDS:
            items = [item for item in self._said if item.kind == kind]
            self._disputes |= dict.fromkeys(self._disagreeing(items, kind))

    def _line_up(self) -> None:
        """Put the items of each mode in order, and count what was said of them."""
        rules = self.rules
        check_order(rules.order, self.proposals, self._disputes)
        for mode in rules.modes:
            if mode == ADJUDICATE:
                continue
            items = items_of(self.material, mode, self.proposals.questions(self.material))
            first = ranked(mode, items, self.material, self.proposals, self._disputes, rules.order, rules.seed)
            need = np.full(len(items), rules.each, np.int64)
            if rules.second > 0:
                need += _chosen(self.material, mode, items, rules.second, rules.seed)
            self._items[mode], self._why[mode] = items, first.why
            queue = self._queues[mode] = Queue(first.order, need)
            if rules.order == "disagreed":
                self._ask_one_more(mode, queue)
        for item, by in self._said.items():
            for annotation in by.values():
                self._count(item, annotation)
        for item in self._settled:
            self._settle(item)
        for clip_id, annotator in self.store.finished(rules.round):
            self._judge(Item("box", clip_id), annotator)
        for clip_id, edits in self._edits.items():
            for edit in edits.values():
                if edit.source != "app" and edit.round >= rules.round:
                    self._judge(Item("box", clip_id), edit.annotator)
        for lease in self.store.leases():
            self._lease_again(lease)

    def _ask_one_more(self, mode: Mode, queue: Queue) -> None:
        """Let those of whom people disagree be judged once more."""
        for item in self._disputes:
            place = self._place(item)
            if item.kind == KIND_OF[mode] and place is not None:
                queue.ask(place, len(self._said[item]) + 1)

    def _lease_again(self, lease: Lease) -> None:
        """Take over a lease from before the process started."""
        try:
            name = TaskName.parse(lease.task_id)
        except RefusedError:
            return
        if name.mode == ADJUDICATE:
            if name.item in self._disputes:
                self._disputed[name.item] = (lease.annotator, lease.until)
        elif name.mode in self._queues and (place := self._place(name.item)) is not None:
            self._queues[name.mode].lease(place, lease.annotator, lease.until)

    # What annotators do

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
            The tasks, and how many are left for them in the mode.

        Raises:
            RefusedError: The mode is not part of this review, or they do not adjudicate.
        """
        with self._lock:
            self._check_mode(who, mode)
            until = self._expire()
            if mode == ADJUDICATE:
                names = [TaskName(mode, item) for item in self._next_disputes(who, count, until, have)]
                left = sum(self._may_settle(item, who) for item in self._disputes)
            else:
                queue = self._queues[mode]
                places: list[int] = []
                if have is not None:
                    mine = {place: str(self._name(mode, place)) for place in queue.held(who.name)}
                    places = [place for place, name in mine.items() if name not in have][:count]
                if again:
                    places += queue.again(who.name, count - len(places))
                for place in places:
                    queue.lease(place, who.name, until)
                if not again:
                    places += queue.take(who.name, count - len(places), until)
                names = [self._name(mode, place) for place in places]
                left = queue.counts(who.name).open
            if names:
                self.store.lease([Lease(str(name), who.name, until) for name in names])
            return [self._task(name, who, until) for name in names], left

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
                    time=self.store.clock(),
                    round=self.rules.round,
                    adjudicated=name.mode == ADJUDICATE,
                ),
                self.material.vocabulary,
            )
            if (stored := self.store.judgement(annotation_id)) is not None:
                return self._saved_before(stored, annotation, task_id)
            if annotation.withdrawn:
                raise AnnotationError("nothing is taken back by saving", "undo it")
            self._check_mode(who, name.mode)
            self._expire()
            self._check_lease(name, who)
            if name.mode == "boxes":
                self._check_edit(annotation, who)
            known = self._settled if annotation.adjudicated else self._said
            previous = None if annotation.kind == "box" else known.get(about, {}).get(who.name)
            annotation = Annotation(
                **{
                    **vars(annotation),
                    "time": self.store.time(),
                    "supersedes": previous.annotation_id if previous else None,
                }
            )
            self.store.save(annotation, task_id, seconds, ends=name.mode != "boxes")
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
            queue, place = self._queues[name.mode], self._known(name)
            if who.name in queue.judged_by(place) and queue.leased_until(place, who.name) is None:
                return  # it was said twice
            self._check_lease(name, who)
            self.store.finish(name.item.clip_id, who.name, self.rules.round, task_id, seconds)
            self._judge(name.item, who.name)

    def undo(self, who: Annotator, annotation_id: str) -> Task:
        """Take a judgement back, and give its task to its annotator again.

        Raises:
            RefusedError: It is not theirs, or they said something else since.
        """
        with self._lock:
            stored = self.store.judgement(annotation_id)
            if stored is None or stored[0].annotator != who.name:
                raise RefusedError(f"you made no judgement {annotation_id[:40]!r} here", status=404)
            annotation, task_id = stored
            name = TaskName.parse(task_id)
            self._check_mode(who, name.mode)
            until = self._expire()
            withdrawal = f"{annotation_id}-withdrawn"
            if self.store.judgement(withdrawal) is None:
                if self._standing(annotation) is None:
                    raise RefusedError("you said something else of it since", "undo that first")
                taken_back = {
                    "annotation_id": withdrawal,
                    "value": {"withdrawn": True},
                    "supersedes": annotation_id,
                    "time": self.store.time(),
                }
                gone = Annotation(**{**vars(annotation), **taken_back})
                self.store.save(gone, task_id, None, ends=False)
                self._take(gone)
            self._lease(name, who, until)
            self.store.lease([Lease(task_id, who.name, until)])
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
                name = TaskName.parse(task_id)
                self._check_mode(who, name.mode)
                if self._holds(name, who) or self._may_have(name, who):
                    self._lease(name, who, until)
                    kept.append(task_id)
                else:
                    lost.append(task_id)
            self.store.lease([Lease(task_id, who.name, until) for task_id in kept])
            return until, kept, lost

    def release(self, who: Annotator, task_id: str) -> None:
        """Give a task back: others may have it at once, its annotator when nothing else is left."""
        with self._lock:
            name = TaskName.parse(task_id)
            self._check_mode(who, name.mode)
            if name.mode == ADJUDICATE:
                if self._disputed.get(name.item, ("",))[0] == who.name:
                    del self._disputed[name.item]
                    self._disputes[name.item] = self._disputes.pop(name.item)  # to the end
            elif (place := self._place(name.item)) is not None:
                self._queues[name.mode].release(place, who.name)
            self.store.release(task_id, who.name)

    def note(self, who: Annotator, task_id: str, text: str) -> None:
        """Keep a note beside a task's item; others read it once they judged.

        Raises:
            RefusedError: There is no such item, or the text is empty.
        """
        with self._lock:
            name = TaskName.parse(task_id)
            self._check_mode(who, name.mode)
            if self._place(name.item) is None:
                raise RefusedError(f"there is no task {task_id!r}", status=404)
            if not text.strip():
                raise RefusedError("the note is empty", status=422)
            self.store.note(name.item, who.name, text.strip())

    def progress(self, who: Annotator) -> list[dict[str, Any]]:
        """Return how far each mode is, as plain values."""
        with self._lock:
            self._expire()
            result = []
            for mode in self.rules.modes:
                if mode != ADJUDICATE:
                    result.append({"mode": mode, **vars(self._queues[mode].counts(who.name))})
                elif who.adjudicator:
                    mine = sum(who.name in by for by in self._settled.values())
                    still = len(self._disputes)
                    total = len(self._settled) + still
                    result.append(
                        {"mode": mode, "total": total, "done": len(self._settled), "mine": mine, "open": still}
                    )
            return result

    def tracks(self, who: Annotator, clip_id: str) -> Tracks:
        """Return a clip's boxes as they were before people edited them, with this annotator's own edits.

        Raises:
            RefusedError: There is no such clip.
        """
        with self._lock:
            first = self._first_boxes.get(clip_id)
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
            return self._said.get(item, {}).get(who.name)

    # Looking up

    def _check_mode(self, who: Annotator, mode: Mode) -> None:
        if mode not in self.rules.modes:
            raise RefusedError(f"mode {mode} is not part of this review", f"modes: {', '.join(self.rules.modes)}", 422)
        if mode == ADJUDICATE and not who.adjudicator:
            raise RefusedError(f"{who.name} is no adjudicator", "the review's owner names them", 403)

    def _expire(self) -> datetime:
        """End the leases that are over, and return until when new ones hold."""
        time = self.store.clock()
        for queue in self._queues.values():
            queue.expire(time)
        for item in [item for item, (_, until) in self._disputed.items() if until <= time]:
            del self._disputed[item]
        return time + timedelta(seconds=self.rules.lease_s)

    def _place(self, item: Item) -> int | None:
        """Return an item's place in its mode's list, None when it is not there."""
        items = self._items.get(MODE_OF[item.kind])
        number = self.material.clips.number(item.clip_id)
        if items is None or number is None:
            return None
        of_clip = item.kind not in ("action", "qa")
        return items.place(number, None if of_clip else item.person_id if item.index is None else item.index)

    def _name(self, mode: Mode, place: int) -> TaskName:
        items, kind = self._items[mode], KIND_OF[mode]
        number = int(items.number[place])
        clip_id = self.material.clips.ids[items.clip[place]]
        return TaskName(
            mode, Item(kind, clip_id, number if kind == "action" else None, number if kind == "qa" else None)
        )

    def _known(self, name: TaskName) -> int:
        place = self._place(name.item)
        if place is None:
            raise RefusedError(f"there is no task {str(name)[:100]!r}", "take one with /api/next", 404)
        return place

    def _holds(self, name: TaskName, who: Annotator) -> bool:
        if name.mode == ADJUDICATE:
            return self._disputed.get(name.item, ("",))[0] == who.name
        return self._queues[name.mode].leased_until(self._known(name), who.name) is not None

    def _may_have(self, name: TaskName, who: Annotator) -> bool:
        if name.mode == ADJUDICATE:
            return name.item in self._disputes and self._may_settle(name.item, who)
        return self._queues[name.mode].may_have(self._known(name), who.name)

    def _lease(self, name: TaskName, who: Annotator, until: datetime) -> None:
        if name.mode == ADJUDICATE:
            self._disputed[name.item] = (who.name, until)
        else:
            self._queues[name.mode].lease(self._known(name), who.name, until)

    def _check_lease(self, name: TaskName, who: Annotator) -> None:
        if not self._holds(name, who):
            raise RefusedError(
                f"you do not hold the task {name}: its lease is over, or somebody else has it",
                "renew it or take another one",
            )

    def _may_settle(self, item: Item, who: Annotator) -> bool:
        return self._disputed.get(item, (who.name,))[0] == who.name

    def _next_disputes(self, who: Annotator, count: int, until: datetime, have: Sequence[str] | None) -> list[Item]:
        found: list[Item] = []
        for item in self._disputes:
            if len(found) == count:
                break
            holder = self._disputed.get(item)
            again = holder is not None and holder[0] == who.name and have is not None
            if holder is None or (again and str(TaskName(ADJUDICATE, item)) not in cast(Sequence, have)):
                found.append(item)
        for item in found:
            self._disputed[item] = (who.name, until)
        return found

    def _own_edits(self, who: Annotator, clip_id: str) -> list[Annotation]:
        return [each for each in self._edits.get(clip_id, {}).values() if each.annotator == who.name]

    def _standing(self, annotation: Annotation) -> Annotation | None:
        """Return a judgement when it stands."""
        if annotation.kind == "box":
            return self._edits.get(annotation.clip_id, {}).get(annotation.annotation_id)
        known = self._settled if annotation.adjudicated else self._said
        newest = known.get(annotation.about, {}).get(annotation.annotator)
        return newest if newest is not None and newest.annotation_id == annotation.annotation_id else None

    def _task(self, name: TaskName, who: Annotator, until: datetime) -> Task:
        item, settling = name.item, name.mode == ADJUDICATE
        known = self._settled if settling else self._said
        said = sorted(self._said.get(item, {}).values(), key=lambda each: each.time) if settling else []
        open_to_all = settling or who.name in self._said.get(item, {})
        notes = [each for each in self.store.notes(item) if open_to_all or each.annotator == who.name]
        place = self._place(item)
        why = "the annotators differ" if settling or place is None else self._why[name.mode](place)
        return Task(
            name=name,
            until=until,
            proposal=self.proposals.of(item),
            held=self._held_of(item),
            mine=known.get(item, {}).get(who.name),
            edits=self._own_edits(who, item.clip_id) if item.kind == "box" else [],
            said=said,
            notes=notes,
            why=why,
        )

    def _held_of(self, item: Item) -> Mapping[str, Any] | None:
        """Return what the dataset held before people judged: what was accepted since would tell what others said."""
        if item in self._held:
            return self._held[item]
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

    # Taking in

    def _saved_before(self, stored: tuple[Annotation, str], annotation: Annotation, task_id: str) -> Annotation:
        known, of = stored
        same = known.annotator == annotation.annotator and of == task_id and known.value == annotation.value
        if not same or known.about != annotation.about:
            raise RefusedError(
                f"annotation {annotation.annotation_id!r} is there already, and says something else", "use another id"
            )
        return known

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
        item = annotation.about
        if annotation.kind == "box":
            self._remember(annotation)
            clip = Item("box", annotation.clip_id)
            if annotation.withdrawn:
                self.store.unfinish(annotation.clip_id, annotation.annotator, self.rules.round)
                if (place := self._place(clip)) is not None:
                    self._queues["boxes"].take_back(place, annotation.annotator)
            return
        self._remember(annotation)
        if annotation.adjudicated:
            self._disputed.pop(item, None)
            self._settle(item)
        elif annotation.withdrawn:
            queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
            if queue is not None and place is not None:
                queue.take_back(place, annotation.annotator)
        else:
            self._count(item, annotation)
        self._look_for_dispute(item)

    def _remember(self, annotation: Annotation) -> None:
        if annotation.kind == "box":
            edits = self._edits.setdefault(annotation.clip_id, {})
            if annotation.withdrawn:
                edits.pop(annotation.supersedes or "", None)
            else:
                edits[annotation.annotation_id] = annotation
            return
        known = self._settled if annotation.adjudicated else self._said
        if annotation.withdrawn:
            by = known.get(annotation.about, {})
            by.pop(annotation.annotator, None)
            if not by:
                known.pop(annotation.about, None)
        else:
            known.setdefault(annotation.about, {})[annotation.annotator] = annotation

    def _count(self, item: Item, annotation: Annotation) -> None:
        if annotation.round >= self.rules.round:
            self._judge(item, annotation.annotator)

    def _judge(self, item: Item, annotator: str) -> None:
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        if queue is not None and place is not None:
            queue.judge(place, annotator)

    def _settle(self, item: Item) -> None:
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        if queue is not None and place is not None:
            queue.settle(place, item in self._settled)

    def _look_for_dispute(self, item: Item) -> None:
        if self._disagreeing([item], item.kind):
            self._disputes.setdefault(item)
        else:
            self._disputes.pop(item, None)
            self._disputed.pop(item, None)

    def _disagreeing(self, items: Iterable[Item], kind: Kind) -> list[Item]:
        """Return those of which two or more annotators said different things, and nobody settled it."""
        rows = [
            each
            for item in items
            if len(self._said.get(item, {})) > 1 and item not in self._settled
            for each in self._said[item].values()
        ]
        if not rows:
            return []
        how = Acceptance(rule="adjudicated")
        return [each.about for each in accept(_EMPTY, rows, self.material.vocabulary, how, (kind,)).open]


def _chosen(material: Material, mode: Mode, items: Numbered, share: float, seed: int) -> np.ndarray:
    """Return by place whether an item is of the share that one annotator more judges; the same after a restart."""
    ids = material.clips.ids
    chosen = np.zeros(len(items), bool)
    for place, (clip, number) in enumerate(zip(items.clip.tolist(), items.number.tolist(), strict=True)):
        chosen[place] = draw(f"second:{seed}:{mode}:{ids[clip]}:{number}") < share
    return chosen
