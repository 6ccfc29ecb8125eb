"""`microg har predict`: the right logits for the right boxes, failures as rows, resume, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import ConfigError, WorkerError
from microg.models.har.backbones.registry import backbone, build
from microg.models.har.checkpoints import export_pyslowfast, save_weights
from microg.pipelines.har import predict as predict_pipeline
from microg.pipelines.har import prediction_store
from microg.pipelines.har.predict import SCORE, Predictor, label_space_of
from microg.pipelines.har.samples import Sample, by_size
from microg.video import decode_frames
from tests.support.clips import FRAMES, make_clips
from tests.support.processes import check_gone, family, microg, start_microg, wait_for

CLIPS, SIZES = 6, ((80, 48), (48, 80))
ONE_ACTOR = ("--set", "resources.max_actors=1")  # starts sooner
SPEC = backbone("TINY")
SIDE = SPEC.test_short_side


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Path:
    make_clips(folder / "set", CLIPS, sizes=SIZES, key_frames=(3, 15))
    return folder / "set"


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    """Weights of TINY whose logits differ from class to class and box to box."""
    torch.manual_seed(0)
    network = build("TINY", roi_scale="true")
    torch.nn.init.normal_(network.detection_head.proj.weight, std=0.5)
    save_weights(network, str(folder / "tiny.pt"))
    export_pyslowfast(network, str(folder / "tiny.pyth"))
    return folder / "tiny.pt"


@pytest.fixture(scope="module")
def run(dataset: Path, weights: Path, ray_session: None, folder: Path) -> Path:
    """The run of an undisturbed prediction."""
    assert microg("har", "predict", dataset, "--weights", weights, "--run", folder / "run", *ONE_ACTOR) == 0
    return folder / "run"


def table_of(run: Path) -> list[dict[str, Any]]:
    return storage.read_parquet(str(run / "tables" / "har_predictions.parquet")).to_pylist()


def check_equal(run: Path, expected: Path) -> None:
    """The same samples in the same order with the same scores, each once."""
    mine, theirs = table_of(run), table_of(expected)
    assert [row["sample_id"] for row in mine] == [row["sample_id"] for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.pop("scores"), other.pop("scores"), atol=1e-4, rtol=1e-4)
        assert one == other


def logits_by_loop(dataset: Path, weights: Path) -> dict[str, np.ndarray]:
    """Return logits by sample id, one key frame after another, with nothing of the pipeline."""
    network = build("TINY", roi_scale="true").eval()
    network.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    span, tau = SPEC.frames * SPEC.sampling_rate, SPEC.sampling_rate
    opened = Dataset.open(str(dataset))
    boxes: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in opened.table("samples").to_pylist():
        people = boxes.setdefault((row["clip_id"], row["frame"]), {})
        people[row["person_id"]] = [row["x1"], row["y1"], row["x2"], row["y2"]]
    result = {}
    for (clip_id, frame), people in boxes.items():
        images = [image[..., ::-1] for image in decode_frames(opened.video_uri(clip_id))]
        height, width = images[0].shape[:2]
        ratio = SIDE / min(height, width)
        size = (SIDE, int(height / width * SIDE)) if width < height else (int(width / height * SIDE), SIDE)
        long_ratio = max(size) / max(height, width)
        chosen = [min(max(index, 0), FRAMES - 1) for index in range(frame - span // 2, frame + span // 2, tau)]
        clip = np.stack([cv2.resize(images[index], size, interpolation=cv2.INTER_LINEAR) for index in chosen])
        assert abs(ratio - long_ratio) < 0.02
        pixels = (torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 255 - 0.45) / 0.225
        scaled = [
            [0.0, x1 * width * long_ratio, y1 * height * long_ratio, x2 * width * long_ratio, y2 * height * long_ratio]
            for x1, y1, x2, y2 in people.values()
        ]
        with torch.inference_mode():
            logits = network(pixels, torch.tensor(scaled)).numpy()
        for person, scores in zip(people, logits, strict=True):
            result[f"{clip_id}:{frame}:{person}"] = scores
    return result


def test_each_person_of_each_key_frame_gets_the_models_logits(run: Path, dataset: Path, weights: Path) -> None:
    expected = logits_by_loop(dataset, weights)
    rows = table_of(run)
    assert [row["sample_id"] for row in rows] == list(expected)
    assert len(rows) == CLIPS * 2 * 2
    for row in rows:
        np.testing.assert_allclose(row["scores"], expected[row["sample_id"]], atol=1e-4, rtol=1e-4)
        assert (row["status"], row["error"], row["model"]) == ("ok", "", "TINY")
        assert (row["score_kind"], row["label_space"]) == ("logit", "microg50")
    assert (rows[0]["x1"], rows[0]["y2"]) == (0.1, 0.8)
    spread = np.std([row["scores"] for row in rows], axis=0)
    assert spread.max() > 0.01  # boxes differ, so that a mix-up would show


def test_a_run_tells_what_made_it(run: Path, weights: Path, dataset: Path) -> None:
    manifest = storage.read_json(str(run / "run.json"))
    assert manifest["command"] == "har predict"
    assert manifest["config"]["model"] == "TINY"
    assert manifest["config"]["roi_scale"] == "true"  # as the weights say
    assert manifest["config"]["weights_digest"] == storage.sha256(weights)[:16]
    assert manifest["dataset"] == Dataset.open(str(dataset)).fingerprint()
    assert "full frame" in manifest["protocol"]
    metrics = storage.read_json(str(run / "metrics.json"))
    assert metrics["throughput"]["rows"] == CLIPS * 2
    assert metrics["throughput"]["bottleneck"] in ("start", "decode", "model")
    assert metrics["weights_loaded"]["missing"] == []


def test_scoring_takes_the_run_as_it_is(run: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", run, "--groundtruth", dataset, "--resamples", 0, "--no-plots", "--json"]
    assert microg("har", "score", *words, "--run", run.parent / "scored") == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["predicted_boxes"] == counts["true_boxes"] == CLIPS * 4


def test_a_finished_run_is_left_as_it_is_and_other_settings_are_refused(
    run: Path, dataset: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["har", "predict", dataset, "--weights", weights, "--run", run]
    parts = sorted((run / "parts").iterdir())
    assert microg(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["done_before"], report["samples"], report["failed"]) == (CLIPS * 2, CLIPS * 4, 0)
    assert "throughput" not in report
    assert sorted((run / "parts").iterdir()) == parts
    assert microg(*words, "--roi-scale", "published") == 2
    assert "roi_scale: 'true' there, 'published' asked" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_decoded_is_a_row_with_its_reason_and_is_tried_again(
    folder: Path, weights: Path, ray_session: None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_clips(folder / "broken", CLIPS, sizes=SIZES, key_frames=(3, 15))
    video = Path(made.video_uri("src1_001"))
    content = video.read_bytes()
    video.write_bytes(b"no video")
    words = ["har", "predict", folder / "broken", "--weights", weights, "--run", folder / "broken-run", *ONE_ACTOR]
    assert microg(*words) == 1
    assert "failed: src1_001:3:1: VideoError" in capsys.readouterr().out
    rows = table_of(folder / "broken-run")
    failed = [row for row in rows if row["status"] == "error"]
    assert len(rows) == CLIPS * 4
    assert [row["sample_id"] for row in failed] == [
        f"src1_001:{frame}:{person}" for frame in (3, 15) for person in (1, 2)
    ]
    assert all(row["scores"] is None and "VideoError" in row["error"] for row in failed)
    video.write_bytes(content)
    assert microg(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["done_before"] == CLIPS * 2 - 2
    assert report["throughput"]["rows"] == 2
    check_equal(folder / "broken-run", run)


@pytest.mark.slow
def test_a_limit_takes_the_first_key_frames_and_the_rest_follows_later(
    dataset: Path, folder: Path, run: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights in PySlowFast's names give the same scores as our own file."""
    words = [
        "har",
        "predict",
        dataset,
        "--model",
        "tiny",
        "--weights",
        folder / "tiny.pyth",
        "--roi-scale",
        "true",
        "--run",
        folder / "limited",
        "--batch-size",
        4,
        *ONE_ACTOR,
        "--json",
    ]
    assert microg(*words, "--limit", 3) == 0
    assert [row["sample_id"] for row in table_of(folder / "limited")] == [row["sample_id"] for row in table_of(run)[:6]]
    assert json.loads(capsys.readouterr().out)["weights_loaded"]["layout"] == "pyslowfast"
    assert microg(*words) == 0
    check_equal(folder / "limited", run)


