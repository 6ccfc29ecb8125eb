"""Annotation servers on 127.0.0.1 for tests: the REST paths that pushing and pulling use of CVAT and Label Studio.

Each keeps what it is sent, refuses wrong keys, and fails where a test says so. Written after what `cvat-sdk` 2.80 and
`label-studio-sdk` 2.1 send and read.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.web import serving


@dataclass
class Fault:
    """Requests that fail: those whose "METHOD /path" a pattern matches, after `after` that did not, `times` times.

    `late` means that the server does what it is told, and fails only then.
    """

    pattern: str
    status: int
    after: int = 0
    times: int = 1
    late: bool = False

    def strikes(self, line: str) -> bool:
        """Count a request, and tell whether it fails."""
        if not re.fullmatch(self.pattern, line):
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class Call:
    """A request as the server sees it."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def parts(self) -> dict[str, tuple[str | None, bytes]]:
        """Return the fields of a multipart body: file name and content by field."""
        head = b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n"
        message = BytesParser(policy=HTTP).parsebytes(head + self.body)
        found = {}
        for part in message.iter_parts():  # type: ignore[attr-defined]
            name = part.get_param("name", header="content-disposition")
            found[str(name)] = (part.get_filename(), part.get_payload(decode=True))
        return found


@dataclass
class Answer:
    """What a server answers."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None


@dataclass
class FakeServer:
    """What both servers have: an address, keys, faults, and a record of requests."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    projects: dict[int, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)

    def count(self, pattern: str) -> int:
        """Return how many requests a pattern matches."""
        return sum(1 for line in self.requests if re.fullmatch(pattern, line))

    def allows(self, headers: Any) -> bool:
        raise NotImplementedError

    def routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        raise NotImplementedError

    def answer(self, call: Call) -> Answer:
        """Return the answer to a request."""
        line = f"{call.method} {call.path}"
        self.requests.append(line)
        fault = next((fault for fault in self.faults if fault.strikes(line)), None)
        failed = Answer({"detail": f"as the test wants; your key is {call.headers['Authorization']}"})
        if fault and not fault.late:
            failed.status = fault.status
            return failed
        if not self.allows(call.headers) and not self.is_open(line):
            return Answer({"detail": f"no such key: {call.headers['Authorization']}"}, 401)
        for pattern, action in self.routes():
            match = re.fullmatch(pattern, line)
            if match:
                try:
                    done = action(call, *(int(each) if each.isdigit() else each for each in match.groups()))
                except KeyError:
                    return Answer({"detail": "Not found."}, 404)
                if fault:
                    failed.status = fault.status
                    return failed
                return done
        return Answer({"detail": f"the fake knows no {line}"}, 404)

    def is_open(self, line: str) -> bool:
        return False


