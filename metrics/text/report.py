"""From pairs of predictions and references to a full report of one task under one protocol.

States of all metrics, scores of all items and of the answered ones, slices, baselines, intervals and lengths.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from microg.data.normal_form import normalise
from microg.data.qa_kinds import Labels, kind_of
from microg.data.statistics import question_type
from microg.metrics.bootstrap import Distribution
from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState, answer_type
from microg.metrics.text.cider import CiderState, Frequencies, cider_items
from microg.metrics.text.encoder import EncoderState
from microg.metrics.text.intervals import bootstrap_texts, text_intervals
from microg.metrics.text.state import ItemState, exact_sums
from microg.texts.pairs import Pair, Pairs

# (protocol, ids, predictions, references, metric names) -> states by name
Measure = Callable[[str, Sequence[str], Sequence[str], Sequence[Sequence[str]], Sequence[str]], dict[str, ItemState]]
Scores = dict[str, float]
_LEAST_SUPPORT = 2  # of an answer that the blind baseline takes from questions that begin alike


class Measured:
    """A state that takes no more items: what is costly to ask it is asked once.

    ids (n) sorted, statistics (n, k); scores of parts, resamples and single items come from these.
    """

    def __init__(self, state: ItemState) -> None:
        self.state, self.values = state, state.values
        self.ids, self._statistics = state.statistics()
        self._place = {name: place for place, name in enumerate(self.ids)}

    def statistics(self) -> tuple[list[str], np.ndarray]:
        """Return ids and statistics."""
        return self.ids, self._statistics

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return scores of summed statistics (see `ItemState.score`)."""
        return self.state.score(totals, count)

    def of(self, names: Iterable[str]) -> Scores:
        """Return the scores of some items; undefined ones are nan."""
        places = sorted(self._place[name] for name in names)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self.score(exact_sums(self._statistics[places]), np.array(float(len(places))))
        return {name: float(value) for name, value in found.items()}

    def per_item(self) -> dict[str, np.ndarray]:
        """Return each score of the single items (n,) float64, in the order of `ids`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.score(self._statistics.astype(np.float64), np.ones(len(self.ids)))


@dataclass(frozen=True)
class Slice:
    """Scores of a part of the items."""

    scores: Scores
    items: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """All that scoring one task under one protocol found.

    Attributes:
        states: By metric, the statistics of all items.
        scores: Scores of all items, by name; nan where undefined.
        valid: Scores of the answered items, None where all are answered.
        slices: Scores of parts of the items, by (kind, name).
        baselines: Scores of systems that see no video, by system.
        distribution: Resampled scores, None without resamples.
        intervals: 95% intervals, (low, high), by score.
        lengths: See `length_statistics`.
        corpus: Hash and number of the items whose references CIDEr took its document frequencies from.
        signatures: By metric, the encoder that made its scores.
        over_length: By metric, how many items an encoder cut.
    """

    protocol: str
    pairs: Pairs
    states: Mapping[str, Measured]
    scores: Scores
    valid: Slice | None
    slices: Mapping[tuple[str, str], Slice]
    baselines: Mapping[str, Scores]
    distribution: Distribution | None
    intervals: Mapping[str, tuple[float, float]]
    lengths: Mapping[str, float]
    corpus: tuple[str, int]
    signatures: Mapping[str, str] = field(default_factory=dict)
    over_length: Mapping[str, int] = field(default_factory=dict)

    def clips(self) -> int:
        """Return the number of clips."""
        return len({item.key.clip_id for item in self.pairs.items})

    def per_item(self) -> dict[str, dict[str, float]]:
        """Return the scores of single items, by item id, without those that are undefined for it."""
        result: dict[str, dict[str, float]] = {item.key.id: {} for item in self.pairs.items}
        for state in self.states.values():
            for name, column in state.per_item().items():
                for item, value in zip(state.ids, column.tolist(), strict=True):
                    if value == value:
                        result[item][name] = value
        return result


def report(
    pairs: Pairs,
    protocol: str,
    metrics: Sequence[str],
    measure: Measure,
    *,
    origins: Mapping[str, str] | None = None,
    kinds: Labels | None = None,
    baseline_metrics: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> TextReport:
    """Score one task under one protocol; tasks with questions have the accuracies of `microg.metrics.text.answers`
    besides.

    Args:
        pairs: Predictions and references of one task.
        protocol: `paper` or `standard`.
        metrics: Names of the metrics.
        measure: What makes their states, as `microg.metrics.text.scoring.measure` does.
        origins: movie or real, by clip; clips without one are in no slice by origin.
        kinds: Of questions; those without one are of the kind that the rules say.
        baseline_metrics: Those of `metrics` that baselines are scored with; None is those that need nothing, and an
            empty list is no baselines.
        resamples: Of the bootstrap over clips; with fewer than two clips there are no intervals.
        seed: Of resamples and baselines.
    """
    raw = _states(pairs, protocol, [item.scored for item in pairs.items], metrics, measure)
    states = {name: Measured(state) for name, state in raw.items()}
    of_item = {item.key.id: item for item in pairs.items}
    answered = {name for name, item in of_item.items() if item.text is not None}
    cheap = [name for name in metrics if registry.metric(name).needs == "nothing"]
    chosen = cheap if baseline_metrics is None else [name for name in metrics if name in baseline_metrics]
    systems = {}
    for name, texts in baselines(pairs, seed).items() if baseline_metrics is None or baseline_metrics else ():
        found = _states(pairs, protocol, texts, chosen, measure)
        systems[name] = {score: value for state in found.values() for score, value in state.compute().items()}
    scores = _scores(states, of_item)
    drawn = None
    if resamples and len({item.key.clip_id for item in pairs.items}) > 1:
        clip_of = {name: item.key.clip_id for name, item in of_item.items()}
        drawn = bootstrap_texts(states, clip_of, resamples=resamples, seed=seed)
    encoders = {name: state for name, state in raw.items() if isinstance(state, EncoderState)}
    return TextReport(
        protocol=protocol,
        pairs=pairs,
        states=states,
        scores=scores,
        valid=part(states, of_item, answered) if len(answered) < len(of_item) else None,
        slices=_slices(states, of_item, origins or {}, kinds or {}),
        baselines=systems,
        distribution=drawn,
        intervals=text_intervals(drawn, scores) if drawn else {},
        lengths=_lengths(raw, scores),
        corpus=corpus_of(pairs),
        signatures={name: state.info.signature for name, state in encoders.items() if state.info is not None},
        over_length={name: state.over_length() for name, state in encoders.items()},
    )


def part(states: Mapping[str, Measured], of_item: Mapping[str, Pair], chosen: Iterable[str]) -> Slice:
    """Return the scores of the items in `chosen`; CIDEr keeps the document frequencies of the whole corpus."""
    names = list(chosen)
    return Slice(_scores(states, names), len(names), len({of_item[name].key.clip_id for name in names}))


def _scores(states: Mapping[str, Measured], names: Iterable[str]) -> Scores:
    names = list(names)
    return {score: value for state in states.values() for score, value in state.of(names).items()}


def types_of(pair: Pair, kinds: Labels | None = None) -> dict[str, str | None]:
    """Return answer_type, question_type and qa_kind of an item; captions have none. `kinds`: see `report`."""
    if pair.key.task == "caption":
        return {"answer_type": None, "question_type": None, "qa_kind": None}
    question, answer = pair.question, pair.references[0]
    return {
        "answer_type": answer_type(question, answer),
        "question_type": None if question is None else question_type(question),
        "qa_kind": None if question is None else kind_of(question, answer, _label(pair, kinds)),
    }


def _label(pair: Pair, kinds: Labels | None) -> str | None:
    index = pair.key.qa_index
    return None if kinds is None or index is None else kinds.get((pair.key.clip_id, index))


def corpus_of(pairs: Pairs) -> tuple[str, int]:
    """Return a hash of the items' references, and their number."""
    texts = "\n".join(repr((item.key.id, item.references)) for item in pairs.items)
    return hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()[:16], len(pairs.items)


