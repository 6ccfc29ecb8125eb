"""The kinds of runs by the command that made them: the only list, in the reading order of a report."""

from __future__ import annotations

from collections.abc import Iterable

from microg.registry import Registry
from microg.reports.run_folders import RunFolder
from microg.reports.run_kinds.kind import RunKind

RUN_KINDS = Registry(
    "kind of run",
    {
        "har score": "microg.reports.run_kinds.har_score:KIND",
        "vlm score": "microg.reports.run_kinds.vlm_score:KIND",
        "har transfer": "microg.reports.run_kinds.har_transfer:KIND",
        "har train": "microg.reports.run_kinds.har_train:KIND",
        "har sweep": "microg.reports.run_kinds.har_sweep:KIND",
        "vlm train": "microg.reports.run_kinds.vlm_train:KIND",
        "har predict": "microg.reports.run_kinds.har_predict:KIND",
        "vlm generate": "microg.reports.run_kinds.vlm_generate:KIND",
        "curate": "microg.reports.run_kinds.curate:KIND",
    },
)


def run_kinds() -> list[RunKind]:
    """Return all kinds, in reading order."""
    return [RUN_KINDS.load(command) for command in RUN_KINDS]


def kind_of(run: RunFolder) -> RunKind:
    """Return the kind of a run; one that shows nothing where its command is not registered."""
    return RUN_KINDS.load(run.command) if run.command in RUN_KINDS else RunKind(command=run.command)


def of_kind(runs: Iterable[RunFolder], kind: RunKind) -> list[RunFolder]:
    """Return those of the runs that are of a kind."""
    return [run for run in runs if run.command == kind.command]