@dataclass
class FakeLabelStudio(FakeServer):
    """A Label Studio; `key` is what it accepts, or `refresh` a personal access token for which it gives others."""

    key: str = "ls-secret-0123456789"
    refresh: str | None = None
    access_tokens: int = 0
    enterprise: bool = False
    page: int = 2
    files: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)

    def allows(self, headers: Any) -> bool:
        if self.refresh is not None:
            return headers["Authorization"] == f"Bearer access-{self.access_tokens}"
        return headers["Authorization"] == f"Token {self.key}"

    def is_open(self, line: str) -> bool:
        return line == "POST /api/token/refresh/"

    def routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        return [
            ("POST /api/token/refresh/", self._refresh),
            ("GET /api/projects/", self._list_projects),
            ("POST /api/projects/", self._make_project),
            (r"GET /api/projects/(\d+)/", lambda call, number: Answer(self.projects[number])),
            (r"POST /api/projects/(\d+)/import", self._import),
            (r"GET /api/import/file-upload/(\d+)", self._file),
            ("GET /api/tasks/", self._list_tasks),
            ("POST /api/tasks/", self._make_task),
            (r"GET /api/tasks/(\d+)/", lambda call, number: Answer(self._full(self.tasks[number]))),
            ("POST /api/predictions/", self._predict),
            (r"GET /api/projects/(\d+)/export", self._export),
            (r"POST /api/projects/(\d+)/exports/", lambda call, number: Answer({"id": 5, "status": "created"}, 201)),
            (r"GET /api/projects/(\d+)/exports/5", lambda call, number: Answer({"id": 5, "status": "completed"})),
            (r"GET /api/projects/(\d+)/exports/5/download", self._download),
        ]

    def annotate(self, clip_id: str, result: list[dict[str, Any]], user: int = 1) -> None:
        """Finish a task as a person does."""
        task = next(task for task in self.tasks.values() if task["data"]["clip_id"] == clip_id)
        number = len(task["annotations"]) + 1
        stamp = f"2026-01-01T00:00:{number:02d}Z"
        annotation = {"id": number, "completed_by": user, "result": result, "was_cancelled": False}
        task["annotations"].append(annotation | {"created_at": stamp, "updated_at": stamp})
        task["is_labeled"] = True

    def _refresh(self, call: Call) -> Answer:
        if call.json["refresh"] != self.refresh:
            return Answer({"detail": "Token is invalid"}, 401)
        self.access_tokens += 1
        return Answer({"access": f"access-{self.access_tokens}"})

    def _list_projects(self, call: Call) -> Answer:
        found = [each for each in self.projects.values() if call.query.get("title", "") in each["title"]]
        page, size = int(call.query["page"]), min(self.page, int(call.query["page_size"]))
        following = f"{self.url}/api/projects/?page={page + 1}" if page * size < len(found) else None
        return Answer({"count": len(found), "next": following, "results": found[(page - 1) * size : page * size]})

    def _make_project(self, call: Call) -> Answer:
        number = len(self.projects) + 1
        self.projects[number] = {"id": number, **call.json}
        return Answer(self.projects[number], 201)

    def _import(self, call: Call, project: int) -> Answer:
        assert project in self.projects
        name, data = call.parts()["file"]
        number = len(self.files) + 1
        self.files[number] = (str(name), data)
        assert call.query == {"commit_to_project": "false"}
        return Answer({"task_count": 1, "file_upload_ids": [number], "found_formats": [".mp4"]}, 201)

    def _file(self, call: Call, number: int) -> Answer:
        return Answer({"id": number, "file": f"upload/1/0123abcd-{self.files[number][0]}"})

    def _full(self, task: dict[str, Any]) -> dict[str, Any]:
        return task | {"predictions": [each for each in self.predictions if each["task"] == task["id"]]}

    def _list_tasks(self, call: Call) -> Answer:
        found = [self._row(task) for task in self.tasks.values() if task["project"] == int(call.query["project"])]
        page, size = int(call.query["page"]), min(self.page, int(call.query["page_size"]))
        if page > 1 and (page - 1) * size >= len(found):
            return Answer({"detail": "Invalid page."}, 404)
        chosen = found[(page - 1) * size : page * size]
        return Answer({"tasks": chosen, "total": len(found), "total_annotations": 0, "total_predictions": 0})

    def _row(self, task: dict[str, Any]) -> dict[str, Any]:
        row = {key: value for key, value in task.items() if key != "annotations"}
        return row | {"total_annotations": len(task["annotations"])}

    def _make_task(self, call: Call) -> Answer:
        number = 100 + len(self.tasks)
        self.projects[call.json["project"]]  # a missing project is 404
        self.tasks[number] = {"id": number, "annotations": [], "is_labeled": False, **call.json}
        return Answer(self.tasks[number], 201)

    def _predict(self, call: Call) -> Answer:
        self.tasks[call.json["task"]]
        self.predictions.append(call.json)
        return Answer(call.json, 201)

    def _export(self, call: Call, project: int) -> Answer:
        return Answer({"detail": "use exports/"}, 404) if self.enterprise else self._download(call, project)

    def _download(self, call: Call, project: int) -> Answer:
        return Answer([self._full(task) for task in self.tasks.values() if task["project"] == project])


_STORAGE = {"id": 1, "location": "local", "cloud_storage_id": None}
_DATE = "2026-01-01T00:00:00Z"
_SUMMARY = {"url": "http://127.0.0.1/api/labels"}


