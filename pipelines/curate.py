"""Raw footage to observed clips on Ray Data: probe -> trim -> observe, in one streaming pass.

Rows carry paths. Each observed clip is committed on its own, atomically, before the next one: kill anything at any
time and the same call does what is missing. A row that fails is committed as an error row with its reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from microg import storage
from microg.arrow import pc
from microg.config import Config, Resources
from microg.errors import describe
from microg.ids import make_clip_id
from models.box_rule import PUBLISHED, BoxRule
from models.detection.base import DetectorSettings
from models.tracking import TrackerSettings
from models.trim import TrimSettings, trim
from models.video import probe
from pipelines import ledger as ledgers
from pipelines import observations
from pipelines.decide import FilterSettings
from pipelines.footage import Footage, clip_identity

# Clips of one stretch of footage: the unit of trimming in parallel and of trimming again after a crash.
STRETCH_CLIPS = 10


class CurateSettings(Config):
    """Everything that decides what a curation gives. `filter` and `rule` can be changed later by `--refilter`."""

    trim: TrimSettings = TrimSettings()
    detector: DetectorSettings = DetectorSettings()
    tracker: TrackerSettings = TrackerSettings()
    filter: FilterSettings = FilterSettings()
    rule: BoxRule = PUBLISHED
    origin: Literal["movie", "real"] = "real"
    pretrimmed: bool = False
    detections: str | None = None
    limit: int | None = Field(default=None, ge=1)
    resources: Resources = Resources()

    volatile = frozenset({"resources", "limit"})


def remaining(footage: list[Footage], root: str) -> tuple[list[Footage], list[str]]:
    """Return the footage that still needs work, and the clips that are done.

    A clip is done when a row says so and its source has not changed since. A row that failed is done again, unless
    the video itself is at fault: that will not change until the file does.
    """
    seen = observations.read(
        root, ["key", "clip_id", "source_id", "stretch", "stretches", "stretch_clips", "status", "error", "source_fingerprint"]
    )
    fingerprints = {item.source_id: item.fingerprint for item in footage}
    stretches: dict[str, int] = {}
    clips: dict[tuple[str, int], int] = {}
    expected: dict[tuple[str, int], int] = {}
    done: list[str] = []
    final = pc.or_(pc.not_equal(seen["status"], "error"), pc.starts_with(seen["error"], "VideoError:"))
    for row in seen.filter(pc.fill_null(final, False)).to_pylist():
        if fingerprints.get(row["source_id"]) != row["source_fingerprint"]:
            continue
        stretch = (row["source_id"], row["stretch"])
        stretches[row["source_id"]] = row["stretches"]
        expected[stretch] = row["stretch_clips"]
        if row["clip_id"]:
            clips[stretch] = clips.get(stretch, 0) + 1
            done.append(row["clip_id"])
    finished = {
        source_id
        for source_id, count in stretches.items()
        if all(clips.get((source_id, k), 0) == expected.get((source_id, k), -1) for k in range(count))
    }
    return [item for item in footage if item.source_id not in finished], done


def probe_source(source: dict[str, Any], settings: CurateSettings) -> Iterator[dict[str, Any]]:
    """Yield the work rows of one raw file: its stretches, or one terminal row when it cannot be read."""
    base = {
        "source_id": source["source_id"], "source_uri": source["uri"], "origin": source["origin"],
        "source_fingerprint": source["fingerprint"], "source_size": source["size"], "stretch": 0, "stretches": 1,
        "stretch_clips": 0, "decode_errors": [], "tail_s": 0.0, "error": "", "damaged": "",
    }  # fmt: skip
    try:
        info = probe(source["uri"])
    except Exception as error:
        yield base | {"key": f"{source['source_id']}#0", "status": "error", "error": describe(error)}
        return
    base |= {
        "source_fps": info.fps, "source_width": info.width, "source_height": info.height,
        "source_duration_s": info.duration_s,
    }  # fmt: skip
    # Without presentation times a seek lands anywhere, so such a file is cut in one go.
    count = 1
    if info.has_timestamps and not settings.pretrimmed:
        count = max(1, math.ceil(info.duration_s / (settings.trim.seconds * STRETCH_CLIPS)))
    for stretch in range(count):
        key = f"{source['source_id']}#{stretch}"
        yield base | {"key": key, "stretch": stretch, "stretches": count, "status": "trim"}


def trim_stretch(
    row: dict[str, Any], settings: CurateSettings, root: str, done: frozenset[str]
) -> list[dict[str, Any]]:
    """Cut one stretch and return its clips that are not done yet, or a terminal row when it gives none."""
    if settings.pretrimmed:
        return [row for row in [_existing_clip(row)] if row["clip_id"] not in done]
    started = time.process_time()
    first = row["stretch"] * STRETCH_CLIPS
    last = row["stretch"] == row["stretches"] - 1
    skip = {k for k in range(first, first + STRETCH_CLIPS) if make_clip_id(row["source_id"], k) in done}
    try:
        info = probe(row["source_uri"])
        result = trim(
            row["source_uri"], row["source_id"], storage.join(root, "videos"), info, settings.trim,
            first=first, stop=None if last else first + STRETCH_CLIPS, skip=skip,
        )  # fmt: skip
    except Exception as error:
        return [row | {"status": "error", "error": describe(error)}]
    row = row | {"stretch_clips": result.count, "decode_errors": result.errors, "tail_s": result.tail_s}
    if not result.count:
        return [row | {"status": "empty"}]
    seconds = (time.process_time() - started) / max(len(result.clips), 1)
    return [
        row | {
            "key": clip.clip_id, "clip_id": clip.clip_id, "sequence": clip.sequence, "uri": clip.uri,
            "status": "observe", "damaged": clip.damaged, "fps": float(settings.trim.fps), "width": clip.width,
            "height": clip.height, "num_frames": clip.num_frames, "sha256": clip.sha256, "trim_s": seconds,
        }
        for clip in result.clips
    ]  # fmt: skip


def _existing_clip(row: dict[str, Any]) -> dict[str, Any]:
    """Return the work row of a file that is a clip already."""
    clip_id, _, sequence = clip_identity(row["source_id"])
    info = probe(row["source_uri"])
    frames = info.num_frames or round(info.duration_s * info.fps)
    digest = storage.sha256(storage.local_path(row["source_uri"])) if storage.is_local(row["source_uri"]) else None
    return row | {
        "key": clip_id, "clip_id": clip_id, "sequence": sequence, "uri": row["source_uri"], "status": "observe",
        "stretch_clips": 1, "fps": info.fps, "width": info.width, "height": info.height, "num_frames": frames,
        "sha256": digest,
    }  # fmt: skip


class ProbeAndTrim:
    """Task bodies of the first two stages; Arrow in, Arrow out, one terminal row for whatever goes wrong."""

    def __init__(self, settings: CurateSettings, root: str, done: list[str], ledger: Any) -> None:
        self.settings, self.root, self.ledger = settings, root, ledger
        self.done = frozenset(done)

    def probe(self, batch: pa.Table) -> pa.Table:
        """Probe a batch of sources."""
        return _table([row for source in batch.to_pylist() for row in probe_source(source, self.settings)])

    def trim(self, batch: pa.Table) -> pa.Table:
        """Cut a batch of stretches."""
        rows: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            if row["status"] != "trim":
                rows.append(row)
            elif ledgers.crashed_before(self.ledger, row["key"]):
                rows.append(row | {"status": "error", "error": "WorkerCrashed: trimming this footage kills its worker"})
            else:
                try:
                    rows += trim_stretch(row, self.settings, self.root, self.done)
                except Exception as error:
                    rows.append(row | {"status": "error", "error": describe(error)})
                ledgers.settled(self.ledger, row["key"])
        return _table(rows)


class Observer:
    """Actor that holds the detector, observes clips one by one, and commits each before it goes on."""

    def __init__(self, settings: CurateSettings, root: str, ledger: Any, weights: tuple[str, bytes] | None) -> None:
        from models.detection.load import load_detector

        threads = max(1, int(settings.resources.cpus))
        limit_threads(threads)
        self.settings, self.root, self.ledger = settings, root, ledger
        self.detector = None
        if settings.detections is None and weights is not None:
            detector = settings.detector.replaced(weights=str(_local_weights(*weights)))
            self.detector = load_detector(detector, threads=threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Observe and commit a batch; returns one small row a clip, for the progress display."""
        reports = []
        for row in batch.to_pylist():
            row = self._observed(row) if row["status"] == "observe" else row
            row["written"] = time.time_ns()
            observations.commit(self.root, [row])
            reports.append({name: row.get(name) for name in _REPORT.names})
        return pa.Table.from_pylist(reports, schema=_REPORT)

    def _observed(self, row: dict[str, Any]) -> dict[str, Any]:
        from models.detection.replay import read_detections
        from models.observe import observe

        if ledgers.crashed_before(self.ledger, row["key"]):
            return row | {"status": "error", "error": "WorkerCrashed: observing this clip kills its worker"}
        try:
            stored = None
            if self.settings.detections is not None:
                stored = read_detections(self.settings.detections, row["clip_id"], row["num_frames"])
            seen = observe(
                row["uri"], self.detector, num_frames=row["num_frames"], stored=stored,
                tracker=self.settings.tracker, batch_size=self.settings.detector.batch_size,
            )  # fmt: skip
            row = row | observations.to_row(seen) | {"status": "ok"}
        except Exception as error:
            row = row | {"status": "error", "error": describe(error)}
        ledgers.settled(self.ledger, row["key"])
        return row


