"""From pairs of predictions and references to a full report of one task under one protocol.

States of all metrics, scores of all items and of the answered ones, slices, baselines, intervals and lengths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from microg.data.text_statistics import question_type
from microg.metrics.bootstrap import Distribution
from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState, answer_type
from microg.metrics.text.baselines import baselines
from microg.metrics.text.cider import CiderState
from microg.metrics.text.encoder_state import EncoderState
from microg.metrics.text.intervals import bootstrap_texts, text_intervals
from microg.metrics.text.lengths import length_statistics
from microg.metrics.text.state import ItemState, exact_sums
from microg.texts.pairs import Pair, Pairs

# (protocol, ids, predictions, references, metric names) -> states by name
Measure = Callable[[str, Sequence[str], Sequence[str], Sequence[Sequence[str]], Sequence[str]], dict[str, ItemState]]
Scores = dict[str, float]


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
        lengths: See `microg.metrics.text.lengths`.
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
        slices=_slices(states, of_item, origins or {}),
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


def types_of(pair: Pair) -> dict[str, str | None]:
    """Return answer_type and question_type of an item; captions have none."""
    if pair.key.task == "caption":
        return {"answer_type": None, "question_type": None}
    known = None if pair.question is None else question_type(pair.question)
    return {"answer_type": answer_type(pair.question, pair.references[0]), "question_type": known}


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
    states: Mapping[str, Measured], of_item: Mapping[str, Pair], origins: Mapping[str, str]
) -> dict[tuple[str, str], Slice]:
    members: dict[tuple[str, str], set[str]] = {}
    for name, item in of_item.items():
        labels = {**types_of(item), "origin": origins.get(item.key.clip_id)}
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
