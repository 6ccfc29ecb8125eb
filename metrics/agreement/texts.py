"""How alike the texts are that annotators accepted or wrote: captions, questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import numpy as np

from microg.annotations.rows import Item
from microg.data.normal_form import normalise
from microg.metrics.agreement.coefficients import Measure, share
from microg.metrics.agreement.scores import Score, Scorer
from microg.metrics.text.answers import token_f1
from microg.metrics.text.rouge import rouge_l_item

# By clip or question: each annotator's text, those who rejected it left out.
Texts = Mapping[Item, Mapping[str, str]]


def exact(first: str, second: str) -> float:
    """Return 1 for texts that are equal but for case, punctuation and articles."""
    return float(normalise(first) == normalise(second))


def rouge(first: str, second: str) -> float:
    """Return ROUGE-L of normalised texts, the mean of both directions: neither is the reference of the other.

    >>> rouge("An astronaut floats.", "The astronaut floats"), rouge("He waves", "A cup")
    (1.0, 0.0)
    """
    one, other = normalise(first), normalise(second)
    if not one or not other:
        return float(one == other)
    return (rouge_l_item(one, [other]) + rouge_l_item(other, [one])) / 2


def f1(first: str, second: str) -> float:
    """Return the F1 of the words of two normalised texts."""
    return token_f1(normalise(first), normalise(second))


MEASURES: Mapping[str, Callable[[str, str], float]] = {"exact": exact, "rouge_l": rouge, "token_f1": f1}


def text_scores(texts: Texts, places: Mapping[str, int], part: str, scorer: Scorer) -> list[Score]:
    """Return how alike texts of two annotators are, mean over units: of all, by annotator, by pair of annotators.

    Args:
        texts: What annotators accepted or wrote.
        places: Number of each clip.
        part: Which text it is: caption, question or answer.
        scorer: Makes the scores.
    """
    scores = []
    annotators = sorted({name for by in texts.values() for name in by})
    for metric, alike in MEASURES.items():
        of_all: list[tuple[int, float]] = []
        by_pair: dict[tuple[str, str], list[tuple[int, float]]] = {}
        by_annotator: dict[str, list[tuple[int, float]]] = {name: [] for name in annotators}
        for item, by in texts.items():
            values: dict[tuple[str, str], float] = {(a, b): alike(by[a], by[b]) for a, b in combinations(sorted(by), 2)}
            if not values:
                continue
            place = places[item.clip_id]
            of_all.append((place, float(np.mean(list(values.values())))))
            for pair, value in values.items():
                by_pair.setdefault(pair, []).append((place, value))
            for name in by:
                own = [value for pair, value in values.items() if name in pair]
                by_annotator[name].append((place, float(np.mean(own))))
        scores.append(scorer.score(metric, _measure(of_all, len(annotators)), "text", part))
        for name, rows in by_annotator.items():
            if rows:
                scores.append(scorer.score(metric, _measure(rows, len(annotators)), "text", part, name))
        for (first, second), rows in sorted(by_pair.items()):
            scores.append(scorer.score(metric, _measure(rows, 2), "text", part, first, second))
    return scores


def _measure(rows: Iterable[tuple[int, float]], raters: int) -> Measure:
    table = np.array(list(rows), dtype=np.float64).reshape(-1, 2)
    return share(table[:, 1], table[:, 0].astype(np.int64), raters=raters)
