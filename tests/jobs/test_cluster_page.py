"""Every job of docs/cluster.md, as it stands there, on a head that declares two GPUs and on a cluster from no nodes.

Footage, weights and runs lie on an S3-compatible store. What a line says stays; `FITTED` adds, behind it, what must
differ here: no GPU computes, so models are told to use the CPU and hold the GPUs that they would compute on (their
device is auto on the page, and a GPU is chosen where Ray has one); a small checkpoint stands in for 16 GB of weights;
an epoch, few clips and few resamples keep it short. A detector with weights of its own looks at real footage where
`MICROG_VIDEOS` or ../shared/video has both; elsewhere footage is made, and its detections are replayed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.demo.tiny_models import build as build_vlm
from microg.models.har.backbones.registry import build
from microg.models.har.checkpoints import export_pyslowfast
from tests.support.autoscaling_cluster import autoscaling_cluster
from tests.support.cluster_files import kuberay_shape, launcher, manifest
from tests.support.curation import write_detections, write_footage
from tests.support.environment import without_ray
from tests.support.processes import ROOT, microg
from tests.support.ray_head import ray_head
from tests.support.s3_server import object_store, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

VIDEOS = Path(os.environ.get("MICROG_VIDEOS", ROOT.parent / "shared" / "video"))
FOOTAGE = ("carphone.mp4", "kin_armwrestle.mp4", "ucf_makeup.avi")
HOLD = "--device cpu --set resources.gpus=1 --set resources.max_actors=2"
FITTED = {
    "curate": f"{HOLD} --set trim.height=240",
    "har_train": "--device cpu --set resources.threads=1 --set epochs=1 --set batch=3 --set micro_batch=1"
    " --set step.precision=float32 --set tensorboard=false",
    "har_predict": HOLD,
    "har_score": "--resamples 20",
    "vlm_eval": f"{HOLD} --engine transformers --frames uniform:2 --set sampling.max_tokens=6",
    "vlm_score": "--metrics cider,bleu,rouge_l --resamples 20",
}


def jobs_of_the_page() -> list[list[str]]:
    """Return the words of each command in the block that submits jobs."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    block = re.search(r"^## Submit a job\n+```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    assert lines[0].startswith("export RAY_AUTH_MODE=token RAY_ADDRESS=")
    return [shlex.split(line) for line in lines[1:]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage, weights under the names that the page has, and for made footage its detections."""
    root = tmp_path_factory.mktemp("page")
    (root / "bucket" / "footage").mkdir(parents=True)
    (root / "bucket" / "weights").mkdir()
    weights = VIDEOS / "weights" / "yolo11n_dq.pt"
    if weights.is_file():
        for name in FOOTAGE:
            shutil.copy(VIDEOS / name, root / "bucket" / "footage")
        shutil.copy(weights, root / "bucket" / "weights" / "yolo11n.pt")
    else:
        for source in range(3):
            write_footage(root / "bucket" / "footage" / f"s{source}.mp4", seconds=6.2, seed=source)
            for clip in range(2):
                write_detections(root / "dets", f"s{source}_{clip:03d}", height=240)
    export_pyslowfast(build("X3D_S"), str(root / "bucket" / "weights" / "x3d_s.pyth"))
    build_vlm("qwen2_5_vl", root / "qwen")
    return root


@pytest.fixture(scope="module")
def bucket(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that makes a new bucket with all that."""
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # no weights of an earlier run
        yield lambda: upload(place / "bucket", store.bucket())


@contextmanager
def two_gpus() -> Iterator[dict[str, str]]:
    with ray_head(cpus=4, gpus=2) as head:
        yield head.environment | {"RAY_ADDRESS": head.address}


@contextmanager
def from_no_nodes(shape: dict[str, Any]) -> Iterator[dict[str, str]]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with autoscaling_cluster(shape, dashboard=True) as cluster:
        yield without_ray(**cluster.variables | {"RAY_ADDRESS": cluster.dashboard, "PATH": path})


def run(words: list[str], environment: dict[str, str], place: Path, uri: str, *more: str) -> str:
    """Run a line of the page on a bucket, with what fits it to this machine; return what it said."""
    words = [word.replace("s3://bucket", uri) for word in words]
    job = next((Path(word).stem for word in words if word.startswith("jobs/")), "")
    fitted = [*shlex.split(FITTED.get(job, "")), *more]
    if job == "curate" and (place / "dets").exists():
        fitted += ["--detections", str(place / "dets")]
    if job == "vlm_eval":
        fitted += ["--model", str(place / "qwen")]
    done = subprocess.run([*words, *fitted], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def annotate(root: str) -> list[str]:
    """Give each person an action, each clip a caption and a question, and put clips into splits; return the clips."""
    data = Dataset.open(root)
    clips = sorted(set(data.table("boxes")["clip_id"].to_pylist()))
    people = data.table("boxes").group_by(["clip_id", "person_id"]).aggregate([]).to_pylist()
    data.write("actions", schema.from_rows("actions", [{**one, "action_id": 12} for one in people]))
    captions = [{"clip_id": one, "caption": f"Somebody floats in {one}."} for one in clips]
    data.write("captions", schema.from_rows("captions", captions))
    asked = [{"clip_id": one, "qa_index": 0, "question": "Who floats?", "answer": "Somebody."} for one in clips]
    data.write("qa", schema.from_rows("qa", asked))
    assert microg("curate", root, "--refilter") == 0  # samples get the actions
    splits = dict(zip(clips, ["val", "test", *["train"] * len(clips)], strict=False))
    rows = [{"clip_id": one, "split": split, "scheme": "published"} for one, split in splits.items()]
    Dataset.open(root).write("splits", schema.from_rows("splits", rows))
    return clips


@pytest.mark.parametrize(
    ("cluster", "share"), [(two_gpus, 0.5), (lambda: from_no_nodes(launcher()), 1)], ids=["two GPUs", "from no nodes"]
)
def test_every_job_of_the_page_runs_as_written(
    cluster: Any, share: float, bucket: Any, place: Path, tmp_path: Path
) -> None:
    curate, train, predict, score, ask, score_texts, report = jobs_of_the_page()
    uri = bucket()
    with cluster() as environment:
        run(curate, environment, place, uri)
        clips = annotate(f"{uri}/mine")
        assert len(clips) >= 5
        said = run(train, environment, place, uri, "--set", f"resources.worker_gpus={share}")
        assert f"training on cpu: 3 workers of 1 CPU and {share:g} GPU" in said
        trained = storage.read_json(f"{uri}/runs/x3d_s/metrics.json")
        assert (trained["complete"], trained["model"], len(trained["history"])) == (True, "X3D_S", 1)
        run(predict, environment, place, uri)
        rows = storage.read_parquet(f"{uri}/runs/x3d_s-test/tables/har_predictions.parquet")
        samples = Dataset.open(f"{uri}/mine").table("samples").to_pylist()
        assert rows.num_rows == len([one for one in samples if one["clip_id"] == clips[1]]) > 0
        run(score, environment, place, uri)
        assert storage.read_json(f"{uri}/runs/x3d_s-score/metrics.json")["protocols"]["paper"]["map"]["macro"] > 0
        run(ask, environment, place, uri)
        answers = storage.read_parquet(f"{uri}/runs/qwen/tables/generations.parquet")
        assert answers.num_rows == 2 * len(clips)
        assert set(answers["status"].to_pylist()) == {"ok"}
        run(score_texts, environment, place, uri)
        assert set(storage.read_json(f"{uri}/runs/qwen-score/metrics.json")["tasks"]) == {"caption", "vqa"}
    here = [*report[:-1], str(tmp_path / report[-1])]
    run(here, without_ray(PATH=environment["PATH"]), place, uri)
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in ("x3d_s-score", "qwen-score"))


def test_the_kubernetes_job_runs_on_the_cluster_of_its_own(bucket: Any, place: Path) -> None:
    words = shlex.split(manifest("rayjob")["spec"]["entrypoint"].replace("/opt/microg-bench/", ""))
    uri = bucket()
    with from_no_nodes(kuberay_shape("rayjob")) as environment:
        run(["ray", "job", "submit", "--working-dir", ".", "--", *words], environment, place, uri)
    assert Dataset.open(f"{uri}/mine").table("boxes").num_rows > 0
