"""What `microg data push` does: one task a clip on an annotation server, and none twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microg import formats, storage
from microg.console import ProgressDisplay, say
from microg.data.dataset import Dataset
from microg.data.ids import check_id
from microg.errors import AnnotationServerError, DatasetError, VideoAccessError, VideoError
from microg.jobs.commands.data_servers.projects import ProjectChoice, find_project
from microg.jobs.commands.data_servers.pushed import FILE_NAME, PushedProject, PushedTask, PushedTasks
from microg.locks import exclusive_file
from microg.system.annotation_servers import SERVERS, connect
from microg.system.annotation_servers.base import (
    AnnotationServer,
    ClipVideo,
    Project,
    RefusedClipError,
    Task,
    check_url,
    retrying,
)


@dataclass(frozen=True)
class PushOptions:
    """What to push.

    Attributes:
        video_prefix: What stands before `{clip_id}.mp4` where the server finds videos; None sends them.
        with_annotations: Whether the dataset's annotations are sent as pre-annotations.
        split: The split whose clips are pushed; None for all clips.
        scheme: The scheme of that split.
        limit: At most so many clips that are not on the server yet; None for all.
    """

    video_prefix: str | None = None
    with_annotations: bool = False
    split: str | None = None
    scheme: str = "published"
    limit: int | None = None


def push_dataset(dataset: str, choice: ProjectChoice, options: PushOptions, *, dry_run: bool) -> dict[str, Any]:
    """Make a task for each clip of a dataset that has none in the chosen project, and return the report.

    What was made is remembered in the dataset after each step. A task that was made and not remembered, because the
    push was killed, is found on the server by its clip.

    Raises:
        AnnotationServerError: The server cannot be reached or refuses; what was pushed before stays.
        DatasetError: The folder is no dataset, or has no such split.
    """
    choice = ProjectChoice(choice.server, check_url(choice.url), choice.name, choice.id)
    opened = Dataset.open(dataset)
    rows = _clips(opened, options)
    path = storage.join(dataset, FILE_NAME)
    default = str(opened.info.get("name") or "microg")
    with nullcontext() if dry_run else exclusive_file(path), connect(choice.server, choice.url) as session:
        known = PushedTasks.read(dataset)
        project = find_project(session, choice, known, default)
        tasks = {} if project is None else _tasks_by_clip(session, project)
        book = PushedProject(choice.server, choice.url, 0, "")
        if project is not None:
            book = known.of(choice.server, choice.url, project.id, project.name)
        missing = [row for row in rows if _lacks(row["clip_id"], tasks, book, options)]
        chosen = missing[: options.limit]
        report: dict[str, Any] = {
            "server": choice.server,
            "url": choice.url,
            "project": {"id": project and project.id, "name": project.name if project else choice.name or default},
            "clips": len(rows),
            "there": len(rows) - len(missing),
            "pushed": 0,
            "left": len(missing) - len(chosen),
            "failed": {},
            "notes": _notes(book, tasks, rows),
            "written": not dry_run,
        }
        if dry_run:
            return report | {"to_push": len(chosen)}
        if chosen or project is None:
            with tempfile.TemporaryDirectory() as folder:
                export = Path(folder)
                notes = formats.write(choice.server, opened, folder, **SERVERS.find(choice.server).export)
                report["notes"] += notes if options.with_annotations else []
                if project is None:
                    project = retrying(lambda: _ensure_project(session, choice.name or default, export))
                    book = known.of(choice.server, choice.url, project.id, project.name)
                    known.write()
                pusher = _Pusher(session, opened, project, export, options, known, book, tasks)
                pusher.push(chosen, report)
        report["project"] = {"id": project and project.id, "name": project and project.name}
        known.write()
    return report


@dataclass
class _Pusher:
    """Pushes clip after clip."""

    session: AnnotationServer
    dataset: Dataset
    project: Project
    export: Path
    options: PushOptions
    known: PushedTasks
    book: PushedProject
    tasks: dict[str, Task]

    def push(self, rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
        """Push clips, counting them in the report."""
        with ProgressDisplay("push", len(rows)) as progress:
            for row in rows:
                clip_id = row["clip_id"]
                try:
                    with self._video(row) as video:
                        self._push_one(video)
                    report["pushed"] += 1
                except (RefusedClipError, DatasetError, VideoError) as error:
                    report["failed"][clip_id] = str(error)
                except AnnotationServerError as error:
                    done = f"{report['pushed']} of {len(rows)} clips were pushed before"
                    raise AnnotationServerError(f"{error.what}; {done}", error.fix) from None
                progress.advance(1, clip_id in report["failed"])

    def _push_one(self, clip: ClipVideo) -> None:
        """Give a clip what it lacks on the server; what is there already is not made twice."""
        clip_id = clip.clip_id
        task = self.tasks.get(clip_id)
        if task is None:
            self.tasks[clip_id] = task = self._made(clip)
        entry = self.book.tasks.get(clip_id)
        if entry is None or entry.id != task.id:
            entry = self.book.tasks[clip_id] = PushedTask(task.id)
            self.known.write()
        if not task.has_video:
            retrying(lambda: self._ensure_video(clip))
        if self.options.with_annotations and not entry.annotated:
            retrying(lambda: self._ensure_annotations(task, clip))
            entry.annotated = True
            self.known.write()

    def _made(self, clip: ClipVideo) -> Task:
        """Return a new task; where the server failed, perhaps after it made one, the one that it made."""
        attempts = 0

        def make() -> Task:
            nonlocal attempts
            attempts += 1
            there = _tasks_by_clip(self.session, self.project).get(clip.clip_id) if attempts > 1 else None
            return there or self.session.make_task(self.project, clip, self.export)

        return retrying(make)

    def _ensure_video(self, clip: ClipVideo) -> None:
        self.session.send_video(self.tasks[clip.clip_id], clip)

    def _ensure_annotations(self, task: Task, clip: ClipVideo) -> None:
        """Send annotations, unless the server has some, which may be people's work."""
        if not self.session.has_annotations(task):
            self.session.send_annotations(task, clip, self.export)

    @contextmanager
    def _video(self, row: dict[str, Any]) -> Iterator[ClipVideo]:
        """Give a clip with its video. Raises `DatasetError` or `VideoError` when it has none."""
        clip_id = row["clip_id"]
        task = self.tasks.get(clip_id)
        if self.options.video_prefix is not None:
            yield ClipVideo(clip_id, address=f"{self.options.video_prefix}{clip_id}.mp4")
        elif task is not None and task.has_video:
            yield ClipVideo(clip_id)
        else:
            with _local(self.dataset.resolve(row["uri"] or "", clip_id), clip_id) as file:
                yield ClipVideo(clip_id, file=file)


