"""Running scores during generation: engine actors send the states of the clips that they answered.

See `microg.pipelines.core.live_scores`. Parts are tasks, keys are clips.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa

from microg.errors import MicrogError
from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.core import live_scores
from microg.pipelines.core.live_scores import Scores, States
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.score_text import TextScoring
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.files import read_text_references
from microg.texts.items import TASKS, Task
from microg.texts.pairs import Pair, Pairs

Known = Mapping[tuple[Task, str], Sequence[Pair]]


def clip_states(pairs: Sequence[Pair]) -> dict[str, pa.Table]:
    """Return the states of a clip's items (of one task) as tables by metric: small enough to send.

    Of the metrics that need neither Java nor an encoder; answers also have the accuracies of
    `microg.metrics.text.answers`. Raises `MetricError` naming an item that is not text.
    """
    items = [pair.key.id for pair in pairs], [pair.scored for pair in pairs], [pair.references for pair in pairs]
    states: dict[str, ItemState] = dict(measure("paper", *items, registry.names("nothing")))
    if pairs and pairs[0].key.task == "vqa":
        questions = {pair.key.id: pair.question for pair in pairs if pair.question is not None}
        states[registry.ANSWERS.name] = AnswerState.empty(questions=questions).update(*items)
    return {name: state.to_table() for name, state in states.items()}


def fold_states(part: str, keys: Sequence[str], tables: Mapping[str, pa.Table]) -> Scores:
    """Return all scores of a task.

    CIDEr takes its document frequencies from the references of the clips there are: it settles when all are there.
    """
    states = (registry.load(name).from_table(table) for name, table in tables.items())
    return {name: value for state in states for name, value in state.compute().items()}


def by_clip(everything: Iterable[Pairs]) -> Iterator[tuple[Task, str, list[Pair]]]:
    """Yield (task, clip, its pairs) of answered items."""
    for pairs in everything:
        clips: dict[str, list[Pair]] = {}
        for pair in pairs.items:
            if pair.text is not None:
                clips.setdefault(pair.key.clip_id, []).append(pair)
        for clip_id, items in clips.items():
            yield pairs.task, clip_id, items


def fold(everything: Iterable[Pairs]) -> live_scores.Aggregator:
    """Return an aggregator with the states of all answered items."""
    result = live_scores.Aggregator(fold_states)
    for task, clip_id, pairs in by_clip(everything):
        result.put(task, clip_id, clip_states(pairs))
    return result


def live_line(scores: Mapping[str, Scores], clips: Mapping[str, int]) -> str:
    """Return partial scores as one line, in the tables' percent.

    >>> live_line({"caption": {"cider": 0.02, "bleu_4": 0.1}}, {"caption": 3})
    'caption, 3 clips so far: CIDEr-D 2.00, BLEU-4 10.00'
    """
    columns = ("cider", "bleu_4", "rouge_l", "exact_match")
    parts = []
    for task in filter(scores.__contains__, TASKS):
        values = [(registry.title(name), scores[task][name]) for name in columns if name in scores[task]]
        listed = ", ".join(f"{title} {100 * value:.2f}" for title, value in values)
        parts.append(f"{task}, {clips.get(task, 0)} clips so far: {listed}")
    return "; ".join(parts)


@dataclass(frozen=True)
class LiveSender:
    """An engine actor's end. known: a reference to the pairs of each (task, clip), with the texts that there were."""

    aggregator: Any
    known: tuple[Any, ...]

    def send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the states of the clips that these rows answer, without waiting."""
        import ray

        known: Known = ray.get(self.known[0])
        good = [row for row in rows if row["status"] == "ok" and row["text"] is not None]
        for (task, clip_id), texts in _texts_by_clip(good).items():
            if pairs := _pairs_with_text(known.get((task, clip_id), ()), texts):
                self.aggregator.put.remote(task, clip_id, clip_states(pairs), time.time())


class LiveTextScores(live_scores.LiveScores):
    """The driver's end, of what earlier invocations answered too.

    Only items that have a reference take part; `open` returns None where none has.
    """

    def __init__(self, root: str, known: Known) -> None:
        import ray

        self._root, self._known = root, known
        super().__init__(fold_states)
        texts = _texts_by_clip(answer_store.answers(root))
        complete = {place: _fill_in(pairs, texts.get(place, {})) for place, pairs in known.items()}
        self.sender = LiveSender(self.aggregator, (ray.put(complete),))

    @classmethod
    def open(cls, root: str, settings: GenerateSettings) -> LiveTextScores | None:
        """Start on the connected Ray for what `settings` ask."""
        try:
            truth = read_text_references(settings.dataset, split=settings.split, scheme=settings.scheme)
        except MicrogError:
            return None
        known: dict[tuple[Task, str], list[Pair]] = {}
        for key, references in truth.texts.items():
            if key.task in settings.tasks:
                pair = Pair(key, references, truth.questions.get(key), None, "missing")
                known.setdefault((key.task, key.clip_id), []).append(pair)
        return cls(root, known) if known else None

    def answered(self) -> list[Pairs]:
        """Return what is answered and committed, by task."""
        pairs: dict[Task, list[Pair]] = {}
        for place, texts in _texts_by_clip(answer_store.answers(self._root)).items():
            pairs.setdefault(place[0], []).extend(_pairs_with_text(self._known.get(place, ()), texts))
        return [Pairs(task, tuple(items)) for task, items in pairs.items()]

    def committed(self) -> dict[str, dict[str, States]]:
        """Return the states of the clips that are answered."""
        states: dict[str, dict[str, States]] = {}
        for task, clip_id, pairs in by_clip(self.answered()):
            states.setdefault(task, {})[clip_id] = clip_states(pairs)
        return states

    def describe(self, scores: Mapping[str, Scores], counts: Mapping[str, int]) -> str:
        """Return scores as one line."""
        return live_line(scores, counts)

    def final_with(
        self, names: Sequence[str], scoring: TextScoring
    ) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
        """Return `final` with the scores of metrics that are too slow to run along, such as METEOR and encoders.

        `scoring` measures these, on actors where that pays. Also returns why a metric cannot be had, by its name: what
        was generated does not depend on it.
        """
        scores, skipped = self.final(), dict[str, str]()
        for pairs in self.answered() if names else ():
            items = [pair.key.id for pair in pairs.items], [pair.scored for pair in pairs.items]
            for name in names:
                try:
                    states = scoring.measure("paper", *items, [pair.references for pair in pairs.items], [name])
                except MicrogError as error:
                    skipped[name] = str(error)
                    continue
                scores[pairs.task] = {**scores.get(pairs.task, {}), **states[name].compute()}
        return scores, skipped


def _texts_by_clip(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Task, str], dict[int | None, str]]:
    """Return the texts of each (task, clip) by `qa_index`."""
    texts: dict[tuple[Task, str], dict[int | None, str]] = {}
    for row in rows:
        place = (cast("Task", row["task"]), row["clip_id"])
        texts.setdefault(place, {})[row["qa_index"]] = row["text"]
    return texts


def _fill_in(pairs: Sequence[Pair], texts: Mapping[int | None, str]) -> list[Pair]:
    """Return the pairs, with these texts in place of their own."""
    return [
        replace(pair, text=texts[pair.key.qa_index], state="ok") if pair.key.qa_index in texts else pair
        for pair in pairs
    ]


def _pairs_with_text(pairs: Sequence[Pair], texts: Mapping[int | None, str]) -> list[Pair]:
    """Return the pairs that have a text, now or from before."""
    return [pair for pair in _fill_in(pairs, texts) if pair.text is not None]
