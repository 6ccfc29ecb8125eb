"""A web server of files on 127.0.0.1 for tests: byte ranges, and connections that break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.web import serving


@dataclass
class FileServer:
    """Files by name, and what is to go wrong.

    Attributes:
        files: What is served.
        url: Its address, while it runs.
        drop_after: By name, after how many bytes the connection breaks, once.
        status: Answered instead of files, where it is set.
        ranges: The `Range` of each request that was answered, None where there was none.
    """

    files: dict[str, bytes]
    url: str = ""
    drop_after: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    ranges: list[str | None] = field(default_factory=list)


@contextmanager
def serve_files(server: FileServer) -> Iterator[FileServer]:
    """Serve on a free port until the block ends; sets `url`."""
    with serving(_handler(server)) as server.url:
        yield server


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name, asked = self.path.rpartition("/")[2], self.headers.get("Range")
            server.ranges.append(asked)
            data = server.files.get(name)
            status = server.status or (404 if data is None else 200)
            headers = {}
            if data is None or status != 200:
                data = b""
            elif asked is not None:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                whole = len(data)
                status, headers["Content-Range"] = 206, f"bytes {start}-{whole - 1}/{whole}"
                if start >= whole:
                    status, headers["Content-Range"] = 416, f"bytes */{whole}"
                data = data[start:]
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(header, value)
            self.end_headers()
            cut = server.drop_after.pop(name, None)
            self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(1)

    return Handler
