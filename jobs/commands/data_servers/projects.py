"""Which project of an annotation server a dataset's clips go to, and come from."""

from __future__ import annotations

from dataclasses import dataclass

from microg.errors import AnnotationServerError, ConfigError
from microg.jobs.commands.data_servers.pushed import PushedTasks
from microg.system.annotation_servers.base import AnnotationServer, Project, retrying


@dataclass(frozen=True)
class ProjectChoice:
    """A project of a server.

    Attributes:
        server: The kind of the server, a name in `SERVERS`.
        url: Its address.
        name: Title of the project; None for the one that was pushed to, or one that is called like the dataset.
        id: The server's number for the project; None to go by the title.
    """

    server: str
    url: str
    name: str | None = None
    id: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None and self.id is not None:
            raise ConfigError("--project and --project-id both name a project", "give one of them")


def find_project(session: AnnotationServer, choice: ProjectChoice, known: PushedTasks, default: str) -> Project | None:
    """Return the chosen project; None where none of its name is there.

    A project that was pushed to before is found by its number, so that it may be renamed on the server.

    Raises:
        AnnotationServerError: The project was deleted, or several have its name.
        ConfigError: The dataset was pushed to several projects of the server, and none was chosen.
    """
    if choice.id is not None:
        wanted: int | str = choice.id
    else:
        before = [each for each in known.at(choice.server, choice.url) if choice.name in (None, each.name)]
        if len(before) > 1:
            listed = ", ".join(f"{each.id} ({each.name})" for each in before)
            raise ConfigError(f"the dataset was pushed to several projects: {listed}", "choose one with --project-id")
        wanted = before[0].id if before else choice.name or default
    return retrying(lambda: session.find_project(wanted))


def refuse_missing(project: Project | None, choice: ProjectChoice, default: str) -> Project:
    """Return the project. Raises `AnnotationServerError` when there is none."""
    if project is None:
        raise AnnotationServerError(
            f"{choice.url} has no project called {choice.name or default!r}",
            "push the dataset first, or name the project with --project or --project-id",
        )
    return project
