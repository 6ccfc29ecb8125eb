"""Texts for tests of text metrics."""

from __future__ import annotations

import random

WORDS = ("the", "a", "crew", "floats", "waves", "red", "blue", "suit", "hatch", "left", ".", ",", "Earth", "astronaut")


def random_items(number: int, seed: int = 0) -> tuple[list[str], list[str], list[list[str]]]:
    """Return ids, predictions (some empty) and one to three references each, with repeated words."""
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))

    said = ["" if rng.random() < 0.05 else text() for _ in range(number)]
    true = [[text() for _ in range(rng.randint(1, 3))] for _ in range(number)]
    return [f"item{place:05d}" for place in range(number)], said, true
