"""Running scores: actors send states of what they did to one actor, which adds them up while the work goes on.

Display, and the scores of a run's end: losing the actor loses no data. States are kept by key, the newest in place of
the older one, so that what is done twice counts once; an actor that was started anew is filled again from what is
committed. When all keys are there the scores are those of scoring everything at once, bit for bit.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

States = Mapping[str, pa.Table]
Scores = Mapping[str, float]

_EVERY_S, _ANSWER_S = 10.0, 30.0
# Computing partial scores may take this part of the time.
_SHARE = 0.05


class Fold(Protocol):
    """What makes scores of states; it travels to the actor."""

    def __call__(self, part: str, keys: Sequence[str], tables: Mapping[str, pa.Table]) -> Scores:
        """Return the scores of a part: of the states under `keys`, put together by their names."""
        ...


class Aggregator:
    """States by part and key; plain Python, made an actor by `start`.

    Args:
        fold: Makes scores of them.
    """

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._states: dict[str, dict[str, tuple[float, States]]] = {}
        self._scores: dict[str, Scores] = {}
        self._life = os.urandom(8).hex()

    def put(self, part: str, key: str, states: States, written: float = 0.0) -> None:
        """Take the states of a key; of one key the newest (`written`, in any unit) stays, of equals the last."""
        own = self._states.setdefault(part, {})
        before = own.get(key)
        if before is None or written >= before[0]:
            own[key] = (written, states)
            self._scores.pop(part, None)

    def life(self) -> str:
        """Return what is another when the actor was started anew, and is empty."""
        return self._life

    def counts(self) -> dict[str, int]:
        """Return how many keys there are by part."""
        return {part: len(states) for part, states in self._states.items()}

    def tables(self, part: str) -> dict[str, pa.Table]:
        """Return the states of a part, put together by name."""
        by_name: dict[str, list[pa.Table]] = {}
        for _, states in self._states.get(part, {}).values():
            for name, table in states.items():
                by_name.setdefault(name, []).append(table)
        return {name: pa.concat_tables(tables).unify_dictionaries() for name, tables in by_name.items()}

    def scores(self) -> dict[str, Scores]:
        """Return the scores of what there is, by part."""
        for part, states in self._states.items():
            if part not in self._scores:
                self._scores[part] = self._fold(part, list(states), self.tables(part))
        return dict(self._scores)


def defined(scores: Mapping[str, Scores]) -> dict[str, dict[str, float | None]]:
    """Return scores as a record has them: None where they are undefined.

    >>> defined({"caption": {"cider": 0.5, "count_accuracy": float("nan")}})
    {'caption': {'cider': 0.5, 'count_accuracy': None}}
    """
    return {part: {name: v if v == v else None for name, v in values.items()} for part, values in scores.items()}


def start(fold: Fold) -> Any:
    """Start an aggregator in the connected Ray and return its handle.

    It takes no CPU. When it is killed Ray starts it again, empty.
    """
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Aggregator).remote(fold)


class LiveScores(ABC):
    """The driver's end: starts the aggregator with what is committed, and says what the scores are so far.

    Args:
        fold: See `Aggregator`.
    """

    def __init__(self, fold: Fold) -> None:
        self.aggregator = start(fold)
        self._line, self._due = "", time.monotonic() + _EVERY_S
        self._fill_anew()

    @abstractmethod
    def committed(self) -> Mapping[str, Mapping[str, States]]:
        """Return the states of everything that the run has committed, by part and key."""

    @abstractmethod
    def describe(self, scores: Mapping[str, Scores], counts: Mapping[str, int]) -> str:
        """Return scores, and of how much they are, as one line."""

    def line(self) -> str:
        """Return the scores so far as one line; computed anew now and then."""
        from ray.exceptions import GetTimeoutError, RayError

        started = time.monotonic()
        if started < self._due:
            return self._line
        try:
            self._refill_when_lost()
            self._line = self.describe(self._ask("scores"), self._ask("counts"))
        except (GetTimeoutError, RayError):
            self._line = ""
        self._due = time.monotonic() + max(_EVERY_S, (time.monotonic() - started) / _SHARE)
        return self._line

    def final(self) -> dict[str, dict[str, float]]:
        """Return the scores of all that is committed, by part: those of scoring it at once, nan where undefined.

        States of the last blocks may still be on their way to a lost actor: what is missing is sent again.
        """
        import ray

        self._refill_when_lost()
        committed = self.committed()
        if Counter(self._ask("counts")) != Counter({part: len(states) for part, states in committed.items() if states}):
            ray.get(self._send(committed))
        return {part: dict(values) for part, values in self._ask("scores").items()}

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self.aggregator)

    def _ask(self, what: str) -> Any:
        import ray

        return ray.get(getattr(self.aggregator, what).remote(), timeout=_ANSWER_S)

    def _refill_when_lost(self) -> None:
        import ray

        if self._ask("life") != ray.get(self._filled, timeout=_ANSWER_S):
            self._fill_anew()

    def _fill_anew(self) -> None:
        """Send all that is committed, without waiting: the actor starts beside the work.

        The life is asked first: an actor that loses any of what follows has another one afterwards.
        """
        self._filled = self.aggregator.life.remote()
        self._send(self.committed())

    def _send(self, states: Mapping[str, Mapping[str, States]]) -> list[Any]:
        """Send states that are older than all that workers send from now on."""
        put = self.aggregator.put.remote
        return [put(part, key, own) for part, by_key in states.items() for key, own in by_key.items()]
