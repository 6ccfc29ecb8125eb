"""Typed errors: each says what is wrong, where, and how to fix it.

A `MicrogError` reaches a command-line user as one line and exit code 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import re


class MicrogError(Exception):
    """Base of all errors that a user can act on.

    `what` states the problem and where it is; `fix` (optional) states what to do about it.
    """

    def __init__(self, what: str, fix: str | None = None) -> None:
        self.what = " ".join(without_colours(what).split())
        self.fix = " ".join(fix.split()) if fix else None
        super().__init__(f"{self.what} ({self.fix})" if self.fix else self.what)

    def __reduce__(self) -> tuple[type[MicrogError], tuple[str, str | None]]:
        return (type(self), (self.what, self.fix))


class ConfigError(MicrogError):
    """A configuration file, a `--set` override or an option has a bad key or value."""


class IdError(MicrogError):
    """An identifier is not of the form `[A-Za-z0-9_-]+`, or a clip id lacks its sequence number."""


class PathError(MicrogError):
    """A name that data give would lead out of the folder that it belongs to."""


class DatasetError(MicrogError):
    """A dataset folder or one of its tables is missing, unreadable or of the wrong schema."""


class FormatError(MicrogError):
    """A foreign annotation file cannot be read; names the file and, where known, the line."""


class PointerError(FormatError):
    """A file is Git's stand-in for a large file that was not fetched."""


class AnnotationError(MicrogError):
    """What somebody said of a clip cannot be saved or accepted as it stands."""


class RunConflictError(MicrogError):
    """A run folder exists with another configuration."""


class StorageError(MicrogError):
    """A disk or an object store does not give what it should hold."""


class WriteError(StorageError):
    """A disk or an object store does not take a file: no room, no permission, no connection. It ends a whole run."""


class VideoError(MicrogError):
    """A video cannot be opened, decoded or encoded."""


class VideoAccessError(VideoError):
    """A video cannot be reached (permission, missing file, connection): the video itself may be fine."""


class NoVideoError(VideoError):
    """A file has no moving picture, such as music with a cover: there is nothing wrong with it."""


class WeightsError(MicrogError):
    """Model weights are missing or unusable."""


class WorkerError(MicrogError):
    """A job cannot go on: its workers cannot start, or none of them could do any row."""


class StageError(MicrogError):
    """A stage of a pipeline is declared wrongly."""


class TrainingError(MicrogError):
    """Training cannot go on: the loss is not finite, or no sample of a batch can be used."""


class DownloadError(MicrogError):
    """A file cannot be fetched, or what came does not match its checksum."""


class AnnotationServerError(MicrogError):
    """An annotation server cannot be reached, or refuses a request."""


class MetricError(MicrogError):
    """A metric cannot be computed from what it was given, or results cannot be compared."""


def without_colours(text: str) -> str:
    """Return a text without the colours of a terminal, in which Ray writes its errors."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def describe(error: BaseException) -> str:
    """Return `type: message` on one line, as stored in the `error` column of tables."""
    message = " ".join(without_colours(str(error)).split()) or "no message"
    return f"{type(error).__name__}: {message}"[:2000]
