"""`microg har transfer`: what an AVA model loses from people on Earth to people in weightlessness (Table 3)."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting

EPILOG = """
**Examples**

`microg har transfer --jhmdb data/jhmdb --microg data/microg4m --recipe zeroshot_slow_8x8_r50_k400`

`microg har transfer --jhmdb data/jhmdb --microg data/mine --weights ava.pth --model ZEROSHOT_SLOW_8x8_R50_K400`

`microg har transfer --jhmdb data/jhmdb --microg data/microg4m --weights runs/ava-model --run runs/table3 --dry-run`

JHMDB comes from `microg data import jhmdb`. The run folder holds a run of `microg har predict` on each set.
"""


@command("har transfer", settings="microg.jobs.commands.har_transfer.settings:HarTransferConfig", epilog=EPILOG)
def har_transfer(
    context: typer.Context,
    jhmdb: Annotated[str, typer.Option("--jhmdb", metavar="DATASET", help="Dataset that was imported from JHMDB.")],
    microg: Annotated[str, typer.Option("--microg", metavar="DATASET", help="Dataset of MicroG-4M's actions.")],
    weights: Annotated[str | None, setting("predict.weights", "--weights")] = None,
    weights_key: Annotated[str | None, setting("predict.weights_key", "--weights-key", metavar="KEY")] = None,
    model: Annotated[str | None, setting("predict.model", "--model")] = None,
    split: Annotated[str | None, setting("predict.split", "--split")] = None,
    scheme: Annotated[str | None, setting("predict.scheme", "--scheme")] = None,
    roi_scale: Annotated[str | None, setting("predict.roi_scale", "--roi-scale")] = None,
    allow_missing: Annotated[
        list[str] | None, setting("predict.allow_missing", "--allow-missing", metavar="PATTERN")
    ] = None,
    batch_size: Annotated[int | None, setting("predict.batch_size", "--batch-size")] = None,
    device: Annotated[str | None, setting("predict.device", "--device")] = None,
    decoder: Annotated[str | None, setting("predict.decoder", "--decoder")] = None,
    resamples: Annotated[int | None, setting("resamples")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write or resume. [default: runs/har_transfer/MODEL-HASH]")
    ] = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    address: Annotated[str | None, setting("predict.resources.address", "--address")] = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Score a model of AVA's 80 actions on JHMDB and on MicroG-4M, and what it loses between them.

    Both are scored on every class of a declared, versioned map to AVA, and on the classes that AVA, JHMDB and MicroG-4M
    share and both test sets have labels of; MicroG-4M also by the ids as they stand, as the paper does. Killed at any
    time, the same command does what is missing.
    """
    from microg.jobs.commands.har_transfer import run
    from microg.jobs.commands.har_transfer.settings import load_har_transfer_config

    settings = load_har_transfer_config(config, overrides or (), given(context))
    datasets = {run.JHMDB: jhmdb, run.MICROG: microg}
    report = run.transfer(datasets, settings, run_folder, dry_run=dry_run)
    finish(report, run.show, as_json=as_json, failed=not dry_run and report["failed"])


if __name__ == "__main__":
    main("Score an AVA model on Earth and in weightlessness.")
