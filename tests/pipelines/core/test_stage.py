"""Stages: a wrong declaration is one sentence at once, and what runs them never joins a task into an actor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microg.config import Resources
from microg.errors import StageError, WorkerError, WriteError
from microg.pipelines.core.part_files import WRITTEN, PartFiles
from microg.pipelines.core.stage import (
    ABORT,
    Pipeline,
    Stage,
    abort,
    build_dataset,
    plan_lines,
    run_stages,
    stream_tables,
)
from microg.pipelines.curate.pipeline import PIPELINE as CURATE
from microg.pipelines.har.predict import PIPELINE as PREDICT
from microg.pipelines.har.train.stream import PIPELINE as TRAIN
from microg.pipelines.vlm.batch_api import PIPELINE as BATCH
from microg.pipelines.vlm.generate import PIPELINE as GENERATE
from tests.support.environment import without_ray
from tests.support.processes import ROOT

NUMBER = pa.schema([("number", pa.int64())])
REPORT = pa.schema([("key", pa.string()), ("status", pa.string()), ("error", pa.string()), ("work_s", pa.float32())])


def double(block: pa.Table, *, by: int = 2) -> pa.Table:
    return pa.table({"number": [by * value for value in block["number"].to_pylist()]}, NUMBER)


class Model:
    def __init__(self, word: str = "") -> None:
        self.word = word

    def __call__(self, block: pa.Table) -> pa.Table:
        return block


def declared(**changes: Any) -> Stage:
    return Stage(**{"name": "double", "work": double, "reads": NUMBER, "writes": NUMBER, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "a stage has no name"),
        ({"work": None}, "'double' has no work to do"),
        ({"work": Model}, "should be a function, but its work Model is a class"),
        ({"holds_model": True}, "holds a model, but its work is no class"),
        ({"gpus": 1}, "asks for GPUs but holds no model"),
        ({"cpus": -1}, "asks for cpus=-1"),
        ({"memory_gb": float("nan")}, "asks for memory_gb=nan"),
        ({"max_actors": 2}, "has a pool of actors but holds no model"),
        ({"work": Model, "holds_model": True, "min_actors": 0}, "has a pool of 0 to 0 actors"),
        ({"rows": 0}, "takes 0 rows a call"),
        ({"parts": 2}, "splits 0 GPUs into 2 parts"),
        ({"calls_at_once": 2}, "works on 2 calls at once"),
        ({"reads": pa.schema([])}, "does not say which columns it reads"),
        ({"writes": ["number"]}, "does not say which columns it writes"),
        ({"arguments": {"times": 3}}, "has work without an argument times (its arguments: by)"),
        ({"work": Model, "holds_model": True, "arguments": {"by": 3}}, "without an argument by (its arguments: word)"),
    ],
)
def test_a_wrong_stage_is_one_sentence_when_it_is_declared(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as refused:
        declared(**changes)
    assert message in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ()}, "has the stages []"),
        ({"stages": (declared(), declared())}, "has the stages ['double', 'double']"),
        ({"source": pa.schema([("other", pa.int64())])}, "reads number (int64), which the source does not write"),
        ({"source": pa.schema([("number", pa.int32())])}, "columns there: number (int32)"),
        (
            {"stages": (declared(writes=REPORT), declared(name="again"))},
            "'again' of pipeline 'doubles' reads number (int64), which stage 'double' does not write",
        ),
        ({"key": "number"}, "does not write number (string)"),
        ({"key": "key", "stages": (declared(writes=REPORT.remove(1)),)}, "does not write status (string)"),
    ],
)
def test_a_wrong_pipeline_is_one_sentence_when_it_is_declared(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as refused:
        Pipeline(**{"name": "doubles", "source": NUMBER, "stages": (declared(),), **changes})
    assert message in str(refused.value)


def test_a_stage_of_another_name_cannot_be_bound() -> None:
    with pytest.raises(StageError, match="no stage triple"):
        Pipeline(name="doubles", source=NUMBER, stages=(declared(),)).bound(triple={})


def test_a_plan_says_what_each_stage_does_and_takes_without_ray() -> None:
    plan = PREDICT.sized("score", Resources(cpus=2, gpus=0.5, max_actors=4)).plan()
    decode, score = plan_lines(plan)
    assert decode.startswith("decode: tasks of 1 CPU, a block a call; reads key, clip_id, frame, uri, num_frames, ")
    assert score.startswith("score: 1 to 4 actors of 2 CPU, 0.5 GPU, a block a call; reads epoch, key, ")
    assert score.endswith("writes key, people, status, error, fix, decode_s and 1 more")
    assert plan[1]["runs_as"] == "actors"


@pytest.mark.parametrize("pipeline", [CURATE, PREDICT, GENERATE, BATCH, TRAIN], ids=lambda pipeline: pipeline.name)
@pytest.mark.parametrize("cpus", [1.0, 0.99, 0.5, 0.0])
def test_tasks_never_run_inside_the_actors_of_a_model(pipeline: Pipeline, cpus: float, ray_session: None) -> None:
    from ray.data._internal.logical.optimizers import get_execution_plan

    for stage in pipeline.stages:
        if stage.holds_model:
            pipeline = pipeline.sized(stage.name, Resources(cpus=cpus, max_actors=1))
    signature_free = [_without_arguments(stage) for stage in pipeline.stages]
    blocks = [pa.Table.from_pylist([{}], schema=pipeline.source)]
    dataset: Any = build_dataset(pipeline.with_stages(*signature_free), blocks)
    operators = str(get_execution_plan(dataset._logical_plan)[0].dag)
    for stage in pipeline.stages:
        if stage.holds_model:
            assert f"MapBatches({stage.work.__name__})" in operators
            assert f"->MapBatches({stage.work.__name__})" not in operators.replace(" -> ", " | ")


def _without_arguments(stage: Stage) -> Stage:
    """Return the stage with something for every argument."""
    names = stage._parameters() - {"attempts"}
    return stage.bound(**dict.fromkeys(names))


def test_a_task_decodes_in_another_process_than_the_model_it_feeds(ray_session: None) -> None:
    process = pa.schema([("pid", pa.int64())])

    def decode(block: pa.Table) -> pa.Table:
        return pa.table({"pid": [os.getpid()] * block.num_rows}, process)

    class Scorer:
        def __call__(self, block: pa.Table) -> pa.Table:
            return block.append_column("model", pa.array([os.getpid()] * block.num_rows, pa.int64()))

    pipeline = Pipeline(
        name="pids",
        source=NUMBER,
        stages=(
            Stage(name="decode", work=decode, reads=NUMBER, writes=process),
            Stage(name="score", work=Scorer, reads=process, writes=process, holds_model=True, max_actors=1),
        ),
    )
    (rows,) = [table.to_pylist() for table in stream_tables(pipeline, [pa.table({"number": [1, 2]}, NUMBER)])]
    assert len(rows) == 2
    assert all(row["pid"] != row["model"] for row in rows)


def test_an_actor_works_on_several_blocks_at_once_where_its_stage_says_so(ray_session: None) -> None:
    class Meeting:
        def __init__(self) -> None:
            self.together = threading.Barrier(3)

        def __call__(self, block: pa.Table) -> pa.Table:
            self.together.wait(timeout=60)  # breaks unless three calls are here
            return block

    blocks = [pa.table({"number": [number]}, NUMBER) for number in range(6)]
    stage = Stage(
        name="meet", work=Meeting, reads=NUMBER, writes=NUMBER, holds_model=True, max_actors=1, calls_at_once=3
    )
    tables = stream_tables(Pipeline(name="meetings", source=NUMBER, stages=(stage,)), blocks)
    assert sorted(value for table in tables for value in table["number"].to_pylist()) == list(range(6))


def reporting(reports: Callable[[list[int]], Iterable[dict[str, Any]]]) -> Pipeline:
    """Return a pipeline whose one stage makes these reports of a block's numbers."""

    def report(block: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(list(reports(block["number"].to_pylist())), schema=REPORT)

    stage = Stage(name="report", work=report, reads=NUMBER, writes=REPORT)
    return Pipeline(name="numbers", source=NUMBER, stages=(stage,), key="key", failure="no number can be told")


BLOCKS = [pa.table({"number": [1, 2]}, NUMBER), pa.table({"number": [2, 3]}, NUMBER)]


def test_each_key_is_reported_once_and_all_is_counted(ray_session: None) -> None:
    pipeline = reporting(
        lambda numbers: ({"key": str(n), "status": "error" if n == 3 else "ok", "work_s": 0.5} for n in numbers)
    )
    seen: list[str] = []
    block = run_stages(pipeline, BLOCKS, total=3, device="cpu", on_report=lambda report: seen.append(report["key"]))
    assert sorted(seen) == ["1", "2", "3"]
    assert (block["rows"], block["failed"], block["unit"]) == (3, 1, "rows")
    assert block["stages"] == {"work": 0.5}


def test_a_report_that_nothing_can_be_done_ends_the_run(ray_session: None) -> None:
    pipeline = reporting(lambda numbers: [{"key": "1", "status": ABORT, "error": "WeightsError: none"}])
    with pytest.raises(WorkerError, match="no number can be told: WeightsError: none") as ended:
        run_stages(pipeline, BLOCKS)
    assert ended.value.fix == "put that right and run the same command again"


def test_a_disk_that_is_full_for_a_worker_ends_the_run_with_its_own_words(ray_session: None) -> None:
    full = WriteError("x cannot be written: no room is left", "make room")
    said = reporting(lambda numbers: [{"key": "1", **abort(full)}])
    with pytest.raises(WriteError) as ended:
        run_stages(said, BLOCKS)
    assert ended.value.what == full.what

    def fill(numbers: Any) -> Any:
        raise full

    with pytest.raises(WriteError, match=r"^x cannot be written: no room is left"):
        run_stages(reporting(fill), BLOCKS)


def test_what_workers_wrote_elsewhere_is_noticed(ray_session: None, tmp_path: Path) -> None:
    schema = pa.schema([("key", pa.string()), (WRITTEN, pa.int64())])
    store = PartFiles(str(tmp_path), schema, "key")
    store.append(pa.table({"key": ["1", "2"], WRITTEN: [1, 1]}, schema))
    pipeline = reporting(lambda numbers: ({"key": str(n), "status": "ok"} for n in numbers))
    with pytest.raises(WorkerError, match=f"1 of 3 rows that workers wrote to {tmp_path} are not there"):
        run_stages(pipeline, BLOCKS, store=store)


_GPUS = """
import os
import pyarrow as pa
import ray
from microg.pipelines.core.stage import Pipeline, Stage, stream_tables
ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
NUMBER = pa.schema([("number", pa.int64())])

def decode(block):
    return block

class Checker:
    def __init__(self):
        self.visible = os.environ["CUDA_VISIBLE_DEVICES"]
    def __call__(self, block):
        assert self.visible == ""
        return block

class Scorer:
    def __call__(self, block):
        assert len(os.environ["CUDA_VISIBLE_DEVICES"]) == 1
        return pa.table({"number": [sum(block["number"].to_pylist())]}, NUMBER)

stages = (
    Stage(name="decode", work=decode, reads=NUMBER, writes=NUMBER),
    Stage(name="check", work=Checker, reads=NUMBER, writes=NUMBER, holds_model=True, max_actors=1),
    Stage(name="score", work=Scorer, reads=NUMBER, writes=NUMBER, holds_model=True, gpus=1, max_actors=2),
)
blocks = [pa.table({"number": numbers}, NUMBER) for numbers in ([1, 2, 3], [10], [100, 200])]
tables = stream_tables(Pipeline(name="gpus", source=NUMBER, stages=stages), blocks)
print(sorted(value for table in tables for value in table["number"].to_pylist()))
"""


def test_actors_with_a_gpu_get_whole_blocks_and_those_without_see_no_gpu() -> None:
    environment = without_ray(RAY_AUTH_MODE="disabled", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    environment |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "CUDA_VISIBLE_DEVICES": "0,1"}
    done = subprocess.run([sys.executable, "-c", _GPUS], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "[6, 10, 300]\n", done.stderr
