"""Running scores during generation: engine actors send the states of the clips they answered to one actor.

Display only: losing them loses no data. States are kept by (task, clip), the newest in place of the older one, so a
replayed clip counts once. When all clips are there the scores are those of scoring all texts at once, bit for bit. A
lost actor is filled again from the committed rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from microg.errors import MicrogError
from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.vlm import answer_store
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.files import read_text_references
from microg.texts.items import TASKS, Task
from microg.texts.pairs import Pair, Pairs

_EVERY_S, _ANSWER_S = 10.0, 30.0
# Computing partial scores may take this part of the time.
_SHARE = 0.05

States = dict[str, pa.Table]
Known = Mapping[tuple[Task, str], Sequence[Pair]]


def clip_states(pairs: Sequence[Pair]) -> States:
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


class TextAggregator:
    """States by task and clip; plain Python, made an actor by `start_aggregator`."""

    def __init__(self) -> None:
        self._states: dict[tuple[Task, str], tuple[float, States]] = {}
        self._folded: dict[Task, dict[str, float]] = {}

    def put(self, task: Task, clip_id: str, states: States, written: float = 0.0) -> None:
        """Take a clip's states; of the same clip the newest (`written`, in any unit) stays, of equals the last."""
        before = self._states.get((task, clip_id))
        if before is None or written >= before[0]:
            self._states[task, clip_id] = (written, states)
            self._folded.pop(task, None)

    def clips(self) -> dict[Task, int]:
        """Return how many clips there are by task."""
        return dict(Counter(task for task, _ in self._states))

    def states(self, task: Task) -> dict[str, ItemState]:
        """Return the merged states of a task by metric."""
        parts: dict[str, list[pa.Table]] = {}
        for (kind, _), (_, states) in self._states.items():
            if kind == task:
                for name, table in states.items():
                    parts.setdefault(name, []).append(table)
        return {name: registry.load(name).from_table(pa.concat_tables(tables)) for name, tables in parts.items()}

    def scores(self) -> dict[Task, dict[str, float]]:
        """Return all scores of the clips there are, by task.

        CIDEr takes its document frequencies from the references of these clips: it settles when all are there.
        """
        for task in self.clips():
            if task not in self._folded:
                states = self.states(task).values()
                self._folded[task] = {name: value for state in states for name, value in state.compute().items()}
        return dict(self._folded)


def by_clip(everything: Iterable[Pairs]) -> Iterator[tuple[Task, str, list[Pair]]]:
    """Yield (task, clip, its pairs) of answered items."""
    for pairs in everything:
        clips: dict[str, list[Pair]] = {}
        for pair in pairs.items:
            if pair.text is not None:
                clips.setdefault(pair.key.clip_id, []).append(pair)
        for clip_id, items in clips.items():
            yield pairs.task, clip_id, items


def fold(everything: Iterable[Pairs]) -> TextAggregator:
    """Return an aggregator with the states of all answered items."""
    result = TextAggregator()
    for task, clip_id, pairs in by_clip(everything):
        result.put(task, clip_id, clip_states(pairs))
    return result


def start_aggregator() -> Any:
    """Start an aggregator in the connected Ray and return its handle.

    It takes no CPU. When it is killed Ray starts it again, empty: `refill` gives it back what it had.
    """
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(TextAggregator).remote()


def refill(aggregator: Any, everything: Iterable[Pairs]) -> None:
    """Send an aggregator actor the states of all answered items, as after its loss; returns when it has them."""
    import ray

    # an actor answers in order: the last one stands for all
    ray.get([aggregator.put.remote(task, clip, clip_states(pairs)) for task, clip, pairs in by_clip(everything)])


def live_line(scores: Mapping[Task, Mapping[str, float]], clips: Mapping[Task, int]) -> str:
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


class LiveScores:
    """The driver's end: starts the actor with what earlier invocations answered, and says what scores are so far.

    Only items that have a reference take part; `open` returns None where none has.
    """

    def __init__(self, root: str, known: Known) -> None:
        import ray

        self._root, self._known = root, known
        self._aggregator = start_aggregator()
        texts = self._fill()
        complete = {place: _fill_in(pairs, texts.get(place, {})) for place, pairs in known.items()}
        self.sender = LiveSender(self._aggregator, (ray.put(complete),))
        self._line, self._due = "", time.monotonic() + _EVERY_S

    @classmethod
    def open(cls, root: str, settings: GenerateSettings) -> LiveScores | None:
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

    def _fill(self) -> dict[tuple[Task, str], dict[int | None, str]]:
        """Send what is committed, as after the actor's loss, and return it."""
        by_clip = _texts_by_clip(answer_store.answers(self._root))
        pairs: dict[Task, list[Pair]] = {}
        for place, texts in by_clip.items():
            pairs.setdefault(place[0], []).extend(_pairs_with_text(self._known.get(place, ()), texts))
        self._filled: dict[Task, int] = {
            task: len({pair.key.clip_id for pair in items}) for task, items in pairs.items()
        }
        refill(self._aggregator, [Pairs(task, tuple(items)) for task, items in pairs.items()])
        return by_clip

    def line(self) -> str:
        """Return the scores so far as one line; computed anew now and then."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        started = time.monotonic()
        if started < self._due:
            return self._line
        try:
            clips: Any = ray.get(self._aggregator.clips.remote(), timeout=_ANSWER_S)
            if any(clips.get(task, 0) < count for task, count in self._filled.items()):  # it was started anew
                self._fill()
                clips = ray.get(self._aggregator.clips.remote(), timeout=_ANSWER_S)
            self._filled = clips
            scores: Any = ray.get(self._aggregator.scores.remote(), timeout=_ANSWER_S)
            self._line = live_line(scores, clips)
        except (GetTimeoutError, RayError):
            self._line = ""
        self._due = time.monotonic() + max(_EVERY_S, (time.monotonic() - started) / _SHARE)
        return self._line

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._aggregator)


def _texts_by_clip(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Task, str], dict[int | None, str]]:
    """Return the texts of each (task, clip) by `qa_index`."""
    texts: dict[tuple[Task, str], dict[int | None, str]] = {}
    for row in rows:
        texts.setdefault((row["task"], row["clip_id"]), {})[row["qa_index"]] = row["text"]
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
