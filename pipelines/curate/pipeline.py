"""Raw footage to observed clips on Ray Data: probe -> trim -> observe, in one streaming pass.

Rows carry paths. Each observed clip is committed on its own, atomically, before the next one: kill anything at any
time and the same call does what is missing. A row that fails is committed as an error row with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from microg import storage
from microg.arrow import pc
from microg.config import Config, Resources
from microg.errors import WorkerError
from microg.models.curation.box_rule import PUBLISHED, BoxRule
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import DetectorSettings
from microg.models.video.trim import TrimSettings
from microg.pipelines.core import attempts as ledgers
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings
from microg.pipelines.curate.find_footage import Footage
from microg.pipelines.curate.observe_stage import ABORT, Observer
from microg.pipelines.curate.trim_stage import Cutting


class CurateSettings(Config):
    """Everything that decides what a curation gives. `filter` and `rule` can be changed later by `--refilter`."""

    trim: TrimSettings = TrimSettings()
    detector: DetectorSettings = DetectorSettings()
    tracker: TrackerSettings = TrackerSettings()
    filter: FilterSettings = FilterSettings()
    rule: BoxRule = PUBLISHED
    origin: Literal["movie", "real"] = Field(
        default="real", description="Origin of footage outside folders named movie or real."
    )
    pretrimmed: bool = Field(default=False, description="The files are clips already: they are not cut.")
    detections: str | None = Field(
        default=None, description="Folder of stored detections, which are replayed instead of running a detector."
    )
    weights_digest: str | None = Field(
        default=None,
        description="First digits of the SHA-256 of the detector's weights; filled in by the command.",
    )
    limit: int | None = Field(default=None, ge=1, description="Take only the first N videos.")
    resources: Resources = Resources()

    volatile = frozenset({"resources", "limit"})


_BOOKKEEPING = (
    "clip_id",
    "source_id",
    "stretch",
    "stretches",
    "stretch_clips",
    "status",
    "error",
    "source_fingerprint",
)


def remaining(footage: list[Footage], root: str) -> tuple[list[Footage], list[str]]:
    """Return the footage that still needs work, and the clips that are done.

    A clip is done when a row says so and its source has not changed since. A row that failed is done again, unless
    the video itself is at fault: that will not change until the file does.
    """
    seen = observations.read(root, list(_BOOKKEEPING))
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


def run_curation(
    footage: list[Footage],
    root: str,
    settings: CurateSettings,
    *,
    weights: Path | None,
    done: list[str],
    on_row: Callable[[dict[str, Any]], None],
) -> None:
    """Trim and observe `footage` into `root` on the connected Ray; `on_row` gets each finished row's report.

    Raises `ConfigError` when Ray cannot give what `settings.resources` asks for, and `WorkerError` when no clip can
    be observed: the detector cannot be loaded, `root` cannot be written, or Ray gives up.
    """
    import ray

    from microg.pipelines.core.session import pool_size, surfaced

    size = pool_size(settings.resources)
    ledger = ledgers.start_ledger()
    cutting = Cutting(None if settings.pretrimmed else settings.trim, storage.join(root, "videos"), done, ledger)
    resources = settings.resources
    options = {
        "tracker": settings.tracker,
        "detector": settings.detector,
        "weights": None if weights is None else (weights.name, weights.read_bytes()),
        "detections": settings.detections,
        "threads": max(1, int(resources.cpus)),
    }
    rows = [
        {"source_id": f.source_id, "uri": f.uri, "origin": f.origin, "size": f.size, "fingerprint": f.fingerprint}
        for f in footage
    ]
    one_row_blocks = {"batch_size": 1, "batch_format": "pyarrow"}
    dataset = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(cutting.probe, num_cpus=1, **one_row_blocks)
        .repartition(target_num_rows_per_block=1)
        .map_batches(cutting.cut, num_cpus=1, **one_row_blocks)
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            Observer,
            fn_constructor_args=(root, ledger),
            fn_constructor_kwargs=options,
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            memory=resources.memory_gb * 2**30 or None,
            compute=ray.data.ActorPoolStrategy(min_size=size, max_size=max(size, resources.max_actors)),
            **one_row_blocks,
        )
    )
    batch: Any
    reported: set[str] = set()
    with surfaced():
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                if row["status"] == ABORT:
                    fix = "put that right and run the same command again"
                    raise WorkerError(f"no clip can be observed: {row['error']}", fix)
                reported.add(row["key"])
                on_row(row)
    unseen = reported.difference(observations.read(root, ["key"])["key"].to_pylist())
    if unseen:
        raise WorkerError(
            f"{len(unseen)} of {len(reported)} rows that workers wrote to {root} are not there for this process",
            "write to a folder that all nodes share, or to s3:// or gs://",
        )
