"""The bytes of one file on a web server, added to what is there already."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import get_session

import microg
from microg.errors import DownloadError, describe

_CHUNK_BYTES = 1 << 20  # at most this much is fetched again after an interruption
_ATTEMPTS_WITHOUT_PROGRESS = 5
_BACKOFF_S = 0.5
TIMEOUT_S = 30.0
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class CancelledError(Exception):
    """A transfer stopped because another one failed or the user interrupted."""


class TransientError(DownloadError):
    """A failure that may pass: worth another attempt."""


@dataclass(frozen=True)
class Source:
    """A file on a web server.

    Attributes:
        url: Its address.
        what: What errors call it.
        errors: Turns what goes wrong inside into a `DownloadError`.
        check: Raises for the status of an answer that is no file, inside `errors`.
        size: Its bytes; None where only the server knows.
        headers: What is sent with each request, such as a key.
    """

    url: str
    what: str
    errors: Callable[[], AbstractContextManager[None]]
    check: Callable[[Any], None]
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def transfer(source: Source, part: Path, on_bytes: Callable[[int], None], stop: threading.Event) -> None:
    """Append to `part` what it lacks of a file, with a Range request where it holds something already.

    Dropped connections and transient server errors are retried while they make progress. `on_bytes` hears of every
    block (a negative count when a server restarts the file). Raises `DownloadError` or `CancelledError`; what came
    stays in `part`.
    """
    failures, size = 0, source.size
    part.touch()
    while size is None or part.stat().st_size < size:
        have = part.stat().st_size
        try:
            with source.errors():
                size = _append(source, part, have, size, on_bytes, stop)
            lost = "the connection closed early"
        except TransientError as error:
            lost = error.what
        failures = 1 if part.stat().st_size > have else failures + 1
        if size is None or part.stat().st_size < size:
            if failures >= _ATTEMPTS_WITHOUT_PROGRESS:
                raise DownloadError(
                    f"{source.what} stopped at {part.stat().st_size} of {size or 'unknown'} bytes: {lost}",
                    "run the same command again: it goes on where it stopped",
                )
            if stop.wait(min(_BACKOFF_S * 2**failures, 8.0)):
                raise CancelledError


def _append(
    source: Source, part: Path, have: int, size: int | None, on_bytes: Callable[[int], None], stop: threading.Event
) -> int:
    """Add what one answer holds, and return the size of the whole file."""
    # A compressed answer would have other byte positions. httpx drops a key on a redirect to another host.
    headers = {"User-Agent": f"microg-bench/{microg.__version__}", "Accept-Encoding": "identity", **source.headers}
    if have:
        headers["Range"] = f"bytes={have}-"
    with get_session().stream("GET", source.url, headers=headers, timeout=TIMEOUT_S) as response:
        start, whole = _content_range(response)
        if response.status_code == 416 and whole == have:  # all of it came before
            return have
        source.check(response)
        if have and not (response.status_code == 206 and start == have):
            on_bytes(-have)
            have = 0
        length = response.headers.get("Content-Length", "")
        size = size or whole or (have + int(length) if length.isdigit() else None)
        with part.open("r+b") as sink:
            sink.seek(have)
            sink.truncate()
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                if stop.is_set():
                    raise CancelledError
                if size is not None and sink.tell() + len(chunk) > size:
                    raise DownloadError(f"{source.what} is longer than announced ({size} bytes)")
                sink.write(chunk)
                on_bytes(len(chunk))
            return sink.tell() if size is None else size


def _content_range(response: Any) -> tuple[int | None, int | None]:
    """Return the first byte of an answer and the size of the whole, each None where it is not told."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, whole = rest.partition("/")
    start = span.partition("-")[0]
    known = unit == "bytes"
    return (int(start) if known and start.isdigit() else None), (int(whole) if known and whole.isdigit() else None)


@contextlib.contextmanager
def network_errors(what: str, server: str, redacted: Callable[[BaseException], str] = describe) -> Iterator[None]:
    """Turn what a connection or the disk does wrong into a `DownloadError` about `what`."""
    try:
        yield
    except httpx2.TransportError as error:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
            raise TransientError(
                f"{server} cannot be reached: {redacted(error)}", "check the network, HTTPS_PROXY and --endpoint"
            ) from error
        raise TransientError(f"{what}: the connection broke: {redacted(error)}", "try again later") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"{what}: the disk is full", "free some space and run the same command again"
            ) from error
        raise DownloadError(f"{what}: {redacted(error)}") from error
