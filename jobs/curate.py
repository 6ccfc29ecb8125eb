"""`microg curate`: raw footage to an annotated dataset.

Also `python jobs/curate.py RAW_DIR OUT`, and `ray job submit --working-dir . -- python jobs/curate.py RAW_DIR OUT`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from microg.errors import ConfigError
from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting


@command("curate", settings="microg.pipelines.curate.pipeline:CurateSettings")
def curate(
    context: typer.Context,
    raw_dir: Annotated[str, typer.Argument(metavar="RAW_DIR", help="Folder (or URI) with raw videos, or one video.")],
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="Dataset folder to make or to resume.")] = None,
    weights: Annotated[str | None, setting("detector.weights")] = None,
    detector_backend: Annotated[str | None, setting("detector.backend")] = None,
    detector_profile: Annotated[
        Literal["exact", "balanced", "fast"] | None,
        typer.Option(
            help="exact: detect on every frame. balanced: on every third, boxes between interpolated. fast: also with "
            "INT8 weights calibrated on this footage. Both say how far they agree with exact."
        ),
    ] = None,
    rotations: Annotated[int | None, setting("detector.rotations")] = None,
    detections: Annotated[str | None, setting("detections", metavar="DIR")] = None,
    rule: Annotated[
        Literal["published", "corrected"] | None,
        typer.Option(help="published: the paper's boxes. corrected: its quirks fixed."),
    ] = None,
    origin: Annotated[str | None, setting("origin")] = None,
    pretrimmed: Annotated[bool, setting("pretrimmed", "--pretrimmed")] = False,
    decoder: Annotated[str | None, setting("decoder")] = None,
    previews: Annotated[bool, typer.Option("--previews", help="Also write annotated preview videos.")] = False,
    compare_rules: Annotated[
        bool, typer.Option("--compare-rules", help="Also tell what each fix of the published rule changes.")
    ] = False,
    refilter: Annotated[
        bool, typer.Option("--refilter", help="Apply new filter and rule settings to OUT without decoding again.")
    ] = False,
    config: common.ConfigOption = None,
    device: Annotated[str | None, setting("detector.device", "--device")] = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    address: common.AddressOption = None,
    limit: common.LimitOption = None,
    dry_run: common.DryRunOption = False,
    profile: common.ProfileOption = False,
    as_json: common.JsonOption = False,
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
    if out is None and not refilter:
        raise ConfigError("where to write is missing", "microg curate RAW_DIR OUT")
    from microg import storage
    from microg.jobs.commands import curate as steps

    def settings(base: dict[str, Any]) -> steps.CurateSettings:
        return steps.curate_settings(config, rule, detector_profile, [given(context), *(overrides or [])], base)

    folder = storage.absolute(out or raw_dir)
    if refilter:
        report = steps.refilter(folder, settings, compare=compare_rules, dry_run=dry_run, previews=previews)
    else:
        report = steps.curate_footage(
            storage.absolute(raw_dir), folder, settings({}), compare=compare_rules, dry_run=dry_run, previews=previews
        )
    counts = report.get("counts", {})
    failed = counts.get("sources_failed") or counts.get("clips_failed") or report.get("preview_errors")
    profile_folder = folder if profile and not (dry_run or refilter) else None
    finish(report, steps.show, as_json=as_json, failed=failed and not dry_run, profile=profile_folder)


if __name__ == "__main__":
    main("Curate raw footage.")
