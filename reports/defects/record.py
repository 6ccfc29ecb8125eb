"""What is known of one defect of the published runs, and what shows it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import pandas as pd

from microg.reports.plots import Plot


@dataclass(frozen=True)
class Defect:
    """One defect: what it is, how our commands avoid it, and what shows it. `runs` are the runs that have it."""

    code: str
    title: str
    what: str
    fix: str
    _: KW_ONLY
    evidence: tuple[str, ...] = ()
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()
    plots: tuple[Plot, ...] = ()
    runs: tuple[str, ...] = ()
