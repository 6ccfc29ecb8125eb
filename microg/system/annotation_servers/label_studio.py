"""Label Studio by plain HTTP: its own package pins many others, and another version of one that we need.

A key is a legacy token, sent as it is, or a personal access token, for which the server gives a new one every few
minutes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from microg.errors import AnnotationServerError, ConfigError
from microg.system.annotation_servers.base import ClipVideo, Project, Refusals, Task, from_environment

VARIABLE = "LABEL_STUDIO_API_KEY"
_TITLE = "Label Studio"
_TIMEOUT = httpx2.Timeout(30.0, read=600.0, write=600.0)
_PAGE = 100
_WAIT_S, _PATIENCE_S = 1.0, 600.0
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_PERSONAL = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")  # JSON web tokens


def check_ready() -> None:
    """Raise `ConfigError` when the key is not in the environment."""
    if from_environment(VARIABLE) is None:
        raise ConfigError(
            f"{_TITLE} needs a key in the environment variable {VARIABLE}",
            "copy it from the server's 'Account & Settings', and export it",
        )


@contextmanager
def connect(url: str) -> Iterator[LabelStudio]:
    """Give a session with the server at `url`. Raises `AnnotationServerError`."""
    (key,) = from_environment(VARIABLE) or ("",)
    with httpx2.Client(timeout=_TIMEOUT) as client:
        yield LabelStudio(url, key, client)


class LabelStudio:
    """A session with a Label Studio."""

    def __init__(self, url: str, key: str, client: httpx2.Client) -> None:
        self._url, self._key, self._client = url, key, client
        self._access: str | None = None

    def find_project(self, wanted: int | str) -> Project | None:
        """Return the project with this number or title; None where there is none."""
        if isinstance(wanted, int):
            return _project(self._json("GET", f"projects/{wanted}/", f"to open project {wanted}"))
        found, page = [], 1
        while True:
            parameters = {"title": wanted, "page": page, "page_size": _PAGE}
            answer = self._json("GET", "projects/", "to list its projects", params=parameters)
            with self._understood("when its projects are listed"):
                found += [_project(row) for row in answer["results"] if row["title"] == wanted]
                more = answer.get("next")
            if not more:
                break
            page += 1
        if len(found) > 1:
            numbers = ", ".join(str(project.id) for project in found)
            raise AnnotationServerError(
                f"{self._url} has {len(found)} projects called {wanted!r}: {numbers}", "choose one with --project-id"
            )
        return found[0] if found else None

    def make_project(self, name: str, export: Path) -> Project:
        """Make a project with the labelling config of an export."""
        body = {"title": name, "label_config": (export / "labeling_config.xml").read_text()}
        what = f"to make project {name!r}"
        answer = self._json("POST", "projects/", what, json=body)
        with self._understood(what):
            return _project(answer)

    def tasks(self, project: Project) -> list[Task]:
        """Return all tasks of a project."""
        found: list[Task] = []
        page, what = 1, f"to list the tasks of project {project.id}"
        while True:
            parameters = {"project": project.id, "page": page, "page_size": _PAGE}
            answer = self._json("GET", "tasks/", what, params=parameters)
            with self._understood(what):
                rows = answer["tasks"]
                found += [_task(row) for row in rows]
                if not rows or len(found) >= answer["total"]:
                    return found
            page += 1

    def make_task(self, project: Project, clip: ClipVideo, export: Path) -> Task:
        """Send the video, where the server does not find it itself, and make a task for it."""
        entry = _exported(export)[clip.clip_id]
        what = f"to make the task of clip {clip.clip_id}"
        body: dict[str, Any] = {"project": project.id, "data": {**entry["data"], "video": clip.address}}
        if clip.file is not None:
            upload, body["data"]["video"] = self._upload(project, clip.clip_id, clip.file)
            body["file_upload"] = upload
        answer = self._json("POST", "tasks/", what, json=body)
        with self._understood(what):
            return Task(int(answer["id"]), clip.clip_id, has_video=True, finished=False)

    def send_video(self, task: Task, clip: ClipVideo) -> None:
        """Do nothing: a task is made with its video."""

    def has_annotations(self, task: Task) -> bool:
        """Tell whether a task has predictions, or annotations of people."""
        what = f"to open task {task.id}"
        answer = self._json("GET", f"tasks/{task.id}/", what)
        with self._understood(what):
            return bool(answer.get("predictions") or answer.get("annotations"))

    def send_annotations(self, task: Task, clip: ClipVideo, export: Path) -> None:
        """Give a task the predictions that an export holds of its clip."""
        for prediction in _exported(export)[clip.clip_id]["predictions"]:
            if prediction["result"]:
                what = f"to store the pre-annotations of clip {clip.clip_id}"
                self._json("POST", "predictions/", what, json={"task": task.id, **prediction})

    def download(self, project: Project, tasks: Sequence[Task], folder: Path) -> str:
        """Write the annotations of tasks into a JSON file, and return its path."""
        what = f"to export project {project.id}"
        exported = self._exported_tasks(project, what)
        wanted = {task.id: task for task in tasks}
        with self._understood(what):
            chosen = [row for row in exported if row["id"] in wanted]
        path = folder / "tasks.json"
        path.write_text(json.dumps(chosen))
        return str(path)

    def _exported_tasks(self, project: Project, what: str) -> Any:
        """Return all tasks with their annotations: at once, or from a snapshot where the server makes those only."""
        base = f"projects/{project.id}"
        parameters = {"exportType": "JSON", "download_all_tasks": "true", "download_resources": "false"}
        response = self._send("GET", f"{base}/export", what, missing_ok=True, params=parameters)
        if response.status_code != 404:
            return self._decoded(response, what)
        snapshot = self._json("POST", f"{base}/exports/", what, json={"title": "microg data pull"})
        until = time.monotonic() + _PATIENCE_S
        with self._understood(what):
            number = int(snapshot["id"])
        while snapshot.get("status") != "completed":
            if snapshot.get("status") == "failed" or time.monotonic() > until:
                raise AnnotationServerError(
                    f"{_TITLE} at {self._url} made no export of project {project.id}: {snapshot.get('status')}",
                    "try again later",
                )
            time.sleep(_WAIT_S)
            snapshot = self._json("GET", f"{base}/exports/{number}", what)
        return self._json("GET", f"{base}/exports/{number}/download", what, params={"exportType": "JSON"})

    def _upload(self, project: Project, clip_id: str, file: Path) -> tuple[int, str]:
        """Send a video, and return the server's number for it and where tasks find it."""
        what = f"to store the video of clip {clip_id}"
        with file.open("rb") as video:
            parts = {"file": (f"{clip_id}{file.suffix.lower()}", video, "application/octet-stream")}
            parameters = {"commit_to_project": "false"}
            answer = self._json("POST", f"projects/{project.id}/import", what, files=parts, params=parameters)
        until = time.monotonic() + _PATIENCE_S
        while not answer.get("file_upload_ids") and "import" in answer and time.monotonic() < until:
            time.sleep(_WAIT_S)  # servers of several machines take files in the background
            answer = self._json("GET", f"projects/{project.id}/imports/{int(answer['import'])}/", what) | {
                "import": answer["import"]
            }
            if answer.get("status") == "failed":
                raise self._refusals.of_work(what, str(answer.get("error")))
        with self._understood(what):
            upload = int(answer["file_upload_ids"][0])
        stored = self._json("GET", f"import/file-upload/{upload}", what)
        with self._understood(what):
            return upload, f"/data/{stored['file'].removeprefix('/').removeprefix('data/')}"

    @property
    def _refusals(self) -> Refusals:
        secrets = (self._key,) if self._access is None else (self._key, self._access)
        return Refusals(_TITLE, self._url, VARIABLE, secrets)

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Turn what an answer lacks into an `AnnotationServerError`."""
        try:
            yield
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise self._refusals.of_answer(what, error) from None

    def _json(self, method: str, path: str, what: str, **options: Any) -> Any:
        return self._decoded(self._send(method, path, what, **options), what)

    def _decoded(self, response: httpx2.Response, what: str) -> Any:
        with self._understood(what):
            return response.json()

    def _send(self, method: str, path: str, what: str, *, missing_ok: bool = False, **options: Any) -> httpx2.Response:
        """Return the answer to a request; `missing_ok` leaves HTTP 404 to the caller."""
        response = self._request(method, path, what, **options)
        if response.status_code == 401 and self._access is not None:  # it was good for minutes only
            self._access = None
            response = self._request(method, path, what, **options)
        if response.is_success or (missing_ok and response.status_code == 404):
            return response
        raise self._refusals.of_status(response.status_code, what, response.text)

    def _request(self, method: str, path: str, what: str, **options: Any) -> httpx2.Response:
        for part in options.get("files", {}).values():
            part[1].seek(0)
        headers = {"Authorization": self._authorization()}
        try:
            return self._client.request(method, f"{self._url}/api/{path}", headers=headers, **options)
        except httpx2.HTTPError as error:
            raise self._refusals.of_connection(what, error) from None

    def _authorization(self) -> str:
        if not _PERSONAL.fullmatch(self._key):
            return f"Token {self._key}"
        if self._access is None:
            what = "to use the key"
            try:
                response = self._client.post(f"{self._url}/api/token/refresh/", json={"refresh": self._key})
            except httpx2.HTTPError as error:
                raise self._refusals.of_connection(what, error) from None
            if not response.is_success:
                raise self._refusals.of_status(response.status_code, what, response.text)
            with self._understood(what):
                self._access = str(response.json()["access"])
        return f"Bearer {self._access}"


def _project(row: Mapping[str, Any]) -> Project:
    return Project(int(row["id"]), str(row["title"]))


def _task(row: Mapping[str, Any]) -> Task:
    finished = bool(row.get("is_labeled")) and int(row.get("total_annotations") or 0) > 0
    return Task(int(row["id"]), _clip_of(row["data"]), has_video=True, finished=finished)


def _clip_of(data: Mapping[str, Any]) -> str:
    """Return the clip that a task's data name, or that its video is called after."""
    if data.get("clip_id"):
        return str(data["clip_id"])
    stem = unquote(urlsplit(str(data.get("video") or "")).path).rpartition("/")[2].rpartition(".")[0]
    uploaded = _UPLOADED.fullmatch(stem)
    return uploaded[1] if uploaded else stem


@lru_cache(maxsize=1)
def _exported(export: Path) -> dict[str, dict[str, Any]]:
    """Return the tasks of an export by clip."""
    tasks = json.loads((export / "tasks.json").read_text())
    return {task["data"]["clip_id"]: task for task in tasks}
