"""`microg data push` and `microg data pull`: between datasets and running annotation servers."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import AllowExternalOption, DryRunOption, JsonOption, command, finish, main
from microg.system.annotation_servers import SERVERS

_KEYS = "; ".join(
    f"{name}: {entry.title}, with {entry.variables} in the environment" for name, entry in SERVERS.items()
)

ServerArgument = Annotated[
    str, typer.Argument(metavar="SERVER", help=f"{_KEYS}.", autocompletion=lambda: list(SERVERS))
]
UrlOption = Annotated[str, typer.Option("--url", metavar="URL", help="Address of the server.")]
ProjectIdOption = Annotated[
    int | None, typer.Option("--project-id", min=1, help="A project that is there, by the server's number for it.")
]


@command("data push")
def data_push(
    server: ServerArgument,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder.")],
    url: UrlOption,
    project: Annotated[
        str | None,
        typer.Option(
            "--project", metavar="NAME", help="Project, made if it is not there. [default: the dataset's name]"
        ),
    ] = None,
    project_id: ProjectIdOption = None,
    video_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the server finds the videos, instead of sending them; '{clip_id}.mp4' is appended. cvat: a URL "
            "or a folder of its connected file share.",
        ),
    ] = None,
    with_annotations: Annotated[
        bool, typer.Option("--with-annotations", help="Send the dataset's annotations as pre-annotations.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Push the clips of this split only.")] = None,
    scheme: Annotated[str, typer.Option(help="The scheme of --split.")] = "published",
    limit: Annotated[int | None, typer.Option(min=1, help="Push at most N clips that are not there yet.")] = None,
    dry_run: DryRunOption = False,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a task for each clip on an annotation server, with its video and the dataset's actions as labels.

    What was pushed is remembered in the dataset, so that another push adds new clips only, and one that was interrupted
    goes on.

    Examples:

    - `microg data push cvat data/mine --url https://cvat.example.org`
    - `microg data push labelstudio data/mine --url http://127.0.0.1:8080 --with-annotations --limit 20`
    - `microg data push labelstudio data/mine --url https://ls.example.org --video-prefix https://videos.example.org/`
    """
    from microg.jobs.commands.data_servers.projects import ProjectChoice
    from microg.jobs.commands.data_servers.push import PushOptions, push_dataset, show

    choice = ProjectChoice(server, url, project, project_id)
    options = PushOptions(
        video_prefix=video_prefix, with_annotations=with_annotations, split=split, scheme=scheme, limit=limit
    )
    report = push_dataset(dataset, choice, options, dry_run=dry_run)
    finish(report, show, as_json=as_json, failed=len(report["failed"]))


@command("data pull")
def data_pull(
    server: ServerArgument,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder.")],
    url: UrlOption,
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="NAME", help="Project. [default: the one that the dataset was pushed to]"),
    ] = None,
    project_id: ProjectIdOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="Take the annotations of tasks, too, that people have not finished.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=person|other", help="What a label means, as for 'data import'. Repeatable."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take what people annotated on a server into the dataset, as 'data import --merge' takes an export.

    Tasks of clips that the dataset has not are left alone. The same pull again changes nothing.

    Examples:

    - `microg data pull cvat data/mine --url https://cvat.example.org`
    - `microg data pull labelstudio data/mine --url http://127.0.0.1:8080 --project-id 7 --all --dry-run`
    """
    from microg.jobs.commands.data_servers.projects import ProjectChoice
    from microg.jobs.commands.data_servers.pull import pull_annotations, show

    choice = ProjectChoice(server, url, project, project_id)
    report = pull_annotations(dataset, choice, every=every, labels=label or (), dry_run=dry_run)
    finish(report, show, as_json=as_json, failed=report["failed"])


if __name__ == "__main__":
    main("Send clips to annotation servers, and take annotations from them.")
