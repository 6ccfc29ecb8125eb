"""`microg curate`: raw footage to an annotated dataset.

Also `python jobs/curate.py RAW_DIR OUT`, and `ray job submit --working-dir . -- python jobs/curate.py RAW_DIR OUT`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.errors import ConfigError
from microg.jobs.common import (
    EXIT_FAILED_ROWS,
    AddressOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    SetOption,
    make_app,
    print_json,
    profiled,
    run,
)

if TYPE_CHECKING:
    from microg.pipelines.curate.pipeline import CurateSettings


class Rule(str, Enum):
    """Which boxes are published."""

    published = "published"
    corrected = "corrected"


class Profile(str, Enum):
    """Speed against exactness of detection."""

    exact = "exact"
    balanced = "balanced"
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
    detector_profile: Annotated[
        Profile | None,
        typer.Option(
            help="exact: detect on every frame. balanced: on every third, boxes between interpolated. fast: also with "
            "INT8 weights calibrated on this footage. Both say how far they agree with exact."
        ),
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
    profile: ProfileOption = False,
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
        "detector.weights": weights,
        "detector.backend": detector_backend and detector_backend.value,
        "detector.rotations": rotations,
        "detections": detections,
        "origin": origin and origin.value,
        "pretrimmed": pretrimmed or None,
        "limit": limit,
        "resources.address": address,
    }
    if detector_profile is not None:
        if detections is not None:
            raise ConfigError(
                "--detector-profile says how to detect, but --detections replays what was detected", "drop one"
            )
        from microg.models.detection.base import PROFILES

        chosen |= {f"detector.{key}": value for key, value in PROFILES[detector_profile.value].items()}
    options = [f"{key}={value}" for key, value in chosen.items() if value is not None] + list(overrides or [])
    from microg.jobs.commands.curate import run as curate_run

    if refilter:
        dataset = _absolute(out or raw_dir)
        report = curate_run.refilter(
            dataset,
            lambda before: _settings(config, options, rule, before),
            compare_rules=compare_rules,
            dry_run=dry_run,
            previews=previews,
        )
    else:
        if out is None:
            raise ConfigError("where to write is missing", "microg curate RAW_DIR OUT")
        settings = _settings(config, options, rule, {})
        report = curate_run.curate_footage(
            _absolute(raw_dir),
            _absolute(out),
            settings,
            compare_rules=compare_rules,
            previews=previews,
            dry_run=dry_run,
        )
        if profile and not dry_run:
            report = profiled(report, report["out"])
    if as_json:
        print_json(report)
    else:
        from microg.jobs.commands.curate.show import show

        show(report)
    failed = sum(report.get("counts", {}).get(name, 0) for name in ("sources_failed", "clips_failed"))
    if not dry_run and (failed or report.get("preview_errors")):
        raise typer.Exit(EXIT_FAILED_ROWS)


def _settings(config: str | None, options: list[str], rule: Rule | None, base: dict[str, Any]) -> CurateSettings:
    from microg.config import load_config
    from microg.models.curation.box_rule import RULES
    from microg.pipelines.curate.pipeline import CurateSettings

    if rule is not None:  # as overrides, so that the option wins over a recipe's rule
        options = [f"rule.{name}={kept}" for name, kept in RULES[rule.value].model_dump().items()] + options
    settings = load_config(CurateSettings, config, options, **base)
    if settings.detections is not None:
        settings = settings.replaced(detections=_absolute(settings.detections))
    return settings


def _absolute(path: str) -> str:
    from microg import storage

    return str(storage.local_path(path).absolute()) if storage.is_local(path) else path.rstrip("/")


if __name__ == "__main__":
    app = make_app("Curate raw footage.")
    app.command()(curate)
    run(app)
