"""Items to be scored: an id, a prediction and its references, checked before any metric sees them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from microg.errors import MetricError

References = Sequence["str | Sequence[str]"]
_ITEM_COST = 20  # of measuring an item beside its texts, in characters
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Items:
    """Checked items: ids (n), predictions (n), references (n, one or more each)."""

    ids: list[str]
    predictions: list[str]
    references: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprints(self) -> np.ndarray:
        """Return a stable hash (n,) uint64 of each item's texts."""
        return np.array([_fingerprint(p, r) for p, r in zip(self.predictions, self.references, strict=True)], np.uint64)

    def empty(self) -> np.ndarray:
        """Return which predictions (n,) hold nothing but whitespace: these score 0 in every metric."""
        return np.array([not text.strip() for text in self.predictions], bool)


def check(ids: Iterable[Any], predictions: Iterable[Any], references: Iterable[Any]) -> Items:
    """Return checked items; a reference may be one text or a sequence of texts.

    Raises `MetricError` naming the item: not text (None, NaN, a number), no reference, broken Unicode, or columns of
    different length.

    >>> check(["a"], ["red"], ["Red."]).references
    [('Red.',)]
    """
    names, said, truth = [str(item) for item in ids], list(predictions), list(references)
    if not len(names) == len(said) == len(truth):
        raise MetricError(
            f"{len(names)} ids, {len(said)} predictions and {len(truth)} references do not belong together",
            "give one prediction and one or more references for each id",
        )
    result = [_references(value, name) for name, value in zip(names, truth, strict=True)]
    for name, value in zip(names, said, strict=True):
        check_text(value, "the prediction", name)
    return Items(names, said, result)


def numbered(predictions: Iterable[Any], references: Iterable[Any]) -> Items:
    """Return checked items named 0, 1, ... Raises `MetricError` as `check` does, and when there are none."""
    said = list(predictions)
    if not said:
        raise MetricError("there are no items to score")
    return check(range(len(said)), said, references)


def check_text(value: Any, what: str, item: str) -> str:
    """Return `value` when it is text that can be scored; raises `MetricError` naming the item."""
    if not isinstance(value, str):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        kind = "missing" if missing else f"{value!r}, not text"
        raise MetricError(
            f"{what} of item {item!r} is {kind}", "give text; an empty text is allowed and scores 0 everywhere"
        )
    if _LONE_SURROGATE.search(value):
        raise MetricError(
            f"{what} of item {item!r} holds half of a surrogate pair, which is no valid Unicode",
            "write the text again as UTF-8",
        )
    return value


def split_into_shards(items: Items, shards: int) -> list[Items]:
    """Return at most so many shards of about equal work, longest texts first, items of equal texts in one shard.

    Items are sorted by length: texts that are encoded together are then alike, and equal predictions side by side.

    >>> items = check("abcd", ["x", "long text", "x", "y"], ["x", "text", "x", "z"])
    >>> [shard.ids for shard in split_into_shards(items, 3)]
    [['b'], ['a', 'c'], ['d']]
    """
    texts = list(zip(items.predictions, items.references, strict=True))
    order = sorted(range(len(items)), key=lambda at: (-len(texts[at][0]), texts[at]))
    new = [True, *(texts[before] != texts[at] for before, at in pairwise(order))]
    costs = [
        (_ITEM_COST + sum(map(len, (texts[at][0], *texts[at][1])))) * first
        for at, first in zip(order, new, strict=False)
    ]
    share = max(1, sum(costs)) / max(1, shards)
    groups: dict[int, list[int]] = {}
    group, before = 0, 0
    for at, cost in zip(order, costs, strict=True):
        if cost:
            group, before = int(before / share), before + cost
        groups.setdefault(group, []).append(at)
    return [
        Items([items.ids[at] for at in places], [texts[at][0] for at in places], [texts[at][1] for at in places])
        for places in groups.values()
    ]


def _references(value: Any, item: str) -> tuple[str, ...]:
    many = (value,) if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) else tuple(value)
    if not many:
        raise MetricError(f"item {item!r} has no reference", "give one or more references")
    for text in many:
        check_text(text, "the reference", item)
    return many


def _fingerprint(prediction: str, references: tuple[str, ...]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for text in (prediction, *references):
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return int.from_bytes(digest.digest(), "little")
