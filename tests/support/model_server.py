"""A small HTTP server on 127.0.0.1 that answers as a model's API does, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

# A fault: (status, headers, body bytes, bytes really sent or None for all, seconds before the answer).
Fault = tuple[int, dict[str, str], bytes, int | None, float]


def page() -> Fault:
    """Return what a proxy says: HTML with status 200."""
    return 200, {"Content-Type": "text/html"}, b"<html>wait</html>", None, 0.0


def reset() -> Fault:
    """Return nothing and close the connection."""
    return 0, {}, b"", 0, 0.0


def torn(body: bytes) -> Fault:
    """Return half of an answer, under the length of the whole."""
    return 200, {}, body, len(body) // 2, 0.0


def cut(body: bytes) -> Fault:
    """Return a complete response whose JSON stops in the middle."""
    return 200, {}, body[: len(body) // 2], None, 0.0


@dataclass
class ModelServer:
    """Answers with `answer(request body)`; `faults` by prompt are used up first. Use as a context manager.

    requests: every body received with its time; keys: the headers `key_header`; paths: all paths asked. `latency_s`
    passes before each answer.
    """

    answer: Callable[[dict[str, Any]], str | None]
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    most_at_once: int = 0
    latency_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    key_header: ClassVar[str] = "Authorization"
    base_path: ClassVar[str] = ""

    def prompt_of(self, body: dict[str, Any]) -> str:
        """Return the text that a request asks."""
        raise NotImplementedError

    def completion(self, text: str | None) -> bytes:
        """Return a good answer's body."""
        raise NotImplementedError

    def other(self, method: str, path: str, data: bytes) -> Fault | None:
        """Answer what is no question to the model; None where it is one."""
        return None

    def __enter__(self) -> Any:
        server, self._lock = self, threading.Lock()
        self._under_way = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, data: bytes) -> None:
                with server._lock:
                    server.keys.add(self.headers[server.key_header] or "")
                    server.paths.add(self.path)
                special = server.other(self.command, self.path, data)
                try:
                    if special is not None:
                        self._send(*special)
                    else:
                        self._ask(json.loads(data))
                except OSError:
                    self.close_connection = True  # the client has gone

            def _ask(self, body: dict[str, Any]) -> None:
                with server._lock:
                    server.requests.append((time.monotonic(), body))
                    server._under_way += 1
                    server.most_at_once = max(server.most_at_once, server._under_way)
                    waiting = server.faults.get(server.prompt_of(body), [])
                    fault = waiting.pop(0) if waiting else None
                if fault is None:
                    answer = server.completion(server.answer(body))
                    fault = (200, server.headers, answer, None, server.latency_s)
                if fault[-1]:
                    server._closing.wait(fault[-1])
                with server._lock:  # before the answer: its reader may ask again at once
                    server._under_way -= 1
                self._send(*fault)

            def _send(self, status: int, headers: dict[str, str], body: bytes, sent: int | None, _: float) -> None:
                self.close_connection = sent is not None
                if not status:
                    return
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:sent])

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._closing = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.base_path}"

    def asked(self, prompt: str) -> list[float]:
        """Return when a prompt was asked."""
        return [at for at, body in self.requests if self.prompt_of(body) == prompt]
