"""What a dataset remembers of the tasks that were made of its clips on annotation servers: `annotation_tasks.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from microg import storage
from microg.errors import DatasetError

FILE_NAME = "annotation_tasks.json"
_FORMAT = "microg-annotation-tasks/1"


@dataclass
class PushedTask:
    """A task on a server.

    Attributes:
        id: The server's number for it.
        annotated: Whether the dataset's annotations were sent, or the server had some.
    """

    id: int
    annotated: bool = False


@dataclass
class PushedProject:
    """A project on a server, and the tasks that were made in it, by clip."""

    server: str
    url: str
    id: int
    name: str
    tasks: dict[str, PushedTask] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the project as it is stored."""
        tasks = {clip: {"id": task.id, "annotated": task.annotated} for clip, task in self.tasks.items()}
        return {"server": self.server, "url": self.url, "id": self.id, "name": self.name, "tasks": tasks}


@dataclass
class PushedTasks:
    """All projects that clips of a dataset were pushed to."""

    path: str
    projects: list[PushedProject]

    @classmethod
    def read(cls, dataset: str) -> PushedTasks:
        """Return what a dataset remembers. Raises `DatasetError` when the file is not what a push writes."""
        path = storage.join(dataset, FILE_NAME)
        if not storage.exists(path):
            return cls(path, [])
        try:
            document = storage.read_json(path)
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']!r}")
            projects = [_project(each) for each in document["projects"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"{path} is not what 'microg data push' writes: {type(error).__name__}: {error}",
                "remove it: the next push finds its tasks on the server by their clips",
            ) from error
        return cls(path, projects)

    def at(self, server: str, url: str) -> list[PushedProject]:
        """Return the projects on one server."""
        return [each for each in self.projects if (each.server, each.url) == (server, url)]

    def of(self, server: str, url: str, project_id: int, name: str) -> PushedProject:
        """Return what is remembered of a project; a new entry where there is nothing yet."""
        for each in self.at(server, url):
            if each.id == project_id:
                each.name = name
                return each
        made = PushedProject(server, url, project_id, name)
        self.projects.append(made)
        return made

    def write(self) -> None:
        """Write the file, atomically."""
        storage.write_json(self.path, {"format": _FORMAT, "projects": [each.document() for each in self.projects]})


def _project(row: dict[str, Any]) -> PushedProject:
    tasks = {clip: PushedTask(int(task["id"]), bool(task["annotated"])) for clip, task in row["tasks"].items()}
    return PushedProject(str(row["server"]), str(row["url"]), int(row["id"]), str(row["name"]), tasks)
