"""What all annotation servers share: what a client of one does, its errors, and further attempts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from microg.errors import AnnotationServerError, ConfigError

Result = TypeVar("Result")

_ATTEMPTS = 4
_BACKOFF_S = 0.5
_CONNECT_S = 5.0
_EXCERPT = 300  # characters of a server's own words
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class TransientServerError(AnnotationServerError):
    """A failure of a server that may pass: worth another attempt."""


class RefusedClipError(AnnotationServerError):
    """A server does not take one clip, its video or its annotations; others it may take."""


@dataclass(frozen=True)
class Project:
    """A project of a server.

    Attributes:
        id: The server's number for it.
        name: Its title.
    """

    id: int
    name: str


@dataclass(frozen=True)
class Task:
    """A task of a project: one clip to annotate.

    Attributes:
        id: The server's number for it.
        clip_id: The clip that it is about; empty where it names none.
        has_video: Whether the server has its video.
        finished: Whether people are done with it.
    """

    id: int
    clip_id: str
    has_video: bool
    finished: bool


@dataclass(frozen=True)
class ClipVideo:
    """A clip to annotate, and where its video is.

    Attributes:
        clip_id: The clip.
        file: The video on this machine, to be sent; None where the server finds it itself.
        address: Where the server finds it; None where it is sent.
    """

    clip_id: str
    file: Path | None = None
    address: str | None = None


class AnnotationServer(Protocol):
    """A session with a server.

    `export` is everywhere a folder that `microg data export` of the same format wrote: labels and annotations are taken
    from it, so that a push sends exactly what an export holds. Calls raise `AnnotationServerError`; one that fails
    with `TransientServerError` may be made again, after a look at what the server has.
    """

    def find_project(self, wanted: int | str) -> Project | None:
        """Return the project with this number or title; None where there is none.

        Raises `AnnotationServerError` where several have the title.
        """
        ...

    def make_project(self, name: str, export: Path) -> Project:
        """Make a project with the labels of an export."""
        ...

    def tasks(self, project: Project) -> list[Task]:
        """Return all tasks of a project."""
        ...

    def make_task(self, project: Project, clip: ClipVideo, export: Path) -> Task:
        """Make a task; where it has no video yet, `send_video` gives it one."""
        ...

    def send_video(self, task: Task, clip: ClipVideo) -> None:
        """Give a task its video, and wait until the server has read it."""
        ...

    def has_annotations(self, task: Task) -> bool:
        """Tell whether a task has pre-annotations, or annotations of people."""
        ...

    def send_annotations(self, task: Task, clip: ClipVideo, export: Path) -> None:
        """Give a task the annotations that an export holds of its clip."""
        ...

    def download(self, project: Project, tasks: Sequence[Task], folder: Path) -> str:
        """Write the annotations of tasks into a folder, and return the path that the format's reader takes."""
        ...


def retrying(action: Callable[[], Result]) -> Result:
    """Return what `action` returns, calling it again a few times while the server fails in a way that may pass."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return action()
        except TransientServerError:
            time.sleep(_BACKOFF_S * 2 ** (attempt - 1))
    return action()


def check_url(url: str) -> str:
    """Return a server's URL without the slash at its end. Raises `ConfigError` when it is none, or holds secrets."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "the server's URL holds a password or parameters",
            "give the plain address; keys and passwords are read from the environment",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no URL of a server", "it looks like https://annotate.example.org")
    return url.rstrip("/")


def refuse_silence(url: str, title: str) -> None:
    """Raise `AnnotationServerError` when nobody listens at `url`; not where a proxy stands between."""
    parts = urlsplit(url)
    if not parts.hostname or (getproxies().get(parts.scheme) and not proxy_bypass(parts.hostname)):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise AnnotationServerError(
            f"no {title} answers at {url}: {error.strerror or error}", "check --url, and that the server runs"
        ) from None


def from_environment(*names: str) -> tuple[str, ...] | None:
    """Return the values of environment variables, None unless all of them are set. Raises `ConfigError`.

    A value that no request could carry is refused without being shown.
    """
    values = [os.environ.get(name, "").strip() for name in names]
    for name, value in zip(names, values, strict=True):
        if not value.isprintable():
            raise ConfigError(f"{name} holds line breaks or control characters", "set it again")
    return tuple(values) if all(values) else None


def excerpt(text: str, secrets: Sequence[str]) -> str:
    """Return the beginning of what a server said, on one line, without secrets that it may have repeated."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


@dataclass(frozen=True)
class Refusals:
    """Makes errors of what a server answers.

    Attributes:
        title: What people call the server.
        url: Its address.
        variables: The environment variables that hold its key.
        secrets: What must not be shown, should the server repeat it.
    """

    title: str
    url: str
    variables: str
    secrets: tuple[str, ...]

    def of_status(self, status: int, what: str, said: str) -> AnnotationServerError:
        """Return the error for an HTTP status.

        Args:
            status: The status.
            what: What was to be done, as "to make project 'crew'".
            said: What the server says of it.
        """
        where = f"{self.title} at {self.url}"
        if status == 401:
            return AnnotationServerError(
                f"{where} does not accept the key in {self.variables} (HTTP 401)",
                "make a new one in the server's account settings and set the variable",
            )
        if status == 403:
            return AnnotationServerError(
                f"{where} does not allow {what} (HTTP 403)",
                f"check the key in {self.variables} and what its owner may do in the project",
            )
        if status == 404:
            return AnnotationServerError(
                f"{where} has nothing there: {what} (HTTP 404)",
                "was it deleted? --project or --project-id names another project, --url another server",
            )
        words = excerpt(said, self.secrets)
        if status in TRANSIENT_STATUS:
            return TransientServerError(
                f"{where} failed {what} (HTTP {status}){': ' if words else ''}{words}",
                "run the same command again later: it goes on where it stopped",
            )
        if 300 <= status < 400:
            return AnnotationServerError(
                f"{where} sends {what} to another address (HTTP {status})", "give the server's final address as --url"
            )
        return RefusedClipError(f"{where} refuses {what} (HTTP {status}): {words}")

    def of_connection(self, what: str, error: BaseException) -> TransientServerError:
        """Return the error for a connection that broke or was not made."""
        words = excerpt(f"{type(error).__name__}: {error}", self.secrets)
        return TransientServerError(
            f"the connection to {self.title} at {self.url} broke {what}: {words}",
            "run the same command again: it goes on where it stopped",
        )

    def of_work(self, what: str, said: str) -> RefusedClipError:
        """Return the error for what a server took, and then could not do."""
        return RefusedClipError(f"{self.title} at {self.url} failed {what}: {excerpt(said, self.secrets)}")

    def of_answer(self, what: str, error: BaseException) -> AnnotationServerError:
        """Return the error for an answer that is not what such a server says."""
        words = excerpt(f"{type(error).__name__}: {error}", self.secrets)
        return AnnotationServerError(
            f"{self.url} does not answer like {self.title} {what}: {words}", "is --url the address of such a server?"
        )
