"""The `microg` command: mounts one Typer application per job.

Modules named here import nothing heavy at import time, so that `microg --help` answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

# Under `uv run`, Ray's hook would upload the working directory and rebuild the environment in each worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import microg
from microg.jobs import (
    curate,
    data_convert,
    data_download,
    data_make_qa,
    data_page,
    data_split,
    data_stats,
    data_synth,
    data_validate,
    demo,
    doctor,
    har_forward,
    har_predict,
    har_score,
    har_sweep,
    har_train,
    report,
    vlm_eval,
    vlm_models,
    vlm_score,
    vlm_train,
)
from microg.jobs.common import COMMANDS, make_app, mount, run

app = make_app("MicroG-Bench: from raw video to leaderboard for people in microgravity.")
groups = {
    "": app,
    "data": make_app("Get, make, check, convert and describe datasets."),
    "har": make_app("Recognise human actions: train and run models, predict and score."),
    "vlm": make_app("Ask vision-language models about clips, and score what they say."),
}
for name in ("data", "har", "vlm"):
    app.add_typer(groups[name], name=name)
for function in (
    curate.curate,
    demo.demo,
    doctor.doctor,
    report.report,
    data_download.download,
    data_validate.validate,
    data_stats.stats,
    data_page.page,
    data_convert.import_dataset,
    data_convert.export_dataset,
    data_make_qa.make_qa,
    data_split.split,
    data_synth.synth,
    data_synth.annotate_synthetic,
    har_forward.forward,
    har_predict.har_predict,
    har_train.har_train,
    har_score.har_score,
    har_sweep.har_sweep,
    vlm_eval.vlm_generate,
    vlm_models.models,
    vlm_models.prompts,
    vlm_train.vlm_train,
    vlm_score.vlm_score,
):  # in the order of the help
    mount(groups[COMMANDS[function].words.rpartition(" ")[0]], function)


def _print_version(value: bool) -> None:
    if value:
        print(f"microg {microg.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")] = False,
) -> None:
    """Global options."""


def main() -> None:
    """Entry point of the `microg` script."""
    run(app)


if __name__ == "__main__":
    main()
