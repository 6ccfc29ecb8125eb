"""A cache of replies by content: the same question to the same model is asked once, also after a crash.

An SQLite file in which each reply is committed when it comes. Several processes of one machine may share it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from microg.errors import ConfigError, describe
from microg.models.vlm.base import Engine, Reply, Request, Sampling, content_key
from microg.reading import refuse_pointer_file
from microg.storage_faults import writing

_WAIT_S = 60.0
_KEPT = ("text", "finish_reason", "prompt_tokens", "completion_tokens")


class ResponseCache:
    """Replies by `content_key`; only those with status ok are kept. Use as a context manager.

    Raises `ConfigError` when the file cannot be opened or is none of ours, and `WriteError` when there is no
    room for it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with writing(self.path), ExitStack() as failed:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # an actor is made in one thread and called in others; SQLite lets them in one at a time
                self._base = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
                failed.callback(self._base.close)  # else it holds the file for whoever comes next
                # one write a reply instead of several, and none that waits for the disk: a killed process loses nothing
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
                self._base.execute("SELECT key, reply FROM replies LIMIT 1")
                self._base.text_factory = bytes  # JSON tells damaged text
                failed.pop_all()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            refuse_pointer_file(path, ConfigError)
            raise ConfigError(
                f"the cache {path} cannot be used: {describe(error)}", "delete it, or name another file"
            ) from error

    def get(self, key: str) -> Reply | None:
        """Return the reply kept under `key`, with attempts and cost 0 and without its request's key."""
        try:
            row = self._base.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            kept = None if row is None else json.loads(row[0])
            return None if kept is None else Reply("", attempts=0, cached=True, cost=0.0, **kept)
        except (sqlite3.DatabaseError, ValueError, TypeError, RecursionError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # busy, or a disk without room
            raise ConfigError(
                f"the cache {self.path} is damaged: {describe(error)}", "delete it, or name another"
            ) from error

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is on disk when this returns. The first reply under a key stays."""
        if reply.status == "ok":
            text = json.dumps({name: getattr(reply, name) for name in _KEPT})
            with writing(self.path):
                self._base.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, text))

    def __len__(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def generate_cached(
    engine: Engine,
    requests: Sequence[Request],
    sampling: Sampling,
    cache: ResponseCache,
    keep: Callable[[Reply], bool] = lambda reply: True,
) -> Iterator[Reply]:
    """Yield one reply a request: those in the cache first, then the engine's, kept as they come where `keep` says so.

    Requests of the same content are asked once and answered together.
    """
    waiting: dict[str, list[str]] = {}
    new: list[Request] = []
    for request in requests:
        key = content_key(engine, request, sampling)
        if key not in waiting:
            if (known := cache.get(key)) is not None:
                yield replace(known, key=request.key)
                continue
            new.append(replace(request, key=key))
        waiting.setdefault(key, []).append(request.key)
    for reply in engine.generate(new, sampling):
        if keep(reply):
            cache.put(reply.key, reply)
        for place, name in enumerate(waiting[reply.key]):
            yield replace(reply, key=name, **({"cached": True, "attempts": 0, "cost": 0.0} if place else {}))
