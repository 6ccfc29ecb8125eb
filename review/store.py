"""What people said and hold, in one SQLite file: judgements, leases, tokens, notes and refusals.

Each call is one transaction that is on the disk when the call returns. All of them go through one connection, one at a
time: a save takes a few milliseconds, and SQLite knows one writer anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, cast

from microg.annotations.rows import Annotation, Item, from_row, now
from microg.errors import AnnotationError, StorageError
from microg.storage_faults import writing

_VERSION = 1
_MAX_REFUSALS = 10_000
_SCHEMA = """
CREATE TABLE judgements (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    annotation_id TEXT NOT NULL UNIQUE,
    clip_id TEXT NOT NULL,
    person_id INTEGER,
    kind TEXT NOT NULL,
    item INTEGER,
    value TEXT NOT NULL,
    annotator TEXT NOT NULL,
    round INTEGER NOT NULL,
    adjudicated INTEGER NOT NULL,
    source TEXT NOT NULL,
    supersedes TEXT,
    time TEXT NOT NULL,
    task_id TEXT NOT NULL,
    seconds REAL
);
CREATE TABLE finished (
    clip_id TEXT NOT NULL, annotator TEXT NOT NULL, round INTEGER NOT NULL, time TEXT NOT NULL, seconds REAL,
    PRIMARY KEY (clip_id, annotator, round)
);
CREATE TABLE leases (
    task_id TEXT NOT NULL, annotator TEXT NOT NULL, until TEXT NOT NULL, PRIMARY KEY (task_id, annotator)
);
CREATE TABLE tokens (annotator TEXT PRIMARY KEY, adjudicator INTEGER NOT NULL, hash TEXT NOT NULL, made TEXT NOT NULL);
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY, annotator TEXT NOT NULL REFERENCES tokens ON DELETE CASCADE, made TEXT NOT NULL
);
CREATE TABLE notes (
    note_id INTEGER PRIMARY KEY, kind TEXT NOT NULL, clip_id TEXT NOT NULL, person_id INTEGER, item INTEGER,
    annotator TEXT NOT NULL, text TEXT NOT NULL, time TEXT NOT NULL
);
CREATE INDEX notes_by_clip ON notes (clip_id);
CREATE TABLE refusals (
    refusal_id INTEGER PRIMARY KEY, time TEXT NOT NULL, annotator TEXT, address TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, status INTEGER NOT NULL, what TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_JUDGEMENT = (
    *("annotation_id", "clip_id", "person_id", "kind", "item", "value", "annotator", "round", "adjudicated", "source"),
    *("supersedes", "time"),
)


@dataclass(frozen=True)
class Lease:
    """A task that somebody has on the screen until a time."""

    task_id: str
    annotator: str
    until: datetime


@dataclass(frozen=True)
class Note:
    """What somebody wrote beside an item for the others."""

    annotator: str
    text: str
    time: datetime


@dataclass(frozen=True)
class Pace:
    """How much an annotator judged, and how long one judgement takes them in the middle."""

    annotator: str
    judged: int
    today: int
    median_seconds: float | None


class Store:
    """The SQLite file of a review, open in this process.

    Args:
        path: The file; made when it is not there.
        clock: Tells the time.

    Raises:
        StorageError: It is of another version, or no SQLite file.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = now) -> None:
        self.path, self.clock = path, clock
        self._lock = threading.RLock()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.row_factory = sqlite3.Row
            path.chmod(0o600)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StorageError(f"{path} cannot be read: {error}", "move it away to begin anew") from error
        self._last = self._newest()

    def _open(self) -> None:
        self._db.execute("PRAGMA busy_timeout = 10000")
        self._db.execute("PRAGMA journal_mode = WAL")
        # FULL and not NORMAL: what was acknowledged survives a power cut, too
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise StorageError(f"{self.path} is of version {version}, not {_VERSION}", "use the version that made it")

    def _newest(self) -> datetime | None:
        (newest,) = self._db.execute("SELECT max(time) FROM judgements").fetchone()
        return datetime.fromisoformat(newest) if newest else None

    def close(self) -> None:
        """Close the file; what was written is in it."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Do the block as one transaction, which is on the disk when it ends."""
        with self._lock, writing(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def time(self) -> datetime:
        """Return the time for a new judgement, later than that of every one before, whatever the clock says."""
        with self._lock:
            time = self.clock()
            if self._last is not None and time <= self._last:
                time = self._last + timedelta(microseconds=1)
            self._last = time
            return time

    # Judgements

    def save(self, annotation: Annotation, task_id: str, seconds: float | None, *, ends: bool = True) -> None:
        """Save a judgement, and end the annotator's lease of the task with it unless `ends` is false.

        Raises:
            AnnotationError: Another judgement has its id.
        """
        row = {**annotation.to_row(), "time": _text(annotation.time)}
        names = [*_JUDGEMENT, "task_id", "seconds"]
        values = [*(row[name] for name in _JUDGEMENT), task_id, seconds]
        marks = ", ".join("?" * len(names))
        with self._writing() as db:
            try:
                db.execute(f"INSERT INTO judgements ({', '.join(names)}) VALUES ({marks})", values)
            except sqlite3.IntegrityError as error:
                raise AnnotationError(f"annotation {annotation.annotation_id!r} is there already") from error
            if ends:
                db.execute("DELETE FROM leases WHERE task_id = ? AND annotator = ?", (task_id, annotation.annotator))

    def judgement(self, annotation_id: str) -> tuple[Annotation, str] | None:
        """Return a saved judgement and the task that it was made in, or None."""
        rows = self._rows("SELECT * FROM judgements WHERE annotation_id = ?", (annotation_id,))
        return (_annotation(rows[0]), rows[0]["task_id"]) if rows else None

    def judgements(self, after: int = 0) -> list[tuple[int, Annotation]]:
        """Return the judgements that were saved after number `after`, in order, with their numbers."""
        rows = self._rows("SELECT * FROM judgements WHERE seq > ? ORDER BY seq", (after,))
        return [(row["seq"], _annotation(row)) for row in rows]

    def count(self) -> int:
        """Return the number of the newest judgement: how many were ever saved."""
        (row,) = self._rows("SELECT coalesce(max(seq), 0) AS seq FROM judgements")
        return row["seq"]

    def finish(self, clip_id: str, annotator: str, number: int, task_id: str, seconds: float | None) -> None:
        """Record that an annotator is done with the boxes of a clip in a round, and end the lease."""
        with self._writing() as db:
            values = (clip_id, annotator, number, _text(self.clock()), seconds)
            db.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, ?, ?, ?)", values)
            db.execute("DELETE FROM leases WHERE task_id = ? AND annotator = ?", (task_id, annotator))

    def unfinish(self, clip_id: str, annotator: str, number: int) -> None:
        """Record that an annotator is no longer done with the boxes of a clip."""
        with self._writing() as db:
            values = (clip_id, annotator, number)
            db.execute("DELETE FROM finished WHERE clip_id = ? AND annotator = ? AND round = ?", values)

    def finished(self, least_round: int) -> list[tuple[str, str]]:
        """Return (clip id, annotator) of the clips whose boxes are done, in a round or a later one."""
        rows = self._rows("SELECT clip_id, annotator FROM finished WHERE round >= ? ORDER BY time", (least_round,))
        return [(row["clip_id"], row["annotator"]) for row in rows]

    def paces(self) -> list[Pace]:
        """Return how fast each annotator is, by name. Taking something back is no judgement."""
        today = self.clock().date().isoformat()
        times: dict[str, list[tuple[str, float | None]]] = {}
        for row in self._rows(
            "SELECT annotator, time, seconds FROM judgements WHERE json_extract(value, '$.withdrawn') IS NULL "
            "UNION ALL SELECT annotator, time, seconds FROM finished"
        ):
            times.setdefault(row["annotator"], []).append((row["time"], row["seconds"]))
        result = []
        for annotator, rows in sorted(times.items()):
            seconds = [each for _, each in rows if each is not None]
            middle = round(median(seconds), 2) if seconds else None
            result.append(Pace(annotator, len(rows), sum(time.startswith(today) for time, _ in rows), middle))
        return result

    # Leases

    def lease(self, leases: Iterable[Lease]) -> None:
        """Write leases; one that its annotator has already is renewed. Those that ended are removed."""
        with self._writing() as db:
            db.execute("DELETE FROM leases WHERE until < ?", (_text(self.clock()),))
            values = [(each.task_id, each.annotator, _text(each.until)) for each in leases]
            db.executemany("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", values)

    def release(self, task_id: str, annotator: str) -> None:
        """End a lease."""
        with self._writing() as db:
            db.execute("DELETE FROM leases WHERE task_id = ? AND annotator = ?", (task_id, annotator))

    def leases(self) -> list[Lease]:
        """Return the leases that hold."""
        rows = self._rows("SELECT * FROM leases WHERE until >= ?", (_text(self.clock()),))
        return [Lease(row["task_id"], row["annotator"], datetime.fromisoformat(row["until"])) for row in rows]

    # Who may come in

    def grant(self, annotators: Iterable[str], adjudicators: Iterable[str], *, anew: bool) -> dict[str, str]:
        """Give a token to each annotator who has none, and take those of people who are no longer named.

        Args:
            annotators: Who may judge.
            adjudicators: Who may settle what others said, too.
            anew: Whether to replace the tokens of all, which ends their sessions.

        Returns:
            The new tokens by annotator: the file keeps only their hashes.
        """
        settling = set(adjudicators)
        made: dict[str, str] = {}
        with self._writing() as db:
            known = {row[0] for row in db.execute("SELECT annotator FROM tokens")}
            wanted = list(dict.fromkeys([*annotators, *adjudicators]))
            for name in known - set(wanted) if not anew else known:
                db.execute("DELETE FROM tokens WHERE annotator = ?", (name,))
            for name in wanted:
                if name in known and not anew:
                    db.execute("UPDATE tokens SET adjudicator = ? WHERE annotator = ?", (name in settling, name))
                    continue
                made[name] = secrets.token_urlsafe(24)
                values = (name, name in settling, _hash(made[name]), _text(self.clock()))
                db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", values)
        return made

    def people(self) -> dict[str, bool]:
        """Return who has a token, and whether they adjudicate."""
        return {
            row["annotator"]: bool(row["adjudicator"]) for row in self._rows("SELECT * FROM tokens ORDER BY annotator")
        }

    def log_in(self, token: str) -> tuple[str, str] | None:
        """Return the annotator whose token this is and the secret of a new session, or None for no one's."""
        wanted, found = _hash(token), None
        for row in self._rows("SELECT annotator, hash FROM tokens"):  # all of them, so that time tells nothing
            if hmac.compare_digest(row["hash"], wanted):
                found = row["annotator"]
        if found is None:
            return None
        secret = secrets.token_urlsafe(24)
        with self._writing() as db:
            db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_hash(secret), found, _text(self.clock())))
        return found, secret

    def session(self, secret: str) -> tuple[str, bool] | None:
        """Return whose session a secret is of and whether they adjudicate, or None."""
        query = "SELECT annotator, adjudicator FROM sessions JOIN tokens USING (annotator) WHERE sessions.hash = ?"
        rows = self._rows(query, (_hash(secret),))
        return (rows[0]["annotator"], bool(rows[0]["adjudicator"])) if rows else None

    # Notes, refusals, facts

    def note(self, about: Item, annotator: str, text: str) -> None:
        """Keep a note beside an item."""
        with self._writing() as db:
            names, marks = "kind, clip_id, person_id, item, annotator, text, time", ", ".join("?" * 7)
            values = (*about, annotator, text, _text(self.clock()))
            db.execute(f"INSERT INTO notes ({names}) VALUES ({marks})", values)

    def notes(self, about: Item) -> list[Note]:
        """Return the notes beside an item, oldest first."""
        rows = self._rows(
            "SELECT * FROM notes WHERE clip_id = ? AND kind = ? AND person_id IS ? AND item IS ? ORDER BY note_id",
            (about.clip_id, about.kind, about.person_id, about.index),
        )
        return [Note(row["annotator"], row["text"], datetime.fromisoformat(row["time"])) for row in rows]

    def refuse(self, annotator: str | None, address: str, method: str, path: str, status: int, what: str) -> None:
        """Log a request that was refused; the oldest go when there are very many."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO refusals (time, annotator, address, method, path, status, what) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_text(self.clock()), annotator, address, method, path[:300], status, what[:500]),
            )
            db.execute(
                "DELETE FROM refusals WHERE refusal_id <= (SELECT max(refusal_id) FROM refusals) - ?", (_MAX_REFUSALS,)
            )

    def refusals(self) -> list[dict[str, Any]]:
        """Return the refused requests, oldest first."""
        return [dict(row) for row in self._rows("SELECT * FROM refusals ORDER BY refusal_id")]

    def fact(self, name: str) -> Any:
        """Return what was remembered under a name, None when nothing was."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(rows[0]["value"]) if rows else None

    def remember(self, name: str, value: Any) -> None:
        """Remember a plain value under a name."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _text(time: datetime) -> str:
    """Return a time so that texts sort as times do."""
    return time.isoformat(timespec="microseconds")


def _annotation(row: sqlite3.Row) -> Annotation:
    values = {name: row[name] for name in _JUDGEMENT}
    return from_row({**values, "time": datetime.fromisoformat(cast(str, row["time"]))})
