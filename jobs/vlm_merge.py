"""`microg vlm merge`: add what a run learnt to the weights of its model.

Also `python jobs/vlm_merge.py RUN`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, main

EPILOG = """
**Examples**

`microg vlm merge runs/tuned`

`microg vlm merge runs/tuned --out weights/qwen-in-microgravity`

`microg vlm generate --model runs/tuned/model --dataset data/microg4m --split test --scheme source --run runs/answers`
"""


@command("vlm merge", epilog=EPILOG)
def vlm_merge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder of 'microg vlm train', method lora or qlora.")],
    out: Annotated[str | None, typer.Option(help="Folder to make. [default: RUN/model]")] = None,
    device: Annotated[str, typer.Option(help="Where the model is loaded: cpu, or cuda where it fits.")] = "cpu",
    as_json: common.JsonOption = False,
) -> None:
    """Merge adapters into their model: a checkpoint folder that every engine and server loads.

    Says which weights changed and how far the merged model's logits are from those of the model with adapters. A model
    card is written beside it. `microg vlm generate --adapter RUN` does this by itself.
    """
    from microg.jobs.commands.vlm_merge import show
    from microg.pipelines.vlm.train.merge import merge_run

    finish(merge_run(run, out, device), show, as_json=as_json)


if __name__ == "__main__":
    main("Merge what a model learnt into its weights.")
