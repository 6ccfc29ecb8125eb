"""What to call a score of texts, in tables and plots."""

from __future__ import annotations

from microg.metrics.text import registry
from microg.metrics.text.answers import TITLES


def title(score: str) -> str:
    """Return the title of a score; the encoder, where it is not the paper's, is part of it.

    >>> title("token_f1"), title("bleu_4"), title("sbert[mine]")
    ('token F1', 'BLEU-4', 'S-BERT [mine]')
    """
    return TITLES.get(score) or registry.title(score)
