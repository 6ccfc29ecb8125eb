"""The items of all modes as they wait for people: one queue a mode, and the disputes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

import numpy as np

from microg.annotations.rows import Item
from microg.review.disputes import Disputes
from microg.review.items import ADJUDICATE, KIND_OF, MODE_OF, Mode, RefusedError, TaskName, items_of
from microg.review.material import Material, Numbered
from microg.review.order import check_order, draw, ranked
from microg.review.proposals import Proposals
from microg.review.queues import Queue
from microg.review.rules import Annotator, Rules
from microg.review.said import Judgements


class Lines:
    """Who may have which task, who has it, and how far each mode is.

    Args:
        material: The dataset.
        judgements: What was said already.
        rules: How the review goes.
        proposals: What models say.

    Raises:
        ConfigError: Nothing tells the order.
    """

    def __init__(self, material: Material, judgements: Judgements, rules: Rules, proposals: Proposals) -> None:
        self._material, self._judgements, self._rules = material, judgements, rules
        known = material.clips.number
        self._disputes = Disputes(item for item in judgements.differing() if known(item.clip_id) is not None)
        self._items: dict[Mode, Numbered] = {}
        self._queues: dict[Mode, Queue] = {}
        self._why: dict[Mode, Callable[[int], str]] = {}
        check_order(rules.order, proposals, self._disputes)
        for mode in rules.modes:
            if mode != ADJUDICATE:
                self._line_up(mode, proposals)
        for item, by in judgements.all():
            for annotation in by.values():
                if annotation.round >= rules.round:
                    self.judge(item, annotation.annotator)
        for item in judgements.all_settled():
            self.settle(item)
        for edit in judgements.edits():
            if edit.source != "app" and edit.round >= rules.round:  # what was imported is finished
                self.judge(Item("box", edit.clip_id), edit.annotator)

    def _line_up(self, mode: Mode, proposals: Proposals) -> None:
        """Put the items of a mode in order, and say how many annotators each needs."""
        rules, items = self._rules, items_of(self._material, mode, proposals.questions(self._material))
        first = ranked(mode, items, self._material, proposals, self._disputes, rules.order, rules.seed)
        self._items[mode], self._why[mode] = items, first.why
        need = np.full(len(items), rules.each, np.int64)
        if rules.second > 0:
            need += _chosen(self._material, mode, items, rules.second, rules.seed)
        if rules.order == "disagreed":  # one more has to say something
            for item in self._disputes:
                place = self._place(item)
                if item.kind == KIND_OF[mode] and place is not None:
                    need[place] = max(need[place], len(self._judgements.of(item)) + 1)
        self._queues[mode] = Queue(first.order, need)

    # What there is

    def check(self, name: TaskName) -> None:
        """Raise `RefusedError` when there is no such task."""
        if name.mode != ADJUDICATE:
            self._known(name)
        elif name.item not in self._disputes and not self._judgements.settled(name.item):
            raise _unknown(name)

    def why(self, name: TaskName) -> str:
        """Return why a task comes when it does."""
        place = self._place(name.item)
        if name.mode == ADJUDICATE or place is None:
            return "the annotators differ"
        return self._why[name.mode](place)

    def progress(self, who: Annotator) -> list[dict[str, Any]]:
        """Return how far each mode is, as plain values; adjudicate only for those who do."""
        result = []
        for mode in self._rules.modes:
            if mode != ADJUDICATE:
                result.append({"mode": mode, **vars(self._queues[mode].counts(who.name))})
            elif who.adjudicator:
                settled = self._judgements.all_settled()
                counts = {"total": len(settled) + len(self._disputes), "done": len(settled)}
                mine = sum(who.name in by for by in settled.values())
                result.append({"mode": mode, **counts, "mine": mine, "open": len(self._disputes)})
        return result

    def left(self, mode: Mode, who: Annotator) -> int:
        """Return how many tasks of a mode somebody has or may still get."""
        if mode == ADJUDICATE:
            return self._disputes.open_to(who.name)
        return self._queues[mode].counts(who.name).open

    # Leases

    def take(
        self, mode: Mode, who: Annotator, count: int, until: datetime, *, again: bool, have: Collection[str] | None
    ) -> list[TaskName]:
        """Lease up to `count` tasks of a mode, as `Desk.next` says."""
        if mode == ADJUDICATE:
            on_screen = None if have is None else [TaskName.parse(task_id).item for task_id in have]
            return [TaskName(mode, item) for item in self._disputes.take(who.name, count, until, on_screen)]
        queue, places = self._queues[mode], []
        if have is not None:
            places = [place for place in queue.held(who.name) if str(self._name(mode, place)) not in have][:count]
        if again:
            places += queue.again(who.name, count - len(places))
        for place in places:
            queue.lease(place, who.name, until)
        if not again:
            places += queue.take(who.name, count - len(places), until)
        return [self._name(mode, place) for place in places]

    def holds(self, name: TaskName, who: Annotator) -> bool:
        """Tell whether somebody holds a task."""
        if name.mode == ADJUDICATE:
            return self._disputes.holds(name.item, who.name)
        return self._queues[name.mode].leased_until(self._known(name), who.name) is not None

    def may_have(self, name: TaskName, who: Annotator) -> bool:
        """Tell whether somebody may get a task."""
        if name.mode == ADJUDICATE:
            return self._disputes.may_have(name.item, who.name)
        return self._queues[name.mode].may_have(self._known(name), who.name)

    def lease(self, name: TaskName, annotator: str, until: datetime) -> None:
        """Give a task to somebody until a time."""
        if name.mode == ADJUDICATE:
            self._disputes.lease(name.item, annotator, until)
        else:
            self._queues[name.mode].lease(self._known(name), annotator, until)

    def release(self, name: TaskName, annotator: str) -> None:
        """Let somebody give a task back."""
        if name.mode == ADJUDICATE:
            self._disputes.release(name.item, annotator)
        else:
            self._queues[name.mode].release(self._known(name), annotator)

    def expire(self, time: datetime) -> None:
        """End the leases that are over."""
        self._disputes.expire(time)
        for queue in self._queues.values():
            queue.expire(time)

    # What was said

    def judged(self, item: Item, annotator: str) -> bool:
        """Tell whether somebody judged an item."""
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        return queue is not None and place is not None and annotator in queue.judged_by(place)

    def judge(self, item: Item, annotator: str) -> None:
        """Count a judgement."""
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        if queue is not None and place is not None:
            queue.judge(place, annotator)

    def take_back(self, item: Item, annotator: str) -> None:
        """Forget a judgement."""
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        if queue is not None and place is not None:
            queue.take_back(place, annotator)

    def settle(self, item: Item) -> None:
        """Look again whether an item was adjudicated."""
        queue, place = self._queues.get(MODE_OF[item.kind]), self._place(item)
        if queue is not None and place is not None:
            queue.settle(place, bool(self._judgements.settled(item)))

    def compare(self, items: Iterable[Item]) -> None:
        """Look again whether annotators differ in items."""
        for item in items:
            self._disputes.update(item, bool(self._judgements.differing([item])))

    def _place(self, item: Item) -> int | None:
        """Return an item's place in its mode's list, None when it is not there."""
        items = self._items.get(MODE_OF[item.kind])
        number = self._material.clips.number(item.clip_id)
        if items is None or number is None:
            return None
        return items.place(number, item.index if item.kind == "qa" else item.person_id)

    def _known(self, name: TaskName) -> int:
        place = self._place(name.item)
        if place is None:
            raise _unknown(name)
        return place

    def _name(self, mode: Mode, place: int) -> TaskName:
        items, kind = self._items[mode], KIND_OF[mode]
        clip_id, number = self._material.clips.ids[items.clip[place]], int(items.number[place])
        person, index = (number if kind == "action" else None), (number if kind == "qa" else None)
        return TaskName(mode, Item(kind, clip_id, person, index))


def _unknown(name: TaskName) -> RefusedError:
    return RefusedError(f"there is no task {str(name)[:100]!r}", "take one with /api/next", 404)


def _chosen(material: Material, mode: Mode, items: Numbered, share: float, seed: int) -> np.ndarray:
    """Return by place whether an item is of the share that one annotator more judges; the same after a restart."""
    ids = material.clips.ids
    chosen = np.zeros(len(items), bool)
    for place, (clip, number) in enumerate(zip(items.clip.tolist(), items.number.tolist(), strict=True)):
        chosen[place] = draw(f"second:{seed}:{mode}:{ids[clip]}:{number}") < share
    return chosen
