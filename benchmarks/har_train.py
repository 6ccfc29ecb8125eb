"""Speed of HAR training: the bare step, one process that decodes for itself, and `microg har train` on Ray.

    microg data synth data/synthetic --clips 60 --width 320 --height 240 && microg data split data/synthetic
    python benchmarks/har_train.py data/synthetic --model TINY --batch 16

`step` repeats one batch that is there already: no training can be faster. Rates are clips a second over all epochs but
the first; `start` is what comes before the first step, `epoch` what an epoch takes beyond its steps.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.system.hardware import usable_cores


def bench(
    dataset: Annotated[str, typer.Argument(help="Dataset folder with samples and splits.")],
    model: Annotated[list[str] | None, typer.Option(help="Models to measure.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Key frames of a step.")] = 16,
    epochs: Annotated[int, typer.Option(min=2, help="Epochs; the first is not counted.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N key frames of each split.")] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure and print one line a model."""
    from microg.pipelines.har.train.settings import TrainConfig

    results = []
    for name in model or ["TINY"]:
        config = TrainConfig.model_validate(
            {
                "model": {"name": name, "roi_scale": "true"},
                "batch": batch,
                "epochs": epochs,
                "limit": limit,
                "validation": {"every": epochs},
                "tensorboard": False,
                "checkpoint_every_s": 1e9,
                "schedule": {"lr": 0.001, "starts": [0], "relative": [1]},
                "step": {"precision": precision, "channels_last": channels_last},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            results.append({"model": name, "batch": batch, **_measure(config, dataset, folder)})
    if as_json:
        print_json({"cores": usable_cores(), "results": results})
        return
    print("| model | batch | step, clips/s | one process | on Ray | Ray / process | Ray / step | waiting | start, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in results:
        print(
            f"| {row['model']} | {row['batch']} | {row['step']:.2f} | {row['alone']:.2f} | {row['ray']:.2f} | "
            f"{row['ray'] / row['alone']:.2f} | {row['ray'] / row['step']:.2f} | {row['wait_share']:.0%} | "
            f"{row['start_s']:.0f} |"
        )


def _measure(config: Any, dataset: str, folder: str) -> dict[str, Any]:
    import torch

    from microg.pipelines.har.train.checks import check_and_plan
    from microg.pipelines.har.train.run import train
    from microg.pipelines.har.train.single_process import run_local

    torch.set_num_threads(max(1, int(usable_cores())))
    alone = check_and_plan(config, dataset, f"{folder}/alone")
    result = {"step": _step_rate(alone), "alone": _rate(run_local(alone)[1].progress.history)}
    started = time.monotonic()
    trained = train(config, dataset, f"{folder}/ray")
    wall = time.monotonic() - started
    rows = trained["history"]
    busy = sum(row["train_s"] + (row["val_s"] or 0) for row in rows)
    counted = rows[1:]
    waiting = sum(row["wait_s"] for row in counted) / sum(row["train_s"] for row in counted)
    return {**result, "ray": _rate(rows), "wait_share": waiting, "start_s": wall - busy + rows[0]["wait_s"]}


def _rate(rows: list[dict[str, Any]]) -> float:
    return sum(row["clips"] for row in rows[1:]) / sum(row["train_s"] for row in rows[1:])


def _step_rate(setup: Any) -> float:
    import torch

    from microg.models.har.backbones.roi_head import normalise
    from microg.pipelines.core.training.plan import Position
    from microg.pipelines.har.train.single_process import local_work
    from microg.pipelines.har.train.worker import build_model_and_stepper

    model, stepper = build_model_and_stepper(setup.context, torch.device("cpu"), None, distributed=False)
    model.train()
    (batch,) = next(local_work(setup, Position())).batches
    times = []
    for _ in range(4):
        started = time.monotonic()
        stepper.forward_backward(normalise(batch.clips), batch.boxes, batch.labels, batch.keys, share=1.0, last=True)
        stepper.step()
        times.append(time.monotonic() - started)
    return len(batch.keys) / min(times)


if __name__ == "__main__":
    app = make_app("Speed of HAR training.")
    app.command()(bench)
    run(app)
