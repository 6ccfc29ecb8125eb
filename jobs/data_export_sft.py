"""`microg data export-sft`: a dataset for other people's trainers of language models, with exactly our frames.

Also `python jobs/data_export_sft.py DATASET OUT`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, names_in, setting, show_plan

EPILOG = """
**Examples**

`microg data export-sft data/microg4m sft/ --frames uniform:8`

`microg data export-sft data/microg4m sft/ --style llama-factory --scheme source --task vqa`

`microg data export-sft data/microg4m sft/ --style datasets`, then `datasets.load_dataset("parquet", data_files=...)`

Each clip's frames are PNG files under OUT/frames, once for all its questions; OUT/frames.parquet has their indices and
the hash that a row of `microg vlm generate` with these frames has. Killed at any time, the same command goes on.
"""


@command("data export-sft", settings="microg.jobs.commands.data_export_sft:ExportSftConfig", epilog=EPILOG)
def export_sft(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with captions or questions.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write; on this machine.")],
    style: Annotated[str | None, setting("style")] = None,
    frames: Annotated[str | None, setting("frames", note="Forms: uniform:8, fps:2, key:5:6, dense, ...")] = None,
    task: Annotated[str | None, setting("tasks", "--task", note="Names are separated by commas.")] = None,
    scheme: common.SchemeOption = None,
    limit: common.LimitOption = None,
    decoder: Annotated[str | None, setting("decoder")] = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Write captions and answers with frames for ms-swift, LLaMA-Factory or the library datasets.

    One file a split: a user's turn with the frames and the prompt of `microg vlm generate`, and the true answer.
    """
    from microg.config import load_config
    from microg.jobs.commands.data_export_sft import ExportSftConfig, export, plan, show
    from microg.models.vlm.sampling import parse_policy

    options = given(context)
    if "tasks" in options:
        options["tasks"] = names_in(options["tasks"])
    if "frames" in options:
        options["frames"] = parse_policy(options["frames"]).model_dump()
    settings = load_config(ExportSftConfig, None, [*(overrides or []), options])
    if dry_run:
        show_plan(plan(settings, dataset, out), as_json, "nothing was written")
        return
    report = export(settings, dataset, out)
    finish(report, show, as_json=as_json, failed=report["failed"])


if __name__ == "__main__":
    main("Write a dataset for other trainers of language models.")
