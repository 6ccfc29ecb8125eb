"""Agreement about people's actions: each by itself, sets of them, pairs of annotators, and labels that are confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from microg.annotations.rows import Annotation, Item
from microg.data.vocabulary import Vocabulary
from microg.metrics.agreement.coefficients import (
    Measure,
    alpha_by,
    cohen,
    nominal,
    paired,
    positive,
    set_distances,
    sets,
    with_others,
)
from microg.metrics.agreement.ratings import Ratings
from microg.metrics.agreement.scores import Score, Scorer

Said = Mapping[Item, Mapping[str, frozenset]]
_EXAMPLES = 5


@dataclass(frozen=True)
class Confusion:
    """Two labels that annotators gave in place of each other, or a label and None where others gave none.

    Attributes:
        first, second: The action ids, the smaller first.
        count: Pairs of judgements of one person that differ so.
        examples: Some of the people.
    """

    first: int
    second: int | None
    count: int
    examples: tuple[Item, ...]


def said_actions(annotation: Annotation, vocabulary: Vocabulary) -> frozenset | None:
    """Return the actions that somebody gave a person, as they are called now.

    None where they could not tell, or where an action that was split since has to be decided anew.
    """
    if annotation.value.get("cannot_tell"):
        return None
    meant = [
        vocabulary.in_use(action)
        for action in annotation.value["actions"]
        if action in vocabulary.by_id or action in vocabulary.replaced
    ]
    return None if None in meant else frozenset(meant)


def action_scores(ratings: Ratings, vocabulary: Vocabulary, scorer: Scorer) -> list[Score]:
    """Return all scores of sets of actions: of all, by group and action, by annotator and pair of annotators."""
    clips = ratings.clips
    scores = [scorer.score(name, measure) for name, measure in sets(ratings, clips).items()]
    for group, members in _groups(vocabulary).items():
        part = ratings.recoded(lambda value, members=members: value & members)
        found = sets(part, clips)
        scores += [scorer.score(name, measure, "group", group) for name, measure in found.items()]
    for action in used(ratings):
        scores += _of_action(ratings, clips, action, scorer)
    scores += _of_annotators(ratings, clips, scorer)
    return scores


def used(ratings: Ratings) -> list[int]:
    """Return the actions that somebody gave somebody."""
    return sorted({action for value in ratings.values for action in value})


def _groups(vocabulary: Vocabulary) -> dict[str, frozenset[int]]:
    groups: dict[str, set[int]] = {}
    for action in vocabulary.actions:
        if action.group:
            groups.setdefault(action.group, set()).add(action.id)
    return {name: frozenset(ids) for name, ids in groups.items()}


def _of_action(ratings: Ratings, clips: np.ndarray, action: int, scorer: Scorer) -> list[Score]:
    binary = ratings.recoded(lambda value: action in value)
    found = {**nominal(binary, clips), "positive": positive(binary, clips)}
    scores = [scorer.score(name, measure, "action", str(action)) for name, measure in found.items()]
    for first, second in combinations(ratings.annotators, 2):
        measure = cohen(binary.only([first, second]), clips)
        if measure.units:
            scores.append(scorer.score("kappa", measure, "action", str(action), first, second))
    return scores


def _of_annotators(ratings: Ratings, clips: np.ndarray, scorer: Scorer) -> list[Score]:
    overlap, distance = set_distances(ratings.values)
    same = np.eye(len(ratings.values))
    scores = []
    for name in ratings.annotators:
        scores.append(scorer.score("observed", with_others(ratings, clips, name, same), annotator=name))
        scores.append(scorer.score("jaccard", with_others(ratings, clips, name, overlap), annotator=name))
        if len(ratings.annotators) > 2:
            rest = ratings.only([other for other in ratings.annotators if other != name])
            scores.append(scorer.score("alpha_masi_without", alpha_by(rest, clips, distance), annotator=name))
    for first, second in combinations(ratings.annotators, 2):
        pair = ratings.only([first, second])
        found: dict[str, Measure] = {
            "observed": paired(pair, clips, same),
            "jaccard": paired(pair, clips, overlap),
            "alpha_masi": alpha_by(*_compact(pair, distance, clips)),
            "kappa": cohen(*_cells(pair, clips)),
        }
        if found["observed"].units:
            scores += [scorer.score(name, measure, annotator=first, other=second) for name, measure in found.items()]
    return scores


def _compact(pair: Ratings, distance: np.ndarray, clips: np.ndarray) -> tuple[Ratings, np.ndarray, np.ndarray]:
    """Return ratings with only the values that these annotators gave, and the distances between those."""
    given = np.unique(pair.codes[pair.codes >= 0])
    table = np.full(len(pair.values) + 1, -1, dtype=np.int64)
    table[given] = np.arange(len(given))
    values = tuple(pair.values[place] for place in given)
    return Ratings(pair.annotators, pair.units, table[pair.codes], values), clips, distance[np.ix_(given, given)]


def _cells(pair: Ratings, clips: np.ndarray) -> tuple[Ratings, np.ndarray]:
    """Return one binary rating for each unit and each action that either of the two ever gave."""
    actions = sorted({action for place in np.unique(pair.codes[pair.codes >= 0]) for action in pair.values[place]})
    has = np.array([[int(action in value) for action in actions] for value in pair.values] or [[]], dtype=np.int64)
    codes = np.where(pair.codes[:, :, None] < 0, -1, has[np.maximum(pair.codes, 0)] if has.size else 0)
    units = tuple(unit for unit in pair.units for _ in actions)
    cells = Ratings(pair.annotators, units, codes.reshape(2, -1), (False, True))
    return cells, np.repeat(clips, len(actions))


def confusions(said: Said, limit: int = 50) -> list[Confusion]:
    """Return which label one annotator gave where another gave another, most frequent first.

    Of a person's two sets of labels, every label that only one has is paired with every one that only the other has;
    where the other has nothing more, with None.
    """
    counts: Counter[tuple[int, int | None]] = Counter()
    examples: dict[tuple[int, int | None], dict[Item, None]] = {}
    for unit, by in said.items():
        for one, other in combinations(by.values(), 2):
            for pair in _pairs(one - other, other - one):
                counts[pair] += 1
                examples.setdefault(pair, {})[unit] = None
    ordered = sorted(counts, key=lambda pair: (-counts[pair], pair[0], pair[1] or 0))
    return [Confusion(*pair, counts[pair], tuple(examples[pair])[:_EXAMPLES]) for pair in ordered[:limit]]


def _pairs(one: Collection[int], other: Collection[int]) -> Iterable[tuple[int, int | None]]:
    if one and other:
        return [(min(a, b), max(a, b)) for a in sorted(one) for b in sorted(other)]
    return [(a, None) for a in sorted([*one, *other])]


def likeness_to(decided: frozenset, said: frozenset) -> float:
    """Return the overlap (Jaccard) of two sets of labels; two empty ones are equal."""
    union = decided | said
    return len(decided & said) / len(union) if union else 1.0
