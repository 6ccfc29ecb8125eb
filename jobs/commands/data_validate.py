"""What `microg data validate` writes and prints."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from microg import storage
from microg.screen import styled, wide_screen
from microg.validation import ValidationReport


def write_findings(report: ValidationReport, path: str) -> None:
    """Write all findings to a .json or .parquet file."""
    if path.endswith(".json"):
        storage.write_json(path, report.to_dict())
    else:
        storage.write_parquet(path, report.to_table())


def show(report: ValidationReport, name: str, examples: int) -> None:
    """Print the findings by check, with so many examples of each, and what was checked."""
    screen = wide_screen()
    if report.findings:
        table = Table(title=f"Findings in {name}", title_justify="left", show_lines=True)
        for header in ("", "check", "table"):
            table.add_column(header, no_wrap=True)
        table.add_column("rows", justify="right", no_wrap=True)
        table.add_column("clips", justify="right")
        table.add_column("examples", overflow="fold")
        for summary in report.summaries(examples):
            colour = "red" if summary.severity == "error" else "yellow"
            shown = []
            for finding in summary.first:
                where = [(finding.clip_id, "bold"), ": "] if finding.clip_id else []
                detail = [(f" ({'; '.join(finding.examples)})", "dim")] if finding.examples else []
                shown.append(styled(*where, finding.message, *detail))
            table.add_row(
                styled((summary.severity, colour)),
                summary.check,
                summary.table,
                str(summary.count),
                str(summary.clips) if summary.clips else "-",
                Text("\n").join(shown),
            )
        screen.print(table)
    rows = ", ".join(f"{count:,} {table}" for table, count in report.rows.items() if count)
    screen.print(f"checked: {rows or 'no rows'}")
    for reason in report.skipped:
        screen.print(styled((reason, "dim")))
    colour = "red" if report.errors else "green"
    screen.print(styled((f"{report.errors} errors", colour), f", {report.warnings} warnings"))
