"""The state that embedding metrics share: item values, and which encoder made them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pyarrow as pa

from microg.errors import MetricError
from microg.metrics.text.encoder import EncoderInfo, PairScorer
from microg.metrics.text.items import Items
from microg.metrics.text.state import MeanState

_KEY = b"encoder"


class EncoderState(MeanState):
    """Values of items, and how many of an item's texts were longer than the encoder takes (`over_length`).

    Scores have their plain names when the paper's encoder made them; else the encoder's name is part of theirs, as in
    `sbert[my-encoder]`. States made with different encoders do not merge.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self.info: EncoderInfo | None = None

    @classmethod
    def empty(cls, **settings: Any) -> Self:
        """Return a state without items; the settings say which encoder `update` uses."""
        return cls(**settings)

    @classmethod
    def scorer(cls, **settings: Any) -> PairScorer:
        """Return this process's encoder for the settings; it is loaded when first asked for."""
        raise NotImplementedError

    @property
    def values(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Names of the scores; none while there are no items."""
        return self.info.values() if self.info else ()

    def measure(self, items: Items) -> np.ndarray:
        """Return values and numbers of cut texts (n, k)."""
        scorer = self.scorer(**self._settings)
        self.made_by(scorer.info)
        return scorer.measure(items)

    def made_by(self, info: EncoderInfo) -> Self:
        """Say which encoder made the values that are added. Raises `MetricError` when it is another one than before."""
        if self.info is not None and self.info != info:
            raise MetricError(
                f"scores of two encoders do not add up: {self.info.signature} and {info.signature}",
                "score all items with one encoder",
            )
        self.info = info
        return self

    def merge(self, other: Self) -> Self:
        """Add the items of another state; returns the state itself. Raises `MetricError` for another encoder."""
        if other.info is not None:
            self.made_by(other.info)
        return super().merge(other)

    def to_table(self) -> pa.Table:
        """Return the items once each, sorted by id; the schema's metadata holds the encoder."""
        table = super().to_table()
        return table if self.info is None else table.replace_schema_metadata({_KEY: self.info.to_json()})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Return a state with the items, and the encoder, of `to_table`'s form."""
        state = super().from_table(table)
        stored = (table.schema.metadata or {}).get(_KEY)
        if stored is None and table.num_rows:
            raise MetricError("the table of scores does not say which encoder made them", "score these items again")
        return state.made_by(EncoderInfo.from_json(stored)) if stored else state

    def over_length(self) -> int:
        """Return how many items have a text that was longer than the encoder takes, and was cut."""
        return int((self.to_table()["over_length"].to_numpy() > 0).sum())
