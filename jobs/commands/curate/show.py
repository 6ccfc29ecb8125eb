"""What `microg curate` prints when it is done."""

from __future__ import annotations

from typing import Any


def show(report: dict[str, Any]) -> None:
    """Print a curation's report to the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if "plan" in report:
        from microg.pipelines.core.stage import plan_lines

        console.print(f"{report['out']}: nothing is written (--dry-run)", soft_wrap=True)
        table = Table("plan", "")
        facts = {"files": report["files"], "files done before": report["files_done"], **report["plan"]}
        for key, value in facts.items():
            table.add_row(key.replace("_", " "), "\n".join(plan_lines(value)) if key == "stages" else str(value))
        console.print(table)
        return
    if report.get("files_ignored"):
        some = ", ".join(report["files_ignored"][:3])
        console.print(
            f"{len(report['files_ignored'])} files are no videos by their extension and were passed over: {some}"
        )
    if agreement := report.get("agreement"):
        console.print(_agreement(agreement))
    counts = report["counts"]
    title = f"{report['out']} (rule: {report['rule']})" + (": nothing is written" if "dry_run" in report else "")
    console.print(title, soft_wrap=True)
    table = Table("", "count")
    for key, value in counts.items():
        table.add_row(key.replace("_", " "), str(value))
    console.print(table)
    if report.get("rules"):
        _show_rules(console, report["rules"])
    if report.get("throughput"):
        from microg.pipelines.core.telemetry import throughput_line

        console.print(throughput_line(report["throughput"]))
    for error in report.get("preview_errors", []):
        console.print(f"preview failed: {error}")
    failed = counts["sources_failed"] + counts["clips_failed"]
    if failed:
        console.print(
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


def _show_rules(console: Any, rules: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title="what each fix of the published rule changes", title_justify="left")
    for column in rules[0]:
        table.add_column(column.replace("_", " "), justify="left" if column == "rule" else "right", overflow="fold")
    for row in rules:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
