"""`microg data download`: the published datasets and weights from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from microg.console import say
from microg.errors import ConfigError
from microg.jobs.common import DryRunOption, JsonOption, OfflineOption, command, finish, main, print_json

if TYPE_CHECKING:
    from microg.system.downloads import Plan


_NEXT_STEPS = {
    "dataset": "next: microg data import microg4m {folder} DATASET",
    "har": "next: microg data import ava {folder} DATASET",
}


@command("data download")
def download(
    what: Annotated[
        Literal["dataset", "har", "models", "all", "weights"],
        typer.Argument(
            help="dataset: MicroG-4M; har: its train-ready frames; models: fine-tuned weights; all: these three; "
            "weights: detectors, backbones and encoders by name."
        ),
    ],
    where: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OUT|NAME...",
            help="Folder to fill (with 'all', one folder per repository inside it); after 'weights', their names, and "
            "without names a list of them.",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the main branch.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only files whose path matches; may be given repeatedly.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another hub or mirror; default: HF_ENDPOINT or huggingface.co.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Fetch nothing: check what is there against its recorded checksums.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="After 'weights': fetch all that have a name.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files fetched at the same time.")] = 4,
    offline: OfflineOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the published datasets or weights, resumably, and check every file.

    Run it again after an interruption: finished files are kept and a partial one goes on where it stopped. A key for
    gated repositories is read from the environment variable HF_TOKEN.

    Examples:

    - `microg data download dataset data/MicroG-4M`
    - `microg data download dataset data/MicroG-4M --include 'annotation_files/*'`
    - `microg data download models weights/har --verify`
    - `microg data download weights` (lists them)
    - `microg data download weights yolo11n.pt x3d_s.pyth`
    """
    if what == "weights":
        from microg.jobs.commands.data_download import download_weights, show_weights

        rows = download_weights(where or (), everything=every, verify=verify, dry_run=dry_run)
        listing = dry_run or not (where or every or verify)
        finish(rows, lambda rows: show_weights(rows, listing=listing), as_json=as_json)
        return
    if not where or len(where) > 1 or every:
        raise ConfigError(
            f"'{what}' is fetched into one folder" + (", and --all belongs to 'weights'" if every else ""),
            f"microg data download {what} FOLDER",
        )
    out = Path(where[0])
    from microg.system.downloads import REPOS

    names = list(REPOS) if what == "all" else [what]
    folders = {name: out / REPOS[name].name if what == "all" else out for name in names}
    if verify:
        results = [_verify(folder, quiet=as_json) for folder in folders.values()]
    else:
        results = [
            _download(name, folder, revision, include or [], endpoint, workers, dry_run, quiet=as_json)
            for name, folder in folders.items()
        ]
    if as_json:
        print_json(results)


def _verify(folder: Path, *, quiet: bool) -> dict[str, Any]:
    from microg.system import downloads

    manifest = downloads.verify(folder)
    if not quiet:
        say(f"{folder}: all {len(manifest['files'])} files of {manifest['repo']} are whole")
    return manifest


def _download(
    name: str,
    folder: Path,
    revision: str | None,
    include: list[str],
    endpoint: str | None,
    workers: int,
    dry_run: bool,
    *,
    quiet: bool,
) -> dict[str, Any]:
    from microg.console import ProgressDisplay
    from microg.system import downloads
    from microg.system.downloads import REPOS, Hub

    hub = Hub(REPOS[name], endpoint)
    plan = downloads.plan(hub, folder, revision, include)
    if not quiet:
        say(_summary(plan, hub.repo.id, folder))
    if dry_run:
        return {
            "repo": hub.repo.id,
            "commit": plan.commit,
            "files": len(plan.chosen),
            "missing": [file.path for file in plan.missing],
            "missing_bytes": plan.missing_bytes,
        }
    with ProgressDisplay(hub.repo.name, round(plan.missing_bytes / 1e6), unit="MB") as display:
        manifest = downloads.download(
            hub, folder, plan, revision=revision, workers=workers, on_bytes=display.advance_bytes
        )
    if not quiet:
        say(f"{folder}: {len(manifest['files'])} files, all checksums match, commit {plan.commit[:12]}")
        if name in _NEXT_STEPS:
            say(_NEXT_STEPS[name].format(folder=folder))
    return manifest


def _summary(plan: Plan, repo: str, folder: Path) -> str:
    there = len(plan.chosen) - len(plan.missing)
    kept = f", {there} there already" if there else ""
    return f"{repo} -> {folder}: {len(plan.missing)} files to fetch ({plan.missing_bytes / 1e6:,.1f} MB){kept}"


if __name__ == "__main__":
    main("Fetch the published datasets or weights.")