def test_a_plan_writes_nothing(
    dataset: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["har", "predict", dataset, "--weights", weights, "--run", tmp_path / "run", "--dry-run"]
    assert microg(*words, "--json") == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["key_frames_to_do"], plan["samples_to_do"]) == (CLIPS * 2, CLIPS * 4)
    assert [(stage["stage"], stage["runs_as"]) for stage in plan["stages"]] == [
        ("decode", "tasks"),
        ("score", "actors"),
    ]
    assert microg(*words) == 0
    shown = capsys.readouterr().out
    assert "nothing was predicted" in shown
    assert "\n  score: 1 or more actors, as many as fit, of 1 CPU, a block a call; reads epoch, key, " in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which weights to use is missing"),
        (["--weights", "absent.pt"], "absent.pt"),
        (["--weights", "WEIGHTS", "--model", "X3D_S"], "holds weights of TINY, not of X3D_S"),
        (["--weights", "WEIGHTS", "--model", "x4d"], "there is no model 'x4d'"),
        (["--weights", "PYTH"], "does not say which model it is for"),
        (["--weights", "PYTH", "--model", "SLOWONLY_8x8_R50"], "tiny.pyth"),
        (["--weights", "WEIGHTS", "--split", "train"], "has no train split"),
        (["--weights", "WEIGHTS", "--split", "dev"], "split"),
        (["--weights", "WEIGHTS", "--scheme", "source"], "schemes there are published"),
        (["--weights", "WEIGHTS", "--set", "batchsize=3"], "did you mean 'batch_size'"),
        (["--weights", "WEIGHTS", "--device", "cuda"], "Ray has no GPU"),
        (["--weights", "WEIGHTS", "--set", "label_space=ava80"], "a model of 50 classes"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    dataset: Path,
    folder: Path,
    weights: Path,
    tmp_path: Path,
    ray_session: None,
    words: Sequence[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"WEIGHTS": str(weights), "PYTH": str(folder / "tiny.pyth")}
    given = [names.get(word, word) for word in words]
    assert microg("har", "predict", dataset, *given, "--run", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "tables").exists()


def test_a_folder_that_is_no_dataset_is_refused(weights: Path, tmp_path: Path, capsys: Any) -> None:
    assert microg("har", "predict", tmp_path, "--weights", weights) == 2
    assert "neither a dataset" in capsys.readouterr().err


def test_a_recipe_names_model_and_settings(dataset: Path, weights: Path, tmp_path: Path, capsys: Any) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("row: TINY\npredict: {roi_scale: true, view: val, batch_size: 3}\nscore: {protocol: both}\n")
    words = ["har", "predict", dataset, "--weights", weights, "--recipe", recipe, "--dry-run", "--json"]
    assert microg(*words, "--batch-size", 5) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["roi_scale"], report["plan"]["batch_size"]) == ("TINY", "true", 5)
    assert "centre crop" in report["plan"]["view"]


