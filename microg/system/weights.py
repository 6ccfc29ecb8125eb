"""Where model weights are looked for on this machine."""

from __future__ import annotations

import os
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


def _copied(uri: str) -> Path:
    if not storage.exists(uri):
        raise WeightsError(f"there is no file {uri}", "check the bucket's name and its credentials")
    target = cache_folder() / "weights" / f"by-content-{storage.sha256(uri)[:16]}" / PurePosixPath(uri).name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        fs, plain = storage.filesystem(uri)
        fs.get_file(plain, str(temporary))
        storage.move_into_place(temporary, target)
    return target


def require_weights(name: str) -> Path:
    """Return the file called `name`; raises `WeightsError` that says how to get it.

    A URI (`s3://`, `gs://`, `hf://`) is copied into the user's cache, once for each content.
    """
    if not storage.is_local(name):
        return _copied(name)
    found = find_weights(name)
    if found is None:
        looked = ", ".join(str(folder) for folder in search_folders())
        raise WeightsError(
            f"detector weights {name!r} are not in any of {looked}",
            f"put the file into ./weights or set ${ENVIRONMENT_VARIABLE} to its folder; with internet access "
            f"'uv run yolo predict model={Path(name).name} source=any.jpg' downloads official ultralytics weights; or "
            "replay stored detections with --detections DIR",
        )
    return found
