"""`microg curate`: raw footage to an annotated dataset.

Also `python jobs/curate.py RAW_DIR OUT`, and `ray job submit --working-dir . -- python jobs/curate.py RAW_DIR OUT`.
"""

from __future__ import annotations

import os
import sys
import time
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.common import (
    EXIT_FAILED_ROWS,
    AddressOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    SetOption,
    make_app,
    print_json,
    run,
)
from microg.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from pipelines.curate import CurateSettings
    from pipelines.footage import Footage


class Rule(str, Enum):
    """Which boxes are published."""

    published = "published"
    corrected = "corrected"


class Profile(str, Enum):
    """Speed against exactness of detection."""

    exact = "exact"
    fast = "fast"


class DetectorBackend(str, Enum):
    """What runs the detector."""

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Origin(str, Enum):
    """Where footage comes from, unless a folder named movie or real says so."""

    movie = "movie"
    real = "real"


def curate(
    raw_dir: Annotated[str, typer.Argument(metavar="RAW_DIR", help="Folder (or URI) with raw videos, or one video.")],
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="Dataset folder to make or to resume.")] = None,
    weights: Annotated[str | None, typer.Option(help="Detector weights: a name, searched for, or a path.")] = None,
    detector_backend: Annotated[
        DetectorBackend | None, typer.Option(help="What runs the detector; auto: the fastest measured here.")
    ] = None,
    profile: Annotated[
        Profile | None, typer.Option(help="exact: float32. fast: INT8 calibrated on this footage; other numbers.")
    ] = None,
    rotations: Annotated[
        int | None, typer.Option(help="4 also looks at each frame turned by 90, 180 and 270 degrees; 4 x the work.")
    ] = None,
    detections: Annotated[
        str | None, typer.Option(metavar="DIR", help="Replay stored detections instead of running a detector.")
    ] = None,
    rule: Annotated[
        Rule | None, typer.Option(help="published: the paper's boxes. corrected: its quirks fixed.")
    ] = None,
    origin: Annotated[Origin | None, typer.Option(help="Origin of files outside folders named movie or real.")] = None,
    pretrimmed: Annotated[bool, typer.Option("--pretrimmed", help="The files are clips already: do not cut.")] = False,
    previews: Annotated[bool, typer.Option("--previews", help="Also write annotated preview videos.")] = False,
    compare_rules: Annotated[
        bool, typer.Option("--compare-rules", help="Also tell what each fix of the published rule changes.")
    ] = False,
    refilter: Annotated[
        bool, typer.Option("--refilter", help="Apply new filter and rule settings to OUT without decoding again.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn raw footage into 3 s clips at 30 fps with tracked person boxes, samples and splits.

    Any container, codec, frame rate and size is taken. Killed at any time, the same command does what is missing;
    files that were added since are taken in. Every file and clip ends as a row with a status and a reason.

    Examples:

    - `microg curate footage/ data/mine`
    - `microg curate footage/ data/mine --weights weights/yolo11x.pt --rotations 4 --previews`
    - `microg curate data/mine --refilter --set filter.min_person_percentage=50 --rule corrected`
    - `microg curate s3://bucket/footage s3://bucket/mine --address auto`
    """
    chosen: dict[str, Any] = {
        "detector.weights": weights, "detector.backend": detector_backend and detector_backend.value,
        "detector.precision": profile and {"exact": "float32", "fast": "int8"}[profile.value],
        "detector.rotations": rotations, "detections": detections, "origin": origin and origin.value,
        "pretrimmed": pretrimmed or None, "limit": limit, "resources.address": address,
    }  # fmt: skip
    options = [f"{key}={value}" for key, value in chosen.items() if value is not None] + list(overrides or [])
    if refilter:
        report = _refilter(out or raw_dir, config, options, rule, compare_rules)
    else:
        if out is None:
            raise ConfigError("where to write is missing", "microg curate RAW_DIR OUT")
        report = _curate(raw_dir, out, config, options, rule, compare_rules, previews, dry_run)
    if as_json:
        print_json(report)
    else:
        from jobs.curate_report import show

        show(report)
    failed = report.get("counts", {}).get("sources_failed", 0) + report.get("counts", {}).get("clips_failed", 0)
    if failed or report.get("preview_errors"):
        raise typer.Exit(EXIT_FAILED_ROWS)


def _settings(config: str | None, options: list[str], rule: Rule | None, base: dict[str, Any]) -> CurateSettings:
    from microg.config import load_config
    from models.box_rule import RULES
    from pipelines.curate import CurateSettings

    if rule is not None:
        base = base | {"rule": RULES[rule.value].model_dump()}
    return load_config(CurateSettings, config, options, **base)


def _absolute(path: str) -> str:
    from microg import storage

    return str(storage.local_path(path).absolute()) if storage.is_local(path) else path.rstrip("/")


def _curate(
    raw_dir: str, out: str, config: str | None, options: list[str], rule: Rule | None,
    compare_rules: bool, previews: bool, dry_run: bool,
) -> dict[str, Any]:  # fmt: skip
    from microg.runs import Run
    from microg.weights import require_weights
    from pipelines import observations
    from pipelines.curate import remaining, run_curation
    from pipelines.footage import list_footage

    settings = _settings(config, options, rule, {})
    out = _absolute(out)
    if settings.detections is not None:
        settings = settings.replaced(detections=_absolute(settings.detections))
    footage, ignored = list_footage(_absolute(raw_dir), exclude=out, default_origin=settings.origin)
    footage = footage[: settings.limit]
    weights = None if settings.detections else require_weights(settings.detector.weights)
    _refuse_other_footage(out, footage)
    left, done = remaining(footage, out)
    report: dict[str, Any] = {
        "out": out, "files": len(footage), "files_ignored": ignored, "files_done": len(footage) - len(left),
        "clips_done_before": len(done), "rule": settings.rule.name,
    }  # fmt: skip
    if dry_run:
        return report | {"plan": _plan(left, settings)}
    run_folder = Run.start(out, "curate", settings)
    started = time.monotonic()
    if left:
        from microg.console import ProgressDisplay
        from pipelines import session

        if settings.detector.precision == "int8" and weights is not None:
            from pipelines.calibrate import calibrate

            print("calibrating INT8 weights on the footage", file=sys.stderr)
            report["int8"] = calibrate(footage, out, settings.detector, weights)
            detector = settings.detector.replaced(calibration=report["int8"]["calibration"])
            settings = settings.replaced(detector=detector)
        session.connect(settings.resources)
        seconds: dict[str, float] = {}
        with ProgressDisplay("curate", None) as progress:

            def on_row(row: dict[str, Any]) -> None:
                for stage in observations.STAGES:
                    seconds[stage] = seconds.get(stage, 0.0) + (row[f"{stage}_s"] or 0.0)
                progress.advance(1 if row["clip_id"] else 0, 1 if row["status"] == "error" else 0)

            run_curation(left, out, settings, weights=weights, done=done, on_row=on_row)
        report["throughput"] = _throughput(progress.done, time.monotonic() - started, seconds)
    observations.compact(out)
    report |= _write(out, settings, compare_rules)
    if previews:
        report["preview_errors"] = _previews(out, settings)
    run_folder.finish(report)
    return report


def _refuse_other_footage(out: str, footage: list[Footage]) -> None:
    """Two different files must not share a source id in one dataset."""
    from pipelines import observations

    seen = observations.read(out, ["source_id", "source_uri", "source_fingerprint"]).to_pylist()
    known = {row["source_id"]: (row["source_uri"], row["source_fingerprint"]) for row in seen}
    for item in footage:
        uri, fingerprint = known.get(item.source_id, (item.uri, item.fingerprint))
        if uri != item.uri and fingerprint != item.fingerprint:
            raise DatasetError(
                f"{out} already has a source {item.source_id!r}, made from {uri}, and {item.uri} would replace it",
                "rename the file, or curate into another folder",
            )


def _plan(left: list[Footage], settings: CurateSettings) -> dict[str, Any]:
    from models.detection.backends import choose
    from models.video import probe

    clips, unreadable = 0, 0
    for item in left:
        try:
            clips += int(probe(item.uri).duration_s // settings.trim.seconds) if not settings.pretrimmed else 1
        except Exception:
            unreadable += 1
    detector = "stored detections" if settings.detections else settings.detector.weights
    return {
        "files_to_do": len(left), "clips_expected": clips, "files_unreadable": unreadable, "detector": detector,
        "backend": choose(settings.detector.backend, settings.detector.device),
        "precision": settings.detector.precision, "rotations": settings.detector.rotations,
        "stages": ["probe", "trim", "observe (decode, detect, scenes, motion, track)", "decide", "write"],
        "resources": settings.resources.model_dump(),
    }  # fmt: skip


def _write(out: str, settings: CurateSettings, compare: bool) -> dict[str, Any]:
    from models.box_rule import rule_ladder
    from pipelines.curated import current_observations, write_dataset
    from pipelines.decide import compare_rules

    result: dict[str, Any] = {
        "counts": write_dataset(out, os.path.basename(out), settings.filter, settings.rule)  # noqa: PTH119
    }
    if compare:
        result["rules"] = compare_rules(current_observations(out), settings.filter, rule_ladder())
    return result


def _previews(out: str, settings: CurateSettings) -> list[str]:
    from microg.console import ProgressDisplay
    from microg.dataset import Dataset
    from pipelines import session
    from pipelines.curated import write_previews

    session.connect(settings.resources)
    dataset = Dataset.open(out)
    errors = []
    with ProgressDisplay("previews", dataset.kept_clips().num_rows) as progress:
        for error in write_previews(dataset):
            progress.advance(1, 1 if error else 0)
            errors += [error] if error else []
    return errors


def _refilter(
    out: str, config: str | None, options: list[str], rule: Rule | None, compare_rules: bool
) -> dict[str, Any]:
    from microg import storage
    from microg.runs import Run, differences

    out = _absolute(out)
    path = storage.join(out, "run.json")
    if not storage.exists(path):
        raise DatasetError(f"{out} holds no curation to filter again", "run 'microg curate RAW_DIR OUT' first")
    before = storage.read_json(path)["full_config"]
    settings = _settings(config, options, rule, before)
    recorded = _settings(None, [], None, before)
    fixed = {"filter": recorded.filter, "rule": recorded.rule}
    if changed := differences(recorded.identity(), settings.replaced(**fixed).identity()):
        raise ConfigError(
            f"--refilter can change filter.* and rule only, not {'; '.join(changed)}", "curate into another folder"
        )
    run_folder = Run.revise(out, settings)
    report = {"out": out, "refiltered": True, "rule": settings.rule.name, **_write(out, settings, compare_rules)}
    run_folder.finish(report)
    return report


def _throughput(clips: int, wall_s: float, seconds: dict[str, float]) -> dict[str, Any]:
    total = sum(seconds.values())
    return {
        "clips": clips, "wall_s": wall_s, "clips_per_s": clips / max(wall_s, 1e-9),
        "cpu_s_per_clip": total / max(clips, 1),
        "stages": {stage: value / max(clips, 1) for stage, value in seconds.items()},
        "cores_busy": total / max(wall_s, 1e-9),
        "bottleneck": max(seconds, key=lambda stage: seconds[stage]) if total else None,
    }  # fmt: skip


if __name__ == "__main__":
    app = make_app("Curate raw footage.")
    app.command()(curate)
    run(app)
