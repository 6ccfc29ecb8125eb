"""What the connected Ray has, what its autoscaler adds on demand, and on which device a job's models run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, get_args

from microg.config import Device, Resources
from microg.console import say_aside
from microg.errors import ConfigError
from microg.pipelines.core import session
from microg.system.hardware import usable_cores

# What one actor, task or worker takes of one node, by Ray's names: CPU, GPU, memory (bytes).
Bundle = Mapping[str, float]
_LOOK_EVERY_S, _TELL_EVERY_S = 1.0, 15.0
_SMALLER = "lower resources.cpus, resources.gpus or resources.memory_gb, or connect to a larger cluster"
_BESIDE: Bundle = {"CPU": 1.0}  # for the tasks that feed a pool


@dataclass(frozen=True)
class Capacity:
    """What there is now.

    Attributes:
        nodes: All resources of each living node, in use or not.
        scales: Whether an autoscaler may add nodes.
    """

    nodes: tuple[Mapping[str, float], ...]
    scales: bool = False

    def total(self, name: str) -> float:
        """Return the sum of a resource over the nodes."""
        return sum(node.get(name, 0.0) for node in self.nodes)

    def count(self, bundle: Bundle) -> int:
        """Return how many such bundles fit, each on one node, when nothing else runs."""
        amounts = {name: amount for name, amount in bundle.items() if amount}
        return sum(
            int(min(node.get(name, 0.0) / amount + 1e-9 for name, amount in amounts.items())) for node in self.nodes
        )

    def fits(self, bundles: Iterable[Bundle]) -> bool:
        """Tell whether the bundles fit together, each on one node, when nothing else runs."""
        free = [dict(node) for node in self.nodes]
        for bundle in sorted(bundles, key=lambda one: (one.get("GPU", 0), one.get("CPU", 0)), reverse=True):
            # nodes without what the bundle does not need first
            for node in sorted(free, key=lambda one: one.get("GPU", 0)):
                if all(node.get(name, 0.0) + 1e-9 >= amount for name, amount in bundle.items()):
                    for name, amount in bundle.items():
                        node[name] = node.get(name, 0.0) - amount
                    break
            else:
                return False
        return True

    def __str__(self) -> str:
        count = len(self.nodes)
        return (
            f"{self.total('CPU'):g} CPUs, {self.total('GPU'):g} GPUs and {self.total('memory') / 2**30:.1f} GiB on "
            f"{count} node{'s' * (count != 1)}"
        )


def capacity() -> Capacity:
    """Return what the connected Ray has."""
    import ray

    nodes: Any = ray.nodes()
    return Capacity(tuple(node["Resources"] for node in nodes if node["Alive"]), _on_a_node(_scales))


def require(bundles: Sequence[Bundle], *, who: str, fix: str = _SMALLER, wait_s: float = 0.0) -> Capacity:
    """Return what Ray has once the bundles fit, for which an autoscaler is asked to start nodes.

    Demand is a placement group that is given up as soon as its nodes are there: it counts beside the demand of other
    jobs, and is gone with this process.

    Args:
        bundles: What must fit at the same time.
        who: What needs them, the subject of messages: "the training workers".
        fix: What the user can do where they never fit.
        wait_s: Seconds until waiting is given up.

    Raises:
        ConfigError: They do not fit and no node can be added, no node type has them, or the wait was in vain.
    """
    bundles = [{name: amount for name, amount in bundle.items() if amount} for bundle in bundles]
    now = capacity()
    if now.fits(bundles):
        return now
    needs = f"{who} needs {_text(bundles)}"
    if not now.scales:
        no_gpu = not now.total("GPU") and any(bundle.get("GPU") for bundle in bundles)
        why = "but Ray has no GPU; it has" if no_gpu else "which does not fit: Ray has"
        raise ConfigError(f"{needs}, {why} {now}", fix)
    started = told = time.monotonic()
    say_aside(f"{needs}: waiting for the cluster to start nodes (it has {now})")
    with _placement_group(bundles) as group:
        while not group.wait(_LOOK_EVERY_S):
            waited = time.monotonic() - started
            if group.id.hex() in _on_a_node(_demand).refused and _idle():
                raise ConfigError(f"{needs}, and the cluster has no node types for that; it has {capacity()}", fix)
            if waited > wait_s:
                raise ConfigError(
                    f"{needs}; after {waited:.0f} s the cluster has {capacity()}",
                    f"'ray status' on the head says what keeps nodes from starting (quota, spot capacity, "
                    f"max_workers); wait longer with --set resources.wait_s={2 * wait_s:.0f}; or {fix}",
                )
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                say_aside(f"still waiting, {waited:.0f} of {wait_s:.0f} s: the cluster has {capacity()}")
    return capacity()


@contextmanager
def _placement_group(bundles: Sequence[Bundle]) -> Iterator[Any]:
    """Have the cluster know a demand until the block ends."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{name: amount for name, amount in bundle.items() if amount} for bundle in bundles])
    try:
        yield group
    finally:
        with suppress(Exception):  # the connection may be what ended the block
            remove_placement_group(group)


