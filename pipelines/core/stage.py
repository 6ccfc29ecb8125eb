"""The stages of every pipeline: declared once, checked when they are declared, run by one function.

A `Stage` says what is done to a table, what that reads and writes, and what it takes; a `Pipeline` puts stages in
order. `run_stages` owns everything that a graph on Ray Data needs beside them: the sizes of actor pools, which steps
may share a process, the attempt ledger, rows that end a run, one report for each key, progress and the closing line.
Declaring stages needs no connected Ray.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg.config import Resources
from microg.errors import MicrogError, StageError, WorkerError, WriteError, describe
from microg.pipelines.core import cluster
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.part_files import PartFiles
from microg.pipelines.core.session import ordered_execution, ray_failures_as_worker_errors
from microg.pipelines.core.telemetry import Telemetry
from microg.storage_faults import ends_run

if TYPE_CHECKING:
    from ray.data import Dataset

# Status of a report that says: not this row but all of them cannot be done, for the reason `error` (and `fix`, if any).
ABORT = "abort"
# The same, where the reason is that a file cannot be written, such as on a full disk.
UNWRITABLE = "unwritable"
_TRY_AGAIN = "put that right and run the same command again"
# The columns by which the driver knows what became of a row.
_OUTCOME = (("status", pa.string()), ("error", pa.string()))
_SHOWN_COLUMNS = 6
_RESOURCES = ("cpus", "gpus", "memory_gb", "min_actors", "max_actors", "wait_s")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a pipeline: tables in, tables out.

    Attributes:
        name: What it does, a verb: "decode".
        work: A function that takes a table, or a class whose objects do and which runs as a pool of actors. A
            parameter named `attempts`, if it has one, gets the run's `Attempts`.
        reads: Columns that it needs.
        writes: Columns of the table that it returns.
        holds_model: Whether `work` is a class that holds a model.
        arguments: Further arguments of the function, or of the class.
        cpus: CPUs of one task or actor.
        gpus: GPUs of one actor.
        memory_gb: GiB of one task or actor.
        min_actors: Actors that start at once, at least.
        max_actors: Actors that the pool may grow to; 0: as many as fit at once, and more on nodes that come.
        wait_s: Seconds to wait for nodes that an autoscaler has to start first.
        rows: Rows of one call, each such lot a block of its own; None: a block as it comes.
        parts: Parts of one GPU each that an actor's GPUs are split into, so that they may lie on several nodes; then
            what the actor starts takes them, and it runs in a placement group. 1: one node has all of them.
        calls_at_once: Calls that one actor works on at once, each in a thread of its own.
        placement: Further options of Ray that say where it runs.
    """

    name: str
    work: Callable[..., Any]
    reads: pa.Schema
    writes: pa.Schema
    holds_model: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float = 0.0
    min_actors: int = 1
    max_actors: int = 0
    wait_s: float = 0.0
    rows: int | None = None
    parts: int = 1
    calls_at_once: int = 1
    placement: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise StageError("a stage has no name", "name what it does, for example name='decode'")
        for what, fix in self._faults():
            raise StageError(f"stage {self.name!r} {what}", fix)

    def _faults(self) -> Iterator[tuple[str, str]]:
        if not callable(self.work):
            yield "has no work to do", "give a function, or a class that holds a model"
        elif inspect.isclass(self.work) and not self.holds_model:
            yield f"should be a function, but its work {self.work.__name__} is a class", "say holds_model=True"
        elif self.holds_model and not inspect.isclass(self.work):
            yield "holds a model, but its work is no class", "give a class, of which each actor makes one object"
        for name in ("cpus", "gpus", "memory_gb"):
            amount = getattr(self, name)
            if not (isinstance(amount, int | float) and math.isfinite(amount) and amount >= 0):
                yield f"asks for {name}={amount!r}", "give a number that is not negative"
        if self.gpus > 0 and not self.holds_model:
            yield "asks for GPUs but holds no model", "only actors get GPUs: say holds_model=True, or gpus=0"
        if self.min_actors < 1 or self.max_actors < 0:
            yield f"has a pool of {self.min_actors} to {self.max_actors} actors", "start with one actor at least"
        if not self.holds_model and (self.min_actors, self.max_actors) != (1, 0):
            yield "has a pool of actors but holds no model", "leave min_actors and max_actors out"
        if self.rows is not None and self.rows < 1:
            yield f"takes {self.rows} rows a call", "give 1 or more, or None for a whole block"
        if self.parts < 1 or (self.parts > 1 and self.gpus != self.parts):
            yield f"splits {self.gpus:g} GPUs into {self.parts} parts", "give as many parts as GPUs, or 1"
        if self.calls_at_once < 1 or (self.calls_at_once > 1 and not self.holds_model):
            yield (
                f"works on {self.calls_at_once} calls at once",
                "give 1 or more, and above 1 only for a stage of actors",
            )
        for name in ("reads", "writes"):
            schema = getattr(self, name)
            if not isinstance(schema, pa.Schema) or not len(schema):
                yield f"does not say which columns it {name}", f"give {name}=pa.schema([...])"
        unknown = sorted(set(self.arguments) - self._parameters())
        if unknown:
            known = ", ".join(sorted(self._parameters())) or "none"
            yield f"has work without an argument {', '.join(unknown)}", f"its arguments: {known}"

    def _parameters(self) -> set[str]:
        names = list(inspect.signature(self.work).parameters) if callable(self.work) else []
        return set(names if self.holds_model else names[1:])

    def bound(self, **arguments: Any) -> Stage:
        """Return the stage with these arguments of its work, which must be known to it."""
        return replace(self, arguments={**self.arguments, **arguments})

    def pool(self) -> Resources:
        """Return what its actors take."""
        return Resources(**{name: getattr(self, name) for name in _RESOURCES})

    def bundles(self) -> list[Any]:
        """Return what one actor takes, each part of one node."""
        return cluster.actor_bundles(self.pool(), self.parts)

    def plan(self) -> dict[str, Any]:
        """Return what it does and takes, as plain values."""
        plain = {"stage": self.name, "runs_as": "actors" if self.holds_model else "tasks", "rows_per_call": self.rows}
        plain |= {"reads": self.reads.names, "writes": self.writes.names}
        plain |= {"cpus": self.cpus, "gpus": self.gpus, "memory_gb": self.memory_gb}
        plain |= {"parts": self.parts, "calls_at_once": self.calls_at_once}
        return plain | ({"min_actors": self.min_actors, "max_actors": self.max_actors} if self.holds_model else {})


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Stages in order.

    Attributes:
        name: The job, as progress and counters call it.
        source: Columns of the tables that the first stage gets.
        stages: The steps, each reading what the one before writes.
        key: Column of the last stage's reports that names a row; empty where tables are taken as they come.
        unit: What a report is about, for progress: "clips".
        failure: What is said when no row can be done: "no clip can be observed".
    """

    name: str
    source: pa.Schema
    stages: tuple[Stage, ...]
    key: str = ""
    unit: str = "rows"
    failure: str = "nothing can be done"

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise StageError(f"pipeline {self.name!r} has the stages {names}", "at least one, each with its own name")
        before, given = "the source", self.source
        for stage in self.stages:
            for column in stage.reads:
                if column.name not in given.names or given.field(column.name).type != column.type:
                    raise StageError(
                        f"stage {stage.name!r} of pipeline {self.name!r} reads {column.name} ({column.type}), which "
                        f"{before} does not write",
                        f"columns there: {', '.join(f'{one.name} ({one.type})' for one in given)}",
                    )
            before, given = f"stage {stage.name!r}", stage.writes
        for name, kind in () if not self.key else ((self.key, pa.string()), *_OUTCOME):
            if name not in given.names or given.field(name).type != kind:
                raise StageError(
                    f"{before}, the last of pipeline {self.name!r}, does not write {name} ({kind})",
                    "reports name their row, its status and its error",
                )

    def with_stages(self, *stages: Stage) -> Pipeline:
        """Return the pipeline with these stages in place of those of the same names."""
        by_name = {stage.name: stage for stage in stages}
        return replace(self, stages=tuple(by_name.get(stage.name, stage) for stage in self.stages))

    def sized(self, name: str, resources: Resources, **changes: Any) -> Pipeline:
        """Return the pipeline with the resources and the pool that settings ask for at the stage of this name.

        `changes` are what else of the stage is another.
        """
        amounts = {one: getattr(resources, one) for one in _RESOURCES}
        stages = [stage for stage in self.stages if stage.name == name]
        return self.with_stages(*(replace(stage, **amounts, **changes) for stage in stages))

    def bound(self, **arguments: Mapping[str, Any]) -> Pipeline:
        """Return the pipeline with arguments of its stages' work, by the name of the stage."""
        unknown = sorted(set(arguments) - {stage.name for stage in self.stages})
        if unknown:
            raise StageError(f"pipeline {self.name!r} has no stage {', '.join(unknown)}")
        return replace(self, stages=tuple(stage.bound(**arguments.get(stage.name, {})) for stage in self.stages))

    def plan(self) -> list[dict[str, Any]]:
        """Return what each stage does and takes, as plain values for `--dry-run`."""
        return [stage.plan() for stage in self.stages]


