"""Word n-grams as 64-bit hashes in flat arrays, so that counting and matching them needs no Python loop.

The hash of an n-gram depends on its words alone, not on the corpus: shards agree on it, and sums over an item's n-grams
run in the same order in every shard. Two of ten million different n-grams share a hash with probability 3e-6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


@dataclass(frozen=True)
class Words:
    """Texts split at whitespace: the words' hashes (w,) uint64 one text after the other, and text lengths (t,)."""

    hashes: np.ndarray
    lengths: np.ndarray

    def ngrams(self, order: int) -> Counts:
        """Return how often each n-gram is in each text."""
        last = max(len(self.hashes) - order + 1, 0)
        code = self.hashes[:last].copy()
        for step in range(1, order):
            code = code * _FACTOR + self.hashes[step : last + step]
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        inside = text[:last] == text[order - 1 : last + order - 1]  # an n-gram does not cross into the next text
        return Counts.of(text[:last][inside], code[inside], np.ones(int(inside.sum()), np.int64))


@dataclass(frozen=True)
class Counts:
    """(group, n-gram) pairs in ascending order, each once: group (p,), code (p,) uint64, count (p,) int64."""

    group: np.ndarray
    code: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, group: np.ndarray, code: np.ndarray, count: np.ndarray, *, largest: bool = False) -> Counts:
        """Join equal pairs; counts are added, or with `largest` the largest is taken."""
        order = np.lexsort((code, group))
        group, code, count = group[order], code[order], count[order]
        if not len(group):
            return cls(group, code, count)
        first = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (code[1:] != code[:-1])])
        joined = (np.maximum if largest else np.add).reduceat(count, first)
        return cls(group[first], code[first], joined)

    def matches(self, other: Counts) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the pairs that are in both, ascending: (m,) in self, (m,) in other."""
        group, code = np.r_[self.group, other.group], np.r_[self.code, other.code]
        order = np.lexsort((code, group))
        group, code = group[order], code[order]
        at = np.flatnonzero((group[1:] == group[:-1]) & (code[1:] == code[:-1])) if len(group) else order
        return order[at], order[at + 1] - len(self.group)  # the sort is stable: self comes first


def split_words(texts: Sequence[str]) -> Words:
    """Split texts at whitespace and hash the words."""
    words = [text.split() for text in texts]
    known = {word: _hash(word) for word in {word for text in words for word in text}}
    lengths = np.array([len(text) for text in words], np.int64)
    hashes = np.fromiter((known[word] for text in words for word in text), np.uint64, int(lengths.sum()))
    return Words(hashes, lengths)


def blocks(number: int, size: int = 4096) -> Iterator[slice]:
    """Yield slices of at most `size` over `number` items: memory stays flat."""
    return (slice(start, min(start + size, number)) for start in range(0, number, size))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
