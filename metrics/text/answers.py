"""Accuracy of short answers: exact match, token F1, yes/no, counts, and what cannot be answered.

Texts are compared after normalisation: lower case, no punctuation, no articles, number words as digits. Accuracies are
ratios of sums of item statistics, so that slices, shards and bootstrap resamples all add up exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from microg.data.normal_form import abstains, is_no_answer, normalise
from microg.data.statistics import question_type
from microg.metrics.text.items import Items, numbered
from microg.metrics.text.registry import ANSWERS
from microg.metrics.text.state import ItemState

AnswerType = Literal["yes/no", "count", "unanswerable", "other"]
ANSWER_TYPES: tuple[AnswerType, ...] = ("yes/no", "count", "unanswerable", "other")

_NOTHING = {"no", "none", "nobody", "nothing", "neither"}


def token_f1(prediction: str, reference: str) -> float:
    """Return the F1 of the words of two normalised texts; two empty texts agree.

    >>> round(token_f1("red shirt", "dark red shirt"), 3)
    0.8
    """
    said, true = prediction.split(), reference.split()
    if not said or not true:
        return float(said == true)
    common = (Counter(said) & Counter(true)).total()
    return 2 * common / (len(said) + len(true))


def yes_or_no(normalised: str) -> str | None:
    """Return yes or no, when the answer begins with it."""
    first = normalised.split(" ", 1)[0]
    return first if first in ("yes", "no") else None


def number_in(normalised: str) -> str | None:
    """Return the first number of an answer as digits; `none`, `nobody` and the like are 0.

    >>> number_in(normalise("There are three of them.")), number_in(normalise("None.")), number_in("many")
    ('3', '0', None)
    """
    for word in normalised.split():
        if word.isdecimal():
            return str(int(word))
        if word in _NOTHING:
            return "0"
    return None


def answer_type(question: str | None, reference: str) -> AnswerType:
    """Return what kind of answer the true one is.

    >>> answer_type("How many float?", "Two."), answer_type("Is he?", "No, he is not."), answer_type("Who?", "No one.")
    ('count', 'yes/no', 'other')
    """
    true = normalise(reference)
    if is_no_answer(reference):
        return "unanswerable"
    if true in ("yes", "no") or (yes_or_no(true) and question_type(question) in ("is/are", "does/do")):
        return "yes/no"
    if number_in(true) is not None and re.match(r"how many\b|.*\bnumber of\b", normalise(question or "")):
        return "count"
    return "other"


def exactly(prediction: str, references: Sequence[str]) -> bool:
    """Tell whether a prediction is one of the references after normalisation; an empty one never is."""
    said = normalise(prediction)
    return bool(said) and any(said == normalise(reference) for reference in references)


class AnswerState(ItemState):
    """Counts by which the accuracies are ratios. `questions` by item id tell the type of an answer.

    Recall of unanswerable questions is the accuracy on them; `answerable` scores are of the others, where an answer
    that abstains is wrong as any other. A score without items of its kind is nan.
    """

    statistic = pa.float64()
    columns = (
        *("exact", "f1", "yes_no", "yes_no_right", "count", "count_right"),
        *("unanswerable", "abstained", "abstained_right", "answerable", "answerable_exact", "answerable_f1"),
    )
    values = tuple(ANSWERS.scores)

    def __init__(self, questions: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._questions = questions or {}

    @classmethod
    def empty(cls, *, questions: Mapping[str, str] | None = None, **_: Any) -> Self:
        """Return a state without items."""
        return cls(questions)

    def measure(self, items: Items) -> np.ndarray:
        """Return the statistics (n, 12) of items."""
        rows = zip(items.ids, items.predictions, items.references, strict=True)
        statistics = [_statistics(text, true, self._questions.get(name)) for name, text, true in rows]
        return np.array(statistics, np.float64).reshape(-1, len(self.columns))

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return each accuracy (...), 0 to 1, of summed statistics (..., 12) over `count` (...) items."""
        at = {name: totals[..., place] for place, name in enumerate(self.columns)}
        ratios = {
            "yes_no_accuracy": ("yes_no_right", "yes_no"),
            "count_accuracy": ("count_right", "count"),
            "unanswerable_precision": ("abstained_right", "abstained"),
            "unanswerable_recall": ("abstained_right", "unanswerable"),
            "answerable_exact_match": ("answerable_exact", "answerable"),
            "answerable_token_f1": ("answerable_f1", "answerable"),
        }
        of_all = {"exact_match": at["exact"] / count, "token_f1": at["f1"] / count}
        return of_all | {name: _ratio(at[part], at[whole]) for name, (part, whole) in ratios.items()}


def answers(
    predictions: Iterable[str], references: Iterable[Any], questions: Iterable[str | None] | None = None
) -> dict[str, float]:
    """Return all accuracies of a set of answers.

    >>> found = answers(["Yes, he is.", "3"], ["Yes.", "Two."], ["Is he there?", "How many?"])
    >>> found["yes_no_accuracy"], found["count_accuracy"], found["exact_match"]
    (1.0, 0.0, 0.0)
    """
    items = numbered(predictions, references)
    known = {name: text for name, text in zip(items.ids, questions or [], strict=False) if text is not None}
    return AnswerState.empty(questions=known).take(items, items).compute()


def _statistics(prediction: str, references: tuple[str, ...], question: str | None) -> tuple[float, ...]:
    plain, true = normalise(prediction), [normalise(text) for text in references]
    kind = answer_type(question, references[0])
    exact = float(bool(plain) and plain in true)
    f1 = max(token_f1(plain, text) for text in true) if plain else 0.0
    yes_no, count, unanswerable = (kind == name for name in ("yes/no", "count", "unanswerable"))
    abstained, answerable = abstains(plain), not unanswerable
    yes_no_right = yes_no and yes_or_no(plain) == yes_or_no(true[0])
    count_right = count and number_in(plain) == number_in(true[0])
    of_kinds = (yes_no, yes_no_right, count, count_right, unanswerable, abstained, unanswerable and abstained)
    return (exact, f1, *of_kinds, answerable, answerable * exact, answerable * f1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
