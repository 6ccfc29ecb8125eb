"""Text metrics by name: the only list of them. Also the two protocols.

A metric is its module and one entry of `METRICS`; tables, slices, examples, baselines, live scores, actors on Ray and
help texts follow from the entry. Import strings are resolved when a metric is used, so that listing metrics imports
neither torch nor Java.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from microg.errors import ConfigError
from microg.registry import Registry, load_object
from microg.texts.items import Task

if TYPE_CHECKING:
    from microg.metrics.text.state import ItemState

Needs = Literal["nothing", "java", "encoder"]
# From how much work on actors pay for their start (Ray, imports, a model each: 10 to 20 s): items, or for encoders
# different texts.
_WORTH: Mapping[Needs, int] = {"nothing": 200_000, "java": 10_000, "encoder": 300}
PERCENT = 100.0  # scores are fractions (CIDEr-D 0 to 10); tables print them times this


@dataclass(frozen=True, kw_only=True)
class TextProtocol:
    """How texts reach the n-gram metrics: `tokenizer` is a name in `microg.metrics.text.tokenize.TOKENIZERS`."""

    name: str
    tokenizer: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of a metric, and where it is shown.

    Attributes:
        title: What people call it.
        columns: The paper's column for it, by task.
        slices: Its place in the table of slices, by task; without one it is not in that table.
        ranks: Its place among the scores by which examples are best or worst, by task: the lowest available is used.
    """

    title: str
    columns: Mapping[Task, str] = field(default_factory=dict)
    slices: Mapping[Task, int] = field(default_factory=dict)
    ranks: Mapping[Task, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextMetric:
    """A text metric.

    Attributes:
        name: The name in `--metrics`.
        state: Import string of its state, an `ItemState`.
        scores: Its scores by name. Another encoder than the paper's adds its name to theirs: `sbert[mine]`.
        needs: What it needs besides Python. A metric that needs nothing is always available, so it is measured live and
            for the baselines too; one with an encoder sees the texts themselves, the others the protocol's tokens.
        worth: From how many items (encoder: different texts) on actors on Ray pay; None: as others with these needs.
    """

    name: str
    state: str
    scores: Mapping[str, Score]
    needs: Needs = "nothing"
    worth: int | None = None

    @property
    def encodes(self) -> bool:
        """Whether it has an encoder, which sees the texts as they are, whatever the protocol."""
        return self.needs == "encoder"

    def pays_on_actors(self, work: int) -> bool:
        """Tell whether so many items (encoder: different texts) are worth starting actors."""
        return work >= (_WORTH[self.needs] if self.worth is None else self.worth)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        TextProtocol(
            name="paper", tokenizer="raw", title="raw strings, cased, punctuation attached: what the paper computed"
        ),
        TextProtocol(
            name="standard", tokenizer="ptb", title="PTB tokens, lower case, without punctuation: what COCO reports"
        ),
    )
}


def _both(column: str) -> Mapping[Task, str]:
    return {"caption": column, "vqa": column}


