"""`microg curate`: raw footage to an annotated dataset.

Also `python jobs/curate.py RAW_DIR OUT`, and `ray job submit --working-dir . -- python jobs/curate.py RAW_DIR OUT`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.errors import ConfigError
from microg.jobs.common import (
    AddressOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    SetOption,
    SettingsOption,
    command,
    finish,
    given,
    main,
    setting,
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


@command("curate", settings="microg.pipelines.curate.pipeline:CurateSettings")
def curate(
    context: typer.Context,
    raw_dir: Annotated[str, typer.Argument(metavar="RAW_DIR", help="Folder (or URI) with raw videos, or one video.")],
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="Dataset folder to make or to resume.")] = None,
    weights: Annotated[str | None, setting("detector.weights")] = None,
    detector_backend: Annotated[str | None, setting("detector.backend")] = None,
    detector_profile: Annotated[
        Profile | None,
        typer.Option(
            help="exact: detect on every frame. balanced: on every third, boxes between interpolated. fast: also with "
            "INT8 weights calibrated on this footage. Both say how far they agree with exact."
        ),
    ] = None,
    rotations: Annotated[int | None, setting("detector.rotations")] = None,
    detections: Annotated[str | None, setting("detections", metavar="DIR")] = None,
    rule: Annotated[
        Rule | None, typer.Option(help="published: the paper's boxes. corrected: its quirks fixed.")
    ] = None,
    origin: Annotated[str | None, setting("origin")] = None,
    pretrimmed: Annotated[bool, setting("pretrimmed", "--pretrimmed")] = False,
    previews: Annotated[bool, typer.Option("--previews", help="Also write annotated preview videos.")] = False,
    compare_rules: Annotated[
        bool, typer.Option("--compare-rules", help="Also tell what each fix of the published rule changes.")
    ] = False,
    refilter: Annotated[
        bool, typer.Option("--refilter", help="Apply new filter and rule settings to OUT without decoding again.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    list_settings: SettingsOption = False,
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
    if detector_profile is not None and detections is not None:
        raise ConfigError(
            "--detector-profile says how to detect, but --detections replays what was detected", "drop one"
        )
    from microg.jobs.commands.curate import run as curate_run
    from microg.jobs.commands.curate.show import show

    def settings(base: dict[str, Any]) -> CurateSettings:
        return _settings(config, rule, detector_profile, [given(context), *(overrides or [])], base)

    profile_folder = None
    if refilter:
        report = curate_run.refilter(
            _absolute(out or raw_dir), settings, compare_rules=compare_rules, dry_run=dry_run, previews=previews
        )
    else:
        if out is None:
            raise ConfigError("where to write is missing", "microg curate RAW_DIR OUT")
        report = curate_run.curate_footage(
            _absolute(raw_dir),
            _absolute(out),
            settings({}),
            compare_rules=compare_rules,
            previews=previews,
            dry_run=dry_run,
        )
        profile_folder = report["out"] if profile and not dry_run else None
    counts = report.get("counts", {})
    failed = counts.get("sources_failed") or counts.get("clips_failed") or report.get("preview_errors")
    finish(report, show, as_json=as_json, failed=failed and not dry_run, profile=profile_folder)


def _settings(
    config: str | None, rule: Rule | None, profile: Profile | None, overrides: list[Any], base: dict[str, Any]
) -> CurateSettings:
    """Build the settings: `base`, the recipe, what `--rule` and `--detector-profile` mean, then `overrides`."""
    from microg.config import load_config
    from microg.models.curation.box_rule import RULES
    from microg.models.detection.base import PROFILES
    from microg.pipelines.curate.pipeline import CurateSettings

    named: dict[str, Any] = {}
    if rule is not None:
        named |= {f"rule.{name}": kept for name, kept in RULES[rule.value].model_dump().items()}
    if profile is not None:
        named |= {f"detector.{key}": value for key, value in PROFILES[profile.value].items()}
    settings = load_config(CurateSettings, config, [named, *overrides], **base)
    if settings.detections is not None:
        settings = settings.replaced(detections=_absolute(settings.detections))
    return settings


def _absolute(path: str) -> str:
    from microg import storage

    return str(storage.local_path(path).absolute()) if storage.is_local(path) else path.rstrip("/")


if __name__ == "__main__":
    main("Curate raw footage.")
