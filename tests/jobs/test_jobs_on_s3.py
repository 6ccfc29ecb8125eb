"""Datasets and run folders on S3 give the bytes of local ones: from the command line, and submitted to three nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from tests.support.curation import write_detections, write_footage
from tests.support.helpers import make_dataset, tiny_rows
from tests.support.openai_server import OpenAiServer
from tests.support.prices import write_prices
from tests.support.processes import microg, start_microg
from tests.support.ray_head import Head, ray_head
from tests.support.s3_server import object_store, upload
from tests.support.training import make_training_dataset

ONE_ACTOR = ("--set", "resources.max_actors=1")  # starts sooner
# What tells where and when, not what came out.
CIRCUMSTANCES = {
    "finished",
    "throughput",
    "wait_s",
    "train_s",
    "step_s",
    "val_s",
    "clips_per_s",
    "done_before",
    "seconds",
    "observed",
    "workers",
    "resources",
}


@dataclass(frozen=True)
class Places:
    """The same inputs in a local folder and in a bucket."""

    local: str
    remote: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.local, self.remote))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("twins")
    make_training_dataset(folder / "set", train=4)
    rows = tiny_rows()
    said = {row["clip_id"]: row["caption"].replace("astronaut", "man") for row in rows["captions"]}
    (folder / "said.json").write_text(json.dumps(said))
    (folder / "true.json").write_text(json.dumps({row["clip_id"]: row["caption"] for row in rows["captions"]}))
    (folder / "boxes.csv").write_text(
        "".join(
            f"film{n % 3}_{n:03d},6,0.10,0.20,0.40,0.80,{action},{n - action / 10}\n"
            for n in range(4, 8)
            for action in (12, 17, 80)
        )
    )
    write_footage(folder / "raw" / "tour.mp4", seconds=6.2, seed=1)
    (folder / "raw" / "broken.mp4").write_bytes(b"no video")
    for number, person_frames in enumerate((90, 20)):
        write_detections(folder / "dets", f"tour_{number:03d}", person_frames=person_frames)
    make_dataset(folder / "asked")
    with object_store() as store:
        yield Places(str(folder), upload(folder, store.bucket()))


def outcome(root: str, place: str) -> dict[str, Any]:
    """Return a run's metrics without circumstances, with paths as if in no place, and the hashes of its tables."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key not in CIRCUMSTANCES}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value.replace(place, "PLACE") if isinstance(value, str) else value

    folder = storage.join(root, "tables")
    fs, path = storage.filesystem(folder)
    names = [name.rsplit("/", 1)[-1] for name in fs.find(path)] if fs.exists(path) else []
    tables = {name: storage.sha256(storage.join(folder, name)) for name in sorted(names)}
    return {"metrics": plain(storage.read_json(storage.join(root, "metrics.json"))), "tables": tables}


def test_actions_are_scored_to_the_same_bytes(places: Places):
    found = []
    for place in places:
        words = ("--predictions", f"{place}/boxes.csv", "--groundtruth", f"{place}/set", "--resamples", "20")
        assert microg("har", "score", *words, "--split", "val", "--run", f"{place}/scored", "--no-plots") == 0
        found.append(outcome(f"{place}/scored", place))
    assert found[0] == found[1]
    assert found[0]["metrics"]["protocols"]["corrected"]["map"]["macro"] > 0
    assert len(found[0]["tables"]) >= 3


def test_captions_are_scored_to_the_same_bytes(places: Places):
    found = []
    for place in places:
        words = ("--predictions", f"{place}/said.json", "--references", f"{place}/true.json", "--resamples", "20")
        more = ("--metrics", "cider,bleu,rouge_l", "--no-plots", "--workers", "0", "--out", f"{place}/texts")
        assert microg("vlm", "score", *words, *more) == 0
        found.append(outcome(f"{place}/texts", place))
    assert found[0] == found[1]
    assert found[0]["metrics"]["tasks"]["caption"]["paper"]["scores"]["cider"] > 0


