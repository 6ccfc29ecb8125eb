"""BLEU-1 to 4 of a corpus: ten integers an item, summed, then one formula.

Source: Papineni et al. 2002, in the form the captioning field reports: reference length closest to the prediction's
(the shorter of two as close), 1e-15 and 1e-9 added above and below so that nothing divides by zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from microg.metrics.text.items import Items, numbered
from microg.metrics.text.ngrams import ORDERS, Counts, blocks, split_words
from microg.metrics.text.state import ItemState

_TINY, _SMALL = 1e-15, 1e-9


class BleuState(ItemState):
    """Lengths of predictions and closest references, and n-grams said and correct."""

    columns = (
        "words",
        "reference_words",
        *(f"said_{n}" for n in range(1, ORDERS + 1)),
        *(f"correct_{n}" for n in range(1, ORDERS + 1)),
    )
    values = tuple(f"bleu_{n}" for n in range(1, ORDERS + 1))

    def measure(self, items: Items) -> np.ndarray:
        """Return the ten integers (n, 10) of each item."""
        return bleu_statistics(items.predictions, items.references)

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return BLEU-1 to 4, each 0 to 1, of summed integers (..., 10)."""
        return dict(zip(self.values, np.moveaxis(bleu_scores(totals), -1, 0), strict=True))


def bleu(predictions: Iterable[Any], references: Iterable[Any]) -> dict[str, float]:
    """Return BLEU-1 to 4 of a corpus of tokenized texts.

    >>> round(bleu(["the crew waves"], ["the crew waves back"])["bleu_2"], 4)
    0.7165
    """
    items = numbered(predictions, references)
    scores = bleu_scores(bleu_statistics(items.predictions, items.references).sum(axis=0))
    return dict(zip(BleuState.values, scores.tolist(), strict=True))


def bleu_scores(totals: np.ndarray) -> np.ndarray:
    """Return BLEU-1 to 4 (..., 4), each 0 to 1, of summed statistics (..., 10)."""
    words, reference_words = totals[..., 0], totals[..., 1]
    said, correct = totals[..., 2 : 2 + ORDERS], totals[..., 2 + ORDERS :]
    product = np.cumprod((correct + _TINY) / (said + _SMALL), axis=-1)
    ratio = (words + _TINY) / (reference_words + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.stack([product[..., n] ** (1 / (n + 1)) * brevity for n in range(ORDERS)], axis=-1)


def bleu_statistics(predictions: Sequence[str], references: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return ten integers (n, 10) of each item: words, those of the closest reference, n-grams said and correct."""
    parts = [_block(predictions[part], references[part]) for part in blocks(len(predictions))]
    return np.concatenate([np.empty((0, 2 + 2 * ORDERS), np.int64), *parts])


def _block(predictions: Sequence[str], references: Sequence[tuple[str, ...]]) -> np.ndarray:
    number = len(predictions)
    said, true = split_words(predictions), split_words([text for texts in references for text in texts])
    item = np.repeat(np.arange(number), [len(texts) for texts in references])
    result = np.zeros((number, 2 + 2 * ORDERS), np.int64)
    result[:, 0] = said.lengths
    # closest first, then shortest: the first of each item counts
    order = np.lexsort((true.lengths, np.abs(true.lengths - said.lengths[item]), item))
    first = np.r_[True, item[order][1:] != item[order][:-1]]
    result[:, 1] = true.lengths[order[first]]
    for n in range(1, ORDERS + 1):
        result[:, 1 + n] = np.maximum(0, said.lengths - n + 1)
        ours, theirs = said.ngrams(n), true.ngrams(n)
        allowed = Counts.of(item[theirs.group], theirs.code, theirs.count, largest=True)
        at, there = ours.matches(allowed)
        np.add.at(result[:, 1 + ORDERS + n], ours.group[at], np.minimum(ours.count[at], allowed.count[there]))
    return result