def _states(
    pairs: Pairs, protocol: str, said: Sequence[str], metrics: Sequence[str], measure: Measure
) -> dict[str, ItemState]:
    ids = [item.key.id for item in pairs.items]
    true = [item.references for item in pairs.items]
    states = measure(protocol, ids, said, true, metrics) if metrics else {}
    if pairs.task == "vqa":
        questions = {item.key.id: item.question for item in pairs.items if item.question is not None}
        states = {**states, registry.ANSWERS.name: AnswerState.empty(questions=questions).update(ids, said, true)}
    return states


def _slices(
    states: Mapping[str, Measured], of_item: Mapping[str, Pair], origins: Mapping[str, str], kinds: Labels
) -> dict[tuple[str, str], Slice]:
    members: dict[tuple[str, str], set[str]] = {}
    for name, item in of_item.items():
        labels = {**types_of(item, kinds), "origin": origins.get(item.key.clip_id)}
        for kind, value in labels.items():
            if value is not None:
                members.setdefault((kind, value), set()).add(name)
    return {key: part(states, of_item, members[key]) for key in sorted(members)}


def _lengths(states: Mapping[str, ItemState], scores: Scores) -> dict[str, float]:
    state = next((state for state in states.values() if isinstance(state, CiderState)), None)
    if state is None:
        return {}
    table = state.to_table()
    return length_statistics(table["prediction"].to_pylist(), table["references"].to_pylist(), scores["cider"])


