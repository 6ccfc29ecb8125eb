"""`microg report`: the paper's tables, plots, pictures and warnings of runs, in one page; or a leaderboard of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from microg.console import say
from microg.jobs.common import AllowExternalOption, JsonOption, command, main, print_json

if TYPE_CHECKING:
    from microg.reports.pages.report import WrittenPage

EPILOG = """
**Examples**

`microg report runs/i3d-score runs/gpt-score --out report.html`

`microg report runs/demo --out demo_report/ --max-clips 24`

`microg report runs/i3d-score --dataset data/microg4m`

`microg report --leaderboard runs/ --out leaderboard.html`
"""


@command("report", epilog=EPILOG)
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders of any microg command, or folders of them."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Page to write (.html; tables go beside it), or a folder. [default: report.html or leaderboard.html]"
        ),
    ] = None,
    leaderboard: Annotated[
        list[str] | None,
        typer.Option("--leaderboard", metavar="DIR", help="Rank all scored runs in this folder instead."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="DIR", help="Dataset for pictures, where runs no longer find theirs."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    max_clips: Annotated[int, typer.Option("--max-clips", min=0, max=500, help="Clips shown in each section.")] = 12,
    picture_width: Annotated[
        int, typer.Option("--picture-width", min=120, max=1920, help="Width of pictures in pixels.")
    ] = 480,
    picture_quality: Annotated[
        int, typer.Option("--picture-quality", min=1, max=100, help="Quality of pictures (WebP).")
    ] = 70,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page of runs: the paper's tables, plots, pictures, costs, warnings, known defects.

    The paper's Tables 1 to 10 show our numbers beside the published ones, with intervals and what is significant, and
    lie beside the page as Markdown, LaTeX and CSV. The page fetches nothing. Runs that are not finished are shown as
    far as they go. With --leaderboard the page ranks all scored runs instead, to be sorted, searched and switched by
    protocol.
    """
    from microg.console import ProgressDisplay
    from microg.errors import ConfigError
    from microg.reports.clips.pictures import PictureStyle
    from microg.reports.pages.report import build, section_names
    from microg.reports.run_kinds.kind import ReportOptions

    if leaderboard:
        from microg.reports.pages.leaderboard import build_leaderboard

        show(build_leaderboard([*leaderboard, *(runs or [])], out or "leaderboard.html", title=title), as_json)
        return
    if not runs:
        raise ConfigError("no run is given", "name run folders, or a folder of runs with --leaderboard DIR")
    style = PictureStyle(width=picture_width, quality=picture_quality, form="webp")
    options = ReportOptions(title=title, max_clips=max_clips, picture=style)
    with ProgressDisplay("report", len(section_names()), unit="sections") as progress:
        document = build(
            runs,
            out or "report.html",
            datasets=dataset or (),
            options=options,
            progress=lambda name: progress.advance(note=name),
        )
    show(document, as_json)


def show(document: WrittenPage, as_json: bool) -> None:
    """Print what was written, and what could not be shown."""
    if as_json:
        print_json(document)
        return
    for note in document["notes"]:
        say(f"note: {note}")
    unfinished = sum(not run["finished"] for run in document["runs"])
    runs = f"{len(document['runs'])} runs" + (f", {unfinished} not finished" if unfinished else "")
    beside = len(document["files"]) - 1
    say(f"wrote {document['page']} ({document['bytes'] / 1e6:.2f} MB, {runs}) and {beside} files beside it")


if __name__ == "__main__":
    main("Write the report of runs.")
