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
    metrics: Sequence[str] = registry.NGRAM_METRICS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, ItemState]:
    """Return the state of each metric, by name, for the given items.

    protocol: `paper` or `standard`. references: a text or a sequence of texts each. settings: by metric, for metrics
    that take any. Raises `MetricError` naming an item that cannot be scored, `ConfigError` for an unknown name.

    >>> measure("paper", ["a", "b"], ["red", "blue"], ["red", "green"], ["rouge_l"])["rouge_l"].compute()
    {'rouge_l': 0.5}
    """
    chosen = {name: registry.empty(name, **(settings or {}).get(name, {})) for name in metrics}
    items = check(ids, predictions, references)
    fed = {"text": items}
    if any(registry.METRICS[name].feed == "tokens" for name in metrics):
        fed["tokens"] = tokenized(items, registry.protocol(protocol).tokenizer)
    for name, state in chosen.items():
        state.take(items, fed[registry.METRICS[name].feed])
    return chosen


def scores(states: Mapping[str, ItemState]) -> dict[str, float]:
    """Return all scores of the states in one dictionary."""
    return {name: value for state in states.values() for name, value in state.compute().items()}
