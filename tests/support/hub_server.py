"""A Hugging Face hub on 127.0.0.1 for tests: the parts of its protocol that a download uses, and its failures.

Served: repository info, paged recursive tree, and `resolve` with ETag, X-Linked-Etag, X-Repo-Commit, a redirect of
large files to another host name, and byte ranges. All requests are recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.web import serving

COMMIT = "1234567890abcdef1234567890abcdef12345678"
_LFS_OVER = 1000  # bytes; larger files are kept (and served) like LFS files
_PAGE = 3


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    byte_range: str | None
    authorization: str | None
    host: str
    sent: int = 0


@dataclass
class FakeHub:
    """The repository `repo` with `files`, and what is to go wrong."""

    repo: str
    kind: str
    files: dict[str, bytes]
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    token: str | None = None  # asked for when set
    gated: bool = False
    drop_after: dict[str, int] = field(default_factory=dict)  # path -> bytes sent before the connection is cut, once
    broken_on_range: bool = False  # answer a Range request with 403
    ignores_range: bool = False
    served: dict[str, bytes] = field(default_factory=dict)  # path -> other content than the listing promises
    extra_paths: list[str] = field(default_factory=list)  # listed, whatever they are

    def downloads(self, path: str) -> list[Request]:
        """Requests that carried bytes of `path`."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(f"!{path}")]


def git_sha1(data: bytes) -> str:
    """Return the git blob id of `data`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve `hub` on a free port until the block ends; sets `hub.url`."""
    with serving(_handler(hub)) as hub.url:
        yield hub


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            self.record = Request(
                self.command, path, self.headers.get("Range"), self.headers.get("Authorization"), self.headers["Host"]
            )
            hub.requests.append(self.record)
            api = f"/api/{hub.kind}s/{hub.repo}"
            resolve = f"{'/datasets' if hub.kind == 'dataset' else ''}/{hub.repo}/resolve/"
            if path.startswith("/storage/"):
                self._content(path.partition("!")[2], body)
            elif not path.startswith((api, resolve)):
                self._fail(404, "RepoNotFound", body)
            elif hub.token and self.record.authorization != f"Bearer {hub.token}":
                self._fail(401, "", body)
            elif hub.gated:
                self._fail(403, "GatedRepo", body)
            elif path.startswith(f"{api}/tree/"):
                self._tree(parse_qs(url.query))
            elif path.startswith(api):
                revision = path.removeprefix(api).removeprefix("/revision/") or "main"
                if revision in ("main", "v1", COMMIT):
                    self._send(json.dumps({"id": hub.repo, "sha": COMMIT, "siblings": []}).encode(), body)
                else:
                    self._fail(404, "RevisionNotFound", body)
            else:
                self._resolve(path.removeprefix(resolve).partition("/")[2], body)

        def _entry(self, name: str, data: bytes) -> dict[str, Any]:
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if len(data) > _LFS_OVER:
                pointer = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                entry |= {"lfs": pointer, "oid": git_sha1(pointer["oid"].encode())}
            return entry

        def _tree(self, query: dict[str, list[str]]) -> None:
            entries = [self._entry(name, data) for name, data in hub.files.items()]
            entries += [{"type": "directory", "path": "annotation_files", "oid": "0" * 40, "size": 0}]
            entries += [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in hub.extra_paths]
            start = int(query.get("cursor", ["0"])[0])
            headers = {}
            if start + _PAGE < len(entries):
                more = f"{hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + _PAGE}"
                headers["Link"] = f'<{more}>; rel="next"'
            self._send(json.dumps(entries[start : start + _PAGE]).encode(), True, headers)

        def _resolve(self, name: str, body: bool) -> None:
            if name not in hub.files:
                self._fail(404, "EntryNotFound", body)
                return
            data = hub.files[name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(data)}"'}
            if len(data) > _LFS_OVER:
                headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
                headers["X-Linked-Size"] = str(len(data))
                # another host name, as the hub's storage has one: the key must not follow there
                headers["Location"] = f"{hub.url.replace('127.0.0.1', 'localhost')}/storage/!{name}"
                self._send(b"", body, headers, 302)
            else:
                self.record.path = f"{self.record.path}!{name}"
                self._content(name, body, headers)

        def _content(self, name: str, body: bool, headers: dict[str, str] | None = None) -> None:
            data = hub.served.get(name, hub.files[name])
            headers = {**(headers or {}), "Accept-Ranges": "bytes"}
            asked = self.headers.get("Range")
            status, start = 200, 0
            if asked and hub.broken_on_range:
                self._fail(403, "", body)
                return
            if asked and not hub.ignores_range:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, status, size = int(first), 206, len(data)
                data = data[: int(last) + 1] if last else data
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{size}"
            self._send(data[start:], body, headers, status, cut=hub.drop_after.pop(name, None))

        def _fail(self, status: int, code: str, body: bool) -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": "as the test asks"} if code else {}
            self._send(b'{"error": "as the test asks"}', body, headers, status)

        def _send(
            self,
            data: bytes,
            body: bool,
            headers: dict[str, str] | None = None,
            status: int = 200,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                sent = data if cut is None else data[:cut]
                self.wfile.write(sent)
                self.record.sent = len(sent)
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(1)

    return Handler
