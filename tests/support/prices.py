"""A price for tests."""

from __future__ import annotations

from pathlib import Path

from microg.models.vlm.prices import Price

# A dollar a token, so that sums are easily seen.
DOLLAR = Price.model_validate(
    {
        "models": ["m"],
        "input": 1e6,
        "output": 1e6,
        "picture": {"rule": "fixed", "tokens": 10},
        "source": "test",
        "read": "2026-01-01",
    }
)


def write_prices(folder: Path) -> Path:
    """Write a price table in which model m costs a dollar a token, and pictures nothing; return its path."""
    path = folder / "prices.yaml"
    path.write_text(
        "- {models: [m], input: 1.0e+6, output: 1.0e+6, picture: {rule: fixed, tokens: 0}, source: x, read: 2026-01-01}"
    )
    return path
