"""`microg har predict`: what an action model answers for the people of a dataset, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import (
    EXIT_FAILED_ROWS,
    AddressOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    SetOption,
    make_app,
    print_json,
    profiled,
    run,
)

if TYPE_CHECKING:
    from microg.pipelines.har.predict import PredictSettings

EPILOG = """
**Examples**

`microg har predict data/microg4m --weights runs/tiny`

`microg har predict data/microg4m --model I3D_NLN_8x8_R50 --weights checkpoint_epoch_00040.pyth --run runs/i3d`

`microg har predict data/mine --split all --model X3D_S --weights x3d_s.pyth --roi-scale true --address auto`

`microg har predict data/microg4m --model ZEROSHOT_SLOW_8x8_R50_K400 --weights SLOW_8x8_R50.pkl`

`microg har score --predictions runs/i3d --groundtruth data/microg4m --row I3D_NLN_8x8_R50`
"""


def har_predict(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder, or a train-ready AVA folder with frames/.")
    ],
    weights: Annotated[
        str | None, typer.Option(help="Weights file of any known format, or the run folder of 'microg har train'.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name as in the published tables, or TINY. [default: as the weights say]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test, or all samples. [default: test]")] = None,
    scheme: Annotated[str | None, typer.Option(help="Split scheme. [default: published]")] = None,
    roi_scale: Annotated[
        str | None,
        typer.Option(help="published (1/16 for every model) or true (by its stride). [default: as trained, published]"),
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="test: the full frame. val: the centre crop. [default: test]")
    ] = None,
    allow_missing: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Tensors that may be missing in the weights.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips a forward pass. [default: 8]")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda; auto: one GPU an actor if Ray has any. [default: auto]")
    ] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write or resume. [default: runs/har_predict/MODEL-HASH]")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", "--recipe", help="Recipe: keys row and predict.")] = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict actions for the key boxes of a dataset: one row of logits a (key frame, person).

    Key frames come straight from the videos. Killed at any time, the same command does what is missing; samples that
    failed are tried again. A sample that cannot be decoded or scored is a row with its reason. `microg har score` takes
    the run folder.
    """
    from microg.jobs.commands.har_predict import run as har_predict_run

    options: dict[str, Any] = {
        "model": model,
        "weights": weights,
        "split": split,
        "scheme": scheme,
        "roi_scale": roi_scale,
        "view": view,
        "allow_missing": allow_missing,
        "batch_size": batch_size,
        "device": device,
        "limit": limit,
    }
    settings = _settings(config, list(overrides or []), options, address)
    report = har_predict_run.predict(dataset, settings, run_folder, dry_run=dry_run)
    if profile and not dry_run:
        report = profiled(report, report["run"])
    if as_json:
        print_json(report)
    else:
        har_predict_run.show(report)
    if not dry_run and report["failed"]:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _settings(
    config: str | None, overrides: list[str], options: dict[str, Any], address: str | None
) -> PredictSettings:
    """Build the settings: the recipe's section `predict` (its `row` names the model), `--set`, given options."""
    from microg.config import load_config, read_recipe, recipe_section
    from microg.pipelines.har.predict import PredictSettings

    values: dict[str, Any] = {}
    if config is not None:
        row = read_recipe(config).get("row")
        values = {**({} if row is None else {"model": row}), **recipe_section(config, "predict")}
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_config(PredictSettings, None, overrides, **values)
    if address is not None:
        given["resources"] = settings.resources.replaced(address=address).model_dump()
    return load_config(PredictSettings, None, (), **{**settings.model_dump(), **given})


if __name__ == "__main__":
    app = make_app("Predict actions.")
    app.command(epilog=EPILOG)(har_predict)
    run(app)
