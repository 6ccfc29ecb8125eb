"""`microg data stats`: the dataset tables and plots of the paper, for any dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import JsonOption, command, finish, main

EPILOG = """
**Examples**

`microg data stats data/mine`

`microg data stats data/mine --out stats/` writes one CSV a table, and each plot as PNG and SVG

`microg data stats data/mine --json > stats.json`
"""


@command("data stats", epilog=EPILOG)
def stats(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or a URI such as s3://bucket/name.")],
    out: Annotated[str | None, typer.Option("--out", help="Folder for CSV files and plots (PNG and SVG).")] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots too (with --out).")] = True,
    kinds: Annotated[
        str | None, typer.Option("--qa-kinds", metavar="RUN", help="Run of 'microg data label-qa'. [default: by rules]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a dataset: size, actions, people, labels, splits, sources, captions, questions; tables and plots.

    Counts follow the rules of the published statistics. What a dataset lacks (captions, labels ...) is noted.
    """
    from microg.jobs.commands.data_stats import describe, document, show

    description = describe(dataset, out, plots=plots, kinds=kinds)
    finish(document(description), lambda _: show(description), as_json=as_json)


if __name__ == "__main__":
    main("Describe a dataset.")
