"""The model zoo: published weights by name, fetched once into the user's cache and checked (`zoo.yaml` is the list)."""

from __future__ import annotations

import datetime
import os
import shutil
import threading
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, model_validator

from microg import storage
from microg.config import Config
from microg.console import ProgressDisplay, say_aside
from microg.errors import DownloadError, WeightsError
from microg.locks import lock
from microg.reading import reads
from microg.system.weights import (
    ENVIRONMENT_VARIABLE,
    cache_folder,
    find_weights,
    keep_by_content,
    search_folders,
)

OFFLINE_VARIABLE = "MICROG_OFFLINE"
MIRROR_VARIABLE = "MICROG_WEIGHTS_MIRROR"
_SPARE_BYTES = 64 << 20  # left free on the disk


class Entry(Config):
    """Published weights (see zoo.yaml)."""

    kind: Literal["detector", "backbone", "text encoder"] = Field(description="What reads them.")
    about: str = Field(description="What they were trained on.")
    licence: str = Field(description="Licence of the weights, as their publisher states it.")
    url: str | None = Field(default=None, description="Address of the one file.")
    hub: str | None = Field(default=None, description="Repository on the Hugging Face hub.")
    files: list[str] = Field(default_factory=list, description="Glob patterns of the repository's files; none: all.")
    size: int | None = Field(default=None, description="Bytes, where they are known.")
    about_mb: int | None = Field(default=None, description="Megabytes, roughly, where bytes are not known.")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="SHA-256, where it is known.")

    @model_validator(mode="after")
    def _one_place(self) -> Entry:
        if (self.url is None) == (self.hub is None) or (self.size is None) == (self.about_mb is None):
            raise ValueError("give one of url and hub, and one of size and about_mb")
        return self

    @property
    def megabytes(self) -> str:
        """How large they are, for people."""
        return f"{self.size / 1e6:.1f} MB" if self.size is not None else f"about {self.about_mb} MB"


@cache
def entries() -> dict[str, Entry]:
    """Return the weights that have a name."""
    text = resources.files("microg.system").joinpath("zoo.yaml").read_text()
    return {name: Entry.model_validate(fields) for name, fields in yaml.safe_load(text).items()}


def known(name: str) -> str | None:
    """Return the name in the zoo that `name` is, or whose repository it is; None of others."""
    return next((each for each, entry in entries().items() if name in (each, entry.hub)), None)


def address(name: str) -> str:
    """Return where weights are fetched from: their publisher, or the mirror in $MICROG_WEIGHTS_MIRROR."""
    entry = entries()[name]
    if entry.hub is not None:
        return f"{_hub_endpoint()}/{entry.hub}"
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{name}" if mirror else str(entry.url)


def place(name: str) -> Path:
    """Return where the file of a name is, or would be, kept."""
    return storage.join_local(cache_folder() / "weights", name)


def obtain(name: str) -> Path | None:
    """Return the weights file called `name`: from the folders that are searched, else fetched; None of unknown names.

    Raises `WeightsError` when what is known by the name cannot be fetched, saying where to get it, and when the cached
    file is no longer what was fetched.
    """
    found = find_weights(name)
    if found is None:
        entry = entries().get(name)
        return fetch(name) if entry is not None and entry.url is not None else None
    if name in entries() and found == place(name).resolve():
        _check(name, found)
    return found


def locate_weights(name: str) -> str:
    """Return the path of the file called `name`, or the URI that `name` is; raises `WeightsError` where it is not."""
    if storage.is_local(name):
        return str(require_weights(name))
    if not storage.exists(name):
        raise WeightsError(f"there is no file {name}", "check the bucket's name and its credentials")
    return name


def require_weights(name: str) -> Path:
    """Return the file called `name`, fetched where the zoo has that name.

    A URI (`s3://`, `gs://`, `hf://`) is copied into the user's cache, once for each content. Raises `WeightsError` that
    says how to get the file.
    """
    if not storage.is_local(name):
        return keep_by_content(locate_weights(name), storage.read_blocks(name))
    found = obtain(name)
    if found is None:
        looked = ", ".join(str(folder) for folder in search_folders())
        raise WeightsError(
            f"weights {name!r} are not in any of {looked}",
            f"put the file into ./weights or set ${ENVIRONMENT_VARIABLE} to its folder, or take weights that have a "
            "name: 'microg data download weights' lists them",
        )
    return found


