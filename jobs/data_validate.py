"""`microg data validate`: check a dataset's tables and video files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from microg.errors import ConfigError
from microg.jobs.common import AllowExternalOption, JsonOption, command, finish, main

EPILOG = """
**Examples**

`microg data validate data/mine`

`microg data validate data/mine --no-videos --json > findings.json`

`microg data validate s3://bucket/mine --findings findings.parquet`

Exit code: 0 no errors (warnings are allowed), 1 errors were found, 2 not a dataset.
"""


@command("data validate", epilog=EPILOG)
def validate(
    dataset: Annotated[str, typer.Argument(help="Dataset folder, or a URI such as s3://bucket/name.")],
    videos: Annotated[
        bool, typer.Option("--videos/--no-videos", help="Open each video: is it readable, unchanged, not a duplicate?")
    ] = True,
    findings: Annotated[
        str | None, typer.Option("--findings", help="Write all findings to this .parquet or .json file.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Decoding threads; default: cores.")] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Examples shown of each check.")] = 3,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a dataset: boxes, people, labels, ids, repeated rows, text, splits, videos, near-duplicate clips.

    Findings are grouped by check: an error contradicts the schema or cannot be used, a warning is suspicious.
    """
    from microg.console import ProgressDisplay
    from microg.data.dataset import Dataset
    from microg.jobs.commands.data_validate import show, write_findings
    from microg.validation import validate as validate_dataset

    if findings is not None and not findings.endswith((".parquet", ".json")):
        raise ConfigError(f"--findings {findings}: the name must end in .parquet or .json")
    opened = Dataset.open(dataset)
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(ProgressDisplay("videos", total)).advance

        report = validate_dataset(opened, videos=videos, workers=workers, progress=begin)
    if findings is not None:
        write_findings(report, findings)
    document = {"dataset": dataset, **report.to_dict()}
    finish(document, lambda _: show(report, dataset, examples), as_json=as_json, failed=report.errors)


if __name__ == "__main__":
    main("Check a dataset.")
