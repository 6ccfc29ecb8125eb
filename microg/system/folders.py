"""Folders at URIs, such as a model's checkpoint: listed here, and copied file by file into this user's cache."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from microg import storage
from microg.errors import WeightsError
from microg.locks import lock
from microg.system.weights import cache_folder

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"})


@dataclass(frozen=True)
class RemoteFile:
    """A file as its store lists it: path within the folder, bytes, and what marks its content (an ETag or a hash)."""

    name: str
    size: int
    mark: str

    @property
    def is_weights(self) -> bool:
        """Whether it is one of the large files of a model, by its name."""
        return PurePosixPath(self.name).suffix in _WEIGHTS


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URI, and the files in it when it was listed."""

    uri: str
    files: tuple[RemoteFile, ...]

    @classmethod
    def listed(cls, uri: str) -> RemoteFolder:
        """List a folder; hidden files do not count. Raises `WeightsError` when there is none."""
        fs, root = storage.filesystem(uri.rstrip("/"))
        found = fs.find(root, detail=True) if fs.exists(root) else {}
        files = []
        for path, info in sorted(found.items()):
            name = path.removeprefix(root).lstrip("/")
            parts = PurePosixPath(name).parts
            if name and not name.endswith("/") and not any(part.startswith(".") for part in parts):
                files.append(RemoteFile(name, int(info["size"]), _mark(info)))
        if not files:
            raise WeightsError(f"there is no folder {uri}", "check the path, or the bucket and its credentials")
        return cls(uri.rstrip("/"), tuple(files))

    @property
    def weights_bytes(self) -> int:
        """Bytes of the files of weights."""
        return sum(file.size for file in self.files if file.is_weights)

    def keep(self, *, weights: bool = True) -> Path:
        """Return this node's copy of the folder, kept by content; without `weights` the small files are enough.

        No process holds a file whole, and of several on a node one copies. Raises `WeightsError` for a file that is
        not what was listed.
        """
        listing = "".join(f"{file.name} {file.size} {file.mark}\n" for file in self.files)
        folder = cache_folder() / "folders" / hashlib.sha256(listing.encode()).hexdigest()[:16]
        folder /= PurePosixPath(self.uri).name
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder.parent / "lock"):
            for file in self.files:
                if (weights or not file.is_weights) and not storage.join_local(folder, file.name).is_file():
                    self._copy(file, folder)
        return folder

    def _copy(self, file: RemoteFile, folder: Path) -> None:
        source = storage.join(self.uri, file.name)
        temporary = folder.parent / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            with temporary.open("wb") as copy:
                for block in storage.read_blocks(source):
                    copy.write(block)
            fs, path = storage.filesystem(source)
            if (temporary.stat().st_size, _mark(fs.info(path))) != (file.size, file.mark):
                raise WeightsError(
                    f"{source} is not what it was when the folder was listed", "start the job again once it is complete"
                )
            storage.move_into_place(temporary, storage.join_local(folder, file.name))
        except FileNotFoundError as error:
            raise WeightsError(f"{source} is gone", "start the job again once the folder is complete") from error
        finally:
            temporary.unlink(missing_ok=True)


def _mark(info: Mapping[str, Any]) -> str:
    """Return what a store says of a file's content: a hash where it has one, else when it was written."""
    lfs = info.get("lfs") or {}
    marks = (lfs.get("sha256"), *(info.get(name) for name in ("ETag", "etag", "md5Hash", "blob_id")))
    times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "created"))
    return str(next(filter(None, (*marks, *times)), "")).strip('"')
