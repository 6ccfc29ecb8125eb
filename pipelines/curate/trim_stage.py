"""First stages of a curation: probe each raw file, and trim it into clips, a stretch of footage at a time.

Imports no torch: these are short tasks in many worker processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from microg import storage
from microg.arrow import parse_schema
from microg.data.ids import make_clip_id
from microg.errors import NoVideoError, describe
from microg.models.video.trim import HELD, TrimSettings, trim
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.stage import UNWRITABLE, Stage
from microg.pipelines.curate import observations
from microg.pipelines.curate.find_footage import clip_identity
from microg.storage_faults import ends_run
from microg.video import VideoInfo, count_frames, probe

# Clips of one stretch of footage: the unit of trimming in parallel and of trimming again after a crash.
STRETCH_CLIPS = 10
# A raw file.
SOURCE = parse_schema("source_id uri origin: string, size: int64, fingerprint: string")
# What a trimmed clip says of itself.
_CLIP_COLUMNS = ("clip_id", "sequence", "uri", "damaged", "width", "height", "num_frames", "sha256")


def probe_source(source: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the work rows of one raw file, to be cut into clips of `seconds`: its stretches, or one terminal row when
    it cannot be read."""
    row = _work_row(source)
    try:
        info = probe(source["uri"])
    except Exception as error:
        yield row | _unread(error)
        return
    row |= _source_columns(info)
    # Without an index by time a seek lands anywhere, so such a file is cut in one go.
    count = max(1, math.ceil((info.duration_s or 0) / (seconds * STRETCH_CLIPS))) if info.seekable else 1
    for stretch in range(count):
        key = f"{source['source_id']}#{stretch}"
        yield row | {"key": key, "stretch": stretch, "stretches": count, "status": "trim"}


def existing_clip(source: dict[str, Any]) -> dict[str, Any]:
    """Return the work row of a raw file that is a clip already, or its terminal row when it cannot be read."""
    clip_id, _, sequence = clip_identity(source["source_id"])
    uri = source["uri"]
    row = _work_row(source) | {"key": clip_id, "clip_id": clip_id, "sequence": sequence, "uri": uri, "stretch_clips": 1}
    try:
        info = probe(uri)
        frames = info.num_frames or count_frames(uri)
        digest = storage.sha256(storage.local_path(uri)) if storage.is_local(uri) else None
    except Exception as error:
        return row | _unread(error)
    size = {"width": info.width, "height": info.height, "num_frames": frames}
    return row | _source_columns(info) | size | {"status": "observe", "fps": info.fps, "sha256": digest}


def _unread(error: Exception) -> dict[str, str]:
    """Return how a file ends that cannot be read: as a failure, or without clips where it holds no video."""
    if isinstance(error, NoVideoError):
        return {"status": "empty", "error": error.what}
    return {"status": "error", "error": describe(error)}


def _work_row(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": f"{source['source_id']}#0",
        "source_id": source["source_id"],
        "source_uri": source["uri"],
        "origin": source["origin"],
        "source_fingerprint": source["fingerprint"],
        "source_size": source["size"],
        "stretch": 0,
        "stretches": 1,
        "stretch_clips": 0,
        "decode_errors": [],
        "tail_s": 0.0,
        "error": "",
        "damaged": "",
    }


def _source_columns(info: VideoInfo) -> dict[str, Any]:
    return {f"source_{name}": getattr(info, name) for name in ("fps", "width", "height", "duration_s", "streams")}


def trim_stretch(
    row: dict[str, Any], settings: TrimSettings, folder: str, done: Collection[str]
) -> list[dict[str, Any]]:
    """Cut one stretch into `folder`; return its clips that are not done, or a terminal row when it gives none.

    A clip that is left out is a row too, with the reason.
    """
    started = time.process_time()
    first = row["stretch"] * STRETCH_CLIPS
    last = row["stretch"] == row["stretches"] - 1
    result = trim(
        row["source_uri"],
        row["source_id"],
        folder,
        probe(row["source_uri"]),
        settings,
        first=first,
        stop=None if last else first + STRETCH_CLIPS,
        skip=_FinishedSequences(row["source_id"], done),
    )
    row = row | {"stretch_clips": result.count, "decode_errors": result.errors, "tail_s": result.tail_s}
    if not result.count:
        return [row | {"status": "empty"}]
    seconds = (time.process_time() - started) / max(len(result.clips), 1)
    made = [
        row
        | {
            **{name: getattr(clip, name) for name in _CLIP_COLUMNS},
            "key": clip.clip_id,
            "status": "observe",
            "fps": float(settings.fps),
            "trim_s": seconds,
        }
        for clip in result.clips
    ]
    for sequence in result.left_out:
        clip_id = make_clip_id(row["source_id"], sequence)
        left_out = {"status": "rejected", "error": HELD, "fps": float(settings.fps)}
        made.append(row | {"key": clip_id, "clip_id": clip_id, "sequence": sequence, **left_out})
    return made


class _FinishedSequences:
    """The sequence numbers of one source's clips that are done; the last stretch may hold more than it should."""

    def __init__(self, source_id: str, done: Collection[str]) -> None:
        self._source_id, self._done = source_id, done

    def __contains__(self, sequence: object) -> bool:
        return isinstance(sequence, int) and make_clip_id(self._source_id, sequence) in self._done


def probe_sources(block: pa.Table, *, settings: TrimSettings | None) -> pa.Table:
    """Probe raw files (rows of `SOURCE`) and return their work rows.

    `settings` None means that the files are clips already.
    """
    if settings is None:
        return _work_table([existing_clip(source) for source in block.to_pylist()])
    return _work_table([row for source in block.to_pylist() for row in probe_source(source, settings.seconds)])


def trim_stretches(
    block: pa.Table, *, settings: TrimSettings | None, folder: str, done: Collection[str], attempts: Attempts
) -> pa.Table:
    """Cut stretches of footage (rows of `WORK` with status `trim`) into `folder`; other rows pass unchanged.

    Clips in `done` are counted, not cut. Whatever goes wrong is a terminal row; a full disk is one that ends the run.
    """

    def trim_or_error(row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["status"] != "trim" or settings is None:
            return [row]
        if attempts.crashed_before(row["key"]):
            return [row | {"status": "error", "error": "WorkerCrashed: trimming this footage kills its worker"}]
        try:
            rows = trim_stretch(row, settings, folder, done)
        except Exception as error:
            full = ends_run(error)
            rows = [row | {"status": UNWRITABLE if full else "error", "error": str(full) if full else describe(error)}]
        attempts.mark_finished(row["key"])
        return rows

    return _work_table([result for row in block.to_pylist() for result in trim_or_error(row)])


def _work_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=observations.WORK)


PROBE = Stage(name="probe", work=probe_sources, reads=SOURCE, writes=observations.WORK, rows=1)
TRIM = Stage(name="trim", work=trim_stretches, reads=observations.WORK, writes=observations.WORK, rows=1)
