"""CIDEr-D: tf-idf weighted n-gram similarity with clipping and a Gaussian penalty on length, 0 to 10.

Source: Vedantam et al. 2015, with n = 1 to 4 and sigma 6. Document frequencies come from the references of the
evaluated corpus, so the score needs two passes: the frequencies of all references, then the items. Averaging the
scores of shards with their own frequencies gives another number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from microg.metrics.text.items import Items, numbered
from microg.metrics.text.ngrams import ORDERS, Counts, Words, blocks, split_words
from microg.metrics.text.state import MeanState

_SIGMA = 6.0


@dataclass(frozen=True)
class Frequencies:
    """In how many items' references each n-gram is: codes (m,) uint64 ascending, counts (m,) int64, number of items.

    Sums of integers: merging is exact in any order, but an item must be counted once.
    """

    codes: np.ndarray
    counts: np.ndarray
    items: int

    @classmethod
    def empty(cls) -> Frequencies:
        """Return the frequencies of no items."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.int64), 0)

    @classmethod
    def of(cls, references: Sequence[Sequence[str]]) -> Frequencies:
        """Count the n-grams of each item's references (tokenized texts)."""
        result = cls.empty()
        for part in blocks(len(references)):
            result = result.merge(cls._block(references[part]))
        return result

    @classmethod
    def _block(cls, references: Sequence[Sequence[str]]) -> Frequencies:
        words, item = _flat(references)
        codes = []
        for order in range(1, ORDERS + 1):
            found = words.ngrams(order)
            codes.append(Counts.of(item[found.group], found.code, found.count).code)
        return cls(*np.unique(np.concatenate(codes), return_counts=True), len(references))

    def merge(self, other: Frequencies) -> Frequencies:
        """Return the frequencies of both sets of items."""
        codes, place = np.unique(np.r_[self.codes, other.codes], return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, place, np.r_[self.counts, other.counts])
        return Frequencies(codes, counts, self.items + other.items)

    def weights(self, codes: np.ndarray) -> np.ndarray:
        """Return the inverse document frequency of n-grams, log(items / max(1, frequency))."""
        at = np.minimum(np.searchsorted(self.codes, codes), max(len(self.codes) - 1, 0))
        known = self.codes[at] == codes if len(self.codes) else np.zeros(len(codes), bool)
        count = np.where(known, self.counts[at] if len(self.codes) else 1, 1)
        return np.log(float(max(self.items, 1))) - np.log(count.astype(np.float64))


def cider_items(
    predictions: Sequence[str], references: Sequence[Sequence[str]], frequencies: Frequencies, sigma: float = _SIGMA
) -> np.ndarray:
    """Return CIDEr-D (n,) float64, 0 to 10, of tokenized texts; bits do not depend on which items are scored together.

    An infinite `sigma` leaves the length penalty out.

    >>> frequencies = Frequencies.of([["a red shirt"], ["a blue shirt"]])
    >>> cider_items(["a red shirt"], [["a red shirt"]], frequencies).round(9).tolist()
    [7.5]
    """
    parts = [_cider_block(predictions[part], references[part], frequencies, sigma) for part in blocks(len(predictions))]
    return np.concatenate([np.empty(0), *parts])


class CiderState(MeanState):
    """Tokenized texts of the items, since document frequencies are known when all are there."""

    columns = values = ("cider",)

    @classmethod
    def schema(cls) -> pa.Schema:
        """Return the columns of `to_table`: id, fingerprint, prediction and references (tokenized)."""
        texts = [("prediction", pa.string()), ("references", pa.list_(pa.string()))]
        return pa.schema([("id", pa.string()), ("text", pa.uint64()), *texts])

    def take(self, items: Items, tokenized: Items) -> Self:
        """Add `tokenized` as `items`; returns the state itself."""
        columns = [items.ids, items.fingerprints(), tokenized.predictions, tokenized.references]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema(), strict=True)]
        self._parts.append(pa.Table.from_arrays(arrays, schema=self.schema()))
        return self

    def add(self, items: Items, statistics: np.ndarray) -> Self:
        """Item values cannot be added: they depend on the whole corpus."""
        raise NotImplementedError("CIDEr needs texts: use update")

    def frequencies(self) -> Frequencies:
        """Return the document frequencies of the items' references: the corpus that a score was made with."""
        return Frequencies.of(self.to_table()["references"].to_pylist())

    def statistics(self) -> tuple[list[str], np.ndarray]:
        """Return ids (n), sorted, and CIDEr-D (n, 1)."""
        table = self.to_table()
        references = table["references"].to_pylist()
        scores = cider_items(table["prediction"].to_pylist(), references, Frequencies.of(references))
        return table["id"].to_pylist(), scores.reshape(-1, 1)


def cider(predictions: Iterable[Any], references: Iterable[Any]) -> float:
    """Return the mean CIDEr-D, 0 to 10, of a corpus of tokenized texts."""
    items = numbered(predictions, references)
    return math.fsum(cider_items(items.predictions, items.references, Frequencies.of(items.references))) / len(items)


def _flat(references: Sequence[Sequence[str]]) -> tuple[Words, np.ndarray]:
    words = split_words([text for texts in references for text in texts])
    return words, np.repeat(np.arange(len(references)), [len(texts) for texts in references])


def _cider_block(
    predictions: Sequence[str], references: Sequence[Sequence[str]], frequencies: Frequencies, sigma: float
) -> np.ndarray:
    said, (true, item) = split_words(predictions), _flat(references)
    pairs = len(item)  # one for each reference
    length = [np.maximum(0, words.lengths - 1) for words in (said, true)]  # in pairs of words, as published
    penalty = np.exp(-((length[0][item] - length[1]) ** 2) / (2 * sigma**2))
    total = np.zeros(pairs)
    for order in range(1, ORDERS + 1):
        ours, theirs = said.ngrams(order), true.ngrams(order)
        our_weight = ours.count * frequencies.weights(ours.code)
        their_weight = theirs.count * frequencies.weights(theirs.code)
        our_norm = np.sqrt(np.bincount(ours.group, our_weight**2, len(predictions)))[item]
        their_norm = np.sqrt(np.bincount(theirs.group, their_weight**2, pairs))
        mine = _per_reference(ours, our_weight, item)
        at, there = mine.matches(theirs)
        product = np.minimum(mine.count[at], their_weight[there]) * their_weight[there]
        dot = np.bincount(theirs.group[there], product, pairs)
        norm = our_norm * their_norm
        total += np.divide(dot, norm, out=np.zeros(pairs), where=norm > 0) * penalty
    number = len(predictions)
    return np.bincount(item, total, number) / ORDERS / np.bincount(item, minlength=number) * 10.0


def _per_reference(ours: Counts, weight: np.ndarray, item: np.ndarray) -> Counts:
    """Repeat the n-grams of each prediction for each of its references; the counts are weights."""
    start = np.searchsorted(ours.group, item, "left")
    number = np.searchsorted(ours.group, item, "right") - start
    pair = np.repeat(np.arange(len(item)), number)
    at = np.arange(len(pair)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(start, number)
    return Counts(pair, ours.code[at], weight[at])
