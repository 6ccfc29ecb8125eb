"""What `microg data pull` does: annotations of an annotation server into a dataset, as an import takes them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microg.console import say
from microg.data.dataset import Dataset
from microg.jobs.commands.data_convert import import_tables, show_judgements
from microg.jobs.commands.data_servers.projects import ProjectChoice, find_project, refuse_missing
from microg.jobs.commands.data_servers.pushed import PushedTasks
from microg.system.annotation_servers import connect
from microg.system.annotation_servers.base import check_url, retrying


def pull_annotations(
    dataset: str, choice: ProjectChoice, *, every: bool, labels: Sequence[str], dry_run: bool
) -> dict[str, Any]:
    """Take the annotations of a project's tasks into the dataset, and return the report.

    Args:
        dataset: Folder of the dataset.
        choice: The project.
        every: Whether tasks count that people have not finished; those without annotations never do.
        labels: What labels mean, as the import takes it.
        dry_run: Whether nothing is written.

    Raises:
        AnnotationServerError: The server cannot be reached or refuses, or has no such project.
        FormatError: The annotations do not fit their clips.
    """
    choice = ProjectChoice(choice.server, check_url(choice.url), choice.name, choice.id)
    opened = Dataset.open(dataset)
    clips = set(opened.table("clips")["clip_id"].to_pylist())
    default = str(opened.info.get("name") or "microg")
    with connect(choice.server, choice.url) as session, tempfile.TemporaryDirectory() as folder:
        found = find_project(session, choice, PushedTasks.read(dataset), default)
        project = refuse_missing(found, choice, default)
        tasks = retrying(lambda: session.tasks(project))
        own = [task for task in tasks if task.clip_id in clips]
        unfinished = [task for task in own if not task.finished]
        chosen = [task for task in own if task.finished]
        if every:
            chosen += [task for task in unfinished if retrying(lambda task=task: session.has_annotations(task))]
        report: dict[str, Any] = {
            "server": choice.server,
            "url": choice.url,
            "project": {"id": project.id, "name": project.name},
            "dataset": dataset,
            "taken": len(chosen),
            "unfinished": len(unfinished),
            "others": len(tasks) - len(own),
            "rows": {},
            "failed": 0,
            "notes": [],
            "written": bool(chosen) and not dry_run,
        }
        if chosen:
            path = retrying(lambda: session.download(project, chosen, _empty(Path(folder))))
            options: dict[str, Any] = {"label": list(labels)} if labels else {}
            imported = import_tables(choice.server, path, dataset, name=None, merge=True, dry_run=dry_run, **options)
            report |= {key: value for key, value in imported.items() if key not in ("dataset", "format")}
    return report


def _empty(folder: Path) -> Path:
    """Return a folder without what an attempt before left in it."""
    for left in folder.iterdir():
        left.unlink()
    return folder


def show(report: dict[str, Any]) -> None:
    """Print what was taken, and what to know of it."""
    place = f"project {report['project']['name']!r} ({report['project']['id']}) at {report['url']}"
    say(f"{report['taken']:,} tasks were taken of {place}")
    say(f"{report['unfinished']:,} tasks are not finished yet")
    if report["others"]:
        say(f"{report['others']:,} tasks are of clips that the dataset has not")
    for table, rows in report["rows"].items():
        say(f"{table:>10}  {rows:>9,} rows")
    show_judgements(report)
    for note in report["notes"]:
        say(f"note: {note}")
    if report["failed"]:
        say(f"{report['failed']} clips failed: status 'error' in table 'clips' says why")
    say(f"wrote {report['dataset']}" if report["written"] else "nothing was written")
