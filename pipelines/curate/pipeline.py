"""Raw footage to observed clips on Ray Data: probe -> trim -> observe, in one streaming pass.

Rows carry paths. Each observed clip is committed on its own, atomically, before the next one: kill anything at any
time and the same call does what is missing. A row that fails is committed as an error row with its reason.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from microg import storage
from microg.arrow import pc
from microg.config import Config, Resources
from microg.errors import ConfigError
from microg.models.curation.box_rule import PUBLISHED, BoxRule
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import DetectorSettings
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.models.video.trim import TrimSettings
from microg.pipelines.core.cluster import Capacity, capacity, decide_device
from microg.pipelines.core.shared_files import share
from microg.pipelines.core.stage import Pipeline, run_stages
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings
from microg.pipelines.curate.find_footage import Footage
from microg.pipelines.curate.observe_stage import OBSERVE
from microg.pipelines.curate.trim_stage import PROBE, SOURCE, TRIM

# Of one observer: more processes than that feed no detector faster.
_MOST_CPUS = 32


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
    clips_at_once: int = Field(
        default=0,
        ge=0,
        description="Clips that one observer works on at once, each in a process of its own beside one detector for "
        "all; 0: as many as an observer with a GPU has CPUs, and 1 without one.",
    )
    decoder: DecoderName = Field(
        default="auto",
        description=f"{DECODER} A dataset holds boxes of one decoder, unless detector.mixed says otherwise; footage is "
        "cut by PyAV.",
    )
    resources: Resources = Resources()

    volatile = frozenset({"resources", "limit", "clips_at_once", "decoder"})

    @property
    def clips_of_an_observer(self) -> int:
        """How many clips each observer works on at once."""
        if self.detections is not None:
            return 1
        return self.clips_at_once or (max(1, int(self.resources.cpus)) if self.resources.gpus else 1)


def remaining(footage: list[Footage], root: str) -> tuple[list[Footage], list[str]]:
    """Return the footage that still needs work, and the clips that are done.

    A clip is done when a row says so and its source has not changed since. A row that failed is done again, unless
    the video itself is at fault: that will not change until the file does.
    """
    names = ["clip_id", "source_id", "stretch", "stretches", "stretch_clips", "status", "error", "source_fingerprint"]
    seen = observations.read(root, names)
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


PIPELINE = Pipeline(
    name="curate",
    source=SOURCE,
    stages=(PROBE, TRIM, OBSERVE),
    key="key",
    unit="clips",
    failure="no clip can be observed",
)


def with_device(settings: CurateSettings) -> tuple[CurateSettings, str]:
    """Return the settings with the resources of one observer and the detector's backend, and where that computes.

    Both are decided here for all nodes: boxes of one dataset do not come from several. On a GPU an observer has one of
    its own, unless `resources.gpus` says a fraction, and its share of the node's CPUs, unless `resources.cpus` says how
    many. Raises `ConfigError` for a device that no observer can be given.
    """
    detector = settings.detector
    replayed = settings.detections is not None
    on_cpu = replayed or detector.precision == "int8" or detector.backend not in ("auto", "torch")
    if on_cpu and detector.device == "cuda" and not replayed:
        raise ConfigError(
            f"the detector backend {detector.backend} with {detector.precision} computes on the CPU",
            "take --device cuda away, or use --set detector.backend=torch --set detector.precision=float32",
        )
    resources, device = decide_device(
        settings.resources,
        "cpu" if on_cpu else detector.device,
        who=f"the detector {detector.weights}",
        fix="use --device cpu, or connect to a cluster that has one",
    )
    if settings.decoder == "nvdec" and device != "cuda":
        raise ConfigError(
            "the decoder nvdec is part of a GPU, and the detector computes on the CPU",
            "use --device cuda on a Ray with GPUs, or --decoder pyav",
        )
    if resources.gpus and not replayed and "cpus" not in resources.model_fields_set:
        resources = resources.replaced(cpus=cpus_beside(resources.gpus, capacity()))
    if not replayed:
        from microg.models.detection.network_backends import choose

        backend = detector.backend if detector.backend != "auto" else choose("auto", device)
        detector = detector.replaced(device=device, backend=backend)
    return settings.replaced(resources=resources, detector=detector), device


def cpus_beside(gpus: float, now: Capacity) -> int:
    """Return the CPUs of an observer with so many GPUs: its share of half of a GPU node's, for the other half cuts.

    >>> cpus_beside(0.5, Capacity(({"CPU": 32, "GPU": 2}, {"CPU": 64})))
    4
    """
    shares = [node.get("CPU", 0.0) / node["GPU"] for node in now.nodes if node.get("GPU")]
    return max(1, min(_MOST_CPUS, int(gpus * min(shares, default=0) / 2)))


def sized_pipeline(settings: CurateSettings) -> Pipeline:
    """Return the pipeline with the resources of `settings`."""
    return PIPELINE.sized("observe", settings.resources, calls_at_once=settings.clips_of_an_observer)


def run_curation(
    footage: list[Footage],
    root: str,
    settings: CurateSettings,
    *,
    weights: str | None,
    done: list[str],
    device: str | None = None,
) -> dict[str, Any]:
    """Trim and observe `footage` into `root` on the connected Ray, and return the closing block.

    Args:
        footage: Raw files that need work.
        root: The dataset folder.
        settings: What decides the observations.
        weights: Path or URI of the detector's weights; None where detections are replayed.
        done: Clips that are observed already: they are counted, not cut.
        device: Where the detector computes, for the closing line.

    Raises:
        ConfigError: Ray cannot give what `settings.resources` asks for.
        WorkerError: No clip can be observed: the detector cannot be loaded, `root` cannot be written, or Ray gives up.
    """
    cut = None if settings.pretrimmed else settings.trim
    calibration = settings.detector.calibration
    pipeline = sized_pipeline(settings).bound(
        probe={"settings": cut},
        trim={"settings": cut, "folder": storage.join(root, "videos"), "done": frozenset(done)},
        observe={
            "root": root,
            "tracker": settings.tracker,
            "detector": settings.detector,
            "weights": None if weights is None else share(weights),
            "calibration": None if calibration is None else share(calibration),
            "detections": settings.detections,
            "threads": max(1, int(settings.resources.cpus)),
            "clips_at_once": settings.clips_of_an_observer,
            "decoder": settings.decoder,
        },
    )
    rows = [{name: getattr(item, name) for name in SOURCE.names} for item in footage]
    blocks = [pa.Table.from_pylist([row], schema=SOURCE) for row in rows]
    return run_stages(pipeline, blocks, device=device, store=observations.store(root))
