"""The tiny models that come trained with the package: they know drawn people, and nothing of real ones.

`python -m microg.demo.trained RUN` takes them from a demo that trained its own (`microg demo --train --out RUN`).
`card.json` says how they were made, and what they scored there.
"""

from __future__ import annotations

from pathlib import Path

NAME = "tiny-drawn-people"
ACTION_WEIGHTS = Path(__file__).parent / f"{NAME}.pt"
LANGUAGE_MODEL = Path(__file__).parent / NAME
CARD = Path(__file__).parent / "card.json"
