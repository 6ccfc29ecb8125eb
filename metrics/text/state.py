"""The state that text metrics share: statistics of each item, kept by item id.

Every metric here is a function of summed item statistics (BLEU, METEOR) or a mean of item values. Items are taken once
by id and added in a way that no order changes, so that shards, merges and replays give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.errors import MetricError
from microg.metrics.text.items import Items, check


class ItemState:
    """Statistics of items (n, k); a metric says how texts become statistics and how their sums become scores.

    `columns` names the k statistics, `values` the scores. Texts are already tokenized as the protocol wants it (see
    `microg.metrics.text.tokenize`). `add` takes statistics that were made elsewhere, `update` makes them here.
    """

    columns: ClassVar[tuple[str, ...]]
    values: tuple[str, ...]
    statistic: ClassVar[pa.DataType] = pa.int64()

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    @classmethod
    def empty(cls) -> Self:
        """Return a state without items; metrics with an encoder take its settings here."""
        return cls()

    @classmethod
    def schema(cls) -> pa.Schema:
        """Return the columns of `to_table`: id, fingerprint of the texts, statistics."""
        return pa.schema([("id", pa.string()), ("text", pa.uint64()), *((name, cls.statistic) for name in cls.columns)])

    def measure(self, items: Items) -> np.ndarray:
        """Return the statistics (n, k) of items."""
        raise NotImplementedError

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return each score (...) for statistics summed (..., k) over `count` (...) items.

        The corpus, single items and bootstrap resamples (weights @ statistics) all go through here.
        """
        raise NotImplementedError

    def update(self, ids: Iterable[str], predictions: Iterable[Any], references: Iterable[Any]) -> Self:
        """Measure and add items; returns the state itself. Raises `MetricError` naming an item that is not text."""
        items = check(ids, predictions, references)
        return self.take(items, items)

    def take(self, items: Items, tokenized: Items) -> Self:
        """Measure `tokenized` and add it as `items`: an item is known by its id and its texts as they were given."""
        return self.add(items, self.measure(tokenized))

    def add(self, items: Items, statistics: np.ndarray) -> Self:
        """Add items whose statistics (n, k) are known; returns the state itself."""
        columns = [pa.array(statistics[:, place], self.statistic) for place in range(len(self.columns))]
        head = [pa.array(items.ids, pa.string()), pa.array(items.fingerprints(), pa.uint64())]
        self._parts.append(pa.Table.from_arrays([*head, *columns], schema=self.schema()))
        return self

    def merge(self, other: Self) -> Self:
        """Add the items of another state; returns the state itself."""
        self._parts += other._parts
        return self

    def to_table(self) -> pa.Table:
        """Return the items once each, sorted by id. Raises `MetricError` when an id came with different texts."""
        self._parts = [unique_items(pa.concat_tables([self.schema().empty_table(), *self._parts]))]
        return self._parts[0]

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Return a state with the items of `to_table`'s form."""
        state = cls()
        state._parts = [table.select(cls.schema().names).cast(cls.schema())]
        return state

    def __len__(self) -> int:
        return self.to_table().num_rows

    def statistics(self) -> tuple[list[str], np.ndarray]:
        """Return ids (n), sorted, and statistics (n, k)."""
        table = self.to_table()
        return table["id"].to_pylist(), np.stack([table[name].to_numpy() for name in self.columns], axis=1)

    def compute(self) -> dict[str, float]:
        """Return the scores of all items. Raises `MetricError` without items."""
        _, statistics = self.statistics()
        if not len(statistics):
            raise MetricError("there are no items to score")
        count = np.array(float(len(statistics)))
        return {name: float(value) for name, value in self.score(exact_sums(statistics), count).items()}

    def per_item(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """Return ids (n), sorted, and each score of the single items (n,) float64."""
        ids, statistics = self.statistics()
        return ids, self.score(statistics.astype(np.float64), np.ones(len(ids)))


class MeanState(ItemState):
    """A metric that is the mean of item values: the statistics are the values."""

    statistic = pa.float64()

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return totals / count."""
        return {name: totals[..., place] / count for place, name in enumerate(self.values)}


def exact_sums(statistics: np.ndarray) -> np.ndarray:
    """Return the correctly rounded sum (k,) float64 of each column: the same bits in any order.

    >>> exact_sums(np.array([[0.1, 1], [0.2, 2], [0.3, 3]])).tolist()
    [0.6, 6.0]
    """
    return np.array([math.fsum(column) for column in statistics.T.tolist()])


def unique_items(table: pa.Table) -> pa.Table:
    """Return each `id` once, sorted; a replay counts once, the same id with another `text` is a `MetricError`."""
    names = [name for name in table.column_names if not pa.types.is_list(table.schema.field(name).type)]
    table = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])).combine_chunks()
    if table.num_rows < 2:
        return table
    same = pc.equal(table["id"].slice(1), table["id"].slice(0, table.num_rows - 1)).to_numpy(zero_copy_only=False)
    if not same.any():
        return table
    text = table["text"].to_numpy()
    clash = np.flatnonzero(same & (text[1:] != text[:-1]))
    if len(clash):
        raise MetricError(
            f"item {table['id'][int(clash[0])].as_py()!r} was given twice with different texts",
            "score each item once; remove the duplicate prediction or reference",
        )
    return table.filter(pa.array(np.r_[True, ~same]))