def plan_lines(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a `Pipeline.plan` for people, one line a stage."""
    return [
        f"{row['stage']}: {_pool(row)} of {_takes(row)}, {_call(row)}; "
        f"reads {_some(row['reads'])}; writes {_some(row['writes'])}"
        for row in plan
    ]


def _pool(row: Mapping[str, Any]) -> str:
    if row["runs_as"] == "tasks":
        return "tasks"
    least, most = row["min_actors"], row["max_actors"]
    if not most:
        return f"{least} or more actors, as many as fit,"
    return f"{least} to {most} actors" if most > least else f"{least} actor" + "s" * (least > 1)


def _takes(row: Mapping[str, Any]) -> str:
    amounts = {"CPU": row["cpus"], "GPU": row["gpus"], "GiB": row["memory_gb"]}
    text = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if amount or name == "CPU")
    return text + (f" in {row['parts']} parts" if row["parts"] > 1 else "")


def _call(row: Mapping[str, Any]) -> str:
    rows, at_once = row["rows_per_call"], row["calls_at_once"]
    text = "a block a call" if rows is None else f"{rows} row" + "s" * (rows > 1) + " a call"
    return text + (f", {at_once} calls at once" if at_once > 1 else "")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_COLUMNS
    return ", ".join(names[:_SHOWN_COLUMNS]) + (f" and {more} more" if more > 0 else "")


def build_dataset(pipeline: Pipeline, source: Sequence[pa.Table] | Dataset, until: ExitStack | None = None) -> Dataset:
    """Return the Ray dataset that does a pipeline's work on the connected Ray.

    Args:
        pipeline: What to do.
        source: Blocks of the columns `pipeline.source`, or a dataset of such.
        until: Closed when the work is done; needed where actors are spread over nodes.

    Raises:
        ConfigError: Ray cannot give what a stage asks for.
        ValueError: Actors are spread over nodes, and `until` is missing.
    """
    import ray

    # Before any task of Ray Data's own, which would wait for a first node without a word.
    pools = [(stage.pool(), stage.parts) for stage in pipeline.stages if stage.holds_model]
    cluster.require_pools(pools, who=f"the job {pipeline.name!r}")
    attempts = Attempts.of_new_run()
    # What is known of the blocks that a stage gets: how many there are, and of how many rows.
    blocks: int | None = None
    block_rows: set[int] = set()
    if isinstance(source, Sequence):
        blocks, block_rows = len(source), {table.num_rows for table in source}
        dataset: Any = ray.data.from_arrow(list(source))
    else:
        dataset = source
    for stage, following in zip(pipeline.stages, (*pipeline.stages[1:], None), strict=True):
        if stage.rows is not None and block_rows != {stage.rows}:
            dataset, blocks = dataset.repartition(target_num_rows_per_block=stage.rows), None
        arguments = dict(stage.arguments)
        signature = inspect.signature(stage.work)
        if "attempts" in signature.parameters:
            arguments["attempts"] = attempts.within(stage.name)
        signature.bind(*() if stage.holds_model else (None,), **arguments)  # a missing argument is found here
        options: dict[str, Any] = {
            "batch_size": stage.rows,
            "batch_format": "pyarrow",
            "num_cpus": _cpus(stage, following),
            "num_gpus": stage.gpus or None,
            "memory": stage.memory_gb * 2**30 or None,
            **stage.placement,
        }
        if stage.holds_model:
            options |= {"fn_constructor_kwargs": arguments, "compute": _actor_pool(stage, blocks)}
            options |= {"max_concurrency": stage.calls_at_once} if stage.calls_at_once > 1 else {}
        if stage.parts > 1:
            if until is None:
                raise ValueError(f"stage {stage.name!r} is spread over nodes and needs `until`")
            spread = until.enter_context(cluster.groups_for_actors(stage.bundles()))
            options |= {"num_cpus": 0, "num_gpus": None, "memory": None, "ray_remote_args_fn": spread}
        work = _actor_class(stage) if stage.holds_model else partial(stage.work, **arguments)
        # Ray 2.60's `map_batches` refuses whole blocks (a batch size of None) together with GPUs, and would make
        # batches of any given size of several blocks; what it calls itself takes them.
        dataset, block_rows = dataset.map_batches_internal(work, **options), set()
    return dataset


def _cpus(stage: Stage, following: Stage | None) -> float:
    """Return the CPUs that a stage asks Ray for.

    Ray Data joins a step into the actors behind it where both ask for the same: those would do nothing else while they
    decode. So a task that feeds actors asks for a little less than they do.
    """
    joined = following is not None and following.holds_model and not stage.holds_model and stage.cpus == following.cpus
    return 0.99 * stage.cpus or 0.01 if joined else stage.cpus


def _actor_class(stage: Stage) -> type:
    """Return the class of a stage's actors, which see no GPU but those that they were given."""
    work: Any = stage.work

    def start(self: Any, **arguments: Any) -> None:
        cluster.hide_gpus()
        work.__init__(self, **arguments)

    return type(work.__name__, (work,), {"__init__": start, "__module__": work.__module__})


def _actor_pool(stage: Stage, blocks: int | None) -> Any:
    """Return the pool of a stage: as many actors as fit now, up to `max_actors` later, and none without a block.

    Where an autoscaler may add nodes, actors that wait for a place are what it adds them for.
    """
    import ray

    least = cluster.pool_size(stage.pool(), stage.parts)
    grows = cluster.capacity().scales and not stage.max_actors
    most = None if grows else max(least, stage.max_actors)
    if blocks is not None:
        least, most = min(least, blocks), blocks if most is None else min(most, blocks)
    threads = stage.calls_at_once > 1
    return ray.data.ActorPoolStrategy(min_size=least, max_size=most, enable_true_multi_threading=threads)


def stream_tables(
    pipeline: Pipeline, source: Sequence[pa.Table], *, ahead_bytes: int | None = None
) -> Iterator[pa.Table]:
    """Run a pipeline and yield the tables of its last stage as they come, in order where `ahead_bytes` is given.

    Args:
        pipeline: What to do.
        source: Blocks of the columns `pipeline.source`.
        ahead_bytes: Bytes that an ordered run may be ahead of what is taken.

    Raises:
        ConfigError: Ray cannot give what a stage asks for.
        WorkerError: Ray gives up.
    """
    with ExitStack() as until, ray_failures_as_worker_errors():
        dataset: Any = build_dataset(pipeline, source, until)
        if ahead_bytes is not None:
            dataset.context.execution_options = ordered_execution(ahead_bytes)
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def abort(error: Exception) -> dict[str, str | None]:
    """Return the columns `status`, `error` and `fix` of a report that ends the run."""
    known = ends_run(error)
    said = known or error
    what, fix = (said.what, said.fix) if isinstance(said, MicrogError) else (describe(said), None)
    return {"status": ABORT if known is None else UNWRITABLE, "error": what, "fix": fix}


def first_report_per_key(pipeline: Pipeline, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
    """Yield reports, of those with the same key the first: a killed task is done again.

    Raises `WorkerError` when a report is an `ABORT`, and `WriteError` when it is `UNWRITABLE`.
    """
    seen: set[str] = set()
    for table in tables:
        for report in table.to_pylist():
            if report["status"] == UNWRITABLE:
                raise WriteError(report["error"], report.get("fix"))
            if report["status"] == ABORT:
                raise WorkerError(f"{pipeline.failure}: {report['error']}", report.get("fix") or _TRY_AGAIN)
            if report[pipeline.key] not in seen:
                seen.add(report[pipeline.key])
                yield report


def run_stages(
    pipeline: Pipeline,
    source: Sequence[pa.Table],
    *,
    total: int | None = None,
    device: str | None = None,
    store: PartFiles | None = None,
    on_report: Callable[[dict[str, Any]], str | None] | None = None,
) -> dict[str, Any]:
    """Run a pipeline to its end on the connected Ray, show progress, and return the closing block.

    A report is a row of the last stage: its key, status and error, seconds by what they were spent on (columns that
    end in `_s`), and where it stands for several rows or none, `rows` and `failed`.

    Args:
        pipeline: What to do; it has a key.
        source: Blocks of the columns `pipeline.source`.
        total: Rows that are expected, where that is known.
        device: Where models run, for the closing line.
        store: Where the last stage commits a row under each key: these must be readable afterwards.
        on_report: Takes each report; what it returns is shown beside the progress.

    Returns:
        The block that `microg.pipelines.core.telemetry.Telemetry.throughput` describes.

    Raises:
        ConfigError: Ray cannot give what a stage asks for.
        WorkerError: No row can be done, Ray gives up, or what workers wrote cannot be read here.
        WriteError: Workers cannot write, such as to a full disk.
    """
    clocks = [name.removesuffix("_s") for name in pipeline.stages[-1].writes.names if name.endswith("_s")]
    keys: list[str] = []
    with Telemetry(pipeline.name, total, unit=pipeline.unit, stages=clocks) as telemetry:
        for report in first_report_per_key(pipeline, stream_tables(pipeline, source)):
            keys.append(report[pipeline.key])
            note = None if on_report is None else on_report(report)
            failed = report.get("failed", int(report["status"] == "error"))
            telemetry.row({clock: report[f"{clock}_s"] for clock in clocks}, report.get("rows", 1), failed, note)
    if store is not None:
        store.require(keys)
    return telemetry.throughput(device)
