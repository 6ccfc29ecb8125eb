"""Scoring texts on Ray: shards of items go to actors, their states come back and add up to the bits of one process.

An actor holds one kind of thing: the Java programs of the n-gram metrics, or one encoder. Each shard's states are taken
once; when an actor dies another one takes its place and does its shard again.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa

from microg import storage
from microg.config import Resources
from microg.errors import MicrogError, WorkerError
from microg.metrics.text import registry
from microg.metrics.text.items import Items, check, split_into_shards
from microg.metrics.text.scoring import measure
from microg.metrics.text.state import ItemState
from microg.pipelines.core.shared_files import SharedFolder, share_folder
from microg.system.hardware import usable_cores

Settings = Mapping[str, Mapping[str, Any]]
States = dict[str, ItemState]

MAX_ATTEMPTS = 3
NGRAMS = "n-grams"
# Items of a shard: what is lost with an actor, and how often progress is told. Each shard of tokens starts the PTB
# tokenizer once.
_MOST_ITEMS, _MOST_TOKENIZED = 256, 4_000
_SHARDS_PER_ACTOR = 4  # so that all end at about the same time
_NO_ANSWER_S = 900.0


class TextScorer:
    """What an actor does."""

    def __init__(self) -> None:
        from microg.metrics.text.meteor import shared

        shared(workers=1)  # one Java program an actor; a process of its own would use all cores

    def measure(
        self,
        protocol: str,
        items: Items,
        names: Sequence[str],
        settings: Settings,
        folders: Mapping[str, SharedFolder] | None = None,
    ) -> dict[str, pa.Table]:
        """Return the states of a shard as tables, by metric; folders: encoders of the driver's machine, by metric."""
        for name, folder in (folders or {}).items():
            settings = {**settings, name: {**settings[name], "model": str(folder.path())}}
        states = measure(protocol, items.ids, items.predictions, items.references, names, settings)
        return {name: state.to_table() for name, state in states.items()}


