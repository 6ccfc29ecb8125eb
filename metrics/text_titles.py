"""What to call a score of texts, in tables and plots."""

from __future__ import annotations

from metrics.answers import TITLES
from metrics.text import registry


def title(score: str) -> str:
    """Return the title of a score; the encoder, where it is not the paper's, is part of it.

    >>> title("token_f1"), title("bleu_4"), title("rouge_l[mine]")
    ('token F1', 'BLEU-4', 'ROUGE-L [mine]')
    """
    name, bracket, encoder = score.partition("[")
    titles = {key: text for metric in registry.METRICS.values() for key, text in metric.titles.items()} | TITLES
    return titles.get(name, name) + (f" {bracket}{encoder}" if bracket else "")
