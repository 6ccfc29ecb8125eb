"""`microg data import` and `microg data export`: between datasets and other people's annotation formats."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from microg.formats import FORMATS
from microg.jobs.common import AllowExternalOption, DryRunOption, JsonOption, command, finish, main

_SUMMARIES = "; ".join(f"{name}: {item.summary}" for name, item in FORMATS.items())


FormatArgument = Annotated[
    str,
    typer.Argument(
        metavar="FORMAT", help=f"{_SUMMARIES}; or module:object of your own.", autocompletion=lambda: list(FORMATS)
    ),
]


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
        bool,
        typer.Option(
            "--merge",
            help="Into an existing dataset: what annotators of cvat and labelstudio say is added; other annotations "
            "replace those of the same clips.",
        ),
    ] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="labelstudio: take the pre-annotations of unfinished tasks.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=person|other",
            help="cvat, labelstudio, coco: what a label means; 'person' in any case needs no telling. Repeatable.",
        ),
    ] = None,
    clip_id: Annotated[
        str | None, typer.Option(help="cvat, labelstudio: the clip of a single task that does not name it.")
    ] = None,
    annotator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cvat: whose work it is; default: whom the task or job is assigned to, else 'cvat'.",
        ),
    ] = None,
    rule: Annotated[
        Literal["single", "majority", "adjudicated"] | None,
        typer.Option(
            help="cvat, labelstudio: how several annotators' judgements become the tables, as in 'microg data "
            "adjudicate'; default: majority; merged: the dataset's."
        ),
    ] = None,
    first_frame: Annotated[
        int | None,
        typer.Option(min=0, max=1, help="coco: the frame_id of a clip's first frame; default: told by the data."),
    ] = None,
    key_frames: Annotated[
        Literal["all", "middle"] | None,
        typer.Option(help="jhmdb: which frames with a box are scored, all or one a video; default: all."),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Actions of the new dataset: a file, or microg50, ava80, jhmdb21; default: microg50. A merge uses the "
            "dataset's own.",
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Take these tables only, e.g. boxes,actions; when merged, even if empty."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read annotations of another format into a dataset, and say what was assumed or left out.

    Of cvat and labelstudio all annotators are kept: what each said is a row of the table `annotations`, and actions,
    captions, questions and boxes are what the rule accepts of it. The same file again adds nothing.

    People's actions are those of `--vocabulary`; one that is not in it is an error that names it.

    What would lose all regions of somebody is an error: labels of other names, frames that a clip has not, boxes of no
    size, rows that a merge would replace by none.

    Videos are read for their size, rate and length; one that cannot be read makes its clip's row an error and exit
    code 1. A videos.zip is unpacked into the dataset.

    Examples:

    - `microg data import microg4m data/MicroG-4M data/microg4m`
    - `microg data import labelstudio export.json data/microg4m --merge`
    - `microg data import cvat annotations/ data/mine --videos clips/ --copy-videos`
    - `microg data import jhmdb JHMDB/ data/jhmdb`
    - `microg data import labelstudio export.json data/crew --vocabulary crew.yaml --videos clips/`
    - `microg data import cvat ana.zip data/mine --merge --annotator ana`
    - `microg data import cvat task.zip data/mine --label Astronaut=person --clip-id Apollo13_032`
    """
    from microg.jobs.commands.data_convert import import_tables, show

    own = {
        "predictions": predictions,
        "label": label,
        "clip_id": clip_id,
        "annotator": annotator,
        "first_frame": first_frame,
        "key_frames": key_frames,
    }
    report = import_tables(
        format_name,
        source,
        dataset,
        name=name,
        merge=merge,
        dry_run=dry_run,
        videos=videos,
        copy_videos=copy_videos,
        vocabulary=vocabulary,
        rule=rule,
        chosen=[table.strip() for table in tables.split(",")] if tables else (),
        **{option: value for option, value in own.items() if value is not None and value is not False},
    )
    finish(report, show, as_json=as_json, failed=report["failed"])


@command("data export")
def export_dataset(
    format_name: FormatArgument,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder to read.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="Folder to write.")],
    split: Annotated[
        Literal["published", "source"] | None, typer.Option(help="ava: which split; default: published.")
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="ava: also write every frame as a JPEG.")] = False,
    copy_videos: Annotated[bool, typer.Option("--copy-videos", help="Copy the clips' videos beside them.")] = False,
    video_prefix: Annotated[
        str | None,
        typer.Option(metavar="URL", help="labelstudio: where it serves the videos; '{clip_id}.mp4' is appended."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty; other files there stay.")
    ] = False,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset in another format, and say what that format could not express.

    Examples:

    - `microg data export ava data/microg4m data/ava --split source --frames`
    - `microg data export labelstudio data/mine to_annotate/ --video-prefix /data/local-files/?d=clips/`
    - `microg data export cvat data/mine to_annotate/ --copy-videos`
    """
    from microg.jobs.commands.data_convert import export_tables, show

    chosen = {"split": split, "frames": frames, "copy_videos": copy_videos, "video_prefix": video_prefix}
    options = {option: value for option, value in chosen.items() if value not in (None, False)}
    finish(export_tables(format_name, dataset, target, overwrite=overwrite, **options), show, as_json=as_json)


if __name__ == "__main__":
    main("Convert datasets from and to other formats.")
