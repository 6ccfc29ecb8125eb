"""Agreement about what is one value: whether a clip is kept, and what becomes of a caption or a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from microg.annotations.rows import Item
from microg.metrics.agreement.coefficients import cohen, nominal, share, with_others
from microg.metrics.agreement.ratings import Ratings
from microg.metrics.agreement.scores import Score, Scorer


def verdict_scores(ratings: Ratings, scorer: Scorer) -> list[Score]:
    """Return observed agreement, kappas and alpha of all, by annotator and by pair of annotators."""
    clips = ratings.clips
    scores = [scorer.score(name, measure) for name, measure in nominal(ratings, clips).items()]
    same = np.eye(len(ratings.values))
    for name in ratings.annotators:
        scores.append(scorer.score("observed", with_others(ratings, clips, name, same), annotator=name))
        if len(ratings.annotators) > 2:
            rest = ratings.only([other for other in ratings.annotators if other != name])
            scores.append(scorer.score("alpha_without", nominal(rest, clips)["alpha"], annotator=name))
    for first, second in combinations(ratings.annotators, 2):
        pair = ratings.only([first, second])
        kappa = cohen(pair, clips)
        if kappa.units:
            found = nominal(pair, clips)
            scores += [
                scorer.score("observed", found["observed"], annotator=first, other=second),
                scorer.score("kappa", kappa, annotator=first, other=second),
                scorer.score("alpha", found["alpha"], annotator=first, other=second),
            ]
    return scores


def screening_errors(
    said: Mapping[Item, Mapping[str, bool]],
    decided: Mapping[Item, bool],
    models: Sequence[str],
    places: Mapping[str, int],
    scorer: Scorer,
) -> list[Score]:
    """Return how often each model keeps what people drop, and drops what people keep.

    People's word on a clip is what was decided, else what more than half of them said; clips on which they are split
    are left out.

    Args:
        said: What each annotator said of each clip, models among them.
        decided: What an adjudicator said.
        models: Which annotators are models.
        places: Number of each clip.
        scorer: Makes the scores.
    """
    scores = []
    for model in models:
        rows = []
        for item, by in said.items():
            people = decided.get(item, _majority([value for name, value in by.items() if name not in models]))
            if people is not None and model in by:
                rows.append((people, by[model], places[item.clip_id]))
        if not rows:
            continue
        truth, kept, clips = (np.array(column) for column in zip(*rows, strict=True))
        for name, wrong, of, why in (
            ("false_keep", kept, ~truth, "people dropped none of these clips"),
            ("false_drop", ~kept, truth, "people kept none of these clips"),
            ("right", kept == truth, np.ones(len(truth), dtype=bool), ""),
        ):
            measure = share(wrong[of].astype(float), clips[of], nothing=why)
            scores.append(scorer.score(name, measure, annotator=model))
    return scores


def _majority(votes: Sequence[bool]) -> bool | None:
    if not votes:
        return None
    most, times = Counter(votes).most_common(1)[0]
    return most if 2 * times > len(votes) else None