_REPORT = pa.schema(
    [
        ("key", pa.string()), ("clip_id", pa.string()), ("status", pa.string()), ("error", pa.string()),
        *((f"{stage}_s", pa.float32()) for stage in observations.STAGES),
    ]
)  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=observations.SCHEMA)


def limit_threads(threads: int) -> None:
    """Keep the numeric libraries of this process to `threads` threads: one actor a core, not each on all cores."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _local_weights(name: str, content: bytes) -> Path:
    """Return a file with the weights on this node."""
    import hashlib

    from microg.weights import cache_folder

    digest = hashlib.sha256(content).hexdigest()[:16]
    target = cache_folder() / "weights" / f"by-content-{digest}" / name
    if not target.is_file():
        storage.write_bytes(str(target), content)
    return target


def run_curation(
    footage: list[Footage],
    root: str,
    settings: CurateSettings,
    *,
    weights: Path | None,
    done: list[str],
    on_row: Callable[[dict[str, Any]], None],
) -> None:
    """Trim and observe `footage` into `root` on the connected Ray; `on_row` gets each finished row's report."""
    import ray

    from pipelines.session import cluster_cpus

    ledger = ledgers.start_ledger()
    stages = ProbeAndTrim(settings, root, done, ledger)
    content = None if weights is None else (weights.name, weights.read_bytes())
    resources = settings.resources
    actors = resources.max_actors or max(1, int(cluster_cpus() // max(resources.cpus, 0.5)))
    actors = max(resources.min_actors, actors)
    rows = [
        {"source_id": f.source_id, "uri": f.uri, "origin": f.origin, "size": f.size, "fingerprint": f.fingerprint}
        for f in footage
    ]
    dataset = (
        ray.data.from_items(rows)
        .repartition(target_num_rows_per_block=1)
        .map_batches(stages.probe, batch_size=1, batch_format="pyarrow", num_cpus=0.25)
        .repartition(target_num_rows_per_block=1)
        .map_batches(stages.trim, batch_size=1, batch_format="pyarrow", num_cpus=1)
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            Observer,
            fn_constructor_args=(settings, root, ledger, content),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            memory=resources.memory_gb * 2**30 or None,
            compute=ray.data.ActorPoolStrategy(min_size=resources.min_actors, max_size=actors),
        )
    )
    batch: Any
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in batch.to_pylist():
            on_row(row)