def most_that_fit(bundle: Sequence[Bundle], beside: Sequence[Bundle], most: int) -> int:
    """Return how many times some bundles fit, at most `most` times, and ask an autoscaler for the nodes.

    What the autoscaler cannot give is known only of Ray's second autoscaler (`ray up` and KubeRay start it); of
    another one, only the nodes that are there count.

    Args:
        bundle: What is needed each time.
        beside: What is needed once.
        most: Times that are of use.
    """
    now = capacity()

    def enough(count: int) -> bool:
        bundles = [*beside, *(part for _ in range(count) for part in bundle)]
        return now.fits(bundles) or (now.scales and _could_be_started(bundles))

    low, high = 0, most
    while low < high:
        middle = high if low == 0 and high == most else (low + high + 1) // 2  # the whole first
        low, high = (middle, high) if enough(middle) else (low, middle - 1)
    return low


def _could_be_started(bundles: Sequence[Bundle]) -> bool:
    """Ask the autoscaler for nodes with the bundles; tell whether it has node types for them."""
    if not _on_a_node(_knows_its_limits):
        return False
    with _placement_group(bundles) as group:
        listed, end = None, time.monotonic() + 60
        while not group.wait(0.2) and time.monotonic() < end:
            demand = _on_a_node(_demand)
            if listed is None and group.id.hex() in demand.waiting:
                listed = demand.version
            if listed is not None and demand.seen >= listed:
                return group.id.hex() not in demand.refused
        return group.wait(0.01)


def require_pools(pools: Sequence[tuple[Resources, int]], *, who: str) -> Capacity:
    """Return what Ray has once every pool has its fewest actors, and a CPU for the tasks that feed them.

    Args:
        pools: Of each, what an actor takes and into how many parts its GPUs are split (see `actor_bundles`).
        who: What needs them, the subject of messages.

    Raises:
        ConfigError: They do not fit. Where no node can be added one actor a pool is enough.
    """
    scales = capacity().scales
    actors = [
        bundle
        for resources, parts in pools
        for _ in range(resources.min_actors if scales else 1)
        for bundle in actor_bundles(resources, parts)
    ]
    wait_s = max((resources.wait_s for resources, _ in pools), default=0.0)
    return require([*actors, _BESIDE], who=who, wait_s=wait_s)


def actor_bundles(resources: Resources, parts: int = 1) -> list[Bundle]:
    """Return what one actor takes: all of one node, or GPUs in equal parts, each of a node and with a CPU."""
    if parts > 1:
        return [{"CPU": 1.0, "GPU": resources.gpus / parts, "memory": resources.memory_gb * 2**30 / parts}] * parts
    return [{"CPU": max(resources.cpus, 0.01), "GPU": resources.gpus, "memory": resources.memory_gb * 2**30}]


def parts_of_copy(gpus: int) -> int:
    """Return into how many parts the GPUs of one copy of a model are split: 1 where a node has them all, or could."""
    if gpus <= 1:
        return 1
    now, bundles = capacity(), [*actor_bundles(Resources(gpus=gpus)), _BESIDE]
    return 1 if now.fits(bundles) or (now.scales and _could_be_started(bundles)) else gpus


