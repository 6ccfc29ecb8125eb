"""A folder filled from a hub repository: fetched, checked file by file, and described by its `download.json`."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from microg import storage
from microg.errors import DatasetError, DownloadError, describe
from microg.locks import lock
from microg.reading import reads
from microg.system.transfer import (
    TIMEOUT_S,
    TRANSIENT_STATUS,
    CancelledError,
    Source,
    TransientError,
    network_errors,
    transfer,
)

_CHUNK_BYTES = 1 << 20


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
            info = self._api.repo_info(self.repo.id, repo_type=self.repo.kind, revision=revision, timeout=TIMEOUT_S)
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
        """Append to `part` what it lacks of `file` (see `microg.system.transfer`)."""
        what = f"{self.repo.id}: {file.path}"
        source = Source(
            url=hf_hub_url(self.repo.id, file.path, repo_type=self.repo.kind, revision=commit, endpoint=self.endpoint),
            what=what,
            size=file.size,
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
            errors=lambda: self.errors(what),
            check=hf_raise_for_status,
        )
        transfer(source, part, on_bytes, stop)

    @contextlib.contextmanager
    def errors(self, what: str | None = None) -> Iterator[None]:
        """Turn what goes wrong inside into a `DownloadError` about `what`; never shows the token."""
        what = what or f"{self.repo.kind} {self.repo.id}"
        page = f"{self.endpoint}/{'datasets/' if self.repo.kind == 'dataset' else ''}{self.repo.id}"
        with network_errors(what, self.endpoint, self._redacted):
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
        if status in TRANSIENT_STATUS:
            return TransientError(f"{what}: the hub answered HTTP {status}", "try again later")
        return DownloadError(f"{what}: the hub answered HTTP {status}", "try again later")

    def _redacted(self, error: BaseException) -> str:
        text = describe(error)
        return text.replace(self._token, "***") if self._token else text


def checksums(path: Path, size: int) -> tuple[str, str]:
    """Return (SHA-256, git blob SHA-1) of a local file of `size` bytes, in hexadecimal, reading it once."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            sha256.update(block)
            sha1.update(block)
    return sha256.hexdigest(), sha1.hexdigest()


def _checked_path(path: str, where: str = "the hub") -> str:
    parts = PurePosixPath(path).parts
    unsafe = not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path
    too_long = any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts) or len(path) > 1000
    if unsafe or too_long or parts[0] in (".download", "download.json"):
        raise DownloadError(f"{where} lists a file {path[:200]!r} whose name is not allowed", "nothing was written")
    return path


_MANIFEST = "download.json"
_PARTS = ".download"
_SPARE_BYTES = 64 << 20  # left free on the disk


@dataclass(frozen=True)
class Plan:
    """What one download means: the commit, all files of the repository, those chosen, and those still to fetch."""

    commit: str
    listed: tuple[RemoteFile, ...]
    chosen: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files still to fetch (what an interrupted download left counts as not there)."""
        return sum(file.size for file in self.missing)


def plan(hub: Hub, folder: Path, revision: str | None = None, include: Sequence[str] = ()) -> Plan:
    """Compare `folder` with the hub: a file is there when its content has the hub's checksum.

    `include` are glob patterns over whole paths (`annotation_files/*`); none means everything. Raises `DownloadError`
    when the hub refuses, nothing matches, or `folder` holds another repository.
    """
    previous = read_manifest(folder)
    if previous is not None and previous["repo"] != hub.repo.id:
        raise DownloadError(
            f"{folder} holds a download of {previous['repo']}, not {hub.repo.id}", "choose another folder"
        )
    commit, listed = hub.list_files(revision)
    chosen = [file for file in listed if not include or any(fnmatch.fnmatchcase(file.path, glob) for glob in include)]
    if not chosen:
        some = ", ".join(file.path for file in listed[:5]) or "nothing"
        raise DownloadError(f"no file of {hub.repo.id} matches {' '.join(include) or '*'}", f"it holds {some} ...")
    missing = [file for file in chosen if not _is_whole(storage.join_local(folder, file.path), file)]
    return Plan(commit, tuple(listed), tuple(chosen), tuple(missing))


def download(
    hub: Hub,
    folder: Path,
    todo: Plan,
    *,
    revision: str | None = None,
    workers: int = 4,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Fetch the missing files of a plan and write `download.json`; returns that document.

    Each file grows in `.download/`, is checked against the hub's checksum and only then moved to its place. A later
    call goes on where an interrupted one stopped. Raises `DownloadError`: the disk is too small or full, a file does
    not come, its content is not what the hub says, or another process downloads into the same folder.
    """
    parts = folder / _PARTS
    error = DownloadError(f"another process is downloading into {folder}", "wait for it to finish")
    with lock(parts / "lock", error):
        _check_space(folder, parts, todo)
        stop, counting = threading.Event(), threading.Lock()

        def count(number: int) -> None:
            with counting:
                on_bytes(number)

        with ThreadPoolExecutor(workers, thread_name_prefix="download") as pool:
            # The largest first: it takes the longest, and the small ones fill the other workers meanwhile.
            ordered = sorted(todo.missing, key=lambda file: -file.size)
            futures = [pool.submit(_fetch, hub, file, todo.commit, folder, count, stop) for file in ordered]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # all are done, one failed, or the user interrupts: what still runs is to end
                stop.set()
                for future in futures:
                    future.cancel()
        failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
        for error in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
            raise error
        manifest = _manifest(hub, folder, todo, revision)
        storage.write_json(folder / _MANIFEST, manifest)
        shutil.rmtree(parts, ignore_errors=True)
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Read every file that `download.json` names again and compare its SHA-256; needs no network.

    Returns the manifest. Raises `DownloadError` naming the files that are missing or damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise DownloadError(f"{folder} has no {_MANIFEST}: nothing was downloaded there", "download first")
    damaged = []
    for entry in manifest["files"]:
        path = storage.join_local(folder, entry["path"])
        if not path.is_file() or path.stat().st_size != entry["size"] or storage.sha256(path) != entry["sha256"]:
            damaged.append(entry["path"])
    if damaged:
        named = ", ".join(damaged[:10]) + (" ..." if len(damaged) > 10 else "")
        raise DownloadError(
            f"{len(damaged)} of {len(manifest['files'])} files in {folder} are missing or damaged: {named}",
            "run the same command without --verify: what does not match is fetched again",
        )
    return manifest


