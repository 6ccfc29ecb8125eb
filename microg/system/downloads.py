"""A folder filled from a hub repository: fetched, checked file by file, and described by its `download.json`."""

from __future__ import annotations

import datetime
import fcntl
import fnmatch
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microg import storage
from microg.errors import DatasetError, DownloadError
from microg.system.hub import CancelledError, Hub, RemoteFile, checksums

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
    missing = [file for file in chosen if not _is_whole(folder / file.path, file)]
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
    with lock_folder(folder):
        parts = folder / _PARTS
        _check_space(folder, parts, todo)
        stop, lock = threading.Event(), threading.Lock()

        def count(number: int) -> None:
            with lock:
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
        path = folder / entry["path"]
        if not path.is_file() or path.stat().st_size != entry["size"] or storage.sha256(path) != entry["sha256"]:
            damaged.append(entry["path"])
    if damaged:
        named = ", ".join(damaged[:10]) + (" ..." if len(damaged) > 10 else "")
        raise DownloadError(
            f"{len(damaged)} of {len(manifest['files'])} files in {folder} are missing or damaged: {named}",
            "run the same command without --verify: what does not match is fetched again",
        )
    return manifest


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the folder's `download.json`, None where there is none. Raises `DatasetError` when it is damaged."""
    path = folder / _MANIFEST
    if not path.exists():
        return None
    manifest = storage.read_json(path)
    entries = manifest.get("files") if isinstance(manifest, dict) and "repo" in manifest else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and {"path", "size", "sha256"} <= set(entry) for entry in entries
    ):
        raise DatasetError(f"{path} does not describe a download", "delete it and download again")
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
    target = folder / file.path
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
        if (folder / path).is_file():
            sha256 = file.sha256 or checksums(folder / path, file.size)[0]
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


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; parts would otherwise be written by two at once."""
    parts = folder / _PARTS
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"another process is downloading into {folder}", "wait for it to finish") from None
        yield
