"""Talking to the Hugging Face hub: what a published repository holds, and moving one file of it.

Listings and errors go through `huggingface_hub`; the bytes do not, because its own download (2.4) starts every file
from zero in a new process: videos.zip is too large for that. Keys come from the environment (`HF_TOKEN`) alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

import microg
from microg.errors import DownloadError, describe

_CHUNK_BYTES = 1 << 20  # at most this much is fetched again after an interruption
_ATTEMPTS_WITHOUT_PROGRESS = 5
_BACKOFF_S = 0.5
_TIMEOUT_S = 30.0
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Repo:
    """One published repository; `kind` is the hub's repository type, `dataset` or `model`."""

    id: str
    kind: str
    holds: str

    @property
    def name(self) -> str:
        """The repository's name without its owner."""
        return self.id.rpartition("/")[2]


REPOS: dict[str, Repo] = {
    "dataset": Repo("LEI-QI-233/MicroG-4M", "dataset", "clips, boxes, actions, captions and questions"),
    "har": Repo("LEI-QI-233/MicroG-HAR-train-ready", "dataset", "frames and AVA-style annotations for training"),
    "models": Repo("LEI-QI-233/MicroG-4M-models", "model", "fine-tuned action recognition weights"),
}


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository: its path, size in bytes, and the checksum that the hub keeps for it.

    `sha256` is known for large (LFS) files, else None; `git_sha1` is the git blob id and is checked where it is not.
    """

    path: str
    size: int
    git_sha1: str
    sha256: str | None

    @property
    def key(self) -> str:
        """What names the content, whatever the path and revision."""
        return self.sha256 or self.git_sha1


class CancelledError(Exception):
    """A transfer stopped because another one failed or the user interrupted."""


class Hub:
    """A connection to one repository at one endpoint (None: `HF_ENDPOINT` or huggingface.co)."""

    def __init__(self, repo: Repo, endpoint: str | None = None) -> None:
        self.repo = repo
        self._token = os.environ.get("HF_TOKEN") or None
        self._api = HfApi(endpoint=endpoint.rstrip("/") if endpoint else None, token=self._token or False)
        self.endpoint: str = self._api.endpoint
        address = urlsplit(self.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise DownloadError(f"endpoint {self.endpoint!r} is not a web address", "e.g. https://huggingface.co")
        local = address.hostname in ("localhost", "127.0.0.1", "::1")
        if self._token and address.scheme == "http" and not local:
            raise DownloadError(
                f"HF_TOKEN would be sent unencrypted to {self.endpoint}", "use https://, or unset HF_TOKEN"
            )

    def list_files(self, revision: str | None = None) -> tuple[str, list[RemoteFile]]:
        """Return the commit that `revision` (None: the main branch) stands for, and all files in it by path.

        Raises `DownloadError` when the hub cannot be reached, the repository or revision is not there or not open to
        us, or a file's path would leave the target folder.
        """
        with self.errors():
            info = self._api.repo_info(self.repo.id, repo_type=self.repo.kind, revision=revision, timeout=_TIMEOUT_S)
            commit = str(info.sha)
            entries = self._api.list_repo_tree(self.repo.id, recursive=True, revision=commit, repo_type=self.repo.kind)
            found = [entry for entry in entries if isinstance(entry, RepoFile)]
        files = [
            RemoteFile(_checked_path(entry.path), entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
            for entry in found
        ]
        return commit, sorted(files, key=lambda file: file.path)

    def transfer(
        self, file: RemoteFile, commit: str, part: Path, on_bytes: Callable[[int], None], stop: threading.Event
    ) -> None:
        """Append to `part` what it lacks of `file`, with a Range request where it holds something already.

        Dropped connections and transient server errors are retried while they make progress. `on_bytes` hears of
        every block (a negative count when a server restarts the file). Raises `DownloadError` or `CancelledError`; what
        came stays in `part`.
        """
        url = hf_hub_url(self.repo.id, file.path, repo_type=self.repo.kind, revision=commit, endpoint=self.endpoint)
        failures = 0
        part.touch()
        while (have := part.stat().st_size) < file.size:
            try:
                with self.errors(f"{self.repo.id}: {file.path}"):
                    self._append(url, part, have, file.size, on_bytes, stop)
                lost = "the connection closed early"
            except _TransientError as error:
                lost = error.what
            failures = 1 if part.stat().st_size > have else failures + 1
            if part.stat().st_size < file.size:
                if failures >= _ATTEMPTS_WITHOUT_PROGRESS:
                    raise DownloadError(
                        f"{self.repo.id}: {file.path} stopped at {part.stat().st_size} of {file.size} bytes: {lost}",
                        "run the same command again: it goes on where it stopped",
                    )
                if stop.wait(min(_BACKOFF_S * 2**failures, 8.0)):
                    raise CancelledError

    def _append(
        self, url: str, part: Path, have: int, size: int, on_bytes: Callable[[int], None], stop: threading.Event
    ) -> None:
        # A compressed answer would have other byte positions. httpx drops the key on a redirect to another host.
        headers = {"User-Agent": f"microg-bench/{microg.__version__}", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            resumed = response.status_code == 206 and _range_start(response) == have
            if have and not resumed:
                on_bytes(-have)
                have = 0
            with part.open("r+b") as sink:
                sink.seek(have)
                sink.truncate()
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    if stop.is_set():
                        raise CancelledError
                    if sink.tell() + len(chunk) > size:
                        raise DownloadError(f"{part.name} is longer than the hub says ({size} bytes)")
                    sink.write(chunk)
                    on_bytes(len(chunk))

    @contextlib.contextmanager
    def errors(self, what: str | None = None) -> Iterator[None]:
        """Turn what goes wrong inside into a `DownloadError` about `what`; never shows the token."""
        what = what or f"{self.repo.kind} {self.repo.id}"
        page = f"{self.endpoint}/{'datasets/' if self.repo.kind == 'dataset' else ''}{self.repo.id}"
        try:
            yield
        except GatedRepoError as error:
            raise DownloadError(
                f"{what}: access has to be granted first", f"ask at {page}, then set HF_TOKEN in the environment"
            ) from error
        except RevisionNotFoundError as error:
            raise DownloadError(f"{what}: there is no such revision", f"{page}/tree/main lists them") from error
        except HfHubHTTPError as error:
            raise self._from_status(error, what, page) from error
        except OfflineModeIsEnabled as error:
            raise DownloadError(f"{what}: HF_HUB_OFFLINE forbids downloads", "unset HF_HUB_OFFLINE") from error
        except httpx2.TransportError as error:
            if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
                raise _TransientError(
                    f"{self.endpoint} cannot be reached: {self._redacted(error)}",
                    "check the network, HTTPS_PROXY and --endpoint",
                ) from error
            raise _TransientError(
                f"{what}: the connection broke: {self._redacted(error)}", "try again later"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(
                    f"{what}: the disk is full", "free some space and run the same command again"
                ) from error
            raise DownloadError(f"{what}: {self._redacted(error)}") from error

    def _from_status(self, error: HfHubHTTPError, what: str, page: str) -> Exception:
        status = error.response.status_code
        if status in (401, 403):
            state = (
                "HF_TOKEN was refused" if self._token else "it is missing, private or gated, and HF_TOKEN is not set"
            )
            return DownloadError(
                f"{what}: {state} (HTTP {status})", f"check {page}, and set HF_TOKEN to a key that may read it"
            )
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            return DownloadError(f"{what} is not at {self.endpoint} (HTTP 404)", f"check {page}")
        if status in _TRANSIENT_STATUS:
            return _TransientError(f"{what}: the hub answered HTTP {status}", "try again later")
        return DownloadError(f"{what}: the hub answered HTTP {status}", "try again later")

    def _redacted(self, error: BaseException) -> str:
        text = describe(error)
        return text.replace(self._token, "***") if self._token else text


class _TransientError(DownloadError):
    """A failure that may pass: worth another attempt."""


def checksums(path: Path, size: int) -> tuple[str, str]:
    """Return (SHA-256, git blob SHA-1) of a local file of `size` bytes, in hexadecimal, reading it once."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            sha256.update(block)
            sha1.update(block)
    return sha256.hexdigest(), sha1.hexdigest()


def _checked_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    unsafe = not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path
    if unsafe or parts[0] in (".download", "download.json"):
        raise DownloadError(f"the hub lists a file {path!r} whose name is not allowed", "nothing was written")
    return path


def _range_start(response: Any) -> int | None:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None