def missing(name: str) -> str | None:
    """Return what would be fetched for the file `name`, for people; None where it is here or not in the zoo."""
    entry = entries().get(name)
    if entry is None or entry.url is None or find_weights(name) is not None:
        return None
    return f"{name}, {entry.megabytes}, licence {entry.licence}"


def present(name: str) -> Path | None:
    """Return where weights of a name lie on this machine, or None; nothing is read or fetched."""
    entry = entries()[name]
    if entry.hub is None:
        return find_weights(name)
    return _hub_folder(entry)


def fetch(name: str) -> Path:
    """Fetch weights by their name into the user's cache, and return the file, or the folder of a hub's repository.

    One process at a time fetches a name, others wait for it. An interrupted transfer goes on where it stopped. Raises
    `WeightsError` when they cannot be fetched, or are not what they were.
    """
    entry = entries()[name]
    if entry.hub is not None:
        return _fetch_repository(name, entry)
    target = place(name)
    if is_offline():
        raise unreachable(name, f"no network is used ({OFFLINE_VARIABLE} is set)")
    parts = target.parent / ".download"
    with lock(
        storage.join_local(parts, f"{name}.lock"),
        on_wait=lambda: say_aside(f"another process fetches {name}: waiting for it"),
    ):
        if not target.is_file():  # else the other process brought it
            _fetch_file(name, entry, storage.join_local(parts, f"{name}.part"), target)
            return target
    _check(name, target)
    return target


def verify(name: str) -> str:
    """Read the cached weights of a name again and return their SHA-256. Raises `WeightsError` when they are damaged."""
    path = place(name)
    if not path.is_file():
        raise WeightsError(f"{name} is not in {path.parent}", f"microg data download weights {name}")
    return _check(name, path)


def is_offline() -> bool:
    """Tell whether downloads are forbidden: by `--offline`, $MICROG_OFFLINE or $HF_HUB_OFFLINE."""
    return any(
        os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")
        for variable in (OFFLINE_VARIABLE, "HF_HUB_OFFLINE")
    )


def _fetch_file(name: str, entry: Entry, part: Path, target: Path) -> None:
    url = address(name)
    host = urlsplit(url).hostname
    from microg.system.hub import hub_answers

    if not hub_answers(url):
        raise unreachable(name, f"{host} does not answer")
    free, need = shutil.disk_usage(target.parent).free, (entry.size or (entry.about_mb or 0) * 10**6) + _SPARE_BYTES
    if need > free:
        raise WeightsError(
            f"{name}: {target.parent} has {free / 1e6:,.0f} MB free, the weights need {need / 1e6:,.0f} MB",
            "free some space, or set XDG_CACHE_HOME to a folder on another disk",
        )
    say_aside(f"fetching {name} ({entry.about}): {entry.megabytes} from {host}, licence {entry.licence}")
    resumed = part.exists() and part.stat().st_size > 0
    _receive(name, url, entry, part)
    digest, wanted = storage.sha256(part), _expected(name)
    if wanted is not None and digest != wanted and resumed:  # what an earlier process left may be of another file
        part.unlink()
        _receive(name, url, entry, part)
        digest = storage.sha256(part)
    if wanted is not None and digest != wanted:
        part.unlink()
        raise WeightsError(
            f"{name} from {url} is not what it should be: SHA-256 {digest[:16]}..., not {wanted[:16]}...",
            f"a proxy or the server alters it: get the file elsewhere and put it at {target}",
        )
    record = {"url": url, "size": part.stat().st_size, "sha256": digest, "licence": entry.licence}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    storage.write_json(_record_path(name), record | {"fetched": now})
    part.replace(target)
    if entry.sha256 is None:
        say_aside(f"{name}: its publisher gives no checksum; SHA-256 {digest} is recorded and checked from now on")