class ScoringActors:
    """Actors in the connected Ray that measure shards; those that die are replaced. Options are Ray's, of each actor.

    After an error they are of no use but to be closed.
    """

    def __init__(self, count: int, **options: Any) -> None:
        import ray

        self._class: Any = ray.remote(max_restarts=0, max_task_retries=0, **options)(TextScorer)
        self._actors: list[Any] = [self._class.remote() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._actors)

    def measure(
        self,
        protocol: str,
        shards: Sequence[Items],
        names: Sequence[str],
        settings: Settings,
        progress: Callable[[int], object] = lambda _: None,
    ) -> States:
        """Return the merged states of all shards; `progress` is called with the number of items measured so far.

        An encoder in a folder of this machine goes to the nodes that do not have it.

        Raises the metric's own error, and `WorkerError` when one shard has killed `MAX_ATTEMPTS` actors, or when none
        answers any more.
        """
        states = {name: registry.empty(name, **settings.get(name, {})) for name in names}
        folders = _folders(names, settings)
        done = 0
        for shard, tables in self._results(protocol, shards, names, settings, folders):
            for name, table in tables.items():
                states[name].merge(registry.load(name).from_table(table))
            done += len(shard)
            progress(done)
        return states

    def _results(
        self,
        protocol: str,
        shards: Sequence[Items],
        names: Sequence[str],
        settings: Settings,
        folders: Mapping[str, SharedFolder],
    ) -> Iterator[tuple[Items, dict[str, pa.Table]]]:
        """Yield each shard once with its states, as they are done."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        waiting, idle, attempts = deque(range(len(shards))), list(self._actors), Counter[int]()
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while waiting and idle:
                number, actor = waiting.popleft(), idle.pop()
                attempts[number] += 1
                running[actor.measure.remote(protocol, shards[number], names, settings, folders)] = number, actor
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_NO_ANSWER_S)
            if not ready:
                raise WorkerError(f"no scoring worker has answered for {_NO_ANSWER_S:g} s", "see what Ray is doing")
            number, actor = running.pop(ready[0])
            try:
                tables = ray.get(ready[0])
            except RayTaskError as error:
                if isinstance(error.cause, MicrogError):
                    raise error.cause from error
                raise
            except RayError as error:  # the actor is gone, or its node with what it returned
                if attempts[number] >= MAX_ATTEMPTS:
                    raise WorkerError(
                        f"{MAX_ATTEMPTS} workers died of the same {len(shards[number])} items (the first is "
                        f"{shards[number].ids[0]!r}; {', '.join(names)}): {str(error).strip().splitlines()[0]}",
                        "give each more memory with --set resources.memory_gb=N, or use fewer --workers (0: none)",
                    ) from error
                idle.append(self._replace(actor))
                waiting.appendleft(number)
                continue
            idle.append(actor)
            yield shards[number], tables

    def _replace(self, actor: Any) -> Any:
        import ray

        ray.kill(actor)
        self._actors.remove(actor)
        self._actors.append(self._class.remote())
        return self._actors[-1]

    def close(self) -> None:
        """End the actors."""
        import ray

        while self._actors:
            ray.kill(self._actors.pop())


class TextScoring:
    """Measures texts in this process or, where that pays, on Ray; the states are the same.

    workers: 0 is this process, a number is so many actors at most, None decides by what the metrics say is worth it
    (`TextMetric.worth`), and where there would be one actor only, this process does the work. resources: of an
    encoder's actor; those of the n-gram metrics take no GPU. Actors stay until others are needed, or `close`. tell is
    called with progress; `seconds` is what measuring took so far, by kind (an encoder's metric, or NGRAMS).
    """

    def __init__(self, resources: Resources | None = None, workers: int | None = None) -> None:
        self._resources, self._workers = resources or Resources(), workers
        self.tell: Callable[[str], object] = lambda _: None
        self._kind, self._actors = "", None
        self.seconds: dict[str, float] = {}

    def measure(
        self,
        protocol: str,
        ids: Iterable[Any],
        predictions: Iterable[Any],
        references: Iterable[Any],
        names: Sequence[str],
        settings: Settings | None = None,
    ) -> States:
        """Return the states of metrics by name: what `microg.metrics.text.scoring.measure` returns, and raises.

        Besides, raises `WorkerError` when workers keep dying, and `ConfigError` when Ray cannot give what they need.
        """
        items, settings = check(ids, predictions, references), settings or {}
        states: States = {}
        kinds: dict[str, list[str]] = {}
        for name in names:
            kinds.setdefault(_kind(name), []).append(name)
        for kind, group in kinds.items():
            on_actors = [name for name in group if self._pays(name, items, settings)]
            in_process = [name for name in group if name not in on_actors]
            started = time.monotonic()
            if in_process:
                states |= self._measure_in_process(protocol, items, in_process, settings)
            if on_actors:
                states |= self._measure_on_actors(protocol, items, kind, on_actors, settings)
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - started
        return {name: states[name] for name in names}

    def _pays(self, name: str, items: Items, settings: Settings) -> bool:
        if not len(items) or self._workers is not None:
            return bool(len(items) and self._workers)
        work = len(items)
        if _encodes(name):
            work = len({*items.predictions, *(text for texts in items.references for text in texts)})
        if not registry.metric(name).pays_on_actors(work):
            return False
        elsewhere = self._resources.address or os.environ.get("RAY_ADDRESS")
        return bool(elsewhere) or _actors_on_this_machine(name, self._resources, settings) > 1

    def _measure_in_process(self, protocol: str, items: Items, names: Sequence[str], settings: Settings) -> States:
        if not _encodes(names[0]) or not len(items):
            return measure(protocol, items.ids, items.predictions, items.references, names, settings)
        states = {name: registry.empty(name, **settings.get(name, {})) for name in names}
        done = 0
        for shard in split_into_shards(items, -(-len(items) // _MOST_ITEMS)):
            for state in states.values():
                state.take(shard, shard)
            done += len(shard)
            self._tell_progress(names, done, len(items))
        return states

    def _measure_on_actors(
        self, protocol: str, items: Items, kind: str, names: Sequence[str], settings: Settings
    ) -> States:
        from microg.pipelines.core.session import connect, ray_failures_as_worker_errors

        with ray_failures_as_worker_errors():
            try:
                connect(self._resources)
                actors, device = self._actors_of(kind, settings)
                if device:
                    settings = {**settings, kind: {**settings.get(kind, {}), "device": device}}
                least = -(-len(items) // (_MOST_ITEMS if _encodes(kind) else _MOST_TOKENIZED))
                shards = split_into_shards(items, max(least, _SHARDS_PER_ACTOR * len(actors)))
                return actors.measure(
                    protocol, shards, names, settings, lambda done: self._tell_progress(names, done, len(items))
                )
            except BaseException:
                self.close()
                raise

    def _actors_of(self, kind: str, settings: Settings) -> tuple[ScoringActors, str]:
        """Return the actors of a kind, and on which device they encode."""
        from microg.pipelines.core.cluster import decide_device, pool_size

        resources, device = self._resources, ""
        if _encodes(kind):
            resources, device = decide_device(
                resources,
                settings.get(kind, {}).get("device") or "auto",
                who=f"the encoder of {kind}",
                fix="take the encoder's device setting or resources.gpus away, or use a cluster that has one",
            )
        else:
            resources = resources.replaced(gpus=0)
        if self._actors is None or self._kind != kind:
            self.close()
            if self._workers:
                resources = resources.replaced(min_actors=self._workers, max_actors=self._workers)
            if device:
                from microg.metrics.text.encoder import unload

                unload()  # the actors have theirs
            options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
            memory = resources.memory_gb * 2**30 or None
            self._kind, self._actors = kind, ScoringActors(pool_size(resources), memory=memory, **options)
        return self._actors, device

    def _tell_progress(self, names: Sequence[str], done: int, items: int) -> None:
        self.tell(f"{', '.join(names)}: {done:,} of {items:,} items")

    def close(self) -> None:
        """End the actors; measuring starts them again."""
        if self._actors is not None:
            self._actors.close()
        self._actors = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(name: str) -> str:
    return name if _encodes(name) else NGRAMS


def _encodes(name: str) -> bool:
    return name != NGRAMS and registry.metric(name).encodes


def _folders(names: Sequence[str], settings: Settings) -> dict[str, SharedFolder]:
    """Return the encoders that lie in folders of this machine, by metric, as actors get them."""
    models = {name: str(settings.get(name, {}).get("model") or "") for name in names if _encodes(name)}
    return {
        name: share_folder(model)
        for name, model in models.items()
        if model and storage.is_local(model) and storage.local_path(model).is_dir()
    }


def _actors_on_this_machine(name: str, resources: Resources, settings: Settings) -> int:
    """Return how many actors this machine would have for a metric."""
    if _encodes(name) and settings.get(name, {}).get("device") != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    return int(usable_cores() / max(resources.cpus, 0.01))
