"""Independent pieces of work, each done once: parts on disk say what is finished, processes share the rest."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import cv2

from microg import storage
from microg.errors import ConfigError, DatasetError

T = TypeVar("T")


def check_size(width: int, height: int) -> None:
    """Raise `ConfigError` unless the frame is even (the codecs' chroma needs it) and within 64..4096 pixels."""
    for name, value in (("width", width), ("height", height)):
        if value % 2 or not 64 <= value <= 4096:
            raise ConfigError(f"{name} {value} cannot be rendered", "give an even number from 64 to 4096")


def commit(video: bytes, video_uri: str, part: dict[str, Any], part_uri: str) -> None:
    """Store a video, then the part that says it is finished; both writes are atomic."""
    storage.write_bytes(video_uri, video)
    storage.write_json(part_uri, {**part, "size_bytes": len(video), "sha256": hashlib.sha256(video).hexdigest()})


def finished(video_uri: str, part_uri: str) -> dict[str, Any] | None:
    """Return the stored part when it and its video, at its full size, are there; None when it must be made."""
    if not (storage.exists(part_uri) and storage.exists(video_uri)):
        return None
    try:
        part = storage.read_json(part_uri)
    except DatasetError:
        return None
    fs, path = storage.filesystem(video_uri)
    return part if isinstance(part, dict) and fs.size(path) == part.get("size_bytes") else None


def _one_thread() -> None:
    cv2.setNumThreads(1)  # pictures are small: threads cost more than they give


def run_all(
    work: Callable[[T], None], tasks: Sequence[T], *, workers: int, progress: Callable[[int], None] | None = None
) -> None:
    """Do every task, in `workers` processes when more than one; `progress(1)` follows each.

    `work` must be a module-level function. The first error stops what has not started and is raised.
    """
    if workers <= 1 or len(tasks) <= 1:
        threads = cv2.getNumThreads()
        _one_thread()
        try:
            for task in tasks:
                work(task)
                if progress is not None:
                    progress(1)
        finally:
            cv2.setNumThreads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                if progress is not None:
                    progress(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
