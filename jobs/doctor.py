"""`microg doctor`: what is installed, what hardware there is, what would run where, and what to do about the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from microg.jobs.common import JsonOption, command, main, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from microg.system.doctor import Diagnosis

EXIT_BROKEN = 1
_COLOURS = {"ok": "green", "differs": "yellow", "missing": "yellow", "unknown": "yellow", "broken": "red"}


@command("doctor")
def doctor(
    weights: Annotated[
        str | None, typer.Option(help="Detector weights to look for: a file name or a path; default: yolo11n.pt.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster to look at.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long engines may take to load.")
    ] = 9.0,
    show_all: Annotated[bool, typer.Option("--all", help="List packages that are as they should be too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what is installed, which engines and weights are usable, and how to get what is missing.

    Exit code: 0 the core works, 1 a part of it is missing or broken.

    Examples:

    - `microg doctor`
    - `microg doctor --json > doctor.json`
    - `microg doctor --weights yolo11m.pt --address ray://head:10001`
    """
    from microg.system.doctor import DEFAULT_DETECTOR, diagnose

    diagnosis = diagnose(weights or DEFAULT_DETECTOR, address, timeout)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        from rich.console import Console

        _render(diagnosis, Console(), show_all)
    sys.exit(0 if diagnosis.healthy else EXIT_BROKEN)


def _render(diagnosis: Diagnosis, console: Console, show_all: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]microg {diagnosis.version}[/bold]")
    _print_pairs(console, "Hardware", _hardware_lines(diagnosis))
    for area in ("packages", "engines", "weights", "ray"):
        checks = [check for check in diagnosis.checks if check.area == area]
        shown = checks if show_all or area != "packages" else [check for check in checks if check.state != "ok"]
        table = Table(title=area.capitalize(), title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in shown:
            table.add_row(check.name, f"[{_COLOURS[check.state]}]{check.state}[/]", escape(check.detail))
        if len(shown) < len(checks):
            table.add_row(f"{len(checks) - len(shown)} others", "[green]ok[/]", "--all lists them")
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
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, escape(value))
    console.print()
    console.print(table)


if __name__ == "__main__":
    main("Tell what is installed and what would run where.")
