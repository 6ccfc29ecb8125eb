"""The plots of a scoring run as a report shows them: those that the scorer drew where it drew any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from microg import storage
from microg.reports.plots import Plot
from microg.reports.run_folders.runs import RunFolder


class ScorePlots(NamedTuple):
    """The plots of one run, each with its data URI, and what they are about."""

    run: str
    about: str
    plots: tuple[tuple[Plot, str], ...]


def stored_plots(run: RunFolder, folder: tuple[str, ...], names: Mapping[str, str]) -> list[Plot]:
    """Return the plots that the scorer drew; `names` says what each shows. Empty where it drew none."""
    found = []
    for name, description in names.items():
        paths = [storage.join(run.root, *folder, f"{name}.{suffix}") for suffix in ("png", "svg")]
        if all(storage.exists(path) for path in paths):
            png, svg = (storage.read_bytes(path) for path in paths)
            found.append(Plot(name, f"{description}, run {run.name}", png, svg))
    return found
