"""CVAT, through its own package `cvat-sdk`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from microg import storage
from microg.errors import AnnotationServerError, ConfigError
from microg.system.annotation_servers.base import ClipVideo, Project, Refusals, Task, from_environment

TOKEN, USER, PASSWORD = "CVAT_TOKEN", "CVAT_USERNAME", "CVAT_PASSWORD"
_TITLE = "CVAT"
_VARIABLES = f"{TOKEN}, or {USER} and {PASSWORD}"
_TIMEOUT_S = (30.0, 600.0)  # to connect, to read: the package waits for ever by itself
_WAIT_S = 1.0  # between two questions whether the server is done
_QUALITY = 95  # percent, of the JPEGs that annotators see


def check_ready() -> None:
    """Raise `ConfigError` when the package is missing, or the key is not in the environment."""
    if find_spec("cvat_sdk") is None:
        raise ConfigError("the package cvat-sdk is not installed", "pip install 'microg-bench[cvat]'")
    if from_environment(TOKEN) is None and from_environment(USER, PASSWORD) is None:
        raise ConfigError(
            f"{_TITLE} needs a key in the environment: {_VARIABLES}",
            "make an access token in the server's profile settings, and export it",
        )


@contextmanager
def connect(url: str) -> Iterator[Cvat]:
    """Give a session with the server at `url`. Raises `AnnotationServerError`."""
    from cvat_sdk.core.client import AccessTokenCredentials, Client, Config, PasswordCredentials

    token, named = from_environment(TOKEN), from_environment(USER, PASSWORD)
    logger = logging.getLogger("microg.cvat")  # the package logs errors with their requests
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    with Client(url, logger=logger, config=Config(status_check_period=_WAIT_S), check_server_version=False) as client:
        _limit_waiting(client)
        session = Cvat(client, Refusals(_TITLE, url, _VARIABLES, token or named or ()))
        with session.requests("to log in", login=token is None):
            client.login(AccessTokenCredentials(*token) if token else PasswordCredentials(*(named or ("", ""))))
            client.users.retrieve_current_user()
        yield session


def _limit_waiting(client: Any) -> None:
    """Give each request of a client a time limit."""
    rest = client.api_client.rest_client
    plain = rest.request

    def request(*args: Any, _request_timeout: Any = None, **options: Any) -> Any:
        return plain(*args, _request_timeout=_request_timeout or _TIMEOUT_S, **options)

    rest.request = request


class Cvat:
    """A session with a CVAT server."""

    def __init__(self, client: Any, refusals: Refusals) -> None:
        self._client, self._refusals = client, refusals

    def find_project(self, wanted: int | str) -> Project | None:
        """Return the project with this number or name; None where there is none."""
        if isinstance(wanted, int):
            with self.requests(f"to open project {wanted}"):
                return _project(self._client.projects.retrieve(wanted))
        with self.requests("to list its projects"):
            found = [_project(each) for each in self._client.projects.list(name=wanted) if each.name == wanted]
        if len(found) > 1:
            numbers = ", ".join(str(project.id) for project in found)
            raise AnnotationServerError(
                f"{self._refusals.url} has {len(found)} projects called {wanted!r}: {numbers}",
                "choose one with --project-id",
            )
        return found[0] if found else None

    def make_project(self, name: str, export: Path) -> Project:
        """Make a project with the labels of an export, and its guide for annotators where there is one."""
        from cvat_sdk import models

        labels = json.loads((export / "labels.json").read_text())
        with self.requests(f"to make project {name!r}"):
            project = _project(self._client.projects.create({"name": name, "labels": labels}))
            guide = export / "guide.md"
            if guide.is_file():
                self._client.api_client.guides_api.create(
                    annotation_guide_write_request=models.AnnotationGuideWriteRequest(
                        project_id=project.id, markdown=guide.read_text()
                    )
                )
        return project

    def tasks(self, project: Project) -> list[Task]:
        """Return all tasks of a project; one is finished when all its jobs are completed."""
        with self.requests(f"to list the tasks of project {project.id}"):
            states = defaultdict(list)
            for job in self._client.jobs.list(project_id=project.id):
                if _word(job.type) != "ground_truth":
                    states[job.task_id].append(_word(job.state))
            return [
                _task(task, bool(states[task.id]) and set(states[task.id]) == {"completed"})
                for task in self._client.tasks.list(project_id=project.id)
            ]

    def make_task(self, project: Project, clip: ClipVideo, export: Path) -> Task:
        """Make a task without a video."""
        with self.requests(f"to make the task of clip {clip.clip_id}"):
            return _task(self._client.tasks.create({"name": clip.clip_id, "project_id": project.id}), False)

    def send_video(self, task: Task, clip: ClipVideo) -> None:
        """Give a task its video, and wait until the server has read it."""
        from cvat_sdk.core.proxies.tasks import ResourceType

        parameters = {"image_quality": _QUALITY, "use_cache": True}
        with self.requests(f"to store the video of clip {clip.clip_id}"), _named_video(clip) as file:
            if file is not None:
                kind, resource = ResourceType.LOCAL, str(file)
            elif str(clip.address).startswith(("http://", "https://")):
                kind, resource = ResourceType.REMOTE, str(clip.address)
            else:
                kind, resource = ResourceType.SHARE, str(clip.address)
            if not self._read_before(task):
                self._client.tasks.retrieve(task.id).upload_data([resource], resource_type=kind, params=parameters)

    def _read_before(self, task: Task) -> bool:
        """Tell whether the server has a task's video from an attempt that was cut off, and wait while it reads it.

        CVAT takes a task's video once. Raises the package's `BackgroundRequestException` where it could not be read.
        """
        begun, _ = self._client.api_client.requests_api.list(task_id=task.id, action="create")
        for request in begun.results:
            self._client.wait_for_completion(request.id)
        return bool(self._client.tasks.retrieve(task.id).size)

    def has_annotations(self, task: Task) -> bool:
        """Tell whether a task has tracks, shapes or tags."""
        with self.requests(f"to open the annotations of task {task.id}"):
            held = self._client.tasks.retrieve(task.id).get_annotations()
            return any(getattr(held, kind, None) for kind in ("tracks", "shapes", "tags"))

    def send_annotations(self, task: Task, clip: ClipVideo, export: Path) -> None:
        """Give a task the tracks that an export holds of its clip."""
        file = storage.join_local(export / "annotations", f"{clip.clip_id}.xml")
        if b"<track " in file.read_bytes():
            with self.requests(f"to store the pre-annotations of clip {clip.clip_id}"):
                self._client.tasks.retrieve(task.id).import_annotations("CVAT 1.1", file)

    def download(self, project: Project, tasks: Sequence[Task], folder: Path) -> str:
        """Write an archive for each task into a folder, and return the folder."""
        for task in tasks:
            with self.requests(f"to export task {task.id}"):
                found = self._client.tasks.retrieve(task.id)
                found.export_dataset(
                    "CVAT for video 1.1", storage.join_local(folder, f"task-{task.id}.zip"), include_images=False
                )
        return str(folder)

    @contextmanager
    def requests(self, what: str, login: bool = False) -> Iterator[None]:
        """Turn what goes wrong with requests into `AnnotationServerError`; a wrong password is HTTP 400."""
        import urllib3
        from cvat_sdk.api_client.exceptions import ApiException, OpenApiException
        from cvat_sdk.core.exceptions import BackgroundRequestException, CvatSdkException

        try:
            yield
        except ApiException as error:
            status = 401 if login and error.status == 400 else int(error.status or 0)
            body = error.body
            said = body.decode(errors="replace") if isinstance(body, bytes) else str(body or error.reason or "")
            raise self._refusals.of_status(status, what, said) from None
        except urllib3.exceptions.HTTPError as error:
            raise self._refusals.of_connection(what, error) from None
        except BackgroundRequestException as error:
            raise self._refusals.of_work(what, str(error)) from None
        except (OpenApiException, CvatSdkException, AssertionError, json.JSONDecodeError) as error:
            raise self._refusals.of_answer(what, error) from None


def _project(found: Any) -> Project:
    return Project(int(found.id), str(found.name))


def _word(value: Any) -> str:
    """Return a value of a closed set, which the package gives as text or wrapped."""
    return str(getattr(value, "value", value))


def _task(found: Any, finished: bool) -> Task:
    return Task(int(found.id), str(found.name), has_video=bool(getattr(found, "size", 0)), finished=finished)


@contextmanager
def _named_video(clip: ClipVideo) -> Iterator[Path | None]:
    """Give the file to send, called after its clip: what annotators do is found again by that name."""
    if clip.file is None or clip.file.stem == clip.clip_id:
        yield clip.file
        return
    with tempfile.TemporaryDirectory() as folder:
        named = storage.join_local(Path(folder), f"{clip.clip_id}{clip.file.suffix.lower()}")
        with suppress(OSError):
            os.link(clip.file.resolve(), named)
        if not named.exists():
            shutil.copyfile(clip.file, named)
        yield named
