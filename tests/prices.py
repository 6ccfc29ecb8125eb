"""A price for tests."""

from __future__ import annotations

from models.vlm.prices import Price

# A dollar a token, so that sums are easily seen.
DOLLAR = Price.model_validate(
    {
        "models": ["m"], "input": 1e6, "output": 1e6, "picture": {"rule": "fixed", "tokens": 10}, "source": "test",
        "read": "2026-01-01",
    }
)  # fmt: skip
