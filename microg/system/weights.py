"""Where model weights are looked for on this machine."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from microg import storage
from microg.errors import WeightsError

ENVIRONMENT_VARIABLE = "MICROG_WEIGHTS"


def search_folders() -> list[Path]:
    """Return the folders in search order: $MICROG_WEIGHTS (several, separated by ':'), ./weights, the user's cache."""
    listed = [Path(part) for part in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if part]
    return [*listed, Path("weights"), cache_folder() / "weights"]


def cache_folder() -> Path:
    """Return this user's cache folder for exported and downloaded models."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "microg"


def find_weights(name: str) -> Path | None:
    """Return the file called `name` (or the path `name` itself), or None."""
    direct = Path(name).expanduser()
    if direct.is_file():
        return direct.resolve()
    if direct.name != name:
        return None
    return next(((folder / name).resolve() for folder in search_folders() if (folder / name).is_file()), None)


def path_by_content(name: str, digest: str) -> Path:
    """Return where this node keeps, or would keep, a file of that name and SHA-256."""
    return cache_folder() / "weights" / f"by-content-{digest[:16]}" / name


def keep_by_content(source: str, blocks: Iterable[bytes], digest: str | None = None) -> Path:
    """Write the content of `source`, a path or URI, into the user's cache under its SHA-256, and return where it is.

    Raises `WeightsError` when its SHA-256 is not `digest`.
    """
    name, folder = PurePosixPath(source).name, cache_folder() / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    temporary, seen = folder / f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}", hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for block in blocks:
                seen.update(block)
                file.write(block)
        found = seen.hexdigest()
        if digest is not None and found != digest:
            raise WeightsError(
                f"{source} is not what it was when the job started: SHA-256 {found[:16]}, then {digest[:16]}",
                "start the job again once the file is complete",
            )
        target = path_by_content(name, found)
        storage.move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