def test_a_dataset_is_split_and_described_alike(places: Places, capsys: pytest.CaptureFixture[str]):
    described = []
    for place in places:
        assert microg("data", "split", f"{place}/set", "--scheme", "source", "--json") == 0
        capsys.readouterr()
        assert microg("data", "stats", f"{place}/set", "--json", "--out", f"{place}/stats") == 0
        described.append(capsys.readouterr().out.replace(place, "PLACE"))
    assert described[0] == described[1]
    assert len(described[0]) > 500
    tables = [Dataset.open(f"{place}/set").table("splits").to_pylist() for place in places]
    assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def cluster(places: Places) -> Iterator[Head]:
    """Three nodes that know the store."""
    with ray_head(workers=2, cpus=2) as head:
        yield head
        assert head.alive_nodes() == 3


def on_both(
    cluster: Head, places: Places, command: str, words: tuple[str, ...], out: str, code: int = 0, job: str = ""
) -> list[dict[str, Any]]:
    """Run a command here on local folders and as a job of the cluster on the bucket; `{}` stands for the place."""
    outcomes = []
    for place in places:
        here = [word.replace("{}", place) for word in words]
        if place == places.local:
            assert microg(*command.split(), *here) == code
        else:
            done = cluster.submit(f"jobs/{job or command.replace(' ', '_')}.py", *here)
            assert done.returncode == (1 if code else 0), done.stdout + done.stderr
        outcomes.append(outcome(f"{place}/{out}", place))
    return outcomes


@pytest.mark.slow
def test_submitted_curation_makes_the_local_dataset(cluster, ray_session, places):
    words = ("{}/raw", "{}/mine", "--detections", "{}/dets", "--set", "trim.height=48", *ONE_ACTOR)
    local, remote = on_both(cluster, places, "curate", words, "mine", code=1)  # one file is broken
    assert local["metrics"] == remote["metrics"]
    datasets = [Dataset.open(f"{place}/mine") for place in places]
    for name in schema.TABLES:
        rows = [dataset.table(name).to_pylist() for dataset in datasets]
        if name == "sources":  # where a file lies is in its uri, and in what is said of a broken one
            assert [row.pop("uri") for row in rows[0]] != [row.pop("uri") for row in rows[1]]
            assert all(row.pop("error").startswith("VideoError") for row in (rows[0][0], rows[1][0]))
        assert rows[0] == rows[1], name
    assert datasets[0].table("boxes").num_rows > 0
    for name in ("bounding_boxes.csv", "videos/tour_000.mp4"):
        assert len({storage.sha256(f"{place}/mine/{name}") for place in places}) == 1, name


@pytest.fixture(scope="module")
def trained(cluster, ray_session, places) -> list[dict[str, Any]]:
    settings = ("epochs=1", "batch=4", "resources.threads=1", "tensorboard=false")
    words = ("{}/set", "--recipe", "recipes/har/tiny.yaml", "--run", "{}/train")
    words += tuple(word for setting in settings for word in ("--set", setting))
    return on_both(cluster, places, "har train", words, "train")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_submitted_training_learns_the_same_weights(trained, places):
    assert trained[0]["metrics"] == trained[1]["metrics"]
    assert trained[0]["metrics"]["history"][0]["loss"] > 0
    assert len({storage.sha256(f"{place}/train/checkpoints/best.pt") for place in places}) == 1


@pytest.mark.slow
def test_submitted_predictions_score_to_the_same_bytes(trained, cluster, places):
    words = ("{}/set", "--weights", "{}/train", "--split", "val", "--run", "{}/said", *ONE_ACTOR)
    local, remote = on_both(cluster, places, "har predict", words, "said")
    assert local == remote
    words = ("--predictions", "{}/said", "--groundtruth", "{}/set", "--split", "val", "--run", "{}/points")
    local, remote = on_both(cluster, places, "har score", (*words, "--resamples", "50"), "points")
    assert local == remote
    assert local["metrics"]["protocols"]["paper"]["map"]["macro"] > 0


