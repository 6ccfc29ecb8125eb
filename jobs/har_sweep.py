"""`microg har sweep`: backbones and hyperparameters searched by Ray Tune, weak trials stopped early.

Also `python jobs/har_sweep.py DATASET --recipe tiny ...`, and the same behind `ray job submit`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.console import say, say_aside
from microg.jobs import common
from microg.jobs.common import command, finish, given, main, print_json, setting

if TYPE_CHECKING:
    from microg.jobs.commands.har_sweep.settings import SweepSettings
    from microg.pipelines.core.telemetry import Telemetry
    from microg.pipelines.har.sweep import Trial

_SWEEP = "microg.jobs.commands.har_sweep.settings:SweepSettings"
EPILOG = """
**Examples**

`microg har sweep data/mine --recipe tiny x3d_s slowfast_8x8_r50 --space "lr=loguniform(1e-4,1e-1)" --num-samples 8`

`microg har sweep data/mine --recipe tiny --space "lr=grid(0.01,0.1)" --space "batch=choice(8,16)" --scheduler fifo`

`microg har sweep --resume --run runs/sweep`

A domain is `uniform(a,b)`, `loguniform(a,b)`, `randint(a,b)`, `choice(a,b,...)` (one drawn a sample) or `grid(a,b,...)`
(each in turn). Its key is one of `--set`, short where that is unique.
"""


@command("har sweep", settings="microg.pipelines.har.train.settings:TrainConfig", epilog=EPILOG)
def har_sweep(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET [RECIPE]...", help="Dataset folder (or --dataset), and more recipes.", show_default=False
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset folder with samples and splits.")] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", "--config", help="Recipes: files, or names in recipes/har.")
    ] = None,
    space: Annotated[
        list[str] | None, typer.Option("--space", metavar="KEY=DOMAIN", help="Search one setting; may be repeated.")
    ] = None,
    num_samples: Annotated[int | None, setting("num_samples", "--num-samples", of=_SWEEP)] = None,
    scheduler: Annotated[str | None, setting("scheduler", of=_SWEEP)] = None,
    grace_epochs: Annotated[int | None, setting("grace_epochs", "--grace-epochs", of=_SWEEP)] = None,
    reduction_factor: Annotated[float | None, setting("reduction_factor", "--reduction-factor", of=_SWEEP)] = None,
    seed: Annotated[int | None, setting("seed", of=_SWEEP)] = None,
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume.")] = "runs/har_sweep",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --run; recipes and space are those it recorded.")
    ] = False,
    variant: Annotated[str | None, setting("variant")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option("--max-concurrent", min=1, help="Trials at once. [default: as many as fit]")
    ] = None,
    device: Annotated[str | None, setting("resources.device", "--device")] = None,
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
    """Train every recipe at every setting drawn, and rank the trials by their best score on val.

    Each trial is an ordinary run of `microg har train` in `RUN/trials/`, with its weights. Killed at any time, the same
    command, or `--resume --run RUN`, leaves finished trials alone and goes on with the others from their checkpoints.
    """
    from microg.jobs.commands.har_sweep.run import sweep, sweep_trials
    from microg.pipelines.core.telemetry import Telemetry

    words = list(words or [])
    if dataset is None and words:
        dataset = words.pop(0)
    settings = _settings(
        dataset,
        [*(recipe or []), *words],
        space or [],
        overrides or [],
        run_folder,
        {key: value for key, value in given(context).items() if key not in ("resources.address", "resources.device")},
        resume=resume,
    )
    trials = sweep_trials(settings)
    if dry_run:
        _plan(trials, run_folder, as_json)
        return
    with Telemetry("har sweep", sum(trial.epochs for trial in trials), unit="epochs", stages=()) as bar:
        display = _Display(bar, settings.metric, len(trials))
        document = sweep(
            settings,
            run_folder,
            display.epoch,
            display.end,
            max_concurrent=max_concurrent,
            address=address,
            device=device,
        )
    failed = any(row["status"] == "error" for row in document["trials"])
    finish(document, _show, as_json=as_json, failed=failed, profile=document["run"] if profile else None)


def _settings(
    dataset: str | None,
    recipes: list[str],
    space: list[str],
    overrides: list[str],
    folder: str,
    options: dict[str, Any],
    *,
    resume: bool,
) -> SweepSettings:
    """Return the settings: as given, or with `--resume` alone as the run folder recorded them."""
    from microg import storage
    from microg.errors import ConfigError
    from microg.jobs.commands.har_sweep.run import COMMAND
    from microg.jobs.commands.har_sweep.settings import SweepSettings, load_sweep_settings

    path = storage.join(folder, "run.json")
    found = storage.read_json(path) if storage.exists(path) else None
    recorded = found if isinstance(found, dict) and found.get("command") == COMMAND else None
    if resume and recorded is None:
        raise ConfigError(f"{folder} holds no sweep to resume", "give its folder with --run")
    if recorded is None or not resume or recipes:
        if dataset is None:
            raise ConfigError("a sweep needs a dataset", "microg har sweep DATASET --recipe ... --space ...")
        return load_sweep_settings(dataset, recipes, space, overrides, **options)
    if space or overrides or options.keys() - {"num_samples"}:
        raise ConfigError(
            "--resume without recipes takes all settings from the run folder",
            "repeat the whole command, or leave all but --run and --num-samples out",
        )
    settings = SweepSettings.model_validate(recorded["full_config"])
    return settings.replaced(**options, **({} if dataset is None else {"dataset": storage.absolute(dataset)}))


class _Display:
    """Epochs done of all that are planned, and one line for each trial that ends."""

    def __init__(self, bar: Telemetry, metric: str, trials: int) -> None:
        self._bar, self._metric, self._trials = bar, metric, trials
        self._ended = 0
        self._best: float | None = None

    def epoch(self, trial: Trial, result: dict[str, Any]) -> None:
        """Hear of an epoch."""
        score = result.get(self._metric)
        if score is not None:
            self._best = score if self._best is None else max(score, self._best)
        self._bar.row({}, note=self._note())

    def end(self, trial: Trial, status: str, error: str | None) -> None:
        """Hear of a trial's end."""
        self._ended += 1
        say_aside(f"{trial.trial_id} {status}{': ' + error if error else ''}")
        self._bar.row({}, 0, 1 if error else 0, note=self._note())

    def _note(self) -> str:
        best = f", best {self._best:.3f}" if self._best is not None else ""
        return f"{self._ended}/{self._trials} trials{best}"


