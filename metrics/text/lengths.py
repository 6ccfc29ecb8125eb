"""Lengths of predictions beside their references, and what CIDEr-D's length penalty takes away.

CIDEr-D multiplies each item by exp(-d^2 / 72) for a difference of d words: 0.25 at 10 words, 0.004 at 20. A model that
writes longer than the references loses most of its CIDEr to that, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microg.metrics.text.cider import Frequencies, cider_items


def length_statistics(
    predictions: Sequence[str], references: Sequence[Sequence[str]], cider: float | None = None
) -> dict[str, float]:
    """Return length statistics of tokenized texts; of several references the one closest in length counts.

    `cider` is the texts' CIDEr-D where it is known.

    words, reference_words: means; ratio: words in all predictions per word in all references; difference: mean absolute
    difference in words; cider_penalty: mean factor of CIDEr-D; cider, cider_without_penalty: 0 to 10;
    cider_penalty_share: the part of the latter that the penalty takes.

    >>> found = length_statistics(["a b", "c d"], [["a b"], ["c d e f"]])
    >>> round(found["ratio"], 3), round(found["cider_penalty"], 3)
    (0.667, 0.973)
    """
    said = np.array([len(text.split()) for text in predictions], np.float64)
    true = np.array([_closest(length, texts) for length, texts in zip(said, references, strict=True)], np.float64)
    if not len(said):
        return {}
    frequencies = Frequencies.of(references)
    if cider is None:
        cider = float(cider_items(predictions, references, frequencies).mean())
    without = float(cider_items(predictions, references, frequencies, sigma=float("inf")).mean())
    difference = np.abs(np.maximum(said - 1, 0) - np.maximum(true - 1, 0))
    return {
        "words": float(said.mean()),
        "reference_words": float(true.mean()),
        "ratio": float(said.sum() / max(true.sum(), 1)),
        "difference": float(difference.mean()),
        "cider_penalty": float(np.exp(-(difference**2) / 72).mean()),
        "cider": cider,
        "cider_without_penalty": without,
        "cider_penalty_share": 1 - cider / without if without else 0.0,
    }


def _closest(length: float, texts: Sequence[str]) -> int:
    return min((len(text.split()) for text in texts), key=lambda other: (abs(other - length), other))
