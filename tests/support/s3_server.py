"""An S3-compatible object store on 127.0.0.1, for tests of what works on shared storage, and of what fails there."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from microg import storage

REGION = "us-east-1"

# status: code of an error answer. half: the connection ends halfway through the answer. reset: it ends before one.
# lost: the request is served, but its answer never comes. slow: the answer takes some seconds.
Kind = Literal["InternalError", "SlowDown", "ExpiredToken", "half", "reset", "lost", "slow"]
_STATUS = {"InternalError": "500 Internal Server Error", "SlowDown": "503 Slow Down", "ExpiredToken": "403 Forbidden"}
_SLOW_S = 3.0


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path holds `part`; `met` counts them."""

    kind: Kind
    method: str
    part: str = ""
    times: int = 10**9
    met: int = 0


@dataclass(frozen=True)
class ObjectStore:
    """A running server. `environment` is what a process needs to find it as `s3://`; `faults` is what goes wrong."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that s3fs, boto3 and Arrow read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self) -> str:
        """Make an empty bucket and return its URI."""
        name = f"microg-{uuid.uuid4().hex[:12]}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"

    @contextmanager
    def failing(self, kind: Kind, method: str, part: str = "", times: int = 10**9) -> Iterator[Fault]:
        """Let requests fail until the block ends (see `Fault`)."""
        fault = Fault(kind, method, part, times)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)


class _Faulty:
    """A WSGI application in front of another that does to requests what the plan of faults says."""

    def __init__(self, served: Any, faults: list[Fault]) -> None:
        self._served, self._faults, self._lock = served, faults, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        kind = self._next(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if kind == "reset":
            return self._hang_up(environ)
        if kind in _STATUS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{kind}</Code><Message>injected</Message></Error>".encode()
            start_response(_STATUS[kind], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if kind == "slow":
            time.sleep(_SLOW_S)
        answer = self._served(environ, start_response)
        if kind == "lost":
            return self._hang_up(environ)
        if kind == "half":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]
        return answer

    def _next(self, method: str, path: str) -> str | None:
        with self._lock:
            for fault in self._faults:
                if fault.method == method and fault.part in path and fault.met < fault.times:
                    fault.met += 1
                    return fault.kind
        return None

    def _hang_up(self, environ: dict[str, Any]) -> list[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Start a server in a thread, found as `s3://` by this process and by those it starts meanwhile."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # a line a request, and a traceback a fault
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    store = ObjectStore(f"http://{host}:{port}")
    running: Any = server._server
    running.app = _Faulty(running.app, store.faults)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in store.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the endpoint it was made with
        try:
            yield store
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


def upload(folder: Path, uri: str) -> str:
    """Copy a local folder to `uri` and return it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.write_bytes(storage.join(uri, path.relative_to(folder).as_posix()), path.read_bytes())
    return uri
