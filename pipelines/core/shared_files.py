"""Files that every worker needs, from wherever the user has them: a local path reaches other nodes through Ray's object
store in parts, a URI is read by each node itself. Nodes keep them by content, and no process holds one whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from microg import storage
from microg.errors import WeightsError
from microg.pipelines.core import session
from microg.system.weights import keep_by_content, path_by_content


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
        target = path_by_content(self.name, self.digest)
        return target if target.is_file() else keep_by_content(self.source, self._blocks(), self.digest)

    def _blocks(self) -> Iterator[bytes]:
        import ray

        for part in self.parts:  # one after another: a node needs the memory of one
            yield ray.get(part)
        if not self.parts:
            yield from storage.read_blocks(self.source)


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
    parts = () if session.started_here() else tuple(ray.put(block) for block in storage.read_blocks(path))
    return SharedFile(path.name, digest, str(path), parts)
