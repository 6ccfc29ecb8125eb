"""`microg har train`: fine-tune an action model on a dataset, on one laptop or many GPUs.

Also `python jobs/har_train.py DATASET --recipe recipes/har/tiny.yaml`, and the same behind `ray job submit`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting, show_plan

if TYPE_CHECKING:
    from microg.pipelines.har.train.checks import TrainingSetup
    from microg.pipelines.har.train.settings import TrainConfig

EPILOG = """
**Examples**

`microg har train data/synthetic --recipe tiny --run runs/tiny`

`microg har train data/microg4m --recipe recipes/har/i3d_nln_8x8_r50.yaml --variant intended --num-workers 4`

`microg har train data/mine --recipe recipes/har/x3d_s.yaml --weights X3D_S.pyth --set epochs=10 --set batch=8
--set micro_batch=8`
"""


@command("har train", settings="microg.pipelines.har.train.settings:TrainConfig", epilog=EPILOG)
def har_train(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with samples and splits.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "--config", help="Recipe, a file or a name in recipes/har: the model and its schedule."
        ),
    ] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to make or to resume. [default: runs/RECIPE-VARIANT]")
    ] = None,
    variant: Annotated[str | None, setting("variant")] = None,
    weights: Annotated[
        str | None,
        setting("weights.file", "--weights", metavar="FILE", note="'none' takes none, whatever the recipe says."),
    ] = None,
    weights_key: Annotated[str | None, setting("weights.key", "--weights-key", metavar="KEY")] = None,
    allow_missing: Annotated[
        list[str] | None, setting("weights.allow_missing", "--allow-missing", metavar="PATTERN")
    ] = None,
    num_workers: Annotated[int | None, setting("resources.workers", "--num-workers")] = None,
    device: Annotated[str | None, setting("resources.device", "--device")] = None,
    decoder: Annotated[str | None, setting("decoder")] = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    address: common.AddressOption = None,
    limit: common.LimitOption = None,
    dry_run: common.DryRunOption = False,
    profile: common.ProfileOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train a model, score the val split as it learns, and keep the best weights.

    Killed at any time, or stopped by Ctrl-C, the same command goes on from the last checkpoint; a finished run says so
    and returns. The run folder gets `checkpoints/best.pt` for `microg har predict --weights RUN`, one row an epoch in
    `tables/har_train.parquet`, and TensorBoard logs. `--limit` takes the first N key frames of each split.
    """
    from microg.jobs.commands.har_train import load_har_train_config, show
    from microg.jobs.commands.training_display import TrainingDisplay, terminated_like_interrupted
    from microg.pipelines.har.train.checks import check_and_plan
    from microg.pipelines.har.train.run import train

    options = given(context) | ({"weights": {}} if weights == "none" else {})
    settings = load_har_train_config(recipe, overrides or (), variant=variant, options=options)
    folder = run_folder or default_folder(recipe, settings)
    if dry_run:
        plan = _plan(check_and_plan(settings, dataset, folder, fetch=False))
        show_plan(plan, as_json, "nothing was trained")
        return
    shown = TrainingDisplay("har train", settings.epochs, lambda best: f"mAP {best['map']:.3f}")
    with terminated_like_interrupted(), shown as display:
        result = train(settings, dataset, folder, watch=display.update)
    finish(result, show, as_json=as_json, failed=result["failures"], profile=result["run"] if profile else None)


def default_folder(recipe: str | None, settings: TrainConfig) -> str:
    """Return `runs/RECIPE-VARIANT`."""
    name = PurePosixPath(recipe).stem if recipe else settings.model.name.lower()
    return f"runs/{name}" + (f"-{settings.variant}" if settings.variant else "")


def _plan(setup: TrainingSetup) -> dict[str, Any]:
    from microg.models.har.backbones.registry import backbone
    from microg.system import zoo

    config, plan, spec = setup.config, setup.context.plan, backbone(setup.config.model.name)
    document: dict[str, Any] = {
        "run": setup.context.root,
        "model": spec.name,
        "variant": config.variant,
        "params": spec.params,
        "frames": f"{spec.frames} x {spec.sampling_rate}",
        "roi_scale": config.model.roi_scale,
        "weights": setup.context.weights or config.weights.file,
        "scheme": config.scheme,
        "key_frames": {"train": plan.train, "val": plan.val},
        "epochs": config.epochs,
        "steps_per_epoch": plan.iterations,
        "batch": f"{config.batch} = {config.micro} x {plan.micro_batches} micro-batches x {plan.workers} workers",
        "validations": sum(plan.validates(epoch) for epoch in range(plan.epochs)),
        "decoded_clips": plan.units * plan.block,
        "resources": config.resources.model_dump(),
    }
    if setup.context.weights is None and config.weights.file is not None:
        document["fetched_first"] = zoo.missing(config.weights.file)
    if setup.context.weights is not None:
        document["load_report"] = setup.load_report()
    return document


if __name__ == "__main__":
    main("Train an action recognition model.")