def length_statistics(
    predictions: Sequence[str], references: Sequence[Sequence[str]], cider: float | None = None
) -> dict[str, float]:
    """Return length statistics of tokenized texts, and what CIDEr-D's length penalty takes away.

    CIDEr-D multiplies each item by exp(-d^2 / 72) for a difference of d words: 0.25 at 10 words, 0.004 at 20. Of
    several references the one closest in length counts.

    `cider` is the texts' CIDEr-D where it is known.

    words, reference_words: means; ratio: words in all predictions per word in all references; difference: mean absolute
    difference in words; cider_penalty: mean factor of CIDEr-D; cider, cider_without_penalty: 0 to 10;
    cider_penalty_share: the part of the latter that the penalty takes.

    >>> found = length_statistics(["a b", "c d"], [["a b"], ["c d e f"]])
    >>> round(found["ratio"], 3), round(found["cider_penalty"], 3)
    (0.667, 0.973)
    """
    said = np.array([len(text.split()) for text in predictions], np.float64)
    true = np.array([_closest(length, texts) for length, texts in zip(said, references, strict=True)], np.float64)
    if not len(said):
        return {}
    frequencies = Frequencies.of(references)
    if cider is None:
        cider = float(cider_items(predictions, references, frequencies).mean())
    without = float(cider_items(predictions, references, frequencies, sigma=float("inf")).mean())
    difference = np.abs(np.maximum(said - 1, 0) - np.maximum(true - 1, 0))
    return {
        "words": float(said.mean()),
        "reference_words": float(true.mean()),
        "ratio": float(said.sum() / max(true.sum(), 1)),
        "difference": float(difference.mean()),
        "cider_penalty": float(np.exp(-(difference**2) / 72).mean()),
        "cider": cider,
        "cider_without_penalty": without,
        "cider_penalty_share": 1 - cider / without if without else 0.0,
    }


def _closest(length: float, texts: Sequence[str]) -> int:
    return min((len(text.split()) for text in texts), key=lambda other: (abs(other - length), other))


def baselines(pairs: Pairs, seed: int = 0) -> dict[str, list[str]]:
    """Return the texts of systems that see no video, aligned with `pairs.items`: what they reach is worth nothing.

    constant: one text for everything. blind: answers from the question alone, captions of other clips. shuffled: the
    model's own texts, each given to another clip. Constant and blind are made from the references (blind: of other
    clips).
    """
    clips = [item.key.clip_id for item in pairs.items]
    true = [item.references[0] for item in pairs.items]
    moved = other_clips(clips, seed)
    return {
        "constant": [typical(true) if pairs.task == "caption" else most_common(true)] * len(true),
        "blind": [true[place] for place in moved] if pairs.task == "caption" else question_prior(pairs.items),
        "shuffled": [pairs.items[place].scored for place in moved],
    }