_ALL = (
    TextMetric(
        name="cider",
        state="microg.metrics.text.cider:CiderState",
        scores={
            "cider": Score(
                title="CIDEr-D", columns=_both("CIDEr"), slices={"caption": 1, "vqa": 4}, ranks={"caption": 3}
            )
        },
    ),
    TextMetric(
        name="bleu",
        state="microg.metrics.text.bleu:BleuState",
        scores={
            **{f"bleu_{n}": Score(title=f"BLEU-{n}") for n in (1, 2, 3)},
            "bleu_4": Score(title="BLEU-4", columns=_both("BLEU-4"), slices={"caption": 2}),
        },
    ),
    TextMetric(
        name="meteor",
        state="microg.metrics.text.meteor:MeteorState",
        scores={"meteor": Score(title="METEOR", columns=_both("METEOR"))},
        needs="java",
    ),
    TextMetric(
        name="rouge_l",
        state="microg.metrics.text.rouge:RougeState",
        scores={
            "rouge_l": Score(
                title="ROUGE-L", columns=_both("ROUGE-L"), slices={"caption": 3, "vqa": 3}, ranks={"caption": 2}
            )
        },
    ),
    TextMetric(
        name="sbert",
        state="microg.metrics.text.sbert:SbertState",
        scores={
            "sbert": Score(title="S-BERT", columns={"caption": "S-BERT", "vqa": "S-VQA"}, ranks={"caption": 1}),
        },
        needs="encoder",
        worth=2_000,
    ),
    TextMetric(
        name="bertscore",
        state="microg.metrics.text.bertscore:BertScoreState",
        scores={
            "bertscore_precision": Score(title="BERTScore precision"),
            "bertscore_recall": Score(title="BERTScore recall"),
            "bertscore_f1": Score(title="BERTScore", columns=_both("BERTScore")),
            "bertscore_f1_rescaled": Score(title="BERTScore rescaled"),
        },
        needs="encoder",
    ),
)
METRICS = Registry("text metric", {metric.name: metric for metric in _ALL})
# Accuracies of short answers are always measured where there are questions; nobody chooses them.
ANSWERS = TextMetric(
    name="answers",
    state="microg.metrics.text.answers:AnswerState",
    scores={
        "exact_match": Score(title="exact match", slices={"vqa": 1}),
        "token_f1": Score(title="token F1", slices={"vqa": 2}, ranks={"vqa": 1}),
        "yes_no_accuracy": Score(title="yes/no accuracy"),
        "count_accuracy": Score(title="count accuracy"),
        "unanswerable_precision": Score(title="unanswerable, precision"),
        "unanswerable_recall": Score(title="unanswerable, recall (= accuracy)"),
        "answerable_exact_match": Score(title="answerable, exact match"),
        "answerable_token_f1": Score(title="answerable, token F1"),
    },
)


def metric(name: str) -> TextMetric:
    """Return a metric by name, or a `TextMetric` of the user's own by `module:object`. Raises `ConfigError`."""
    return ANSWERS if name == ANSWERS.name else METRICS.find(name)


def load(name: str) -> type[ItemState]:
    """Return the state class of a metric. Raises `ConfigError` for an unknown name.

    >>> load("bleu").values
    ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4')
    """
    return load_object(metric(name).state)


def empty(name: str, **settings: Any) -> ItemState:
    """Return an empty state of a metric; settings are those of its `empty`."""
    return load(name).empty(**settings)


def names(*needs: Needs) -> tuple[str, ...]:
    """Return the names of the metrics that need one of these, in the order of the registry.

    >>> names("nothing"), names("encoder")
    (('cider', 'bleu', 'rouge_l'), ('sbert', 'bertscore'))
    """
    return tuple(name for name, found in METRICS.items() if found.needs in needs)


def protocol(name: str) -> TextProtocol:
    """Return a protocol by name. Raises `ConfigError`."""
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no text protocol {name!r}", f"text protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def title(score: str) -> str:
    """Return what to call a score, with the encoder when it is not the paper's.

    >>> title("rouge_l"), title("token_f1"), title("bertscore_f1[tiny-L2]")
    ('ROUGE-L', 'token F1', 'BERTScore [tiny-L2]')
    """
    name, bracket, encoder = score.partition("[")
    known = dict(_scores())
    return (known[name].title if name in known else name) + (f" {bracket}{encoder}" if encoder else "")


def column(score: str, task: Task) -> str | None:
    """Return the paper's column for a score, None when the paper has none for it or another encoder made it.

    >>> column("sbert", "vqa"), column("bleu_1", "vqa"), column("sbert[mine]", "vqa")
    ('S-VQA', None, None)
    """
    return next((found.columns.get(task) for name, found in _scores() if name == score), None)


def columns(task: Task) -> list[str]:
    """Return the paper's columns for a task, in the order of the registry."""
    return [found.columns[task] for _, found in _scores() if task in found.columns]


def sliced(task: Task) -> list[str]:
    """Return the scores that a table of slices shows, in its order.

    >>> sliced("vqa")
    ['exact_match', 'token_f1', 'rouge_l', 'cider']
    """
    return _in_order({name: found.slices[task] for name, found in _scores() if task in found.slices})


def ranking(task: Task) -> list[str]:
    """Return the scores by which examples may be ranked, the preferred one first.

    >>> ranking("caption")
    ['sbert', 'rouge_l', 'cider']
    """
    return _in_order({name: found.ranks[task] for name, found in _scores() if task in found.ranks})


def _scores() -> Iterator[tuple[str, Score]]:
    return (pair for found in (*METRICS.values(), ANSWERS) for pair in found.scores.items())


def _in_order(places: Mapping[str, int]) -> list[str]:
    return sorted(places, key=places.__getitem__)