@reads(DownloadError)
def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the folder's `download.json`, None where there is none. Raises `DatasetError` when it is damaged."""
    path = folder / _MANIFEST
    if not path.exists():
        return None
    manifest = storage.read_json(path)
    entries = manifest.get("files") if isinstance(manifest, dict) and isinstance(manifest.get("repo"), str) else None
    kinds = {"path": str, "size": int, "sha256": str}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())
        for entry in entries
    ):
        raise DatasetError(f"{path} does not describe a download", "delete it and download again")
    for entry in entries:
        _checked_path(entry["path"], str(path))
    return manifest


def _fetch(
    hub: Hub, file: RemoteFile, commit: str, folder: Path, on_bytes: Callable[[int], None], stop: threading.Event
) -> None:
    """Bring one file to its place. A part that an earlier process left is not trusted twice."""
    # By content, so that a part of an older revision is not continued; by path, as two files may hold the same.
    place = hashlib.sha256(file.path.encode()).hexdigest()[:12]
    part = folder / _PARTS / f"{file.key}-{place}.part"
    resumed = part.exists() and part.stat().st_size > 0
    if resumed:
        on_bytes(part.stat().st_size)
    hub.transfer(file, commit, part, on_bytes, stop)
    if not _is_whole(part, file):
        on_bytes(-part.stat().st_size)
        part.unlink()
        if not resumed:
            raise DownloadError(
                f"{hub.repo.id}: {file.path} does not match the hub's checksum",
                "run the same command again; if it stays, the server or a proxy alters the file",
            )
        _fetch(hub, file, commit, folder, on_bytes, stop)
        return
    target = storage.join_local(folder, file.path)
    with hub.errors(f"{hub.repo.id}: {file.path}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    sha256, git_sha1 = checksums(path, file.size)
    return sha256 == file.sha256 if file.sha256 else git_sha1 == file.git_sha1


def _check_space(folder: Path, parts: Path, todo: Plan) -> None:
    have = sum(part.stat().st_size for part in parts.glob("*.part"))
    free = shutil.disk_usage(folder).free
    need = todo.missing_bytes - have + _SPARE_BYTES
    if todo.missing and need > free:
        raise DownloadError(
            f"{folder}: the disk has {free / 1e9:.1f} GB free, the download needs {need / 1e9:.1f} GB",
            "free some space, choose another folder, or take fewer files with --include",
        )


def _manifest(hub: Hub, folder: Path, todo: Plan, revision: str | None) -> dict[str, Any]:
    """Describe the chosen files, and those of earlier downloads that this commit still holds unchanged."""
    known = {file.path: file for file in todo.chosen}
    listed = {file.path: file for file in todo.listed}
    for entry in (read_manifest(folder) or {"files": []})["files"]:
        file = listed.get(entry["path"])
        if file is not None and entry.get("git_sha1") == file.git_sha1:
            known[file.path] = file
    files = []
    for path, file in sorted(known.items()):
        if storage.join_local(folder, path).is_file():
            sha256 = file.sha256 or checksums(storage.join_local(folder, path), file.size)[0]
            files.append({"path": path, "size": file.size, "sha256": sha256, "git_sha1": file.git_sha1})
    return {
        "repo": hub.repo.id,
        "repo_type": hub.repo.kind,
        "endpoint": hub.endpoint,
        "revision": revision or "main",
        "commit": todo.commit,
        "files": files,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
