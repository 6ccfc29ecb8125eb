"""An OpenAI-compatible server on 127.0.0.1 that misbehaves on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.support import model_server
from tests.support.model_server import Fault, ModelServer, page, reset

__all__ = ["OpenAiServer", "completion", "cut_json", "failure", "hang", "page", "prompt_of", "reset", "torn"]


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Fault:
    """Return an error as OpenAI writes it; header names with `_` for `-`."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body, None, 0.0


def hang(seconds: float) -> Fault:
    """Return an answer that comes after `seconds`."""
    return 200, {}, completion("late"), None, seconds


def torn() -> Fault:
    """Return half of an answer, under the length of the whole."""
    return model_server.torn(completion("never seen whole"))


def cut_json() -> Fault:
    """Return a complete response whose JSON stops in the middle."""
    return model_server.cut(completion("never seen whole"))


def completion(text: str | None, finish_reason: str = "stop") -> bytes:
    """Return a chat completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    document = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(document).encode()


@dataclass
class OpenAiServer(ModelServer):
    """Chat completions (see `ModelServer`)."""

    answer: Callable[[dict[str, Any]], str | None] = lambda body: f"said: {prompt_of(body)}"
    base_path: ClassVar[str] = "/v1"

    def prompt_of(self, body: dict[str, Any]) -> str:
        """Return the text of a request's last message."""
        return prompt_of(body)

    def completion(self, text: str | None) -> bytes:
        """Return a chat completion."""
        return completion(text)


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of a request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@dataclass
class BatchServer(OpenAiServer):
    """An OpenAI server with files and batches; a batch takes two polls. The prompt `bad` fails.

    end_as: the status in which batches end; refuse: answer 401 to everything; bodies: of answers in batches, by prompt.
    """

    end_as: str = "completed"
    refuse: bool = False

    def __post_init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, object] = {}

    def other(self, method: str, path: str, data: bytes) -> Fault | None:
        """Answer /files and /batches."""
        path = urlsplit(path).path.removeprefix("/v1")
        if self.refuse:
            return failure(401, f"wrong key {sorted(self.keys)}")
        if path == "/files" and method == "POST":
            return self._sent({"id": self._kept(_uploaded(data)), "object": "file", "purpose": "batch"})
        if path.startswith("/files/"):
            return 200, {"Content-Type": "application/octet-stream"}, self.files[path.split("/")[2]], None, 0.0
        if path == "/batches" and method == "POST":
            asked = json.loads(data)
            count = len(self.files[asked["input_file_id"]].splitlines())
            batch = {
                "id": f"batch_{len(self.batches)}",
                "object": "batch",
                "status": "validating",
                "created_at": 0,
                "request_counts": {"total": count, "completed": 0, "failed": 0},
                **asked,
            }
            self.batches[batch["id"]] = batch
            return self._sent(batch)
        if path == "/batches":
            return self._sent({"object": "list", "data": list(self.batches.values()), "has_more": False})
        if path.startswith("/batches/"):
            batch = self.batches[path.split("/")[2]]
            if batch["status"] == "validating":
                batch["status"] = "in_progress"
            elif batch["status"] == "in_progress":
                self._finish(batch)
            return self._sent(batch)
        return None

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.end_as
        if self.end_as != "completed":
            batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "it went wrong"}]}
            return
        good, bad = [], []
        for line in self.files[batch["input_file_id"]].splitlines():
            entry = json.loads(line)
            prompt = prompt_of(entry["body"])
            about = {"id": "r", "custom_id": entry["custom_id"], "error": None}
            if prompt == "bad":
                body = {"error": {"message": "too long", "code": "invalid"}}
                bad.append({**about, "response": {"status_code": 400, "body": body}})
            else:
                body = self.bodies.get(prompt) or json.loads(completion(self.answer(entry["body"])))
                good.append({**about, "response": {"status_code": 200, "body": body}})
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[name] = self._kept("\n".join(map(_line, lines)).encode())
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}

    def _kept(self, data: bytes) -> str:
        self.files[f"file_{len(self.files)}"] = data
        return f"file_{len(self.files) - 1}"

    def _sent(self, document: dict[str, Any]) -> Fault:
        return 200, {}, json.dumps(document).encode(), None, 0.0


def _uploaded(form: bytes) -> bytes:
    """Return the lines of JSON in a multipart upload."""
    return b"\n".join(line for line in form.splitlines() if line.startswith(b"{"))


def _line(entry: dict[str, Any]) -> str:
    """Return a line as servers write it: characters as they are, but for halves of them, which UTF-8 has not."""
    text = json.dumps(entry, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(entry)
    return text