def _plan(trials: list[Trial], folder: str, as_json: bool) -> None:
    rows = [{"trial_id": t.trial_id, "epochs": t.epochs, "settings": dict(t.settings)} for t in trials]
    if as_json:
        print_json({"run": folder, "trials": rows})
        return
    for row in rows:
        say(f"{row['trial_id']}: {row['epochs']} epochs, {json.dumps(row['settings'])}")
    say(f"{len(rows)} trials, {sum(t.epochs for t in trials)} epochs at most; nothing was trained (--dry-run)")


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    from microg.screen import Screen

    table = Table(title=f"trials by {document['metric']}")
    for column in ("#", "trial", "settings", "status"):
        table.add_column(column)
    for column in ("epochs", "best epoch", "best"):
        table.add_column(column, justify="right")
    for place, row in enumerate(document["trials"], 1):
        values = ", ".join(f"{key}={value}" for key, value in json.loads(row["settings"]).items())
        best = "" if row.get("best") is None else f"{row['best']:.4f}"
        done = f"{row.get('epochs_done', 0)}/{row['epochs']}"
        table.add_row(str(place), row["trial_id"], values, row["status"], done, str(row.get("best_epoch") or ""), best)
    Screen().print(table)
    for row in document["trials"]:
        if row["error"]:
            say(f"failed: {row['trial_id']}: {row['error']}")
    best = document["trials"][0]
    if best.get("best") is not None:
        say(f"best weights: {document['run']}/{best['run']}/checkpoints/best.pt")
    for path in document["files"]:
        say(path)


if __name__ == "__main__":
    main("Sweep over action recognition models and their settings.")