@pytest.mark.slow
def test_submitted_captions_score_to_the_same_bytes(cluster, ray_session, places):
    words = ("--predictions", "{}/said.json", "--references", "{}/true.json", "--out", "{}/captions")
    more = ("--metrics", "cider,bleu,meteor,rouge_l", "--workers", "2", "--resamples", "50")
    local, remote = on_both(cluster, places, "vlm score", words + more, "captions")
    assert local == remote
    assert local["metrics"]["tasks"]["caption"]["paper"]["scores"]["meteor"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_submitted_answers_are_the_local_ones_and_score_to_the_same_bytes(cluster, ray_session, places, tmp_path):
    from microg.demo import tiny_models

    tiny_models.build("qwen2_5_vl", tmp_path / "tiny")
    words = ("--model", str(tmp_path / "tiny"), "--engine", "transformers", "--dataset", "{}/asked", "--run", "{}/talk")
    more = ("--frames", "uniform:2", "--task", "caption", "--set", "sampling.max_tokens=6", "--set", "device=cpu")
    on_both(cluster, places, "vlm generate", words + more, "talk", job="vlm_eval")
    tables = [storage.read_parquet(f"{place}/talk/tables/generations.parquet") for place in places]
    rows = [table.drop_columns(["latency_s", "written"]).to_pylist() for table in tables]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
    assert all(row["status"] == "ok" and row["text"] for row in rows[0])
    words = (
        "--run",
        "{}/talk",
        "--references",
        "{}/asked",
        "--out",
        "{}/talk-score",
        "--metrics",
        "cider,bleu,rouge_l",
    )
    local, remote = on_both(cluster, places, "vlm score", (*words, "--resamples", "20"), "talk-score")
    assert local == remote
    assert local["metrics"]["coverage"]["caption"]["answered"] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_submitted_sweep_ranks_the_same_trials_with_the_same_scores(cluster, ray_session, places):
    words = ("{}/set", "--recipe", "recipes/har/tiny.yaml", "--space", "lr=grid(0.01,0.001)", "--scheduler", "fifo")
    settings = ("epochs=1", "batch=4", "resources.threads=1", "tensorboard=false")
    more = tuple(word for setting in settings for word in ("--set", setting))
    on_both(cluster, places, "har sweep", (*words, "--run", "{}/sweep", *more), "sweep")
    tables = [storage.read_parquet(f"{place}/sweep/tables/har_sweep.parquet") for place in places]
    rows = [table.drop_columns(["train_s"]).to_pylist() for table in tables]
    assert rows[0] == rows[1]
    assert [row["status"] for row in rows[0]] == ["done", "done"]
    for row in rows[0]:
        assert len({storage.sha256(f"{place}/sweep/{row['run']}/checkpoints/best.pt") for place in places}) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_api_model_answers_into_a_bucket_and_another_machine_goes_on_with_its_account(
    places, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("MICROG_PRICES", str(write_prices(tmp_path)))  # each answer costs ten dollars
    run = f"{places.remote}/spoken"
    with OpenAiServer() as server:
        words = ("vlm", "generate", "--model", "m", "--url", server.url, "--dataset", f"{places.remote}/asked", "--run")
        more = ("--frames", "uniform:2", "--set", "sampling.max_tokens=3", "--json", *ONE_ACTOR)

        def report(machine: str, *options: object) -> dict[str, Any]:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
            log = tmp_path / "log"
            assert start_microg(log, *words, run, *more, *options).wait(timeout=400) == 0, log.read_text()
            text = log.read_text()
            return json.loads(text[text.index("{") : text.rindex("}") + 1])

        first = report("one", "--task", "caption")
        assert (first["failed"], first["account"]["spent"], len(server.requests)) == (0, 40, 4)
        assert list((tmp_path / "one" / "microg" / "api").glob("*/account.sqlite"))
        again = report("two", "--task", "caption,vqa", "--max-cost", 1_000_000)
        assert (again["done_before"], again["failed"], len(server.requests)) == (4, 0, 28)
        assert again["account"]["spent"] == 280
    assert len(storage.read_parquet(f"{run}/tables/generations.parquet")) == 28
