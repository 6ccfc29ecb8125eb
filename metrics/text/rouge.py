"""ROUGE-L: the longest common subsequence of words, as an F score that favours recall (beta 1.2), mean of items.

Source: Lin 2004, in the form the captioning field reports: texts split at single spaces, precision and recall each the
best over references.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from microg.metrics.text.items import Items, numbered
from microg.metrics.text.state import MeanState

_BETA_SQUARED = 1.2**2


class RougeState(MeanState):
    """ROUGE-L (n, 1) of each item."""

    columns = values = ("rouge_l",)

    def measure(self, items: Items) -> np.ndarray:
        """Return ROUGE-L (n, 1), each 0 to 1."""
        return np.array([*map(rouge_l_item, items.predictions, items.references)], np.float64).reshape(-1, 1)


def rouge_l(predictions: Iterable[Any], references: Iterable[Any]) -> float:
    """Return the mean ROUGE-L, 0 to 1, of tokenized texts.

    >>> round(rouge_l(["he waves slowly"], ["he slowly waves back"]), 4)
    0.5571
    """
    items = numbered(predictions, references)
    return math.fsum(map(rouge_l_item, items.predictions, items.references)) / len(items)


def rouge_l_item(prediction: str, references: Sequence[str]) -> float:
    """Return ROUGE-L of one prediction; 0 for an empty one."""
    if not prediction.strip():
        return 0.0
    words = prediction.split(" ")
    precision = recall = 0.0
    for reference in references:
        true = reference.split(" ")
        common = longest_common_subsequence(words, true)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(true))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, one long-integer row at a time (Hyyro 2004).

    >>> longest_common_subsequence("a b c b".split(), "b d c a b".split())
    3
    """
    if len(first) > len(second):
        first, second = second, first
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        here = places.get(word)
        if here is not None:
            matched = row & here
            row = (row + matched | row - matched) & everywhere
    return len(first) - row.bit_count()
