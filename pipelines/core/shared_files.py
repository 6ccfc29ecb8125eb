"""Files that every worker needs, from wherever the user has them: a local path reaches other nodes through Ray's object
store in parts, a URI is read by each node itself. Nodes keep them by content, and no process holds one whole.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from microg import storage
from microg.errors import WeightsError
from microg.pipelines.core import session
from microg.system.weights import cache_folder

_PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SharedFile:
    """A file as workers get it.

    Attributes:
        name: Its name, which tells formats apart.
        digest: SHA-256 of its content.
        source: Its path or URI.
        parts: References to its content in Ray's object store; empty where `source` is what workers read.
    """

    name: str
    digest: str
    source: str
    parts: tuple[Any, ...] = ()

    def path(self) -> Path:
        """Return the file on this node, which is read at most once a node.

        Raises `WeightsError` when its content is not what the driver saw.
        """
        if storage.is_local(self.source) and not self.parts:
            return storage.local_path(self.source)
        target = cache_folder() / "weights" / f"by-content-{self.digest[:16]}" / self.name
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{self.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("wb") as file:
                digest = self._copy_to(file)
            if digest != self.digest:
                raise WeightsError(
                    f"{self.source} is not what it was when the job started: SHA-256 {digest[:16]}, then "
                    f"{self.digest[:16]}",
                    "start the job again once the file is complete",
                )
            storage.move_into_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def _copy_to(self, file: BinaryIO) -> str:
        seen = hashlib.sha256()
        for block in self._blocks():
            seen.update(block)
            file.write(block)
        return seen.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        import ray

        for part in self.parts:  # one after another: a node needs the memory of one
            yield ray.get(part)
        if not self.parts:
            yield from _blocks_of(self.source)


def share(source: str) -> SharedFile:
    """Return a file for the workers of the connected Ray.

    Args:
        source: A path of this machine, or a URI (`s3://`, `gs://`, `hf://`) that nodes can read.

    Raises:
        WeightsError: There is no such file.
    """
    import ray

    if not storage.exists(source):
        raise WeightsError(f"there is no file {source}", "check the path, or the bucket and its credentials")
    digest = storage.sha256(source)
    if not storage.is_local(source):
        return SharedFile(PurePosixPath(source).name, digest, source)
    path = storage.local_path(source).absolute()
    parts = () if session.started_here() else tuple(ray.put(block) for block in _blocks_of(str(path)))
    return SharedFile(path.name, digest, str(path), parts)


def _blocks_of(source: str) -> Iterator[bytes]:
    fs, plain = storage.filesystem(source)
    with fs.open(plain, "rb") as file:
        while block := file.read(_PART_BYTES):
            yield block
