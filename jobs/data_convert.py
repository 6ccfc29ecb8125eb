"""`microg data import` and `microg data export`: between datasets and other people's annotation formats."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.formats import FORMATS
from microg.jobs.common import EXIT_FAILED_ROWS, DryRunOption, JsonOption, command, main, print_json

if TYPE_CHECKING:
    import pyarrow as pa

_SUMMARIES = "; ".join(f"{name}: {item.summary}" for name, item in FORMATS.items())


FormatArgument = Annotated[
    str,
    typer.Argument(
        metavar="FORMAT", help=f"{_SUMMARIES}; or module:object of your own.", autocompletion=lambda: list(FORMATS)
    ),
]


class SplitScheme(str, Enum):
    """Which split an AVA export holds."""

    published = "published"
    source = "source"


@command("data import")
def import_dataset(
    format_name: FormatArgument,
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or file in that format.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder to make.")],
    name: Annotated[str | None, typer.Option(help="Name of the new dataset; default: the folder's name.")] = None,
    videos: Annotated[
        str | None, typer.Option(help="Folder (microg4m: or zip file) with the clips' videos, found by their clip ids.")
    ] = None,
    copy_videos: Annotated[
        bool, typer.Option("--copy-videos", help="Copy videos into the dataset instead of pointing at them.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Into an existing dataset: the imported clips' annotations replace theirs.")
    ] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="labelstudio: take the pre-annotations of unfinished tasks.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read annotations of another format into a dataset, and say what was assumed or left out.

    Videos are read for their size, rate and length; one that cannot be read makes its clip's row an error and exit
    code 1. A videos.zip is unpacked into the dataset.

    Examples:

    - `microg data import microg4m data/MicroG-4M data/microg4m`
    - `microg data import labelstudio export.json data/microg4m --merge`
    - `microg data import cvat annotations/ data/mine --videos clips/ --copy-videos`
    """
    from microg import formats, storage
    from microg.data.dataset import Dataset
    from microg.errors import DatasetError
    from microg.formats.merge import merge as merge_tables

    exists = storage.exists(storage.join(dataset, "dataset.json"))
    if exists and not merge:
        raise DatasetError(f"{dataset} is a dataset already", "give another folder, or --merge to import into it")
    if merge and not exists:
        raise DatasetError(f"{dataset} is not a dataset: there is nothing to merge into", "leave --merge out")
    result = formats.read(
        format_name,
        source,
        videos=videos,
        dataset_root=None if dry_run else dataset,
        copy_videos=copy_videos,
        **({"predictions": True} if predictions else {}),
    )
    tables, notes = result.tables, list(result.notes)
    if merge:
        opened = Dataset.open(dataset)
        tables, more = merge_tables({table: opened.table(table) for table in _existing(opened)}, tables)
        notes += more
    if not dry_run:
        # The tables come first: an import that is interrupted leaves no dataset.json, and can just be run again.
        for table, rows in tables.items():
            Dataset(dataset, {}).write(table, rows)
        label = name or dataset.rstrip("/").rsplit("/", 1)[-1]
        Dataset.create(dataset, label, imported_from=format_name)
    failed = _failed(result.tables["clips"])
    report = {
        "dataset": dataset,
        "format": format_name,
        "written": not dry_run,
        "rows": {table: rows.num_rows for table, rows in tables.items()},
        "failed": failed,
        "notes": notes,
    }
    _show(report, as_json)
    if failed:
        raise typer.Exit(EXIT_FAILED_ROWS)


@command("data export")
def export_dataset(
    format_name: FormatArgument,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder to read.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Folder to write.")],
    split: Annotated[SplitScheme | None, typer.Option(help="ava: which split; default: published.")] = None,
    frames: Annotated[bool, typer.Option("--frames", help="ava: also write every frame as a JPEG.")] = False,
    copy_videos: Annotated[bool, typer.Option("--copy-videos", help="Copy the clips' videos beside them.")] = False,
    video_prefix: Annotated[
        str | None,
        typer.Option(metavar="URL", help="labelstudio: where it serves the videos; '{clip_id}.mp4' is appended."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty; other files there stay.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset in another format, and say what that format could not express.

    Examples:

    - `microg data export ava data/microg4m data/ava --split source --frames`
    - `microg data export labelstudio data/mine to_annotate/ --video-prefix /data/local-files/?d=clips/`
    - `microg data export cvat data/mine to_annotate/ --copy-videos`
    """
    from microg import formats, storage
    from microg.data.dataset import Dataset
    from microg.errors import DatasetError

    opened = Dataset.open(dataset)
    if not overwrite and storage.exists(target) and _is_filled(target):
        raise DatasetError(f"{target} is not empty", "give another folder, or --overwrite")
    chosen = {
        "split": split.value if split else None,
        "frames": frames,
        "copy_videos": copy_videos,
        "video_prefix": video_prefix,
    }
    options = {option: value for option, value in chosen.items() if value not in (None, False)}
    notes = formats.write(format_name, opened, target, **options)
    _show({"dataset": dataset, "format": format_name, "target": target, "notes": notes}, as_json)


def _existing(dataset: Any) -> list[str]:
    from microg.data.schema import TABLES

    return [table for table in TABLES if dataset.has(table)]


def _is_filled(folder: str) -> bool:
    from microg import storage

    fs, path = storage.filesystem(folder)
    return not fs.isdir(path) or bool(fs.ls(path, detail=False))


def _failed(clips: pa.Table) -> int:
    return clips["status"].to_pylist().count("error")


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for table, rows in report.get("rows", {}).items():
        print(f"{table:>10}  {rows:>9,} rows")
    for note in report["notes"]:
        print(f"note: {note}")
    if "target" in report:
        print(f"wrote {report['format']} to {report['target']}")
    else:
        print(f"wrote {report['dataset']}" if report["written"] else "nothing was written (--dry-run)")
    if report.get("failed"):
        print(f"{report['failed']} clips failed: status 'error' in table 'clips' says why")


if __name__ == "__main__":
    main("Convert datasets from and to other formats.")
