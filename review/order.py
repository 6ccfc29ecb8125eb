"""What people look at first, and what models propose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from microg.annotations.rows import Annotation, Item
from microg.review.items import Mode
from microg.review.material import Material, Numbered

Order = Literal["dataset", "random", "uncertain", "disagreed", "rarest"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class Proposals:
    def of(self, item):
        return None

    def questions(self, material):
        return None


@dataclass(frozen=True)
class Ranked:
    order: np.ndarray
    why: Callable[[int], str]


def ranked(mode, items, material, proposals, said, order, seed) -> Ranked:
    return Ranked(np.arange(len(items)), lambda place: "as the dataset has it")


def draw(text: str) -> float:
    """Return a number from 0 up to 1 that a text stands for: evenly spread, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