@dataclass
class FakeCvat(FakeServer):
    """A CVAT; `token` is what it accepts, or a session that `user` and `password` open."""

    token: str = "cvat-secret-0123456789"
    user: str = "anna"
    password: str = "cvat-password-0123456789"
    videos: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    sources: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, bytes] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    guides: list[dict[str, Any]] = field(default_factory=list)
    work: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: bool = False
    _uploads: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    def allows(self, headers: Any) -> bool:
        return headers["Authorization"] == f"Bearer {self.token}" or "sessionid=open" in (headers["Cookie"] or "")

    def is_open(self, line: str) -> bool:
        return line == "POST /api/auth/login"

    def routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        return [
            ("POST /api/auth/login", self._login),
            ("GET /api/users/self", lambda call: Answer(_user())),
            ("GET /api/projects", lambda call: self._paged(call, self.projects, {"name": call.query.get("name")})),
            ("POST /api/projects", self._make_project),
            (r"GET /api/projects/(\d+)", lambda call, number: Answer(self.projects[number])),
            ("POST /api/guides", self._guide),
            ("GET /api/tasks", self._list_tasks),
            ("POST /api/tasks", self._make_task),
            (r"GET /api/tasks/(\d+)", lambda call, number: Answer(self.tasks[number])),
            ("GET /api/jobs", self._list_jobs),
            (r"POST /api/tasks/(\d+)/data/?", self._data),
            (r"GET /api/tasks/(\d+)/annotations/?", self._labels),
            (r"POST /api/tasks/(\d+)/annotations/?", self._upload_annotations),
            (r"PATCH /api/tasks/(\d+)/annotations/file", self._chunk),
            (r"POST /api/tasks/(\d+)/dataset/export", self._export),
            ("GET /api/requests", self._list_work),
            (r"GET /api/requests/([\w-]+)", lambda call, name: Answer(self.work[str(name)])),
            (r"GET /download/(\d+)", self._archive),
        ]

    def annotate(self, clip_id: str, xml: bytes) -> None:
        """Finish a task as people do."""
        number = next(task["id"] for task in self.tasks.values() if task["name"] == clip_id)
        self.annotations[number] = xml
        self.finished.add(number)

    def _login(self, call: Call) -> Answer:
        if (call.json["username"], call.json["password"]) != (self.user, self.password):
            return Answer({"non_field_errors": ["Unable to log in with provided credentials."]}, 400)
        cookies = {"Set-Cookie": "sessionid=open; Path=/", "set-cookie": "csrftoken=csrf; Path=/"}
        return Answer({"key": "unused"}, 200, cookies)

    def _paged(self, call: Call, rows: dict[int, dict[str, Any]], equal: dict[str, Any]) -> Answer:
        found = [row for row in rows.values() if all(v is None or str(row[k]) == str(v) for k, v in equal.items())]
        page, size = int(call.query.get("page", 1)), 2
        following = f"{self.url}/next?page={page + 1}" if page * size < len(found) else None
        chosen = found[(page - 1) * size : page * size]
        return Answer({"count": len(found), "next": following, "previous": None, "results": chosen})

    def _make_project(self, call: Call) -> Answer:
        number = len(self.projects) + 1
        self.projects[number] = {
            "id": number,
            "name": call.json["name"],
            "labels": _SUMMARY,
            "tasks": {"url": f"{self.url}/api/tasks"},
            "spec": call.json["labels"],
            "url": f"{self.url}/api/projects/{number}",
            "owner": None,
            "assignee": None,
            "target_storage": _STORAGE,
            "source_storage": _STORAGE,
        }
        return Answer(self.projects[number], 201)

    def _guide(self, call: Call) -> Answer:
        self.guides.append(call.json)
        return Answer({"id": len(self.guides), **call.json, "task_id": None, "assets": []}, 201)

    def _list_tasks(self, call: Call) -> Answer:
        return self._paged(call, self.tasks, {"project_id": call.query["project_id"]})

    def _make_task(self, call: Call) -> Answer:
        self.projects[call.json["project_id"]]
        number = 10 + len(self.tasks)
        self.tasks[number] = {
            "id": number,
            "name": call.json["name"],
            "project_id": call.json["project_id"],
            "jobs": {"url": f"{self.url}/api/jobs", "count": 1, "completed": 0, "validation": 0},
            "labels": _SUMMARY,
            "size": 0,
            "data": None,
            "status": "annotation",
            "owner": _user(),
            "assignee": None,
            "organization": None,
            "target_storage": _STORAGE,
            "source_storage": _STORAGE,
            "created_date": _DATE,
            "updated_date": _DATE,
        }
        return Answer(self.tasks[number], 201)

    def _list_jobs(self, call: Call) -> Answer:
        jobs = {}
        for number, task in self.tasks.items():
            if task["size"]:
                jobs[number] = {
                    "id": 1000 + number,
                    "task_id": number,
                    "project_id": task["project_id"],
                    "issues": {"url": "http://127.0.0.1/api/issues", "count": 0},
                    "labels": _SUMMARY,
                    "type": "annotation",
                    "stage": "annotation",
                    "state": "completed" if number in self.finished else "new",
                    "status": "annotation",
                    "assignee": _user(),
                }
        return self._paged(call, jobs, {"project_id": call.query["project_id"]})

    def _data(self, call: Call, number: int) -> Answer:
        task = self.tasks[number]
        if "Upload-Start" in call.headers:
            task["data"] = number
            return Answer({}, 202)
        if "Upload-Multiple" in call.headers:
            name, data = call.parts()["client_files[0]"]
            self.videos[number] = (str(name), data)
            return Answer({}, 200)
        sent = call.json
        self.sources[number] = sent
        task["data"] = number
        if not self.unreadable:
            task["size"] = 30
        return self._started("create:task", number, "failed" if self.unreadable else "finished")

    def _labels(self, call: Call, number: int) -> Answer:
        tracks = [
            {"frame": 0, "label_id": 1, "shapes": [], "attributes": []}
            for _ in range(self.annotations.get(number, b"").count(b"<track "))
        ]
        return Answer({"version": 1, "tags": [], "shapes": [], "tracks": tracks})

    def _upload_annotations(self, call: Call, number: int) -> Answer:
        if "Upload-Start" in call.headers:
            return Answer({}, 202)
        if "Upload-Length" in call.headers:
            described = dict(each.split(" ") for each in call.headers["Upload-Metadata"].split(","))
            name = base64.b64decode(described["filename"]).decode()
            self._uploads[number] = (name, b"")
            place = f"{self.url}/api/tasks/{number}/annotations/file"
            return Answer({}, 201, {"Location": place, "Upload-Filename": name})
        assert call.query["format"] == "CVAT 1.1"
        self.annotations[number] = self._uploads.pop(number)[1]
        return self._started("import:annotations", number)

    def _chunk(self, call: Call, number: int) -> Answer:
        name, before = self._uploads[number]
        self._uploads[number] = (name, before + call.body)
        return Answer(None, 204, {"Upload-Offset": str(len(before + call.body))})

    def _export(self, call: Call, number: int) -> Answer:
        assert call.query["format"] == "CVAT for video 1.1"
        return self._started("export:dataset", number, url=f"{self.url}/download/{number}")

    def _archive(self, call: Call, number: int) -> Answer:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as bundle:
            bundle.writestr("annotations.xml", self.annotations.get(number, b"<annotations/>"))
        return Answer(content=packed.getvalue())

    def _started(self, kind: str, number: int, status: str = "finished", url: str | None = None) -> Answer:
        name = f"rq-{len(self.work)}"
        self.work[name] = {
            "id": name,
            "status": status,
            "operation": {"type": kind, "target": "task", "task_id": number},
            "created_date": _DATE,
            "message": "moov atom not found" if status == "failed" else "",
            "owner": {"id": 1, "username": "anna"},
            "result_url": url,
        }
        return Answer({"rq_id": name}, 202)

    def _list_work(self, call: Call) -> Answer:
        number = int(call.query["task_id"])
        found = [
            each
            for each in self.work.values()
            if each["operation"]["task_id"] == number and each["operation"]["type"].startswith(call.query["action"])
        ]
        return Answer({"count": len(found), "next": None, "previous": None, "results": found})


def _user() -> dict[str, Any]:
    return {
        "url": "http://127.0.0.1/api/users/1",
        "id": 1,
        "username": "anna",
        "first_name": "",
        "last_name": "",
        "email": "",
        "groups": [],
    }


@contextmanager
def serve(fake: FakeServer) -> Iterator[FakeServer]:
    """Serve a fake on a free port until the block ends; sets its address."""
    with serving(_handler(fake)) as fake.url:
        yield fake


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            body = self._body()
            answer = fake.answer(Call(self.command, url.path, query, self.headers, body))
            content = answer.content
            kind = "application/octet-stream"
            if content is None:
                content, kind = (
                    b"" if answer.document is None else json.dumps(answer.document).encode(),
                    "application/json",
                )
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if content:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        do_GET = do_POST = do_PATCH = do_HEAD = _answer

    return Handler
