"""Jobs to disturb, what to kill of them, and how to tell that nothing was lost and nothing doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.demo.tiny_models import build as build_vlm
from microg.models.har.backbones.registry import build
from microg.models.har.checkpoints import save_weights
from microg.pipelines.core.training.checkpoints import RunFiles
from tests.support.clips import make_clips
from tests.support.curation import write_detections, write_footage
from tests.support.training import last_weights, make_training_dataset

SOURCES, CLIPS, HEIGHT = 2, 8, 240
ASKED, TEXTS = 24, 4_000
# One more than fit on a node, so that some always run on another. With other CPUs than a task has, as with a GPU, Ray
# Data does not put decoding into the actors.
POOL = ("--set", "resources.min_actors=3", "--set", "resources.max_actors=3", "--set", "resources.cpus=0.9")
CIRCUMSTANCES = ("written", "latency_s", "engine_s", "decode_s", "model_s", "created", "attempts", "cached")
TIMES = ("train_s", "wait_s", "step_s", "val_s", "clips_per_s")


@dataclass
class Drill:
    """A job to disturb: its words (`RUN` is replaced), the processes it runs, and how far it is.

    worker, actor: parts of process titles of the victims. done: committed parts of a run folder; the kill comes when
    there are `after` of them, and before there are `whole`.
    """

    words: list[object]
    tables: Callable[[Path], dict[str, list[dict[str, Any]]]]
    worker: str
    actor: str
    done: Callable[[Path], int]
    after: int
    whole: int
    tolerance: dict[str, float] = field(default_factory=dict)


def number_of(pattern: str) -> Callable[[Path], int]:
    return lambda run: len(list(run.glob(pattern)))


def table(name: str, run: Path) -> list[dict[str, Any]]:
    rows = storage.read_parquet(str(run / "tables" / f"{name}.parquet")).to_pylist()
    return [{key: value for key, value in row.items() if key not in CIRCUMSTANCES} for row in rows]


def curation(folder: Path) -> Drill:
    for source in range(SOURCES):
        write_footage(folder / "raw" / f"s{source}.mp4", seconds=3 * CLIPS + 0.2, seed=source)
        for clip in range(CLIPS):
            write_detections(folder / "dets", f"s{source}_{clip:03d}", height=HEIGHT)
    words = ["curate", folder / "raw", "RUN", "--detections", folder / "dets", "--set", f"trim.height={HEIGHT}", *POOL]
    return Drill(
        words,
        lambda run: {name: Dataset.open(str(run)).table(name).to_pylist() for name in schema.TABLES},
        "MapBatches(",
        "MapBatches(Observer)",
        number_of("observations/*.parquet"),
        2,
        SOURCES * CLIPS,
    )


def training(folder: Path) -> Drill:
    make_training_dataset(folder / "lessons", 40)
    settings = ("epochs=6", "batch=4", "micro_batch=2", "checkpoint_every_s=0.05", "validation.every=2")
    settings += ("resources.threads=1", "tensorboard=false")
    words: list[object] = ["har", "train", folder / "lessons", "--recipe", "tiny", "--run", "RUN", "--num-workers", 2]
    words += [word for setting in settings for word in ("--set", setting)]

    def learnt(run: Path) -> dict[str, list[dict[str, Any]]]:
        history = RunFiles(str(run)).progress().history
        weights = [{"name": name, "values": tensor.numpy()} for name, tensor in last_weights(run).items()]
        return {"history": [{k: v for k, v in row.items() if k not in TIMES} for row in history], "weights": weights}

    return Drill(
        words,
        learnt,
        "MapBatches(",
        "RayTrainWorker",
        lambda run: RunFiles(str(run)).progress().epoch,
        1,
        6,
        {"values": 1e-6},
    )


def prediction(folder: Path) -> Drill:
    make_clips(folder / "clips", 90, key_frames=(3, 10, 15, 22))
    save_weights(build("TINY", roi_scale="true", num_classes=50), str(folder / "tiny.pt"), label_space="microg50")
    words = [
        "har",
        "predict",
        folder / "clips",
        "--model",
        "TINY",
        "--weights",
        folder / "tiny.pt",
        "--run",
        "RUN",
        "--batch-size",
        4,
        *POOL,
    ]
    return Drill(
        words,
        lambda run: {"har_predictions": table("har_predictions", run)},
        "MapBatches(",
        "MapBatches(Predictor)",
        number_of("parts/*.parquet"),
        3,
        360,
        {"scores": 1e-4},
    )


def generation(folder: Path) -> Drill:
    build_vlm("qwen2_5_vl", folder / "qwen")
    data = make_clips(folder / "asked", ASKED)
    clips = data.table("clips")["clip_id"].to_pylist()
    data.write(
        "captions", schema.from_rows("captions", [{"clip_id": one, "caption": f"{one} floats"} for one in clips])
    )
    questions = [
        {"clip_id": one, "qa_index": index, "question": f"{one} {index}?", "answer": "Yes."}
        for one in clips
        for index in range(3)
    ]
    data.write("qa", schema.from_rows("qa", questions))
    words = [
        "vlm",
        "generate",
        "--model",
        folder / "qwen",
        "--engine",
        "transformers",
        "--dataset",
        folder / "asked",
        "--run",
        "RUN",
        "--set",
        "sampling.max_tokens=8",
        "--set",
        "clips_per_block=1",
        *POOL,
    ]
    return Drill(
        words,
        lambda run: {"generations": table("generations", run)},
        "MapBatches(",
        "MapBatches(Generator)",
        number_of("parts/*.parquet"),
        2,
        ASKED,
    )


def scoring(folder: Path) -> Drill:
    random = np.random.default_rng(0)
    said, true = (
        {
            f"film_{n:04d}": " ".join(
                random.choice(
                    ["an", "astronaut", "floats", "in", "module", "slowly", "holding", "cables", "beside", "another"],
                    40,
                )
            )
            for n in range(TEXTS)
        }
        for _ in range(2)
    )
    storage.write_json(str(folder / "said.json"), said)
    storage.write_json(str(folder / "true.json"), true)
    words = [
        "vlm",
        "score",
        "--predictions",
        folder / "said.json",
        "--references",
        folder / "true.json",
        "--workers",
        3,
        "--metrics",
        "meteor,cider,bleu",
        "--protocol",
        "standard",
        "--resamples",
        10,
        "--no-plots",
        "--baselines",
        "none",
        "--out",
        "RUN",
    ]
    names = ("text_scores", "text_items", "text_bootstrap", "text_pairs")
    return Drill(
        words,
        lambda run: {name: table(name, run) for name in names},
        "/java ",
        "TextScorer.measure",
        lambda run: 1,
        1,
        2,
    )


def given(drill: Drill, run: Path) -> list[object]:
    return [run if word == "RUN" else word for word in drill.words]


def titles(nodes: Sequence[psutil.Process]) -> Iterator[tuple[psutil.Process, psutil.Process, str]]:
    """Yield (node, process, title) of all that runs on the nodes; one look at everything, as tasks are short."""
    of_nodes = {node.pid: node for node in nodes}
    processes = {one.pid: one for one in psutil.process_iter(["ppid", "cmdline"])}
    for pid, process in processes.items():
        above = pid
        while above in processes and above not in of_nodes:
            above = processes[above].info["ppid"]
        if above in of_nodes and above != pid:
            yield of_nodes[above], process, " ".join(process.info["cmdline"] or ())


def strike(
    nodes: Sequence[psutil.Process],
    drill: Drill,
    victim: str,
    driver: psutil.Popen,
    spared: psutil.Process | None = None,
) -> bool:
    """Kill the victim if it is there; return whether it was. The node `spared` is not killed itself."""
    if victim == "driver":
        driver.kill()
        return True
    for node, process, title in titles(nodes):
        actor = drill.actor in title
        if victim == "actor" and actor:
            process.kill()
            return True
        if victim == "worker" and drill.worker in title and not actor:
            process.kill()
            return True
        if victim == "node" and actor and node is not spared:
            family = [node, *node.children(recursive=True)]
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family, timeout=30)
            return True
    return False


def check_same(found: dict[str, list[dict[str, Any]]], wanted: dict[str, list[dict[str, Any]]], drill: Drill) -> None:
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert len(found[name]) == len(rows) > 0 or (not rows and not found[name]), name
        for one, other in zip(found[name], rows, strict=True):
            for column, tolerance in drill.tolerance.items():
                if column not in other:
                    continue
                np.testing.assert_allclose(one.pop(column), other.pop(column), atol=tolerance, rtol=tolerance)
            assert one == other, name
    assert any(found.values())


JOBS: dict[str, Callable[[Path], Drill]] = {
    "curate": curation,
    "train": training,
    "predict": prediction,
    "generate": generation,
    "score": scoring,
}
