"""`microg data synth` and `microg data annotate-synthetic`: footage and datasets that need no download."""

from __future__ import annotations

import os
from collections import Counter
from typing import Annotated, Any

import typer

from microg.console import say
from microg.jobs.common import JsonOption, command, finish, main

SYNTH_EPILOG = """
**Examples**

`microg data synth data/synthetic --clips 60`

`microg data synth data/small --clips 200 --width 320 --height 240 --seed 7`

`microg data synth data/lessons --clips 1680 --width 320 --height 240 --fps 4 --upright 0.85 --zoom 1.3
--questions 20` (for `microg vlm train-tiny`)

`microg data synth data/footage --footage --videos 4 --seconds 20`
"""
ANNOTATE_EPILOG = """
**Example**

`microg data synth footage --footage`, then `microg curate footage data/curated`, then
`microg data annotate-synthetic data/curated footage`
"""


@command("data synth", epilog=SYNTH_EPILOG)
def synth(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write to; run again to finish or extend it.")],
    clips: Annotated[int, typer.Option(min=1, help="Clips of 3 s to make.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files, byte for byte.")] = 0,
    width: Annotated[int | None, typer.Option(help="Frame width; default 854, or that of each footage format.")] = None,
    height: Annotated[
        int | None, typer.Option(help="Frame height; default 480, or that of each footage format.")
    ] = None,
    fps: Annotated[
        int | None, typer.Option(min=4, max=60, help="Frames a second; default 30, or that of each footage format.")
    ] = None,
    footage: Annotated[
        bool, typer.Option("--footage", help="Make raw footage with cuts instead of a dataset.")
    ] = False,
    videos: Annotated[int, typer.Option(min=1, help="With --footage: how many files.")] = 4,
    seconds: Annotated[float, typer.Option(min=2.0, help="With --footage: length of each file.")] = 20.0,
    upright: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Share of people near upright; default 0.4, for footage 0.85."),
    ] = None,
    zoom: Annotated[
        float, typer.Option(min=0.5, max=2.0, help="How much larger people are than where all of each fits the frame.")
    ] = 1.0,
    questions: Annotated[
        int, typer.Option(min=6, max=100, help="Questions a clip: the first six are one of each kind; not for footage.")
    ] = 6,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Render weightless people in a spacecraft: videos with exact boxes, actions, captions and six questions a clip.

    People do actions of MicroG-4M: what they are drawn doing is programmed, so that a vocabulary of your own would have
    no movements. Without `--footage` OUT becomes a dataset. With it OUT gets raw video files (several containers,
    codecs, rates and sizes) to curate, and what is true of them in OUT/truth.
    """
    from microg.console import ProgressDisplay
    from microg.demo.synthetic import generate_dataset, generate_footage
    from microg.locks import exclusive

    sizes = {"width": width, "height": height, "fps": fps, "upright": upright}
    options: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    options |= {"seed": seed, "zoom": zoom, "workers": workers or os.cpu_count() or 1}
    with exclusive(out):
        if footage:
            with ProgressDisplay("synthetic footage", videos, unit="files") as display:
                files = generate_footage(out, videos, seconds=seconds, progress=display.advance, **options)
            made = {"files": files.num_rows, "seconds": sum(files["duration_s"].to_pylist())}
            hint = f"next: microg curate {out} DATASET, then microg data annotate-synthetic DATASET {out}"
        else:
            with ProgressDisplay("synthetic clips", clips) as display:
                dataset = generate_dataset(out, clips, questions=questions, progress=display.advance, **options)
            made = {name: dataset.table(name).num_rows for name in ("clips", "boxes", "actions", "captions", "qa")}
            made["action_classes"] = len(Counter(dataset.table("actions")["action_id"].to_pylist()))
            hint = f"next: microg data stats {out}"
    finish({"out": out, **made}, lambda _: say(_sentence(out, made), hint), as_json=as_json)


def _sentence(folder: str, counts: dict[str, Any]) -> str:
    return f"{folder}: " + ", ".join(f"{value:g} {name.replace('_', ' ')}" for name, value in counts.items())


@command("data annotate-synthetic", epilog=ANNOTATE_EPILOG)
def annotate_synthetic(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset curated from synthetic footage.")],
    truth: Annotated[str, typer.Argument(metavar="FOOTAGE", help="The footage folder, or its truth folder.")],
    as_json: JsonOption = False,
) -> None:
    """Write the actions, captions and questions of a dataset that was curated from synthetic footage.

    Tracked people are matched with the rendered ones by their boxes (IoU of at least 0.5, majority of frames).
    """
    from microg.data.dataset import Dataset
    from microg.demo.synthetic import annotate
    from microg.locks import exclusive

    opened = Dataset.open(dataset)
    opened.refuse_other_labels("microg data annotate-synthetic")
    with exclusive(dataset):
        counts = annotate(opened, truth)
    finish(counts, lambda _: say(_sentence(dataset, counts)), as_json=as_json)


if __name__ == "__main__":
    main("Synthetic footage and datasets.")