def _clips(dataset: Dataset, options: PushOptions) -> list[dict[str, Any]]:
    """Return the rows of the clips to push, in the table's order."""
    rows = dataset.kept_clips().to_pylist()
    if options.split is not None:
        inside = set(dataset.split_clips(options.split, options.scheme).to_pylist())
        rows = [row for row in rows if row["clip_id"] in inside]
    for row in rows:
        check_id(row["clip_id"], "clip id")
    return rows


def _tasks_by_clip(session: AnnotationServer, project: Project) -> dict[str, Task]:
    """Return the tasks of a project by clip; of several the first that was made."""
    tasks: dict[str, Task] = {}
    for task in sorted(retrying(lambda: session.tasks(project)), key=lambda task: task.id):
        tasks.setdefault(task.clip_id, task)
    return tasks


def _lacks(clip_id: str, tasks: dict[str, Task], book: PushedProject, options: PushOptions) -> bool:
    """Tell whether something of a clip is not on the server yet."""
    task, entry = tasks.get(clip_id), book.tasks.get(clip_id)
    if task is None or not task.has_video:
        return True
    return options.with_annotations and not (entry is not None and entry.id == task.id and entry.annotated)


def _notes(book: PushedProject, tasks: dict[str, Task], rows: list[dict[str, Any]]) -> list[str]:
    gone = [row["clip_id"] for row in rows if row["clip_id"] in book.tasks and row["clip_id"] not in tasks]
    if not gone:
        return []
    return [f"{len(gone)} tasks were deleted on the server (e.g. of {gone[0]}): a push makes them again"]


def _ensure_project(session: AnnotationServer, name: str, export: Path) -> Project:
    """Return the project of this name, made where it is not there."""
    return session.find_project(name) or session.make_project(name, export)


@contextmanager
def _local(uri: str, clip_id: str) -> Iterator[Path]:
    """Give a video as a file on this machine. Raises `VideoAccessError` when it is not there."""
    if storage.is_local(uri):
        file = storage.local_path(uri)
        if not file.is_file():
            raise VideoAccessError(f"the video of clip {clip_id} is not there: {file}", "run 'microg data validate'")
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        file = storage.join_local(Path(folder), f"{clip_id}{Path(uri).suffix}")
        try:
            with file.open("wb") as sink:
                for block in storage.read_blocks(uri):
                    sink.write(block)
        except FileNotFoundError:
            raise VideoAccessError(
                f"the video of clip {clip_id} is not there: {uri}", "run 'microg data validate'"
            ) from None
        yield file


def show(report: dict[str, Any]) -> None:
    """Print what was pushed, and what to know of it."""
    name, number = report["project"]["name"], report["project"]["id"]
    place = f"project {name!r}" + (f" ({number})" if number is not None else ", which is new,") + f" at {report['url']}"
    say(f"{report['there']:,} of {report['clips']:,} clips were there already: {place}")
    if report["written"]:
        say(f"{report['pushed']:,} clips were pushed")
    else:
        say(f"{report['to_push']:,} clips would be pushed; nothing was written (--dry-run)")
    if report["left"]:
        say(f"{report['left']:,} clips are left for another push (--limit)")
    for note in report["notes"]:
        say(f"note: {note}")
    for clip_id, reason in report["failed"].items():
        say(f"failed: {clip_id}: {reason}")
