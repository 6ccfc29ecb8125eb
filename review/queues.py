"""Who gets which item next, so that nobody does what others did or are doing. No files, no HTTP, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np


@dataclass(frozen=True)
class Counts:
    """How far a mode is, for one annotator.

    Attributes:
        total: Items.
        done: Items that need nobody any more.
        mine: Items that this annotator judged.
        open: Items that this annotator may still get.
    """

    total: int
    done: int
    mine: int
    open: int


@dataclass
class _Walk:
    """How far an annotator came: ranks before `reached` were looked at; `returned` are those that opened since.

    `skipped` are places that they gave back themselves, which come again when there is nothing else.
    """

    reached: int = 0
    returned: list[int] = field(default_factory=list)
    skipped: dict[int, None] = field(default_factory=dict)


class Queue:
    """The items of one mode in the order in which people get them.

    Each item needs a number of annotators. Who holds a lease of it counts as one of them until the lease ends. Finding
    the next item looks at each rank once per annotator, and again only when it opened since.

    Args:
        order: Places of items, first things first.
        need: By place, how many annotators an item needs.
    """

    def __init__(self, order: np.ndarray, need: np.ndarray) -> None:
        self._order, self._need = order.astype(np.int32), need.astype(np.uint8)
        self._rank = np.empty_like(self._order)
        self._rank[self._order] = np.arange(len(order), dtype=np.int32)
        self._judged: dict[int, dict[str, None]] = {}
        self._mine: dict[str, dict[int, None]] = {}  # by annotator, in the order of judging
        self._settled: set[int] = set()
        self._leases: dict[int, dict[str, datetime]] = {}
        self._ends: list[tuple[datetime, int, str]] = []
        self._walks: dict[str, _Walk] = {}
        self._done = int((self._need == 0).sum())
        self._waiting: dict[str, int] = {}  # by annotator: judged by them, and not done

    def __len__(self) -> int:
        return len(self._order)

    def judge(self, place: int, annotator: str) -> None:
        """Count an annotator's judgement of an item; their lease of it ends."""
        before = self._open_to(place)
        self._judged.setdefault(place, {})[annotator] = None
        mine = self._mine.setdefault(annotator, {})
        mine.pop(place, None)  # what was judged again goes to the end
        mine[place] = None
        self._leases.get(place, {}).pop(annotator, None)
        self._recount(place, before)

    def take_back(self, place: int, annotator: str) -> None:
        """Forget an annotator's judgement of an item: it is open again."""
        before = self._open_to(place)
        self._judged.get(place, {}).pop(annotator, None)
        self._mine.get(annotator, {}).pop(place, None)
        self._recount(place, before)
        self._reopen(place)

    def settle(self, place: int, settled: bool) -> None:
        """Say whether an item is settled, and so needs nobody."""
        before = self._open_to(place)
        self._settled.add(place) if settled else self._settled.discard(place)
        self._recount(place, before)
        if not settled:
            self._reopen(place)

    def ask(self, place: int, need: int) -> None:
        """Say how many annotators an item needs, before anybody judges or holds it."""
        self._done += (need == 0) - int(self._need[place] == 0)
        self._need[place] = need

    def judged_by(self, place: int) -> Collection[str]:
        """Return who judged an item."""
        return self._judged.get(place, {})

    def lease(self, place: int, annotator: str, until: datetime) -> None:
        """Give an item to an annotator until a time."""
        self._leases.setdefault(place, {})[annotator] = until
        heapq.heappush(self._ends, (until, place, annotator))

    def leased_until(self, place: int, annotator: str) -> datetime | None:
        """Return until when an annotator holds an item, None when they do not."""
        return self._leases.get(place, {}).get(annotator)

    def held(self, annotator: str) -> list[int]:
        """Return the items that an annotator holds, first things first."""
        places = [place for place, leases in self._leases.items() if annotator in leases]
        return sorted(places, key=lambda place: int(self._rank[place]))

    def release(self, place: int, annotator: str) -> None:
        """End an annotator's lease; others may have the item at once, they themselves when nothing else is left."""
        if self._leases.get(place, {}).pop(annotator, None) is not None:
            self._reopen(place, but=annotator)
            self._walk(annotator).skipped[place] = None

    def expire(self, time: datetime) -> None:
        """End the leases that are over."""
        while self._ends and self._ends[0][0] <= time:
            until, place, annotator = heapq.heappop(self._ends)
            leases = self._leases.get(place, {})
            if leases.get(annotator) == until:  # else it was renewed, or ended before
                del leases[annotator]
                self._reopen(place)
            if place in self._leases and not self._leases[place]:
                del self._leases[place]

    def may_have(self, place: int, annotator: str) -> bool:
        """Tell whether an annotator may get an item: they neither judged nor hold it, and others leave room."""
        judged, leases = self._judged.get(place, {}), self._leases.get(place, {})
        if annotator in judged or annotator in leases or place in self._settled:
            return False
        return len(judged) + len(leases) < int(self._need[place])

    def take(self, annotator: str, count: int, until: datetime) -> list[int]:
        """Lease up to `count` items to an annotator who may have them, and return them, first things first."""
        walk, found = self._walk(annotator), []

        def looked_at(place: int) -> None:
            if self.may_have(place, annotator):
                self.lease(place, annotator, until)
                found.append(place)

        while walk.returned and len(found) < count:
            place = int(self._order[heapq.heappop(walk.returned)])
            if place not in walk.skipped:
                looked_at(place)
        while walk.reached < len(self._order) and len(found) < count:
            walk.reached += 1
            looked_at(int(self._order[walk.reached - 1]))
        for place in list(walk.skipped):
            if len(found) == count:
                break
            del walk.skipped[place]
            looked_at(place)
        return found

    def again(self, annotator: str, count: int) -> list[int]:
        """Return up to `count` items that an annotator judged and does not hold, the one judged longest ago first."""
        found: list[int] = []
        for place in self._mine.get(annotator, {}):
            if len(found) == count:
                break
            if annotator not in self._leases.get(place, {}):
                found.append(place)
        return found

    def counts(self, annotator: str) -> Counts:
        """Return how far the mode is, for one annotator. What others hold just now counts as open."""
        mine = len(self._mine.get(annotator, {}))
        left = len(self._order) - self._done - self._waiting.get(annotator, 0)
        return Counts(len(self._order), self._done, mine, left)

    def _walk(self, annotator: str) -> _Walk:
        return self._walks.setdefault(annotator, _Walk())

    def _is_done(self, place: int) -> bool:
        return place in self._settled or len(self._judged.get(place, {})) >= int(self._need[place])

    def _open_to(self, place: int) -> tuple[bool, tuple[str, ...]]:
        """Return whether an item is done, and who judged it."""
        return self._is_done(place), tuple(self._judged.get(place, {}))

    def _recount(self, place: int, before: tuple[bool, tuple[str, ...]]) -> None:
        for sign, (done, judged) in ((-1, before), (1, self._open_to(place))):
            self._done += sign * done
            if not done:
                for annotator in judged:
                    self._waiting[annotator] = self._waiting.get(annotator, 0) + sign

    def _reopen(self, place: int, but: str | None = None) -> None:
        """Offer an item again to all who came past it."""
        rank = int(self._rank[place])
        for annotator, walk in self._walks.items():
            if rank < walk.reached and annotator != but:
                heapq.heappush(walk.returned, rank)
