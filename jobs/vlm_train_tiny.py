"""`microg vlm train-tiny`: train one tiny Qwen2.5-VL from nothing on a dataset's captions and questions.

Also `python jobs/vlm_train_tiny.py DATASET --run R`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting, show_plan

EPILOG = """
**Examples**

`microg vlm train-tiny data/lessons --run runs/tiny-vlm`

`microg vlm train-tiny data/lessons --run runs/longer --epochs 20 --set vision_epochs=40`

`microg vlm generate --model runs/tiny-vlm/model --engine transformers --dataset data/lessons --split test --run
runs/answers` asks the trained model

More settings: `--set size.hidden=256`, `size.side=168` (pixels of a frame), `'frames={kind: uniform, count: 8}'`,
`schedule.lr=0.001`, `batch=16`, `cells=0` (learn from texts alone), `optimizer.muon=0` (AdamW alone),
`device=cuda`, `threads=1`.
"""


@command("vlm train-tiny", settings="microg.demo.tiny_vlm.settings:VlmTrainSettings", epilog=EPILOG)
def vlm_train_tiny(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset folder with captions or questions, and splits.")
    ],
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume.")] = "runs/tiny-vlm",
    epochs: Annotated[int | None, setting("epochs")] = None,
    scheme: common.SchemeOption = None,
    limit: common.LimitOption = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    device: common.DeviceOption = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Train a tiny Qwen2.5-VL on the train split, so that `microg vlm generate` has a model that runs anywhere.

    A million parameters, a few minutes of two cores for a thousand clips. The picture encoder first learns alone,
    from people's boxes and actions where they are known and from the words said of a clip. Killed at any time, the
    same command goes on from the last checkpoint; a finished run says so and returns. RUN/model is a checkpoint folder
    in the Hugging Face layout, which vLLM and transformers load; it also tells with which frames it is to be asked.
    """
    from microg.config import load_config, merged, recipe_section
    from microg.demo.tiny_vlm.settings import VlmTrainSettings
    from microg.jobs.commands.vlm_train_tiny import TrainingDisplay, plan, show

    # on top of the defaults written out, so that one key of a section can be given
    values = merged(VlmTrainSettings().model_dump(mode="json"), recipe_section(config, "vlm_train"))
    settings = load_config(VlmTrainSettings, None, [*(overrides or []), given(context)], **values)
    if dry_run:
        show_plan(plan(settings, dataset, run_folder), as_json, "nothing was trained")
        return
    from microg.demo.tiny_vlm.train import train

    with TrainingDisplay() as display:
        result = train(settings, dataset, run_folder, display.update)
    finish(result, show, as_json=as_json, failed=result["failures"])


if __name__ == "__main__":
    main("Train a tiny vision-language model.")
