"""`microg har predict`: what an action model answers for the people of a dataset, on Ray."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting

EPILOG = """
**Examples**

`microg har predict data/microg4m --weights runs/tiny`

`microg har predict data/microg4m --model I3D_NLN_8x8_R50 --weights checkpoint_epoch_00040.pyth --run runs/i3d`

`microg har predict data/mine --split all --model X3D_S --weights x3d_s.pyth --roi-scale true --address auto`

`microg har predict data/microg4m --model ZEROSHOT_SLOW_8x8_R50_K400 --weights SLOW_8x8_R50.pkl`

`microg har score --predictions runs/i3d --groundtruth data/microg4m --row I3D_NLN_8x8_R50`
"""


@command("har predict", settings="microg.pipelines.har.predict:PredictSettings", epilog=EPILOG)
def har_predict(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder, or a train-ready AVA folder with frames/.")
    ],
    weights: Annotated[str | None, setting("weights")] = None,
    weights_key: Annotated[str | None, setting("weights_key", "--weights-key", metavar="KEY")] = None,
    model: Annotated[str | None, setting("model")] = None,
    split: common.SplitOption = None,
    scheme: common.SchemeOption = None,
    roi_scale: Annotated[str | None, setting("roi_scale")] = None,
    view: Annotated[str | None, setting("view")] = None,
    allow_missing: Annotated[list[str] | None, setting("allow_missing", metavar="PATTERN")] = None,
    batch_size: Annotated[int | None, setting("batch_size")] = None,
    device: common.DeviceOption = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write or resume. [default: runs/har_predict/MODEL-HASH]")
    ] = None,
    config: common.ConfigOption = None,
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
    """Predict actions for the key boxes of a dataset: one row of logits a (key frame, person).

    Key frames come straight from the videos. Killed at any time, the same command does what is missing; samples that
    failed are tried again. A sample that cannot be decoded or scored is a row with its reason. `microg har score` takes
    the run folder.
    """
    from microg.config import load_config, recipe_section
    from microg.jobs.commands.har_predict import run as har_predict_run
    from microg.pipelines.har.predict import PredictSettings

    recipe = recipe_section(config, "predict", row="model")
    settings = load_config(PredictSettings, None, [*(overrides or []), given(context)], **recipe)
    report = har_predict_run.predict(dataset, settings, run_folder, dry_run=dry_run)
    finish(
        report,
        har_predict_run.show,
        as_json=as_json,
        failed=not dry_run and report["failed"],
        profile=report["run"] if profile and not dry_run else None,
    )


if __name__ == "__main__":
    main("Predict actions.")