def pool_size(resources: Resources, parts: int = 1) -> int:
    """Return how many actors of a job's main pool start at once on the connected Ray.

    Locally one a real core (more CPUs are declared, see `session.connect`). On a cluster all CPUs but a sixth, at least
    one, which the job's tasks need: actors that held every CPU would wait for those tasks forever. Where an autoscaler
    may add nodes, it is asked for the fewest first, and waited for. `parts`: see `actor_bundles`.

    Raises:
        ConfigError: Not even one actor fits.
    """
    actor = actor_bundles(resources, parts)
    now = require_pools([(resources, parts)], who="the job's pool of actors")
    total, cpus = now.total("CPU"), sum(bundle["CPU"] for bundle in actor)
    free = total - (1 if session.started_here() else max(1, total / 6))
    limit = usable_cores() / cpus if session.started_here() else free / cpus
    fits = max(1, min(now.count(actor[0]) // parts, int(free / cpus + 1e-9)))
    count = max(1, resources.min_actors, int(min(limit, fits)))
    return min(count, resources.max_actors or count, fits)


@contextmanager
def groups_for_actors(bundles: Sequence[Bundle]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield a function that returns Ray's options of one more actor, in a placement group of its own over nodes.

    What the actor starts (the workers of a model over several GPUs) takes the group's GPUs. The groups are given up
    when the block ends.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    with ExitStack() as groups:

        def options() -> dict[str, Any]:
            group = groups.enter_context(_placement_group(bundles))
            place = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
            return {"scheduling_strategy": place}

        yield options


def spare_cores(actors: int) -> float:
    """Return how many cores each of some actors may have where one core is left for the tasks that feed them.

    At least one; and one on a cluster, whose nodes may differ.
    """
    return max(1.0, (usable_cores() - 1) // max(actors, 1)) if session.started_here() else 1.0


def decide_device(resources: Resources, device: str, *, who: str, fix: str, parts: int = 1) -> tuple[Resources, str]:
    """Return the resources of one actor and its torch device, which is never exchanged for another afterwards.

    `auto` is a GPU where Ray has one or its autoscaler can start one, unless no node type has any; else the CPU.

    Args:
        resources: Of one actor; `gpus` above 0 means a GPU.
        device: What the user wants: auto, cpu or cuda.
        who: What runs there, the subject of messages: "the detector".
        fix: What the user can do where there is no GPU.
        parts: Into how many the GPUs are split (see `actor_bundles`).

    Raises:
        ConfigError: A GPU is wanted and there is none, or the wait for one was in vain.
    """
    if device not in get_args(Device):
        raise ConfigError(f"device {device!r} is not known", "auto, cpu or cuda: Ray gives each actor its own GPU")
    if device == "cpu":  # who says resources.gpus as well holds GPUs without using them
        return resources, "cpu"
    gpus, now = resources.gpus or 1.0, capacity()
    bundles = [*actor_bundles(resources.replaced(gpus=gpus), parts), _BESIDE]
    if device == "auto" and not resources.gpus and not gpus_can_be_had(now, bundles):
        return resources, "cpu"
    require(bundles, who=who, fix=fix, wait_s=resources.wait_s)
    return resources.replaced(gpus=gpus), "cuda"


def gpus_can_be_had(now: Capacity, bundles: Sequence[Bundle]) -> bool:
    """Tell whether Ray has GPUs, or its autoscaler can start nodes for bundles with some: it is asked to."""
    if now.total("GPU") or not now.scales:
        return bool(now.total("GPU"))
    return not _on_a_node(_knows_its_limits) or _could_be_started(bundles)


def hide_gpus() -> None:
    """Keep CUDA of this process from every GPU that Ray did not assign to it: Ray leaves all of them visible."""
    import os

    import ray

    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _text(bundles: Sequence[Bundle]) -> str:
    """Return bundles for people: "2 x (8 CPUs, 1 GPU) and 1 CPU"."""
    counts = Counter(", ".join(_amount(name, amount) for name, amount in one.items()) for one in bundles)
    return " and ".join(f"{count} x ({text})" if count > 1 else text for text, count in counts.items())


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:g} GiB"
    return f"{amount:g} {name}" + "s" * (amount != 1)


def _idle() -> bool:
    """Tell whether nobody uses CPUs or GPUs: where others do, what cannot be started now may come free."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    return all(free.get(name, 0) >= total.get(name, 0) for name in ("CPU", "GPU"))


def _on_a_node(ask: Any) -> Any:
    """Return what a function tells that asks Ray's control store, which a Ray client cannot reach itself."""
    import ray
    from ray.util.client import ray as client

    return ray.get(ray.remote(num_cpus=0)(ask).remote()) if client.is_connected() else ask()


def _status() -> Any:
    from ray._private import worker
    from ray.core.generated import autoscaler_pb2

    known: Any = worker.global_worker
    messages: Any = autoscaler_pb2
    return messages.GetClusterStatusReply.FromString(known.gcs_client.get_cluster_status())


def _scales() -> bool:
    """Tell whether an autoscaler looks after the cluster.

    Ray's second one says so. The first one runs on every head; where it can start nothing, it calls each node a type
    of its own, `node_ID`.
    """
    from ray.experimental.internal_kv import _internal_kv_get

    if _knows_its_limits():
        return True
    text = _internal_kv_get("__autoscaling_status")
    report = (json.loads(text) if text else {}).get("autoscaler_report") or {}
    types = (report.get("node_type_mapping") or {}).values()
    return any(not str(name).startswith("node_") for name in types)


def _knows_its_limits() -> bool:
    """Tell whether the autoscaler is Ray's second one, which names what no node type can give."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return is_autoscaler_v2(fetch_from_server=True)


@dataclass(frozen=True)
class _Demand:
    """Placement groups by their ids, as the control store and the autoscaler know them.

    Attributes:
        version: Of the cluster's state that lists `waiting`.
        waiting: Groups that have no place yet.
        seen: Version of the state by which the autoscaler last decided.
        refused: Groups that it has no nodes for.
    """

    version: int
    waiting: frozenset[str]
    seen: int
    refused: frozenset[str]


def _demand() -> _Demand:
    status = _status()
    state, decided = status.cluster_resource_state, status.autoscaling_state
    waiting, refused = (
        frozenset(request.details.partition(":")[0] for request in requests)
        for requests in (state.pending_gang_resource_requests, decided.infeasible_gang_resource_requests)
    )
    return _Demand(
        state.cluster_resource_state_version, waiting, decided.last_seen_cluster_resource_state_version, refused
    )
