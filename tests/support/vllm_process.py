"""vLLM in one process of its own, for tests: it starts in most of a minute and changes the process that it runs in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from microg.models.vlm.base import Reply, Request, Sampling

_engines: dict[str, Any] = {}


class VllmProcess:
    """Answers through a `VllmEngine` in another process, which runs one model at a time."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> VllmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.submit(_close).result()
        self._pool.shutdown()

    def ask(
        self,
        folder: Path,
        requests: Sequence[Request],
        sampling: Sampling,
        prepare: Callable[[Any], Any] | None = None,
        **settings: Any,
    ) -> dict[str, Reply]:
        """Return the replies by key. `prepare`, of a module, gets the engine first and may return an undo."""
        replies = self._pool.submit(_ask, folder, list(requests), sampling, prepare, settings).result()
        assert sorted(reply.key for reply in replies) == sorted(request.key for request in requests)
        return {reply.key: reply for reply in replies}

    def seen(self, folder: Path, requests: Sequence[Request], **settings: Any) -> list[np.ndarray]:
        """Return the videos (t, h, w, 3) that reached the model's processor, in the order of the requests."""
        return self._pool.submit(_seen, folder, list(requests), settings).result()


def _engine(folder: Path, settings: dict[str, Any]) -> Any:
    from microg.models.vlm.engines.vllm import VllmEngine

    key = repr((str(folder), sorted(settings.items())))
    if key not in _engines:
        _close()
        _engines[key] = VllmEngine(str(folder), **settings)
    return _engines[key]


def _ask(folder: Path, requests: list[Request], sampling: Sampling, prepare: Any, settings: dict[str, Any]) -> Any:
    engine = _engine(folder, settings)
    engine.load()
    undo = prepare(engine) if prepare else None
    try:
        return list(engine.generate(requests, sampling))
    finally:
        if undo:
            undo()


def _seen(folder: Path, requests: list[Request], settings: dict[str, Any]) -> list[np.ndarray]:
    engine = _engine(folder, settings)
    engine.load()
    kind = type(engine.chat.processor.video_processor)
    inherited, found = kind._preprocess, []

    def spy(self: Any, videos: list[Any], **kwargs: Any) -> Any:
        found.extend(np.asarray(video).transpose(0, 2, 3, 1) for video in videos)
        return inherited(self, videos=videos, **kwargs)

    kind._preprocess = spy
    try:
        replies = list(engine.generate(requests, Sampling(max_tokens=1)))
    finally:
        kind._preprocess = inherited
    assert [reply.status for reply in replies] == ["ok"] * len(requests), replies
    return found


def _close() -> None:
    while _engines:
        _engines.popitem()[1].close()
