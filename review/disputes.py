"""Items that annotators differ in, and which adjudicator has which."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from microg.annotations.rows import Item


class Disputes:
    """Items to adjudicate, those that came first first; one adjudicator at a time has each.

    Args:
        items: Those there are.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items: dict[Item, None] = dict.fromkeys(items)
        self._leases: dict[Item, tuple[str, datetime]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def update(self, item: Item, differ: bool) -> None:
        """Add an item, or remove it."""
        if differ:
            self._items.setdefault(item)
        else:
            self._items.pop(item, None)
            self._leases.pop(item, None)

    def take(self, annotator: str, count: int, until: datetime, have: Collection[Item] | None) -> list[Item]:
        """Lease up to `count` items to an adjudicator; those that they hold and do not `have` first."""
        mine = [] if have is None else [item for item in self._items if self.holds(item, annotator)]
        found = [item for item in mine if item not in (have or ())][:count]
        for item in self._items:
            if len(found) == count:
                break
            if item not in self._leases:
                found.append(item)
        for item in found:
            self.lease(item, annotator, until)
        return found

    def lease(self, item: Item, annotator: str, until: datetime) -> None:
        """Give an item to an adjudicator until a time."""
        self._leases[item] = (annotator, until)

    def holds(self, item: Item, annotator: str) -> bool:
        """Tell whether an adjudicator has an item."""
        return item in self._leases and self._leases[item][0] == annotator

    def may_have(self, item: Item, annotator: str) -> bool:
        """Tell whether an adjudicator may get an item: nobody else has it."""
        return item in self._items and self._leases.get(item, (annotator,))[0] == annotator

    def release(self, item: Item, annotator: str) -> None:
        """End an adjudicator's lease; the item goes to the end."""
        if self.holds(item, annotator):
            del self._leases[item]
            self._items[item] = self._items.pop(item)

    def expire(self, time: datetime) -> None:
        """End the leases that are over."""
        for item in [item for item, (_, until) in self._leases.items() if until <= time]:
            del self._leases[item]

    def open_to(self, annotator: str) -> int:
        """Return how many items an adjudicator has or may get."""
        return sum(self.may_have(item, annotator) for item in self._items)
