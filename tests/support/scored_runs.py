"""Small run folders for tests of reports, made by the real commands where that is cheap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from microg.actions.predictions import sample_id
from microg.actions.truth import read_truth
from microg.config import Config
from microg.data import schema
from microg.data.crosswalk import jhmdb_crosswalk
from microg.data.dataset import Dataset
from microg.data.label_space import JHMDB_21_SPACE, MICROG_50
from microg.jobs import cli
from microg.jobs.commands.har_transfer.run import classes_table, contrast_document
from microg.metrics.har.contrast import TestSet, contrast
from microg.runs import Run
from tests.support.har_cases import ava_predictions
from tests.support.helpers import make_dataset
from tests.support.jhmdb import jhmdb_dataset

EVIL = "<script>alert('x')</script> & \"quoted\" </section> {{ 7 * 7 }}"


class Settings(Config):
    """Settings of a run made by hand."""

    model: str = "TINY"
    row: str | None = None


def _labelled(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Put every clip into the test split, with hostile texts."""
    rows["splits"] = [{"clip_id": row["clip_id"], "split": "test", "scheme": "published"} for row in rows["clips"]]
    rows["splits"] += [
        {"clip_id": row["clip_id"], "split": "test" if row["source_id"] == "walkC" else "train", "scheme": "source"}
        for row in rows["clips"]
    ]
    for row in rows["samples"]:
        row["x1"], row["x2"] = 0.2 * row["person_id"], 0.2 * row["person_id"] + 0.3
    rows["captions"][0]["caption"] = f"A man floats {EVIL}"
    rows["qa"][0].update(question=f"What floats? {EVIL}", answer=EVIL)


def scored_dataset(root: Path) -> Dataset:
    """Make a dataset whose four clips are all in the test split."""
    return make_dataset(root, _labelled)


def predict_run(root: Path, dataset: Dataset, seed: int, skill: float = 3.0, model: str = "TINY") -> Path:
    """Write the run folder of a model that finds true actions the better, the larger `skill` is."""
    draw = np.random.default_rng(seed)
    people: dict[tuple[str, int, int], dict[str, Any]] = {}
    for row in dataset.table("samples").to_pylist():
        key = (row["clip_id"], row["frame"], row["person_id"])
        people.setdefault(key, {**row, "labels": set()})["labels"].add(row["action_id"])
    rows = []
    for (clip, frame, person), row in people.items():
        true = np.isin(MICROG_50.ids, list(row["labels"]))
        scores = draw.normal(-2.0, 1.0, len(MICROG_50)) + skill * true
        rows.append(
            {
                "sample_id": sample_id(clip, frame, person),
                "clip_id": clip,
                "frame": frame,
                "person_id": person,
                **{name: row[name] for name in ("x1", "y1", "x2", "y2")},
                "scores": scores.tolist(),
                "score_kind": "logit",
                "label_space": "microg50",
                "model": model,
                "status": "ok",
                "error": "",
            }
        )
    run = Run.start(str(root), "har predict", Settings(model=model), dataset=dataset.fingerprint())
    run.write_table("har_predictions", schema.from_rows("har_predictions", rows))
    throughput = {"unit": "key frames", "rows": 4, "wall_s": 2.0, "rows_per_s": 2.0, "bottleneck": "decode"}
    run.finish({"model": model, "key_frames": 4, "samples": len(rows), "failed": 0, "throughput": throughput})
    return root


def said_file(path: Path, dataset: Dataset, right: float, seed: int) -> Path:
    """Write what a model says of every clip: the truth with probability `right`, something hostile otherwise."""
    draw = np.random.default_rng(seed)

    def say(text: str) -> str:
        return text if draw.random() < right else f"Something drifts {EVIL}"

    answers: dict[str, list[dict[str, str]]] = {}
    for row in dataset.table("qa").to_pylist():
        answers.setdefault(row["clip_id"], []).append({"Q": row["question"], "A": say(row["answer"])})
    captions = dataset.table("captions").to_pylist()
    entries = [
        {"video_id": row["clip_id"], "caption": say(row["caption"]), "qa_pairs": answers[row["clip_id"]]}
        for row in captions
    ]
    path.write_text(json.dumps(entries))
    return path


def generate_run(root: Path, dataset: Dataset, right: float, seed: int, model: str = "tiny-vlm") -> Path:
    """Write the run folder of a vision-language model that says what `said_file` does; one answer failed."""
    said = json.loads(said_file(root.parent / f"{root.name}.json", dataset, right, seed).read_text())
    common = {
        "prompt_hash": "0" * 8,
        "frame_indices": [0, 4, 8],
        "model": model,
        "engine": "vllm",
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "latency_s": 0.5,
        "cost": 0.001,
        "status": "ok",
        "error": "",
    }
    rows: list[dict[str, Any]] = []
    for entry in said:
        clip = {"clip_id": entry["video_id"], **common}
        rows.append({**clip, "task": "caption", "prompt_id": "caption-v1", "text": entry["caption"]})
        rows += [
            {**clip, "task": "vqa", "qa_index": index, "question": pair["Q"], "prompt_id": "vqa-v1", "text": pair["A"]}
            for index, pair in enumerate(entry["qa_pairs"])
        ]
    rows[-1].update(status="error", text=None, error=f"TimeoutError: {EVIL}")
    run = Run.start(str(root), "vlm generate", Settings(model=model), dataset=dataset.fingerprint())
    run.write_table("generations", schema.from_rows("generations", rows))
    run.finish(
        {
            "model": model,
            "dataset": dataset.root,
            "clips": len(said),
            "rows": len(rows),
            "failed": 1,
            "errors": [{"row": f"{rows[-1]['clip_id']}:vqa:5", "error": rows[-1]["error"]}],
            "throughput": {"unit": "rows", "rows": len(rows), "wall_s": 7.0, "rows_per_s": 4.0, "bottleneck": "engine"},
        }
    )
    return root


