"""`microg vlm train`: fine-tune a vision-language model on a dataset's captions and answers, on Ray Train.

Also `python jobs/vlm_train.py DATASET --model M --run R`, and the same behind `ray job submit`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, names_in, setting, show_plan

EPILOG = """
**Examples**

`microg vlm train data/microg4m --model qwen2.5-vl-7b --run runs/tuned`

`microg vlm train data/microg4m --model weights/Qwen3-VL-8B --method qlora --run runs/four-bits --address auto`

`microg vlm train data/mine --model smolvlm2-2.2b --method full --num-workers 4 --set sharding=fsdp --run runs/full`

`microg vlm generate --adapter runs/tuned --dataset data/microg4m --split test --scheme source --run runs/tuned-answers`

More settings: `--set adapter.rank=64`, `adapter.vision=true`, `schedule.lr=0.0002`, `batch=16`, `questions=4` (of a
clip in one step), `validation.select=cider`, `validation.generate=200`, `'frames={kind: uniform, count: 16}'`.

A model of a million parameters, from nothing, on two cores: `microg vlm train-tiny`.
"""


@command("vlm train", settings="microg.pipelines.vlm.train.settings:TuneSettings", epilog=EPILOG)
def vlm_train(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder with captions or questions, and splits.")
    ],
    model: Annotated[str | None, setting("model")] = None,
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume.")] = "runs/vlm-tuned",
    method: Annotated[str | None, setting("method")] = None,
    task: Annotated[str | None, setting("tasks", "--task", note="Names are separated by commas.")] = None,
    epochs: Annotated[int | None, setting("epochs")] = None,
    batch: Annotated[int | None, setting("batch")] = None,
    num_workers: Annotated[int | None, setting("resources.workers", "--num-workers")] = None,
    frames: Annotated[str | None, setting("frames", note="Forms: uniform:8, fps:2, key:5:6, dense, ...")] = None,
    scheme: common.SchemeOption = None,
    limit: common.LimitOption = None,
    decoder: Annotated[str | None, setting("decoder")] = None,
    device: Annotated[str | None, setting("resources.device", "--device")] = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    address: Annotated[str | None, setting("resources.address", "--address")] = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Tune a model on the train split: the frames, prompts and tokens of generation, the loss on the answers alone.

    All questions of a clip share its frames in one pass. The epoch with the lowest loss on the val split is kept, or
    with the best score of answers that are generated there. Killed at any time, the same command goes on from the last
    checkpoint; Ctrl-C saves after the step under way. RUN/adapter is in peft's layout; with method full RUN/model is a
    checkpoint folder.
    """
    from microg.config import load_config, recipe_section
    from microg.jobs.commands.training_display import TrainingDisplay, terminated_like_interrupted
    from microg.jobs.commands.vlm_train import plan, show
    from microg.models.vlm.sampling import parse_policy
    from microg.pipelines.vlm.train.run import tune
    from microg.pipelines.vlm.train.settings import TuneSettings

    options = given(context)
    if "tasks" in options:
        options["tasks"] = names_in(options["tasks"])
    if "frames" in options:
        options["frames"] = parse_policy(options["frames"]).model_dump()
    settings = load_config(TuneSettings, None, [*(overrides or []), options], **recipe_section(config, "vlm_train"))
    if dry_run:
        show_plan(plan(settings, dataset, run_folder), as_json, "nothing was trained")
        return
    shown = TrainingDisplay("vlm train", settings.epochs, lambda best: f"{best['select']} {best['value']:.4f}")
    with terminated_like_interrupted(), shown as display:
        result = tune(settings, dataset, run_folder, display.update)
    finish(result, show, as_json=as_json, failed=result["failures"])


if __name__ == "__main__":
    main("Fine-tune a vision-language model.")
