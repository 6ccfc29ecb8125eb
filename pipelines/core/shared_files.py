"""Files that every worker needs, from wherever the user has them: a local path reaches other nodes through Ray's object
store in parts, a URI is read by each node itself. Nodes keep them by content, and no process holds one whole. The same
goes for folders of this machine; those at URIs are `microg.system.folders`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from microg import storage
from microg.errors import WeightsError
from microg.pipelines.core import session
from microg.system.weights import cache_folder, keep_by_content, path_by_content


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


@dataclass(frozen=True)
class SharedFolder:
    """A folder as workers get it: `source` where all nodes have it, else `files` by their paths within it."""

    source: str
    files: tuple[tuple[str, SharedFile], ...] = ()

    def path(self) -> Path:
        """Return the folder on this node. Raises `WeightsError` when a file is not what the driver saw."""
        source = Path(self.source)
        if not self.files:
            if not source.is_dir():
                raise WeightsError(
                    f"there is no folder {source} on this node", "put it on a mount, or on s3:// or gs://"
                )
            return source
        digests = "".join(f"{name} {file.digest}\n" for name, file in self.files)
        folder = cache_folder() / "folders" / hashlib.sha256(digests.encode()).hexdigest()[:16] / source.name
        for name, file in self.files:
            link = storage.join_local(folder, name)
            if not link.is_file():
                link.parent.mkdir(parents=True, exist_ok=True)
                temporary = link.with_name(f".{uuid.uuid4().hex[:8]}")
                temporary.symlink_to(file.path())
                temporary.replace(link)
        return folder


def share_folder(source: str) -> SharedFolder:
    """Return a folder of this machine for the workers of the connected Ray; it travels where a node has none like it.

    Hidden files stay behind.
    """
    folder = storage.local_path(source).absolute()
    found = _sizes(str(folder))
    if session.started_here() or all(each == found for each in _on_all_nodes(str(folder))):
        return SharedFolder(str(folder))
    return SharedFolder(str(folder), tuple((name, share(str(folder / name))) for name in found))


def _sizes(folder: str) -> dict[str, int]:
    root = Path(folder)
    names = ((path, path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file())
    return {
        name.as_posix(): path.stat().st_size
        for path, name in names
        if not any(part.startswith(".") for part in name.parts)
    }


def _on_all_nodes(folder: str) -> list[dict[str, int]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: Any = ray.nodes()
    look: Any = ray.remote(num_cpus=0, max_retries=0)(_sizes)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes if node["Alive"]]
    return ray.get([look.options(scheduling_strategy=place).remote(folder) for place in places])
