"""From texts to states: check, tokenize once as the protocol says, and update each metric's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from microg.metrics.text import registry
from microg.metrics.text.items import Items, check
from microg.metrics.text.state import ItemState
from microg.metrics.text.tokenize import TOKENIZERS


def tokenized(items: Items, tokenizer: str) -> Items:
    """Return items with tokenized predictions and references; an empty prediction stays empty."""
    flat = [*items.predictions, *(text for texts in items.references for text in texts)]
    tokens = iter(TOKENIZERS[tokenizer](flat))
    predictions = [next(tokens) for _ in items.predictions]
    return Items(items.ids, predictions, [tuple(next(tokens) for _ in texts) for texts in items.references])


def measure(
    protocol: str,
    ids: Iterable[Any],
    predictions: Iterable[Any],
    references: Iterable[Any],
    metrics: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, ItemState]:
    """Return the state of each metric, by name, for the given items.

    Args:
        protocol: `paper` or `standard`.
        ids: Names of the items (n).
        predictions: A text each.
        references: A text or a sequence of texts each.
        metrics: Names; None is all metrics that need no encoder.
        settings: By metric, for metrics that take any.

    Raises:
        MetricError: An item cannot be scored; names it.
        ConfigError: There is no such metric or protocol.

    >>> measure("paper", ["a", "b"], ["red", "blue"], ["red", "green"], ["rouge_l"])["rouge_l"].compute()
    {'rouge_l': 0.5}
    """
    names = registry.names("nothing", "java") if metrics is None else metrics
    states = {name: registry.empty(name, **(settings or {}).get(name, {})) for name in names}
    items = check(ids, predictions, references)
    encode = {name: registry.metric(name).encodes for name in names}
    tokens = items if all(encode.values()) else tokenized(items, registry.protocol(protocol).tokenizer)
    for name, state in states.items():
        state.take(items, items if encode[name] else tokens)
    return states


def scores(states: Mapping[str, ItemState]) -> dict[str, float]:
    """Return all scores of the states in one dictionary."""
    return {name: value for state in states.values() for name, value in state.compute().items()}
