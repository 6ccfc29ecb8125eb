"""Which of the paper's seven kinds of thing a question asks for, by a versioned set of rules (`qa_kinds.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from microg import storage
from microg.data import schema
from microg.data.normal_form import is_no_answer
from microg.errors import FormatError
from microg.reading import reads

Labels = Mapping[tuple[str, int], str]

TABLE = "qa_kinds"
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class QaRules:
    """The rules, in the order in which they are tried.

    Attributes:
        version: Number of this set of rules.
        kinds: What each kind asks for, by its name, in the paper's order.
        rules: (kind, pattern of the question); without a pattern the rule is about the answer.
        otherwise: Kind of a question that no rule is about.
    """

    version: int
    kinds: Mapping[str, str]
    rules: tuple[tuple[str, re.Pattern[str] | None], ...]
    otherwise: str

    @property
    def name(self) -> str:
        """What records name the rules by."""
        return f"rules-v{self.version}"


@cache
def qa_rules() -> QaRules:
    """Return the rules of this version of the package.

    >>> list(qa_rules().kinds)[:3]
    ['foreground action', 'background/spatial', 'entity/attribute']
    """
    found = yaml.safe_load(resources.files("microg.data").joinpath("qa_kinds.yaml").read_text("utf-8"))
    rules = ((rule["kind"], re.compile(rule["question"]) if "question" in rule else None) for rule in found["rules"])
    return QaRules(found["version"], found["kinds"], tuple(rules), found["otherwise"])


def qa_kind(question: str, answer: str | None) -> str:
    """Return the kind of a question with its true answer.

    >>> qa_kind("Why does he hold on to the truss?", "To stay in place."), qa_kind("Who is he?", "Not mentioned.")
    ('causal', 'unanswerable')
    """
    rules = qa_rules()
    words = " ".join(_WORD.findall(question.lower().replace("’", "'")))
    for kind, pattern in rules.rules:
        if pattern is None:
            if is_no_answer(answer or ""):
                return kind
        elif pattern.search(words):
            return kind
    return rules.otherwise


def kind_of(question: str, answer: str | None, label: str | None = None) -> str:
    """Return the kind that somebody gave a question, else that of the rules."""
    return label or qa_kind(question, answer)


@reads(FormatError)
def read_kinds(path: str) -> Labels:
    """Return the kinds that a run of `microg data label-qa` gave, by clip and index of the question.

    Raises `FormatError` where there is no such table, or a kind in it is none of the paper's.
    """
    file = storage.join(path, "tables", f"{TABLE}.parquet")
    file = file if storage.exists(file) else path
    if not (file.endswith(".parquet") and storage.exists(file)):
        raise FormatError(f"{path} holds no table {TABLE}", "give the run folder of 'microg data label-qa'")
    rows = schema.conform(TABLE, storage.read_parquet(file)).to_pylist()
    labels = {(row["clip_id"], row["qa_index"]): row["kind"] for row in rows if row["kind"] is not None}
    unknown = sorted({kind for kind in labels.values() if kind not in qa_rules().kinds})
    if unknown:
        raise FormatError(f"{path}: {unknown[0]!r} is no kind of question", f"kinds are {', '.join(qa_rules().kinds)}")
    return labels