def test_batches_hold_clips_of_one_size() -> None:
    def sample(key: str, width: int) -> Sample:
        return Sample(epoch=0, key=key, clip_id="a_000", frame=1, clip=np.zeros((2, 8, width, 3), np.uint8))

    samples = [sample(str(number), 8 if number % 3 else 16) for number in range(8)]
    batches = by_size(samples, 2)
    assert [[sample.key for sample in batch] for batch in batches] == [["0", "3"], ["6"], ["1", "2"], ["4", "5"], ["7"]]
    assert by_size([], 2) == []


def test_the_number_of_classes_tells_the_label_space() -> None:
    assert (label_space_of(50), label_space_of(80), label_space_of(80, "ava80")) == ("microg50", "ava80", "ava80")
    for classes, declared in ((51, None), (50, "ava80")):
        with pytest.raises(ConfigError, match=f"{classes} classes"):
            label_space_of(classes, declared)


def test_of_rows_written_twice_the_newest_counts(tmp_path: Path) -> None:
    key_frame = {"clip_id": "a_000", "frame": 3, "person_id": [1, 2], "boxes": [0.1, 0.1, 0.5, 0.5] * 2}
    key_frames = pa.Table.from_pylist([key_frame])
    root = str(tmp_path)
    common = {"score_kind": "logit", "label_space": "microg50", "model": "TINY"}
    prediction_store.commit(root, prediction_store.rows_of(key_frame, None, "VideoError: bad", **common))
    assert prediction_store.finished_keys(root) == set()
    for value in (1.0, 2.0):
        scores = np.full((2, 50), value, np.float32)
        prediction_store.commit(root, prediction_store.rows_of(key_frame, scores, "", **common))
    assert prediction_store.finished_keys(root) == {"a_000:3"}
    other = pa.Table.from_pylist([{**key_frame, "frame": 4}])
    with pytest.raises(WorkerError, match="2 of 2 rows"):
        prediction_store.finish(root, other)
    prediction_store.files(root).compact(when_more_than=1)
    assert len(list((tmp_path / "parts").iterdir())) == 1
    table = prediction_store.finish(root, key_frames)
    assert table["sample_id"].to_pylist() == ["a_000:3:1", "a_000:3:2"]
    assert table["scores"].to_pylist() == [[2.0] * 50] * 2


