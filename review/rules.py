"""How a review goes, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass

from microg.review.items import MODES, Mode
from microg.review.order import Order


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
    """Who is asking, and whether they settle what others said."""

    name: str
    adjudicator: bool = False