def score(*arguments: str) -> None:
    """Run a scoring command and assert that it went well."""
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)


def har_score(predictions: Path, dataset: Dataset, run: Path, *more: str) -> Path:
    """Score action predictions without plots."""
    score(
        "har",
        "score",
        "--predictions",
        str(predictions),
        "--groundtruth",
        dataset.root,
        "--run",
        str(run),
        "--no-plots",
        "--resamples",
        "20",
        *more,
    )
    return run


def vlm_score(predictions: Path, dataset: Dataset, run: Path, *more: str) -> Path:
    """Score a file or a run by the metrics that need neither Java nor an encoder, without plots."""
    score(
        "vlm",
        "score",
        "--run" if predictions.is_dir() else "--predictions",
        str(predictions),
        "--references",
        dataset.root,
        "--out",
        str(run),
        "--no-plots",
        "--resamples",
        "20",
        "--metrics",
        "cider,bleu,rouge_l",
        "--protocol",
        "paper",
        "--missing",
        "zero",
        *more,
    )
    return run


def train_run(root: Path, epochs: int = 4, row: str | None = None) -> Path:
    """Write the run folder of a training, validated every other epoch."""
    rows = [
        {
            "epoch": epoch,
            "steps": 5 * epoch,
            "lr": 0.1 / epoch,
            "loss": 1.0 / epoch,
            "clips": 20,
            "boxes": 30,
            "failed": 0,
            "train_s": 2.0,
            "wait_s": 0.5,
            "clips_per_s": 10.0,
            **(
                {
                    "val_s": 1.0,
                    "val_loss": 0.5,
                    "val_map_paper": 0.05 * epoch,
                    "val_map_corrected": 0.1 * epoch,
                    "best": True,
                }
                if epoch % 2 == 0
                else {"best": False}
            ),
        }
        for epoch in range(1, epochs + 1)
    ]
    run = Run.start(str(root), "har train", Settings(row=row))
    run.write_table("har_train", schema.from_rows("har_train", rows))
    best = {"epoch": epochs, "map": 0.1 * epochs}
    run.finish({"model": "TINY", "epochs": epochs, "best": best, "history": rows, "failures": []})
    return root


def tuning_run(root: Path, epochs: int = 2) -> Path:
    """Write the run folder of a tuning of a language model, with a clip that could not be used."""
    rows = [
        {
            "epoch": epoch,
            "steps": 3 * epoch,
            "lr": 1e-4,
            "loss": 3.0 / epoch,
            "clips": 6,
            "tokens": 600,
            "failed": 1,
            "train_s": 2.0,
            "wait_s": 0.5,
            "clips_per_s": 3.0,
            "val_loss": 3.5 / epoch,
            "val_clips": 2,
            "val_answers": 14,
            "val_s": 1.0,
            "best": True,
            "val_rouge_l": 0.2 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    run = Run.start(str(root), "vlm train", Settings())
    run.write_table("vlm_train", schema.from_rows("vlm_train", rows))
    best = {"epoch": epochs, "select": "loss", "value": 3.5 / epochs}
    failures = ["tourB_000: VideoError: it is damaged"]
    run.finish(
        {"model": "tiny", "method": "lora", "epochs": epochs, "best": best, "history": rows, "failures": failures}
    )
    return root


def sweep_run(root: Path, more_settings: str = "{}") -> Path:
    """Write the run folder of a sweep of three trials, one of which failed; the settings hold those in JSON, too."""
    rows = [
        {
            "trial_id": f"000{number}_tiny",
            "recipe": "tiny",
            "settings": json.dumps({"lr": 10.0**-number, **json.loads(more_settings)}),
            "status": "done" if number < 2 else "error",
            "epochs": 4,
            "epochs_done": 4,
            "metric": "val_map_corrected",
            "best": None if number == 2 else 0.4 - 0.1 * number,
            "best_epoch": 4,
            "train_s": 60.0,
            "run": f"trials/000{number}_tiny",
            "error": "" if number < 2 else EVIL,
        }
        for number in range(3)
    ]
    run = Run.start(str(root), "har sweep", Settings())
    run.write_table("har_sweep", schema.from_rows("har_sweep", rows))
    run.finish({"metric": "val_map_corrected", "trials": rows})
    return root


def transfer_run(root: Path, dataset: Dataset, jhmdb: Path) -> Path:
    """Write the run folder of an AVA model's transfer from a small JHMDB, made at `jhmdb`, to a dataset."""
    labels = {"jhmdb": jhmdb_crosswalk().labels, "microg": {action_id: action_id for action_id in MICROG_50.ids}}
    spaces = {"jhmdb": JHMDB_21_SPACE, "microg": MICROG_50}
    folders = {"jhmdb": jhmdb_dataset(jhmdb, ("stand", "golf", "walk")).root, "microg": dataset.root}
    truths = {name: read_truth(folders[name], space) for name, space in spaces.items()}
    sets = {
        name: TestSet(
            said=ava_predictions(truth, labels[name], 0), truth=truth, space=spaces[name], labels=labels[name]
        )
        for name, truth in truths.items()
    }
    found = contrast(sets, resamples=20)
    run = Run.start(str(root), "har transfer", Settings())
    run.write_table("har_transfer", classes_table(found))
    errors = [{"set": "jhmdb", "sample_id": "a_000:3:1", "error": EVIL}]
    document = contrast_document(found, jhmdb_crosswalk())
    run.finish({"model": "TINY", "row": None, **document, "failed": 1, "errors": errors, "notes": []})
    return root
