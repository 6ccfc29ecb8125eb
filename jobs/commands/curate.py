"""What `microg curate` does: footage to a dataset on Ray, or a dataset filtered again without decoding."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from rich.table import Table

from microg import storage
from microg.config import load_config
from microg.console import ProgressDisplay, say_aside
from microg.data.dataset import Dataset
from microg.errors import ConfigError, DatasetError
from microg.locks import exclusive
from microg.models.curation.box_rule import RULES, rule_ladder
from microg.models.detection.base import PROFILES
from microg.models.detection.load import YOLOX_SUFFIX, fitted
from microg.models.video.decoders.registry import BEST, decoder_of
from microg.pipelines.core import session
from microg.pipelines.core.stage import plan_lines
from microg.pipelines.core.telemetry import throughput_line
from microg.pipelines.curate import observations
from microg.pipelines.curate.calibrate import calibrate
from microg.pipelines.curate.decide import compare_rules, decide
from microg.pipelines.curate.find_footage import Footage, check_clip_ids, list_footage
from microg.pipelines.curate.pipeline import CurateSettings, remaining, run_curation, sized_pipeline, with_device
from microg.pipelines.curate.previews import missing_previews, write_previews
from microg.pipelines.curate.write_dataset import (
    counts,
    current_observations,
    remove_leftovers,
    with_judgements,
    write_dataset,
)
from microg.runs import Run, differences
from microg.screen import Screen, styled
from microg.system import zoo
from microg.system.zoo import locate_weights, require_weights
from microg.video import probe

# Notes on files that are shown; all are in table `sources`.
_NOTES = 5


def curate_settings(
    config: str | None, rule: str | None, profile: str | None, overrides: list[Any], base: dict[str, Any]
) -> CurateSettings:
    """Build the settings: `base`, the recipe, what `--rule` and `--detector-profile` mean, then `overrides`."""
    named: dict[str, Any] = {}
    if rule is not None:
        named |= {f"rule.{name}": kept for name, kept in RULES[rule].model_dump().items()}
    if profile is not None:
        named |= {f"detector.{key}": value for key, value in PROFILES[profile].items()}
    settings = load_config(CurateSettings, config, [named, *overrides], **base)
    if settings.detections is not None:
        settings = settings.replaced(detections=storage.absolute(settings.detections))
    return settings


def curate_footage(
    raw_dir: str, out: str, settings: CurateSettings, *, compare: bool, previews: bool, dry_run: bool
) -> dict[str, Any]:
    """Curate `raw_dir` into `out` as far as that is not done yet, and return the report.

    Raises `MicrogError` for whatever the user can put right before anything is written.
    """
    with nullcontext() if dry_run else exclusive(out):
        return _curate_footage(raw_dir, out, settings, compare=compare, previews=previews, dry_run=dry_run)


def _curate_footage(
    raw_dir: str, out: str, settings: CurateSettings, *, compare: bool, previews: bool, dry_run: bool
) -> dict[str, Any]:
    seen = observations.read(out, ["source_id", "source_uri", "source_fingerprint"]).to_pylist()
    known = {row["source_uri"]: row["source_id"] for row in seen}
    footage, ignored = list_footage(raw_dir, exclude=out, default_origin=settings.origin, known=known)
    footage = footage[: settings.limit]
    if settings.pretrimmed:
        check_clip_ids(footage)
    _refuse_other_footage(out, footage, seen)
    weights, to_fetch = None, None
    if settings.detections is None and dry_run:
        to_fetch = zoo.missing(settings.detector.weights)
    if settings.detections is None and to_fetch is None:
        weights = locate_weights(settings.detector.weights)
        settings = settings.replaced(weights_digest=storage.sha256(weights)[:16])
        if weights.lower().endswith(YOLOX_SUFFIX):
            settings = settings.replaced(detector=fitted(settings.detector, require_weights(weights)))
    left, done = remaining(footage, out)
    if left and not dry_run and settings.detector.exact:  # else the profile is compared first, here
        session.begin(settings.resources)
    report: dict[str, Any] = {
        "out": out,
        "files": len(footage),
        "files_ignored": ignored,
        "files_done": len(footage) - len(left),
        "clips_done_before": len(done),
        "rule": settings.rule.name,
    }
    if dry_run:
        return report | {"plan": _plan(left, settings, to_fetch)}
    run_folder = Run.start(out, "curate", settings)
    if left:
        report |= _observe(run_folder, left, done, settings, weights)
    observations.store(out).compact()
    report |= _write(out, settings, compare)
    if previews:
        report["preview_errors"] = _previews(out, settings)
    remove_leftovers(out)
    run_folder.finish(report)
    return report


def refilter(
    out: str, settings_of: Callable[[dict[str, Any]], CurateSettings], *, compare: bool, dry_run: bool, previews: bool
) -> dict[str, Any]:
    """Decide again on the observations of `out`; `settings_of(before)` gives the settings from those recorded there.

    Raises `ConfigError` when anything but `filter` and `rule` would change.
    """
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
        judged = with_judgements(Dataset.open(out), decided)
        return report | {"dry_run": True, "counts": counts(judged.tables) | judged.counts}
    with exclusive(out):
        run_folder = Run.revise(out, settings)
        report |= _write(out, settings, compare)
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


def _plan(left: list[Footage], settings: CurateSettings, to_fetch: str | None) -> dict[str, Any]:
    clips, unreadable = 0, 0
    for item in left:
        try:
            clips += 1 if settings.pretrimmed else int((probe(item.uri).duration_s or 0) // settings.trim.seconds)
        except Exception:  # what it is, the run itself will say
            unreadable += 1
    plan: dict[str, Any] = {"files_to_do": len(left), "clips_expected": clips, "files_unreadable": unreadable}
    if settings.detections is not None:
        plan["detector"] = f"stored detections in {settings.detections}"
    else:
        from microg.models.detection.network_backends import choose

        plan |= {
            "detector": settings.detector.weights,
            **({"fetched_first": to_fetch} if to_fetch else {}),
            "backend": choose(settings.detector.backend, settings.detector.device),
            **{name: getattr(settings.detector, name) for name in ("precision", "frame_step", "rotations")},
            "decoder": decoder_of(settings.decoder),
            "clips_at_once": settings.clips_at_once or "1 an observer, and one a CPU of an observer on a GPU",
        }
    return plan | {"stages": sized_pipeline(settings).plan(), "resources": settings.resources.model_dump()}


def _observe(
    run_folder: Run, left: list[Footage], done: list[str], settings: CurateSettings, weights: str | None
) -> dict[str, Any]:
    """Run the Ray part, and return what it adds to the report."""
    report: dict[str, Any] = {}
    out = run_folder.root
    if not settings.detector.exact and weights is not None:
        say_aside("comparing the fast profile with the exact one on the footage")
        report["agreement"] = calibrate(left, out, settings.detector, require_weights(weights))
        detector = settings.detector.replaced(calibration=report["agreement"].get("calibration"))
        settings = settings.replaced(detector=detector)
    session.connect(settings.resources)
    settings, device = with_device(settings)
    detector = _detector(settings)
    backend = "stored detections" if settings.detections is not None else settings.detector.backend
    decoder = decoder_of(settings.decoder)
    if done and not settings.detector.mixed:
        _refuse_mixing(run_folder, device, backend, decoder)
    run_folder.record_device(device, backend=backend, decoder=decoder)
    say_aside(f"{len(left)} files with {detector} on {device}")
    return report | {"throughput": run_curation(left, out, settings, weights=weights, done=done, device=device)}


def _refuse_mixing(run_folder: Run, device: str, backend: str, decoder: str) -> None:
    """Boxes of one dataset come from one backend, device and decoder: others differ in the last digits."""

    def said(backend: str | None, device: str, decoder: str) -> str:
        return f"{backend} on {device}" + (f" of frames from {decoder}" if decoder != BEST else "")

    for entry in run_folder.manifest.get("devices", []):
        used = entry.get("decoder", BEST).replace("cpu", BEST)  # as it was called before
        before = (entry.get("backend"), entry["device"], used)
        if before != (backend, device, decoder):
            raise ConfigError(
                f"{run_folder.root} holds boxes made by {said(*before)}; this run would add some made by "
                f"{said(backend, device, decoder)}",
                f"go on with --device {before[1]} --decoder {before[2]} where {before[0]} is installed, curate "
                "into another folder, or let them mix with --set detector.mixed=true",
            )


def _detector(settings: CurateSettings) -> str:
    if settings.detections is not None:
        return f"the stored detections of {settings.detections}"
    return f"{settings.detector.weights} ({settings.detector.backend}, {settings.detector.precision})"


def _write(out: str, settings: CurateSettings, compare: bool) -> dict[str, Any]:
    name = out.rstrip("/").rsplit("/", 1)[-1]
    result: dict[str, Any] = {"counts": write_dataset(out, name, settings.filter, settings.rule)}
    sources = Dataset.open(out).table("sources").select(["source_id", "notes"]).to_pylist()
    result["notes"] = [f"{row['source_id']}: {row['notes']}" for row in sources if row["notes"]]
    if overruled := result["counts"].get("people_kept_filtered"):
        result["notes"].insert(0, f"{overruled} clips that people kept are rejected by the filter")
    if compare:
        result["rules"] = compare_rules(current_observations(out), settings.filter, rule_ladder())
    return result


def _previews(out: str, settings: CurateSettings) -> list[str]:
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


def show(report: dict[str, Any]) -> None:
    """Print a curation's report to the terminal."""
    screen = Screen()
    if "plan" in report:
        screen.print(styled(f"{report['out']}: nothing is written (--dry-run)"), soft_wrap=True)
        table = Table("plan", "")
        facts = {"files": report["files"], "files done before": report["files_done"], **report["plan"]}
        for key, value in facts.items():
            table.add_row(key.replace("_", " "), "\n".join(plan_lines(value)) if key == "stages" else str(value))
        screen.print(table)
        return
    if report.get("files_ignored"):
        some = ", ".join(report["files_ignored"][:3])
        number = len(report["files_ignored"])
        screen.print(styled(f"{number} files are no videos by their extension and were passed over: {some}"))
    if agreement := report.get("agreement"):
        screen.print(_agreement(agreement))
    counts = report["counts"]
    title = f"{report['out']} (rule: {report['rule']})" + (": nothing is written" if "dry_run" in report else "")
    screen.print(styled(title), soft_wrap=True)
    table = Table("", "count")
    for key, value in counts.items():
        table.add_row(key.replace("_", " "), str(value))
    screen.print(table)
    for note in report.get("notes", [])[:_NOTES]:
        screen.print(styled(note))
    if (more := len(report.get("notes", [])) - _NOTES) > 0:
        screen.print(f"and notes on {more} more files: column 'notes' of {report['out']}/tables/sources.parquet")
    if report.get("rules"):
        _show_rules(screen, report["rules"])
    if report.get("throughput"):
        screen.print(throughput_line(report["throughput"]))
    for error in report.get("preview_errors", []):
        screen.print(styled(f"preview failed: {error}"))
    failed = counts["sources_failed"] + counts["clips_failed"]
    if failed:
        screen.print(
            f"{counts['sources_failed']} files and {counts['clips_failed']} clips failed; reasons: column 'error' of "
            f"{report['out']}/tables/sources.parquet and clips.parquet"
        )


def _agreement(found: dict[str, float]) -> str:
    """Say how far a fast profile agrees with the exact one; a share of nothing is shown as nan."""
    if not found["frames"]:
        return "fast profile: no footage could be compared with the exact profile"
    return (
        f"fast profile against exact, on {found['frames']} frames: person frames agree "
        f"{found['person_frame_agreement']:.1%}, recall {found['recall']:.1%}, mean IoU {found['iou']:.3f}, "
        f"confidence differs by {found['confidence_difference']:.3f}, corners by {found['corner_difference_px']:.2f} px"
    )


def _show_rules(screen: Screen, rules: list[dict[str, Any]]) -> None:
    table = Table(title="what each fix of the published rule changes", title_justify="left")
    for column in rules[0]:
        table.add_column(column.replace("_", " "), justify="left" if column == "rule" else "right", overflow="fold")
    for row in rules:
        table.add_row(*(str(value) for value in row.values()))
    screen.print(table)
