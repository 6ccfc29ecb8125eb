"""What a report knows of the runs of one command: its `RunKind`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from microg import storage
from microg.data.dataset import Dataset
from microg.reports.clips.pictures import PictureStyle
from microg.reports.html import Section
from microg.reports.plots.style import Plot
from microg.reports.run_folders import RunFolder
from microg.reports.tables.leaderboard_rows import Board
from microg.reports.tables.result_table import ResultTable


@dataclass(frozen=True)
class ReportOptions:
    """The title of a page, how many clips with pictures a section shows, and how pictures are made."""

    title: str | None = None
    max_clips: int = 12
    picture: PictureStyle = field(default_factory=lambda: PictureStyle(width=480, quality=70, form="webp"))


class Headline(NamedTuple):
    """One number on the card of a run, with its label and small print."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Remark:
    """One warning: the run, a short name of what it is, the message, and examples."""

    run: str
    code: str
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run took; None is what it does not record, a cost of nothing is 0.

    Attributes:
        items: How many units of work were done.
        unit: What one of them is called, in the plural.
        seconds: Wall time.
        rate: Units per second.
        bottleneck: The stage that limited the rate.
        tokens_in: Tokens of all prompts.
        tokens_out: Tokens of all answers.
        dollars: US dollars.
    """

    items: int | None = None
    unit: str | None = None
    seconds: float | None = None
    rate: float | None = None
    bottleneck: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    dollars: float | None = None


@dataclass(frozen=True, kw_only=True)
class SectionInputs:
    """What sections need beside the runs.

    Attributes:
        datasets: Datasets that stand in for those that runs name but that are no longer where they were.
        options: How much is shown.
        notes: Messages on what could not be shown; sections add to it.
    """

    datasets: Sequence[Dataset]
    options: ReportOptions
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class ReportSection:
    """A section of the report that is made of the runs of one kind.

    Attributes:
        name: What progress calls it.
        make: Makes the section of these runs, None where they have nothing to show.
        tables: Tables that a run must have written to be in it.
        unfinished: Whether runs that have not ended are in it too.
    """

    name: str
    make: Callable[[Sequence[RunFolder], SectionInputs], Section | None]
    tables: tuple[str, ...] = ()
    unfinished: bool = False

    def runs(self, runs: Sequence[RunFolder]) -> list[RunFolder]:
        """Return those of the runs, all of its kind, that can be in it."""
        usable = [run for run in runs if run.finished or self.unfinished]
        return [run for run in usable if all(run.has(table) for table in self.tables)]


def count_failed_rows(run: RunFolder) -> int:
    """Return how many rows of a run failed: `failed` of its summary, else `counts.error`."""
    counts = run.metrics.get("counts")
    found = run.metrics.get("failed", counts.get("error", 0) if isinstance(counts, dict) else 0)
    return int(found) if isinstance(found, int | float) else 0


@dataclass(frozen=True, kw_only=True)
class RunKind:
    """What a report makes of the runs of one command.

    Attributes:
        command: The command as `run.json` records it, such as `har score`.
        tables: Tables that its runs write.
        headlines: Reads the numbers of a finished run's card; None where there are none to show.
        remarks: Lists what a run itself warns of.
        failed_rows: Counts the rows that failed.
        cost: Completes what the run's throughput says it took (None where it does not say).
        sections: The sections of the report that its runs make.
        paper_tables: Makes those of the paper's tables in which its runs have rows.
        boards: The boards of a leaderboard on which its runs are ranked.
    """

    command: str
    tables: tuple[str, ...] = ()
    headlines: Callable[[RunFolder], list[Headline]] | None = None
    remarks: Callable[[RunFolder], list[Remark]] = lambda run: []
    failed_rows: Callable[[RunFolder], int] = count_failed_rows
    cost: Callable[[RunFolder, Cost | None], Cost | None] = lambda run, cost: cost
    sections: tuple[ReportSection, ...] = ()
    paper_tables: Callable[[Sequence[RunFolder]], list[ResultTable]] = lambda runs: []
    boards: tuple[Board, ...] = ()


def remarks_on_failed_rows(run: RunFolder, key: str, what: str) -> list[Remark]:
    """Return a remark on the `errors` of a run's summary; `key` names a row in them, `what` says what failed."""
    errors = run.metrics.get("errors") or []
    if not errors:
        return []
    number = run.metrics.get("failed") or len(errors)
    examples = tuple(f"{item.get(key)}: {item.get('error')}" for item in errors[:3])
    return [Remark(run.name, "failed-rows", f"{number:,} {what}", examples)]


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
