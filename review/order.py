"""What people look at first."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np

from microg.annotations.rows import Item
from microg.errors import ConfigError
from microg.review.items import KIND_OF, Mode
from microg.review.material import Material, Numbered
from microg.review.proposals import Proposals

Order = Literal["dataset", "random", "uncertain", "disagreed", "rarest"]
ORDERS: tuple[Order, ...] = get_args(Order)
_DATASET = "in the dataset's order"


@dataclass(frozen=True)
class Ranked:
    """Places of items, first things first, and why each comes where it does."""

    order: np.ndarray
    why: Callable[[int], str]


def check_order(order: Order, proposals: Proposals, differing: Collection[Item]) -> None:
    """Refuse an order that nothing here tells.

    Raises:
        ConfigError: `uncertain` without scores of a model, or `disagreed` where nobody and no two models differ.
    """
    if order == "uncertain" and not proposals.unsure:
        raise ConfigError("no run tells how unsure it is of a person", "name one of 'har predict' with --proposals")
    if order == "disagreed" and not differing and all(len(each) < 2 for each in proposals.values.values()):
        raise ConfigError("no two people judged the same item differently", "or name two runs with --proposals")


def ranked(
    mode: Mode,
    items: Numbered,
    material: Material,
    proposals: Proposals,
    differing: Collection[Item],
    order: Order,
    seed: int,
) -> Ranked:
    """Return the order of a mode's items.

    Whatever the order, captions and questions that a consistency check doubts come first; where an order tells nothing
    of items, they follow in the dataset's.

    Args:
        mode: The mode.
        items: Its items.
        material: The dataset.
        proposals: What models say.
        differing: Items that people judged differently.
        order: dataset: by source and time; random: by a hash of seed and item, an unbiased sample however far people
            get; uncertain: those first of which a model is unsure; disagreed: those that people judged differently,
            then those of which models differ most; rarest: those with the rarest actions.
        seed: For the order random.
    """
    item_at = _namer(mode, items, material)
    reasons: dict[int, str] = {}
    keys = np.zeros(len(items))  # small keys first
    if order == "random":
        keys = np.array([draw(f"order:{seed}:{_plain(item_at(place))}") for place in range(len(items))])
    elif order == "uncertain":
        for place in range(len(items)):
            unsure = proposals.unsure.get(item_at(place))
            if unsure is not None:
                keys[place], reasons[place] = -unsure, f"a model is unsure of it ({unsure:.2f} of 1)"
    elif order == "disagreed":
        for place in range(len(items)):
            item = item_at(place)
            distance = _distance(proposals, item)
            if item in differing:
                keys[place], reasons[place] = -2, "people said different things"
            elif distance:
                keys[place], reasons[place] = -distance, f"models differ ({distance:.2f} of 1)"
    elif order == "rarest":
        keys, reasons = _by_rarity(mode, items, material, proposals)
    for place in range(len(items)) if proposals.doubts else ():
        doubt = proposals.doubts.get(item_at(place))
        if doubt is not None:
            keys[place], reasons[place] = -np.inf, f"the consistency check has doubts: {doubt}"
    default = "drawn at random" if order == "random" else _DATASET
    return Ranked(np.argsort(keys, kind="stable"), lambda place: reasons.get(place, default))


def draw(text: str) -> float:
    """Return a number from 0 up to 1 that a text stands for: evenly spread, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _plain(item: Item) -> str:
    return ":".join(map(str, item))


def _namer(mode: Mode, items: Numbered, material: Material) -> Callable[[int], Item]:
    kind, ids = KIND_OF[mode], material.clips.ids

    def item_at(place: int) -> Item:
        number = int(items.number[place])
        person, index = (number if kind == "action" else None), (number if kind == "qa" else None)
        return Item(kind, ids[items.clip[place]], person, index)

    return item_at


def _distance(proposals: Proposals, item: Item) -> float:
    """Return how far models are apart, from 0 to 1: the most of any two."""
    values = [each.value for each in proposals.values.get(item, ())]
    return max((apart(one, other) for one, other in combinations(values, 2)), default=0.0)


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how far two values of a kind are apart, from 0 to 1: the share that not both have, of actions or words.

    >>> apart({"actions": [12, 79]}, {"actions": [12]})
    0.5
    """
    sets = [_parts(each) for each in (one, other)]
    union = sets[0] | sets[1]
    return 1 - len(sets[0] & sets[1]) / len(union) if union else 0.0


def _parts(value: Mapping[str, Any]) -> set[Any]:
    if "actions" in value:
        return set(value["actions"])
    if "keep" in value:
        return {value["keep"]}
    texts = " ".join(str(value.get(name, "")) for name in ("caption", "question", "answer"))
    return set(texts.casefold().split())


def _by_rarity(
    mode: Mode, items: Numbered, material: Material, proposals: Proposals
) -> tuple[np.ndarray, dict[int, str]]:
    """Rank by how many labels the dataset has of an item's rarest action; of a clip's items by those of its people."""
    labels = material.labels
    counts = Counter(labels.action.tolist())
    rarest: dict[tuple[int, int | None], int] = {}

    def meet(clip: int, person: int, action: int) -> None:
        for key in ((clip, person), (clip, None)):
            if key not in rarest or (counts[action], action) < (counts[rarest[key]], rarest[key]):
                rarest[key] = action

    for clip, person, action in zip(labels.clip.tolist(), labels.person.tolist(), labels.action.tolist(), strict=True):
        meet(clip, person, action)
    for item, said in proposals.values.items():
        number = material.clips.number(item.clip_id)
        if item.kind == "action" and number is not None and item.person_id is not None:
            for action in {action for each in said for action in each.value["actions"]}:
                meet(number, item.person_id, action)
    keys, reasons = np.full(len(items), np.inf), {}
    for place in range(len(items)):
        clip, number = int(items.clip[place]), int(items.number[place])
        action = rarest.get((clip, number if mode == "actions" else None))
        if action is not None:
            known = material.vocabulary.by_id.get(action)
            name = known.label if known else str(action)
            keys[place], reasons[place] = counts[action], f"{name} is rare: {counts[action]} labels"
    return keys, reasons
