"""Where data may point: a dataset's videos lie in its folder, unless the user lets it point elsewhere.

Datasets come from strangers. A `uri` of theirs that names `/etc/passwd`, another host, or a link out of the folder
would be read, copied into exports and fetched over the network by whoever opens them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from microg import storage
from microg.errors import DatasetError

ALLOW_EXTERNAL = "MICROG_ALLOW_EXTERNAL"
_FIX = f"copy it into the folder; or, where you trust who wrote this, give --allow-external (or {ALLOW_EXTERNAL}=1)"


def external_allowed() -> bool:
    """Tell whether the user lets data point out of their folder, by `--allow-external` or the environment."""
    return os.environ.get(ALLOW_EXTERNAL, "0").lower() not in ("", "0", "false", "no")


def external_reason(root: str, uri: str) -> str | None:
    """Return why a uri that data in the folder `root` name leads out of it, None where it stays inside.

    Args:
        root: Folder, local or at a URI.
        uri: Relative to `root`, an absolute path, or a URI.
    """
    base = storage.absolute(root)
    if "\0" in uri or "::" in uri:
        return "it is no plain path"  # fsspec chains filesystems with '::'
    if storage.is_local(root):
        if "://" in uri and not uri.startswith("file://"):
            return f"it is at {uri.split('://', 1)[0]}://"
        path = storage.local_path(base) / (storage.local_path(uri) if "://" in uri else uri)
        if not Path(os.path.realpath(path)).is_relative_to(_real(base)):
            return "it is elsewhere on this machine" if uri.startswith(("/", "file://")) else "it leaves the folder"
        return None
    if "://" not in uri and not uri.startswith("/") and ".." not in uri.split("/"):
        return None
    if uri.startswith(f"{base}/") and ".." not in uri.split("/"):
        return None
    return f"it is not below {base}"


@lru_cache(maxsize=64)
def _real(root: str) -> str:
    return os.path.realpath(storage.local_path(root))


def resolve(root: str, uri: str, what: str) -> str:
    """Return a uri that data in the folder `root` name as an absolute path or URI.

    Links count: a link in the folder that leads out of it is external like any other path.

    Args:
        root: Folder, local or at a URI.
        uri: Relative to `root`, or external where the user allows that.
        what: How messages call it, as "the video of clip a_000".

    Raises:
        DatasetError: It leads out of `root`, and the user did not allow that; a relative one never may climb.
    """
    reason = external_reason(root, uri)
    relative = not uri.startswith("/") and "://" not in uri
    if reason is not None and (not external_allowed() or (relative and ".." in uri.split("/")) or "::" in uri):
        raise DatasetError(f"{what} points out of {root}: {uri!r} ({reason})", _FIX)
    return storage.join(storage.absolute(root), uri) if relative else storage.absolute(uri)
