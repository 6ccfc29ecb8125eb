"""Agreement of all annotators of a dataset, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microg.annotations.boxes import Tracks, edited
from microg.annotations.rows import DATASET, KINDS, Annotation, Item, Kind
from microg.data.vocabulary import Vocabulary
from microg.metrics.agreement.actions import Confusion, action_scores, confusions, likeness_to, said_actions
from microg.metrics.agreement.boxes import box_scores
from microg.metrics.agreement.coefficients import share
from microg.metrics.agreement.ratings import Ratings, by_unit, standing
from microg.metrics.agreement.scores import Score, Scorer
from microg.metrics.agreement.texts import exact, rouge, text_scores
from microg.metrics.agreement.verdicts import screening_errors, verdict_scores

TEXTS: Mapping[Kind, tuple[str, ...]] = {"caption": ("caption",), "qa": ("question", "answer")}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which judgements are compared, and how often clips are drawn.

    Attributes:
        kinds: Kinds of judgements.
        annotators: Only these annotators; all people where none is named.
        models: Whether models' proposals in the dataset count as annotators' judgements.
        resamples: Resamples of clips for intervals, 0 for none.
        seed: Decides which clips are drawn.
    """

    kinds: tuple[Kind, ...] = KINDS
    annotators: tuple[str, ...] = ()
    models: bool = False
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class KindAgreement:
    """Agreement about one kind.

    Attributes:
        annotators: Who judged it, with the number of units that each judged.
        units: Units that two or more annotators judged; of boxes, clips.
        alone: Units that only one annotator judged.
        scores: All numbers.
        differing: Units on which annotators differ, with what each said.
        confusions: Confused labels, for actions.
        notes: What was left out.
    """

    annotators: Mapping[str, int]
    units: int
    alone: int
    scores: list[Score]
    differing: Mapping[Item, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    confusions: list[Confusion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def agreement(
    annotations: Sequence[Annotation], vocabulary: Vocabulary, held: Mapping[str, Tracks], choice: Choice
) -> dict[Kind, KindAgreement]:
    """Return the agreement about each kind that anybody judged.

    Args:
        annotations: All judgements, models' that join as annotators among them.
        vocabulary: The dataset's actions.
        held: Clip id -> the people that the dataset holds, from which edits of boxes start.
        choice: Which judgements, and how often clips are drawn.
    """
    makers: dict[Kind, Callable[..., KindAgreement]] = {
        "action": lambda votes, decided: _actions(votes, decided, vocabulary, choice),
        "screening": lambda votes, decided: _screening(votes, decided, choice),
        "caption": lambda votes, decided: _texts("caption", votes, decided, choice),
        "qa": lambda votes, decided: _texts("qa", votes, decided, choice),
        "box": lambda votes, decided: _boxes(votes, annotations, held, choice),
    }
    found = {}
    for kind in choice.kinds:
        votes, decided = standing(annotations, kind, choice.annotators, choice.models)
        if votes:
            found[kind] = makers[kind](votes, decided)
    return found


def _actions(
    votes: list[Annotation], decided: list[Annotation], vocabulary: Vocabulary, choice: Choice
) -> KindAgreement:
    said: Any = by_unit(votes, lambda each: said_actions(each, vocabulary))
    ratings, scorer = _prepared("action", said, choice)
    verdict: Any = _decided(decided, lambda each: said_actions(each, vocabulary))
    scores = action_scores(ratings, vocabulary, scorer)
    scores += _to_decided(said, verdict, {"observed": lambda a, b: float(a == b), "jaccard": likeness_to}, choice)
    silent = sum(bool(each.value.get("cannot_tell")) for each in votes)
    notes = [f"{silent} times an annotator could not tell: missing, no vote"] if silent else []
    split = len(votes) - silent - sum(map(len, said.values()))
    notes += [f"{split} judgements name an action that was split since: missing"] if split else []
    return _finished(votes, said, scores, notes, confusions(said))


def _screening(votes: list[Annotation], decided: list[Annotation], choice: Choice) -> KindAgreement:
    said: Any = by_unit(votes, lambda each: bool(each.value["keep"]))
    ratings, scorer = _prepared("screening", said, choice)
    verdict: Any = _decided(decided, lambda each: bool(each.value["keep"]))
    scores = verdict_scores(ratings, scorer)
    scores += _to_decided(said, verdict, {"observed": lambda a, b: float(a == b)}, choice)
    models = sorted({each.annotator for each in votes if each.source == "model"})
    places = _places(said)
    errors = Scorer("screening", len(places), choice.resamples, choice.seed)
    scores += screening_errors(said, verdict, models, places, errors)
    return _finished(votes, said, scores, [])


def _texts(kind: Kind, votes: list[Annotation], decided: list[Annotation], choice: Choice) -> KindAgreement:
    said: Any = by_unit(votes, lambda each: str(each.value["verdict"]))
    ratings, scorer = _prepared(kind, said, choice)
    scores = verdict_scores(ratings, scorer)
    places = _places(said)
    alike = Scorer(kind, len(places), choice.resamples, choice.seed)
    for part in TEXTS[kind]:
        texts: Any = by_unit(votes, lambda each, part=part: _text(each, part))
        scores += text_scores(texts, places, part, alike)
        verdict: Any = _decided(decided, lambda each, part=part: _text(each, part))
        scores += _to_decided(texts, verdict, {"exact": exact, "rouge_l": rouge}, choice, kind, part)
    return _finished(votes, said, scores, [], differ=lambda each: (each.value["verdict"], *_all_texts(each, kind)))


def _boxes(
    votes: list[Annotation], annotations: Iterable[Annotation], held: Mapping[str, Tracks], choice: Choice
) -> KindAgreement:
    before: dict[str, list[Annotation]] = {}
    for each in standing(annotations, "box", (DATASET,))[0]:
        before.setdefault(each.clip_id, []).append(each)
    edits: dict[str, dict[str, list[Annotation]]] = {}
    for each in votes:
        edits.setdefault(each.clip_id, {}).setdefault(each.annotator, []).append(each)
    tracks = {}
    for clip, by in edits.items():
        base = edited({}, before[clip]) if clip in before else dict(held.get(clip, {}))
        if len(by) > 1:
            tracks[clip] = {name: base if name == DATASET else edited(base, each) for name, each in by.items()}
    places = {clip: number for number, clip in enumerate(sorted(tracks))}
    scorer = Scorer("box", len(places), choice.resamples, choice.seed)
    counts: dict[str, int] = {}
    for by in edits.values():
        for name in by:
            counts[name] = counts.get(name, 0) + 1
    notes = ["an annotator who looked at a clip and changed nothing has said nothing: such clips are not compared"]
    differing = {}
    for clip, by in tracks.items():
        if len({repr(sorted(people.items())) for people in by.values()}) > 1:
            differing[Item("box", clip)] = {name: {"edits": [e.value for e in edits[clip][name]]} for name in by}
    return KindAgreement(
        annotators=dict(sorted(counts.items())),
        units=len(tracks),
        alone=len(edits) - len(tracks),
        scores=box_scores(tracks, places, scorer),
        differing=differing,
        notes=notes,
    )


def _prepared(kind: Kind, said: Mapping[Item, Mapping[str, Hashable]], choice: Choice) -> tuple[Ratings, Scorer]:
    ratings = Ratings.of(said)
    clips = len({unit.clip_id for unit in ratings.units})
    return ratings, Scorer(kind, clips, choice.resamples, choice.seed)


def _places(said: Mapping[Item, Any]) -> dict[str, int]:
    return {clip: number for number, clip in enumerate(sorted({item.clip_id for item in said}))}


def _decided(decided: Iterable[Annotation], say: Callable[[Annotation], Hashable]) -> dict[Item, Hashable]:
    """Return what was decided of each unit: the newest word of an adjudicator."""
    found = {each.about: say(each) for each in decided}
    return {item: value for item, value in found.items() if value is not None}


def _to_decided(
    said: Mapping[Item, Mapping[str, Any]],
    decided: Mapping[Item, Any],
    likeness: Mapping[str, Callable[[Any, Any], float]],
    choice: Choice,
    kind: Kind | None = None,
    part: str = "decided",
) -> list[Score]:
    """Return how far each annotator agrees with what an adjudicator decided, on units that were adjudicated."""
    common = {item: by for item, by in said.items() if item in decided}
    places = _places(common)
    annotators = sorted({name for by in common.values() for name in by})
    scores = []
    for name in annotators:
        mine = [item for item, by in common.items() if name in by]
        clips = np.array([places[item.clip_id] for item in mine], dtype=np.int64)
        scorer = Scorer(kind or mine[0].kind, len(places), choice.resamples, choice.seed)
        for metric, alike in likeness.items():
            values = np.array([alike(decided[item], common[item][name]) for item in mine])
            scores.append(scorer.score(metric, share(values, clips), "decided", part, name))
    return scores


def _text(annotation: Annotation, part: str) -> str | None:
    return None if annotation.value["verdict"] == "reject" else str(annotation.value[part])


def _all_texts(annotation: Annotation, kind: Kind) -> tuple[str | None, ...]:
    return tuple(_text(annotation, part) for part in TEXTS[kind])


def _finished(
    votes: Sequence[Annotation],
    said: Mapping[Item, Mapping[str, Hashable]],
    scores: list[Score],
    notes: list[str],
    confused: list[Confusion] | None = None,
    differ: Callable[[Annotation], Hashable] | None = None,
) -> KindAgreement:
    counts: dict[str, int] = {}
    values: dict[Item, dict[str, Mapping[str, Any]]] = {}
    compared: dict[Item, dict[str, Hashable]] = {}
    for each in votes:
        counts[each.annotator] = counts.get(each.annotator, 0) + 1
        if each.annotator in said.get(each.about, {}):
            values.setdefault(each.about, {})[each.annotator] = each.value
            compared.setdefault(each.about, {})[each.annotator] = (
                said[each.about][each.annotator] if differ is None else differ(each)
            )
    return KindAgreement(
        annotators=dict(sorted(counts.items())),
        units=sum(len(by) > 1 for by in said.values()),
        alone=sum(len(by) == 1 for by in said.values()),
        scores=scores,
        differing={item: by for item, by in values.items() if len(set(compared[item].values())) > 1},
        confusions=confused or [],
        notes=notes,
    )
