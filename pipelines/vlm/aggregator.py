"""Scores while answers still come in: an actor that holds the states of clips, and shows what they amount to so far.

States are kept by (task, clip), the newest in place of the older one, so a replayed clip counts once. When all clips
are there the scores are those of scoring all texts at once, bit for bit. Nothing is lost with the actor: it is filled
again from the texts in the output tables (`fold`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from microg.metrics.text import registry
from microg.metrics.text.answers import AnswerState
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.texts.items import TASKS, Task
from microg.texts.pairs import Pair, Pairs

States = dict[str, pa.Table]


def clip_states(pairs: Sequence[Pair], *, protocol: str = "paper", metrics: Sequence[str] | None = None) -> States:
    """Return the states of a clip's items (of one task) as tables by metric: small enough to send.

    `metrics` None is those that need neither Java nor an encoder. Answers have the accuracies of
    `microg.metrics.text.answers` besides. Raises `MetricError` naming an item that is not text.
    """
    ids = [pair.key.id for pair in pairs]
    said, true = [pair.scored for pair in pairs], [pair.references for pair in pairs]
    states: dict[str, ItemState] = dict(
        measure(protocol, ids, said, true, registry.names("nothing") if metrics is None else metrics)
    )
    if pairs and pairs[0].key.task == "vqa":
        questions = {pair.key.id: pair.question for pair in pairs if pair.question is not None}
        states[registry.ANSWERS.name] = AnswerState.empty(questions=questions).update(ids, said, true)
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
        counts: dict[Task, int] = {}
        for task, _ in self._states:
            counts[task] = counts.get(task, 0) + 1
        return counts

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


def fold(everything: Iterable[Pairs], **settings: Any) -> TextAggregator:
    """Return an aggregator with the states of all answered items; settings are those of `clip_states`."""
    result = TextAggregator()
    for task, clip_id, pairs in by_clip(everything):
        result.put(task, clip_id, clip_states(pairs, **settings))
    return result


def start_aggregator(**options: Any) -> Any:
    """Start an aggregator in the connected Ray and return its handle; options are Ray's, such as `name`.

    It takes no CPU. When it is killed Ray starts it again, empty: `refill` gives it back what it had.
    """
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(TextAggregator).options(**options).remote()


def refill(aggregator: Any, everything: Iterable[Pairs], written: float = 0.0, **settings: Any) -> None:
    """Send an aggregator actor the states of all answered items, as after its loss; returns when it has them."""
    import ray

    # an actor answers in order: the last one stands for all
    last = [
        aggregator.put.remote(task, clip_id, clip_states(pairs, **settings), written)
        for task, clip_id, pairs in by_clip(everything)
    ]
    ray.get(last)


def live_line(scores: Mapping[Task, Mapping[str, float]], clips: Mapping[Task, int]) -> str:
    """Return partial scores as one line, in the tables' percent.

    >>> live_line({"caption": {"cider": 0.02, "bleu_4": 0.1}}, {"caption": 3})
    'caption, 3 clips so far: CIDEr-D 2.00, BLEU-4 10.00'
    """
    shown = ("cider", "bleu_4", "rouge_l", "exact_match")
    parts = []
    for task in TASKS:
        if task not in scores:
            continue
        values = scores[task]
        found = [f"{registry.title(name)} {100 * values[name]:.2f}" for name in shown if name in values]
        parts.append(f"{task}, {clips.get(task, 0)} clips so far: {', '.join(found)}")
    return "; ".join(parts)
