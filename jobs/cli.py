"""The `microg` command: mounts one Typer application per job.

Modules named here import nothing heavy at import time, so that `microg --help` answers at once.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated

import typer

# Under `uv run`, Ray's hook would upload the working directory and rebuild the environment in each worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import microg
from microg.console import say
from microg.jobs.common import COMMANDS, make_app, mount, run

# In the order of the help.
_DOORS = (
    "curate demo doctor report review data_download data_validate data_stats data_page data_convert data_servers "
    "data_export_sft data_vocabulary data_make_qa data_label_qa data_agreement data_adjudicate data_accept data_split "
    "data_synth har_forward har_predict har_train har_score har_sweep har_transfer vlm_eval vlm_models vlm_convert "
    "vlm_train vlm_merge vlm_train_tiny vlm_score"
)

app = make_app("MicroG-Bench: from raw video to leaderboard for people in microgravity.")
groups = {
    "": app,
    "data": make_app("Get, make, check, convert and describe datasets."),
    "data vocabulary": make_app("Show and change the actions that a dataset's people are labelled with."),
    "har": make_app("Recognise human actions: train and run models, predict and score."),
    "vlm": make_app("Ask vision-language models about clips, and score what they say."),
}
for words in groups:
    if words:
        above, _, name = words.rpartition(" ")
        groups[above].add_typer(groups[words], name=name)
for door in _DOORS.split():
    module = import_module(f"microg.jobs.{door}")
    for function, info in COMMANDS.items():
        if function.__module__ == module.__name__:
            mount(groups[info.words.rpartition(" ")[0]], function)


def _print_version(value: bool) -> None:
    if value:
        say(f"microg {microg.__version__}")
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
