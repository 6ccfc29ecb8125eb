"""`microg vlm convert`: rewrite a checkpoint in its authors' layout into one that an engine loads.

Also `python jobs/vlm_convert.py FOLDER OUT`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, main

EPILOG = """
**Examples**

`microg vlm convert weights/Tarsier2-Recap-7b weights/tarsier2`

`microg vlm convert weights/LLaVA-Video-7B-Qwen2 weights/llava-video`

`microg vlm convert weights/LLaVA-7B-Lightening-v1-1 weights/video-chatgpt --part vision=weights/clip-vit-large-patch14
--part projector=weights/video_chatgpt-7B.bin`

`microg vlm generate --recipe recipes/vlm/tarsier2-recap-7b.yaml --model weights/tarsier2 --dataset data/microg4m --run
runs/tarsier2`
"""


@command("vlm convert", epilog=EPILOG)
def vlm_convert(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Checkpoint folder, as its authors published it.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to make, which --model of 'vlm generate' takes.")],
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A further part that the model is made of; repeatable."),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Rewrite a model's files into the layout of transformers, and say what became of every tensor.

    For Tarsier2 (a Qwen2-VL under other names), LLaVA-Video, and Video-ChatGPT, whose three parts become one model. One
    file of weights is in memory at a time; what is killed goes on from there. Nothing is written under OUT before all
    tensors of the new model are found in their shapes, and no code of the folder runs.
    """
    from microg.console import ProgressDisplay
    from microg.jobs.commands.vlm_convert import parts_of, show
    from microg.locks import exclusive_file
    from microg.models.vlm.layouts.convert import as_json as document
    from microg.models.vlm.layouts.convert import convert

    with ExitStack() as stack:

        def watch(files: int) -> Callable[[], None]:
            return stack.enter_context(ProgressDisplay("convert", files, unit="files")).advance

        parts = parts_of(part or [])
        with exclusive_file(out.rstrip("/")):
            report = convert(folder, out, parts, watch)
    finish(document(report), show, as_json=as_json)


if __name__ == "__main__":
    main("Convert a vision-language model.")
