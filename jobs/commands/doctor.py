"""What `microg doctor` prints."""

from __future__ import annotations

from rich.table import Table

from microg.screen import Screen, styled
from microg.system.doctor import Diagnosis

_COLOURS = {"ok": "green", "differs": "yellow", "missing": "yellow", "unknown": "yellow", "broken": "red"}


def show(diagnosis: Diagnosis, show_all: bool) -> None:
    """Print what there is, what would run where, and how to get the rest; `show_all` lists every package."""
    screen = Screen()
    screen.print(styled((f"microg {diagnosis.version}", "bold")))
    _print_pairs(screen, "Hardware", _hardware_lines(diagnosis))
    for area in ("packages", "engines", "weights", "ray"):
        checks = [check for check in diagnosis.checks if check.area == area]
        rows = checks if show_all or area != "packages" else [check for check in checks if check.state != "ok"]
        table = _plain_table(area.capitalize(), names=2)
        for check in rows:
            table.add_row(check.name, styled((check.state, _COLOURS[check.state])), check.detail)
        if len(rows) < len(checks):
            table.add_row(f"{len(checks) - len(rows)} others", styled(("ok", "green")), "--all lists them")
        screen.print()
        screen.print(table)
    advice = diagnosis.advice
    resources = ", ".join(f"{key} {value:g}" for key, value in advice["resources"].items())
    _print_pairs(
        screen,
        "What would run where",
        [
            ("detector", f"{advice['detector_backend'] or 'nothing usable'} on {advice['detector_device']}"),
            ("resources", resources),
            ("language models", advice["vlm_engine"] or "nothing usable"),
        ],
    )
    fixes = [(check.name, check.fix) for check in diagnosis.checks if check.fix and check.state != "ok"]
    if fixes:
        screen.print()
        screen.print(styled(("How to get the rest", "italic")))
        for name, fix in fixes:  # not in a table: a wrapped command cannot be copied
            screen.print(styled(f"{name}: ", (fix, "bold")), soft_wrap=True)
    broken = [check for check in diagnosis.checks if check.fatal]
    screen.print()
    if broken:
        names = ", ".join(check.name for check in broken)
        screen.print(styled((f"{len(broken)} core parts do not work:", "red"), f" {names}"))
    elif diagnosis.unanswered:
        what = f"Nothing is broken, but {', '.join(diagnosis.unanswered)} did not load in time;"
        screen.print(styled((what, "yellow"), " --timeout 200 waits longer."))
    else:
        screen.print(styled(("The core works.", "green")))


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


def _print_pairs(screen: Screen, title: str, pairs: list[tuple[str, str]]) -> None:
    table = _plain_table(title, names=1)
    for name, value in pairs:
        table.add_row(name, value)
    screen.print()
    screen.print(table)


def _plain_table(title: str, *, names: int) -> Table:
    """Return a table without lines: so many columns of names, and one of text."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(names):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