def _receive(name: str, url: str, entry: Entry, part: Path) -> None:
    from microg.system.transfer import TRANSIENT_STATUS, Source, TransientError, network_errors, transfer

    def check(response: Any) -> None:
        status = response.status_code
        if status in TRANSIENT_STATUS:
            raise TransientError(f"{name}: the server answered HTTP {status}", "try again later")
        if status not in (200, 206):
            raise DownloadError(f"{name}: the server answered HTTP {status}")

    source = Source(url, name, lambda: network_errors(name, str(urlsplit(url).hostname)), check, entry.size)
    size = entry.size or (entry.about_mb or 0) * 10**6
    with ProgressDisplay(f"fetching {name}", round(size / 1e6), unit="MB") as display:
        try:
            transfer(source, part, display.advance_bytes, threading.Event())
        except DownloadError as error:
            raise unreachable(name, error.what) from error


def unreachable(name: str, reason: str) -> WeightsError:
    """Return the error that says where weights can be fetched, and where to put them."""
    entry = entries()[name]
    where = f"put it into ./weights or {place(name).parent}" if entry.hub is None else "run this command again there"
    return WeightsError(
        f"{name} is not on this machine and cannot be fetched from {address(name)}: {reason}",
        f"fetch it where there is a network ({entry.megabytes}, licence {entry.licence}) and {where}",
    )


def _expected(name: str) -> str | None:
    """Return the SHA-256 that a name's file must have: the publisher's, else that of what came first."""
    return entries()[name].sha256 or (_record(name) or {"sha256": None})["sha256"]


def _check(name: str, path: Path) -> str:
    """Return the SHA-256 of a cached file. Raises `WeightsError` when it is not what was fetched."""
    wanted, digest = _expected(name), storage.sha256(path)
    if wanted is not None and digest != wanted:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is not {wanted[:16]}...", f"delete it: {name} is then fetched again"
        )
    return digest


def _record_path(name: str) -> Path:
    return place(name).with_name(f"{name}.json")


def _record(name: str) -> dict[str, Any] | None:
    path = _record_path(name)
    return _read_record(path) if path.is_file() else None


@reads(WeightsError)
def _read_record(path: Path) -> dict[str, Any]:
    record = storage.read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise WeightsError(f"{path} does not describe a download", "delete it")
    return record


def _hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _hub_folder(entry: Entry) -> Path | None:
    """Return the folder of the hub's cache with a repository's files, None where they are not there whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(entry.hub), allow_patterns=entry.files or None, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _fetch_repository(name: str, entry: Entry) -> Path:
    """Bring a repository into the hub's own cache, where the libraries that read it look."""
    from huggingface_hub import snapshot_download

    from microg.system.downloads import Hub, Repo
    from microg.system.hub import hub_answers

    if (there := _hub_folder(entry)) is not None:
        return there
    if is_offline():
        raise unreachable(name, f"no network is used ({OFFLINE_VARIABLE} or HF_HUB_OFFLINE is set)")
    if not hub_answers(_hub_endpoint()):
        raise unreachable(name, f"{urlsplit(_hub_endpoint()).hostname} does not answer")
    say_aside(f"fetching {name} ({entry.about}): {entry.megabytes} from {address(name)}, licence {entry.licence}")
    hub = Hub(Repo(str(entry.hub), "model", entry.about))
    try:
        with hub.errors():
            folder = snapshot_download(str(entry.hub), allow_patterns=entry.files or None)
    except DownloadError as error:
        raise unreachable(name, error.what) from error
    _check_blobs(Path(folder))
    return Path(folder)


def _check_blobs(folder: Path) -> None:
    """Compare large files of the hub's cache with the SHA-256 by which it keeps them; damaged ones are removed."""
    for path in folder.rglob("*"):
        blob = path.resolve()
        if path.is_symlink() and len(blob.name) == 64 and storage.sha256(blob) != blob.name:
            blob.unlink()
            path.unlink()
            raise WeightsError(
                f"{path.name} does not match the hub's checksum", "run the same command again: it is fetched again"
            )