def committed(run: Path) -> int:
    return prediction_store.files(str(run)).newest(["sample_id"]).num_rows


@pytest.fixture(scope="module")
def many(folder: Path) -> Path:
    make_clips(folder / "many", 90, sizes=SIZES, key_frames=(3, 10, 15, 22))
    return folder / "many"


@pytest.fixture(scope="module")
def undisturbed(many: Path, weights: Path, ray_session: None, folder: Path) -> Path:
    assert microg("har", "predict", many, "--weights", weights, "--run", folder / "undisturbed") == 0
    return folder / "undisturbed"


@pytest.mark.slow
def test_a_killed_driver_is_resumed_and_each_sample_is_there_once(
    many: Path, weights: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["har", "predict", many, "--weights", weights, "--run", tmp_path / "run"]
    process = start_microg(tmp_path / "log", *words)
    wait_for(lambda: committed(tmp_path / "run") >= 64, process, tmp_path / "log")
    others = family(process)
    process.kill()
    process.wait()
    check_gone(others, "Predictor")
    before = committed(tmp_path / "run")
    assert 64 <= before < 720
    assert not (tmp_path / "run" / "tables").exists()  # an unfinished run cannot be scored
    capsys.readouterr()
    assert microg(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["done_before"] == before // 2
    assert report["throughput"]["rows"] == 360 - before // 2
    check_equal(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_killed_actor_is_replaced_within_the_run(
    many: Path, weights: Path, undisturbed: Path, tmp_path: Path
) -> None:
    words = ["har", "predict", many, "--weights", weights, "--run", tmp_path / "run"]
    process = start_microg(tmp_path / "log", *words)
    wait_for(lambda: committed(tmp_path / "run") >= 64, process, tmp_path / "log")
    actors = [child for child, name in family(process).items() if "MapBatches(Predictor)" in name]
    actors[0].kill()
    assert committed(tmp_path / "run") < 720
    assert process.wait(timeout=250) == 0, (tmp_path / "log").read_text()
    check_equal(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_sample_that_kills_the_model_every_time_is_an_error_row(
    many: Path, weights: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(Predictor):
        def _forward(self, samples: Sequence[Sample]) -> list[Any]:
            if any(sample.key == "src0_003:10" for sample in samples):
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._forward(samples)

    fragile = predict_pipeline.PIPELINE.with_stages(replace(SCORE, work=Fragile))
    monkeypatch.setattr(predict_pipeline, "PIPELINE", fragile)
    words = ["har", "predict", many, "--weights", weights, "--run", tmp_path / "run"]
    assert microg(*words) == 1
    failed = [row for row in table_of(tmp_path / "run") if row["status"] != "ok"]
    assert [row["sample_id"] for row in failed] == ["src0_003:10:1", "src0_003:10:2"]
    assert {row["error"] for row in failed} == {"WorkerCrashed: predicting this sample kills its worker"}
    monkeypatch.undo()
    assert microg(*words) == 0  # it is tried again by the next run
    check_equal(tmp_path / "run", undisturbed)
