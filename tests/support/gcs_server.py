"""A Google Cloud Storage on 127.0.0.1 for tests: the parts of its JSON interface with which files are read."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_WHEN = "2026-01-01T00:00:00Z"


@contextmanager
def gcs_server(bucket: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files of a bucket until the block ends; yields what `STORAGE_EMULATOR_HOST` has to be."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(bucket, files))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(bucket: str, files: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    def about(name: str) -> dict[str, Any]:
        digest = base64.b64encode(hashlib.md5(files[name]).digest()).decode()
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "size": str(len(files[name])),
            "md5Hash": digest,
            "etag": digest,
            "generation": "1",
            "timeCreated": _WHEN,
            "updated": _WHEN,
        }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query, (_, objects, name) = parse_qs(url.query), url.path.partition(f"/b/{bucket}/o")
            name = unquote(name.removeprefix("/"))
            if not objects:
                self._send(404, b"{}")
            elif not name:
                prefix = query.get("prefix", [""])[0]
                items = [about(each) for each in files if each.startswith(prefix)]
                self._send(200, json.dumps({"kind": "storage#objects", "items": items}).encode())
            elif name not in files:
                self._send(404, b"{}")
            elif query.get("alt") == ["media"]:
                first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
                self._send(206, files[name][int(first) : int(last) + 1 if last else None])
            else:
                self._send(200, json.dumps(about(name)).encode())

        def _send(self, status: int, data: bytes) -> None:
            with suppress(ConnectionError):  # a client that looks only whether something is there hangs up
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    return Handler