def most_common(texts: Sequence[str]) -> str:
    """Return the most frequent text, compared as answers are; of equals the first in alphabetical order.

    >>> most_common(["Yes.", "Not mentioned.", "yes", "No."])
    'Yes.'
    """
    return _top(_ranked(Counter(map(normalise, texts))), _first_forms(texts), Counter())[0]


def typical(texts: Sequence[str]) -> str:
    """Return the text whose set of words agrees best with all texts (mean Dice coefficient); of equals the first.

    >>> typical(["a man floats", "a man sleeps", "two women wave"])
    'a man floats'
    """
    words = [sorted(set(normalise(text).split())) for text in texts]
    codes = {word: code for code, word in enumerate(dict.fromkeys(word for item in words for word in item))}
    sizes = np.array([len(item) for item in words])
    distinct, size_code = np.unique(sizes, return_inverse=True)
    # texts by (size, word): all that the overlap with every text depends on
    there = np.zeros((len(codes) + 1, len(distinct)))
    for item, code in zip(words, size_code, strict=True):
        there[[codes[word] for word in item], code] += 1
    scores = np.zeros(len(texts))
    for place, item in enumerate(words):
        overlap = there[[codes[word] for word in item]].sum(axis=0)
        scores[place] = (2 * overlap / np.maximum(sizes[place] + distinct, 1)).sum()
    return texts[int(np.argmax(scores))]


def question_prior(items: Sequence[Pair]) -> list[str]:
    """Return for each question the most frequent answer to questions that begin alike, of other clips.

    The longest beginning counts for which other clips gave one answer at least twice. (The per-question-type prior of
    Antol et al. 2015, with the type as fine as the data allow.)
    """
    clips = [item.key.clip_id for item in items]
    true = [item.references[0] for item in items]
    forms = _first_forms(true)
    answers = [normalise(text) for text in true]
    starts = [_beginnings(item.question) for item in items]
    totals: dict[tuple[str, ...], Counter[str]] = {}
    own: dict[tuple[tuple[str, ...], str], Counter[str]] = {}
    for clip, answer, beginnings in zip(clips, answers, starts, strict=True):
        for start in beginnings:
            totals.setdefault(start, Counter())[answer] += 1
            own.setdefault((start, clip), Counter())[answer] += 1
    ranked = {start: _ranked(count) for start, count in totals.items()}
    result = []
    for clip, beginnings in zip(clips, starts, strict=True):
        text = ""
        for start in beginnings:
            text, support = _top(ranked[start], forms, own[start, clip])
            if support >= _LEAST_SUPPORT:
                break
        result.append(text)
    return result


def other_clips(clips: Sequence[str], seed: int = 0) -> list[int]:
    """Return for each item the place of an item of another clip, each once, wherever no clip has more than half.

    Clips are put in random order, their items in a row, in random order too (a clip's first question is often of one
    kind), and the row is turned by the largest clip's size.
    """
    groups: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        groups.setdefault(clip, []).append(place)
    names = sorted(groups)
    chance = np.random.default_rng(seed)
    chance.shuffle(names)
    row = [place for name in names for place in chance.permutation(groups[name]).tolist()]
    step = max(map(len, groups.values()), default=0)
    turned = row[step:] + row[:step]
    result = [0] * len(clips)
    for place, other in zip(row, turned, strict=True):
        result[place] = other
    return result


def _ranked(counts: Counter[str]) -> Counter[str]:
    return Counter(dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))))


def _first_forms(texts: Sequence[str]) -> dict[str, str]:
    forms: dict[str, str] = {}
    for text in texts:
        forms.setdefault(normalise(text), text)
    return forms


def _top(ranked: Counter[str], forms: dict[str, str], own: Counter[str]) -> tuple[str, int]:
    """Return the most frequent answer less one's own, and its count; `ranked` falls by count, then alphabetically."""
    best, most = "", 0
    for answer, count in ranked.items():
        if count <= most:
            break
        left = count - own.get(answer, 0)
        if left > most:
            best, most = answer, left
    return forms.get(best, ""), most


def _beginnings(question: str | None) -> list[tuple[str, ...]]:
    words = tuple(normalise(question or "").split())
    return [words[:length] for length in range(len(words), -1, -1)]
