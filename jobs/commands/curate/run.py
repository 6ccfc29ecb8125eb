"""What `microg curate` does: footage to a dataset on Ray, or a dataset filtered again without decoding."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from microg import storage
from microg.errors import ConfigError, DatasetError
from microg.runs import Run, differences, exclusive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from microg.pipelines.curate.find_footage import Footage
    from microg.pipelines.curate.pipeline import CurateSettings


def curate_footage(
    raw_dir: str, out: str, settings: CurateSettings, *, compare_rules: bool, previews: bool, dry_run: bool
) -> dict[str, Any]:
    """Curate `raw_dir` into `out` as far as that is not done yet, and return the report.

    Raises `MicrogError` for whatever the user can put right before anything is written.
    """
    from microg.pipelines.curate import observations
    from microg.pipelines.curate.find_footage import check_clip_ids, list_footage
    from microg.pipelines.curate.pipeline import remaining
    from microg.pipelines.curate.write_dataset import remove_leftovers
    from microg.system.weights import require_weights

    seen = observations.read(out, ["source_id", "source_uri", "source_fingerprint"]).to_pylist()
    known = {row["source_uri"]: row["source_id"] for row in seen}
    footage, ignored = list_footage(raw_dir, exclude=out, default_origin=settings.origin, known=known)
    footage = footage[: settings.limit]
    if settings.pretrimmed:
        check_clip_ids(footage)
    _refuse_other_footage(out, footage, seen)
    weights = None
    if settings.detections is None:
        weights = require_weights(settings.detector.weights)
        settings = settings.replaced(weights_digest=storage.sha256(weights)[:16])
    left, done = remaining(footage, out)
    report: dict[str, Any] = {
        "out": out,
        "files": len(footage),
        "files_ignored": ignored,
        "files_done": len(footage) - len(left),
        "clips_done_before": len(done),
        "rule": settings.rule.name,
    }
    if dry_run:
        return report | {"plan": _plan(left, settings)}
    with exclusive(out):
        run_folder = Run.start(out, "curate", settings)
        if left:
            report |= _observe(left, done, out, settings, weights)
        observations.compact(out)
        report |= _write(out, settings, compare_rules)
        if previews:
            report["preview_errors"] = _previews(out, settings)
        remove_leftovers(out)
        run_folder.finish(report)
    return report


def refilter(
    out: str,
    settings_of: Callable[[dict[str, Any]], CurateSettings],
    *,
    compare_rules: bool,
    dry_run: bool,
    previews: bool,
) -> dict[str, Any]:
    """Decide again on the observations of `out`; `settings_of(before)` gives the settings from those recorded there.

    Raises `ConfigError` when anything but `filter` and `rule` would change.
    """
    from microg.pipelines.curate.decide import decide
    from microg.pipelines.curate.write_dataset import counts, current_observations

    path = storage.join(out, "run.json")
    found = storage.read_json(path) if storage.exists(path) else None
    if not isinstance(found, dict) or found.get("command") != "curate":
        raise DatasetError(f"{out} holds no curation to filter again", "run 'microg curate RAW_DIR OUT' first")
    before = found["full_config"]
    settings = settings_of(before)
    recorded = type(settings).model_validate(before)
    fixed = {"filter": recorded.filter, "rule": recorded.rule}
    if changed := differences(recorded.identity(), settings.replaced(**fixed).identity()):
        raise ConfigError(
            f"--refilter can change filter.* and rule only, not {'; '.join(changed)}", "curate into another folder"
        )
    report: dict[str, Any] = {"out": out, "refiltered": True, "rule": settings.rule.name}
    if dry_run:
        decided = decide(current_observations(out), settings.filter, settings.rule, out)
        return report | {"dry_run": True, "counts": counts(decided)}
    with exclusive(out):
        run_folder = Run.revise(out, settings)
        report |= _write(out, settings, compare_rules)
        if previews:
            report["preview_errors"] = _previews(out, settings)
        run_folder.finish(report)
    return report


def _refuse_other_footage(out: str, footage: list[Footage], seen: list[dict[str, Any]]) -> None:
    """Two different files must not share a source id in one dataset; a file that was moved is the same."""
    before = {row["source_id"]: (row["source_uri"], row["source_fingerprint"]) for row in seen}
    for item in footage:
        uri, fingerprint = before.get(item.source_id, (item.uri, item.fingerprint))
        if uri != item.uri and fingerprint != item.fingerprint:
            raise DatasetError(
                f"{out} already has a source {item.source_id!r}, made from {uri}, and {item.uri} would replace it",
                "rename the file, or curate into another folder",
            )


def _plan(left: list[Footage], settings: CurateSettings) -> dict[str, Any]:
    from microg.pipelines.curate.pipeline import sized_pipeline
    from microg.video import probe

    clips, unreadable = 0, 0
    for item in left:
        try:
            clips += int(probe(item.uri).duration_s // settings.trim.seconds) if not settings.pretrimmed else 1
        except Exception:  # what it is, the run itself will say
            unreadable += 1
    plan: dict[str, Any] = {"files_to_do": len(left), "clips_expected": clips, "files_unreadable": unreadable}
    if settings.detections is not None:
        plan["detector"] = f"stored detections in {settings.detections}"
    else:
        from microg.models.detection.network_backends import choose

        plan |= {
            "detector": settings.detector.weights,
            "backend": choose(settings.detector.backend, settings.detector.device),
            **{name: getattr(settings.detector, name) for name in ("precision", "frame_step", "rotations")},
        }
    return plan | {"stages": sized_pipeline(settings).plan(), "resources": settings.resources.model_dump()}


def _observe(
    left: list[Footage], done: list[str], out: str, settings: CurateSettings, weights: Path | None
) -> dict[str, Any]:
    """Run the Ray part, and return what it adds to the report."""
    from microg.pipelines.core import session
    from microg.pipelines.curate.pipeline import run_curation

    report: dict[str, Any] = {}
    if not settings.detector.exact and weights is not None:
        from microg.pipelines.curate.calibrate import calibrate

        print("comparing the fast profile with the exact one on the footage", file=sys.stderr)
        report["agreement"] = calibrate(left, out, settings.detector, weights)
        detector = settings.detector.replaced(calibration=report["agreement"].get("calibration"))
        settings = settings.replaced(detector=detector)
    session.connect(settings.resources)
    return report | {"throughput": run_curation(left, out, settings, weights=weights, done=done)}


def _write(out: str, settings: CurateSettings, compare: bool) -> dict[str, Any]:
    from microg.models.curation.box_rule import rule_ladder
    from microg.pipelines.curate.decide import compare_rules
    from microg.pipelines.curate.write_dataset import current_observations, write_dataset

    name = out.rstrip("/").rsplit("/", 1)[-1]
    result: dict[str, Any] = {"counts": write_dataset(out, name, settings.filter, settings.rule)}
    if compare:
        result["rules"] = compare_rules(current_observations(out), settings.filter, rule_ladder())
    return result


def _previews(out: str, settings: CurateSettings) -> list[str]:
    from microg.console import ProgressDisplay
    from microg.data.dataset import Dataset
    from microg.pipelines.core import session
    from microg.pipelines.curate.previews import missing_previews, write_previews

    rows = missing_previews(Dataset.open(out))
    if not rows:
        return []
    session.connect(settings.resources)
    errors = []
    with session.ray_failures_as_worker_errors(), ProgressDisplay("previews", len(rows)) as progress:
        for error in write_previews(rows):
            progress.advance(1, 1 if error else 0)
            errors += [error] if error else []
    return errors
