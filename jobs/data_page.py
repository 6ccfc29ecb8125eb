"""`microg data page`: one self-contained HTML page of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from microg.console import say
from microg.jobs.common import AllowExternalOption, command, main

EPILOG = """
**Examples**

`microg data page data/mine page.html`

`microg data page data/mine page.html --max-clips 100 --videos`
"""


@command("data page", epilog=EPILOG)
def page(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or a URI such as s3://bucket/name.")],
    out: Annotated[str, typer.Argument(help="HTML file to write.")],
    max_clips: Annotated[int, typer.Option("--max-clips", min=0, help="Clips shown with their key frame.")] = 24,
    videos: Annotated[
        bool, typer.Option("--videos/--no-videos", help="Open each video for the validation findings (slower).")
    ] = False,
    allow_external: AllowExternalOption = False,
) -> None:
    """Write a page of a dataset: counts, clips with boxes and text, rejected clips, plots, validation, tables.

    The page is one file without scripts and fetches nothing: mail it, or open it from a disk.
    """
    from microg import storage
    from microg.console import ProgressDisplay
    from microg.data.dataset import Dataset
    from microg.reports.pages.dataset_page import write_dataset_page
    from microg.validation import validate

    opened = Dataset.open(dataset)
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(ProgressDisplay("videos", total)).advance

        report = validate(opened, videos=videos, progress=begin)
    record = storage.join(dataset, "metrics.json")  # of the curation that made it
    curated = storage.read_json(record) if storage.exists(record) else {}
    summary = {key: curated[key] for key in ("counts", "rule", "throughput") if key in curated}
    write_dataset_page(opened, out, report=report, max_clips=max_clips, run_summary=summary)
    say(f"wrote {out}")


if __name__ == "__main__":
    main("Write the page of a dataset.")
