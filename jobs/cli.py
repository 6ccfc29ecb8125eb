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
from microg.jobs.common import make_app, mount, run

app = make_app("MicroG-Bench: from raw video to leaderboard for people in microgravity.")
data_app = make_app("Get, make, check, convert and describe datasets.")
app.add_typer(data_app, name="data")
har_app = make_app("Recognise human actions: train and run models, predict and score.")
app.add_typer(har_app, name="har")
vlm_app = make_app("Ask vision-language models about clips, and score what they say.")
app.add_typer(vlm_app, name="vlm")
mount(app, curate.curate)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("report", epilog=report.EPILOG)(report.report)
data_app.command("download")(data_download.download)
data_app.command("validate", epilog=data_validate.EPILOG)(data_validate.validate)
data_app.command("stats", epilog=data_stats.EPILOG)(data_stats.stats)
data_app.command("page", epilog=data_page.EPILOG)(data_page.page)
data_app.command("import")(data_convert.import_dataset)
data_app.command("export")(data_convert.export_dataset)
data_app.command("make-qa", epilog=data_make_qa.EPILOG)(data_make_qa.make_qa)
data_app.command("split")(data_split.split)
data_app.command("synth", epilog=data_synth.SYNTH_EPILOG)(data_synth.synth)
data_app.command("annotate-synthetic", epilog=data_synth.ANNOTATE_EPILOG)(data_synth.annotate_synthetic)
har_app.command("forward", epilog=har_forward.EPILOG)(har_forward.forward)
har_app.command("predict", epilog=har_predict.EPILOG)(har_predict.har_predict)
har_app.command("train", epilog=har_train.EPILOG)(har_train.har_train)
har_app.command("score", epilog=har_score.EPILOG)(har_score.har_score)
har_app.command("sweep", epilog=har_sweep.EPILOG)(har_sweep.har_sweep)
vlm_app.command("generate", epilog=vlm_eval.EPILOG)(vlm_eval.vlm_generate)
vlm_app.command("models", epilog=vlm_models.EPILOG)(vlm_models.models)
vlm_app.command("prompts", epilog=vlm_models.PROMPTS_EPILOG)(vlm_models.prompts)
vlm_app.command("train", epilog=vlm_train.EPILOG)(vlm_train.vlm_train)
vlm_app.command("score", epilog=vlm_score.EPILOG)(vlm_score.vlm_score)


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
