"""What `microg doctor` prints."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microg.system.doctor import Diagnosis

_COLOURS = {"ok": "green", "differs": "yellow", "missing": "yellow", "unknown": "yellow", "broken": "red"}


def show(diagnosis: Diagnosis, show_all: bool) -> None:
    """Print what there is, what would run where, and how to get the rest; `show_all` lists every package."""
    console = Console()
    console.print(f"[bold]microg {diagnosis.version}[/bold]")
    _print_pairs(console, "Hardware", _hardware_lines(diagnosis))
    for area in ("packages", "engines", "weights", "ray"):
        checks = [check for check in diagnosis.checks if check.area == area]
        rows = checks if show_all or area != "packages" else [check for check in checks if check.state != "ok"]
        table = _plain_table(area.capitalize(), names=2)
        for check in rows:
            table.add_row(check.name, f"[{_COLOURS[check.state]}]{check.state}[/]", escape(check.detail))
        if len(rows) < len(checks):
            table.add_row(f"{len(checks) - len(rows)} others", "[green]ok[/]", "--all lists them")
        console.print()
        console.print(table)
    advice = diagnosis.advice
    resources = ", ".join(f"{key} {value:g}" for key, value in advice["resources"].items())
    _print_pairs(
        console,
        "What would run where",
        [
            ("detector", f"{advice['detector_backend'] or 'nothing usable'} on {advice['detector_device']}"),
            ("resources", resources),
            ("language models", advice["vlm_engine"] or "nothing usable"),
        ],
    )
    fixes = [(check.name, check.fix) for check in diagnosis.checks if check.fix and check.state != "ok"]
    if fixes:
        console.print("\n[italic]How to get the rest[/italic]")
        for name, fix in fixes:  # not in a table: a wrapped command cannot be copied
            console.print(f"{escape(name)}: [bold]{escape(fix)}[/bold]", soft_wrap=True, highlight=False)
    broken = [check for check in diagnosis.checks if check.fatal]
    console.print()
    if broken:
        console.print(f"[red]{len(broken)} core parts do not work:[/] {', '.join(check.name for check in broken)}")
    elif diagnosis.unanswered:
        console.print(
            f"[yellow]Nothing is broken, but {', '.join(diagnosis.unanswered)} did not load in time;[/] "
            "--timeout 60 waits longer."
        )
    else:
        console.print("[green]The core works.[/]")


def _hardware_lines(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    found = diagnosis.hardware

    def size(value: float | None) -> str:
        return "unknown" if value is None else f"{value:g} GB"

    gpus = ", ".join(f"{gpu.name} ({gpu.memory_gb:g} GB, driver {gpu.driver})" for gpu in found.gpus)
    return [
        ("system", found.system),
        ("processor", f"{found.cpu}, {found.cores:g} cores usable"),
        ("memory", f"{size(found.memory_gb)}, {size(found.available_gb)} available"),
        ("disk", f"{size(found.disk_free_gb)} free here, {size(found.shared_memory_gb)} in /dev/shm"),
        ("GPU", gpus or "none"),
    ]


def _print_pairs(console: Console, title: str, pairs: list[tuple[str, str]]) -> None:
    table = _plain_table(title, names=1)
    for name, value in pairs:
        table.add_row(name, escape(value))
    console.print()
    console.print(table)


def _plain_table(title: str, *, names: int) -> Table:
    """Return a table without lines: so many columns of names, and one of text."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(names):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
