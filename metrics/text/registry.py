"""Text metrics by name, the two protocols, and the columns in which the paper printed them.

Import strings are resolved when a metric is asked for, so that listing metrics imports neither torch nor Java.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from microg.errors import ConfigError
from microg.metrics.text.state import ItemState
from microg.texts.items import Task


@dataclass(frozen=True)
class TextProtocol:
    """How texts reach the n-gram metrics: `tokenizer` is a name in `microg.metrics.text.tokenize.TOKENIZERS`."""

    name: str
    tokenizer: str
    title: str


@dataclass(frozen=True)
class TextMetric:
    """A metric: the import string of its state, what it is fed, and its scores with their titles.

    `feed` is `tokens` (texts tokenized as the protocol says) or `text` (the texts themselves, in every protocol).
    """

    name: str
    state: str
    feed: Literal["tokens", "text"]
    titles: dict[str, str]


PROTOCOLS = {
    "paper": TextProtocol("paper", "raw", "raw strings, cased, punctuation attached: what the paper computed"),
    "standard": TextProtocol("standard", "ptb", "PTB tokens, lower case, without punctuation: what COCO reports"),
}

_ALL = (
    TextMetric("cider", "microg.metrics.text.cider:CiderState", "tokens", {"cider": "CIDEr-D"}),
    TextMetric("bleu", "microg.metrics.text.bleu:BleuState", "tokens", {f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}),
    TextMetric("meteor", "microg.metrics.text.meteor:MeteorState", "tokens", {"meteor": "METEOR"}),
    TextMetric("rouge_l", "microg.metrics.text.rouge:RougeState", "tokens", {"rouge_l": "ROUGE-L"}),
    TextMetric("sbert", "microg.metrics.text.sbert:SbertState", "text", {"sbert": "S-BERT"}),
    TextMetric(
        "bertscore",
        "microg.metrics.text.bertscore:BertScoreState",
        "text",
        {
            "bertscore_precision": "BERTScore precision",
            "bertscore_recall": "BERTScore recall",
            "bertscore_f1": "BERTScore",
            "bertscore_f1_rescaled": "BERTScore rescaled",
        },
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
NGRAM_METRICS = tuple(metric.name for metric in _ALL if metric.feed == "tokens")

# Scores under their exact names: one made with another encoder has another name, and so no published column.
_COLUMNS: dict[str, dict[Task, str]] = {
    "cider": {"caption": "CIDEr", "vqa": "CIDEr"},
    "bleu_4": {"caption": "BLEU-4", "vqa": "BLEU-4"},
    "meteor": {"caption": "METEOR", "vqa": "METEOR"},
    "rouge_l": {"caption": "ROUGE-L", "vqa": "ROUGE-L"},
    "sbert": {"caption": "S-BERT", "vqa": "S-VQA"},
    "bertscore_f1": {"caption": "BERTScore", "vqa": "BERTScore"},
}
PERCENT = 100.0  # scores are fractions (CIDEr-D 0 to 10); tables print them times this


def load(name: str) -> type[ItemState]:
    """Return the state class of a metric. Raises `ConfigError` for an unknown name.

    >>> load("bleu").values
    ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4')
    """
    if name not in METRICS:
        raise ConfigError(f"there is no text metric {name!r}", f"text metrics are {', '.join(METRICS)}")
    module, _, kind = METRICS[name].state.partition(":")
    return getattr(import_module(module), kind)


def empty(name: str, **settings: Any) -> ItemState:
    """Return an empty state of a metric; settings are those of its `empty`."""
    return load(name).empty(**settings)


def protocol(name: str) -> TextProtocol:
    """Return a protocol by name. Raises `ConfigError`."""
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no text protocol {name!r}", f"text protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def title(value: str) -> str:
    """Return what to call a score, with the encoder when it is not the paper's.

    >>> title("rouge_l"), title("bertscore_f1[tiny-L2]")
    ('ROUGE-L', 'BERTScore [tiny-L2]')
    """
    name, bracket, encoder = value.partition("[")
    titles = {key: text for metric in _ALL for key, text in metric.titles.items()}
    return titles.get(name, name) + (f" {bracket}{encoder}" if encoder else "")


def column(value: str, task: Task) -> str | None:
    """Return the paper's column for a score, None when the paper has none for it.

    >>> column("sbert", "vqa"), column("bleu_1", "vqa")
    ('S-VQA', None)
    """
    return _COLUMNS.get(value, {}).get(task)
