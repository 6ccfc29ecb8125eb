"""A small OpenAI-compatible server on 127.0.0.1 that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A fault: (status, headers, body bytes, bytes really sent or None for all, seconds before the answer).
Fault = tuple[int, dict[str, str], bytes, int | None, float]


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Fault:
    """Return an error as OpenAI writes it; header names with `_` for `-`."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body, None, 0.0


def hang(seconds: float) -> Fault:
    """Return an answer that comes after `seconds`."""
    return 200, {}, completion("late"), None, seconds


def torn() -> Fault:
    """Return half of an answer, under the length of the whole."""
    body = completion("never seen whole")
    return 200, {}, body, len(body) // 2, 0.0


def cut_json() -> Fault:
    """Return a complete response whose JSON stops in the middle."""
    body = completion("never seen whole")
    return 200, {}, body[: len(body) // 2], None, 0.0


def page() -> Fault:
    """Return what a proxy says: HTML with status 200."""
    return 200, {"Content-Type": "text/html"}, b"<html>wait</html>", None, 0.0


def reset() -> Fault:
    """Return nothing and close the connection."""
    return 0, {}, b"", 0, 0.0


def completion(text: str | None, finish_reason: str = "stop") -> bytes:
    """Return a chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    document = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(document).encode()


@dataclass
class OpenAiServer:
    """Answers with `answer(request body)`; `faults` by prompt are used up first. Use as a context manager.

    requests: every body received with its time; keys: the Authorization headers.
    """

    answer: Callable[[dict[str, Any]], str | None] = lambda body: f"said: {prompt_of(body)}"
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    most_at_once: int = 0

    def __enter__(self) -> OpenAiServer:
        server, lock = self, threading.Lock()
        self._under_way = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append((time.monotonic(), body))
                    server.keys.add(self.headers["Authorization"] or "")
                    server._under_way += 1
                    server.most_at_once = max(server.most_at_once, server._under_way)
                    waiting = server.faults.get(prompt_of(body), [])
                    fault = waiting.pop(0) if waiting else None
                status, headers, answer, sent, wait = fault or (200, {}, completion(server.answer(body)), None, 0.01)
                server._closing.wait(wait)
                with lock:
                    server._under_way -= 1
                with contextlib.suppress(OSError):  # the client may have gone
                    self._send(status, headers, answer, sent)

            def _send(self, status: int, headers: dict[str, str], body: bytes, sent: int | None) -> None:
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

        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def asked(self, prompt: str) -> list[float]:
        """Return when a prompt was asked."""
        return [at for at, body in self.requests if prompt_of(body) == prompt]


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of a request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]
