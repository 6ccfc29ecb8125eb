"""Metrics of action recognition by name: the only list of them.

A metric is a pure function and one entry of `METRICS`. What a function is given depends on what it is `of`:

* `counts`: `function(hits, wrong, missed) -> values` of counts of any one shape, 0 where undefined. Hits, false alarms
  and misses are those of cells (class, box) at the protocol's threshold.
* `cells`, `detections`: `function(ranking, ties) -> value` of one `Ranking`: a class's cells, or its detections with
  those marked that found a true box.

Averages, slices, intervals, tables, comparisons and reports follow from the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from microg.errors import ConfigError
from microg.metrics.har.ranking import Ties
from microg.registry import Registry, load_object

Average = Literal["macro", "micro", "weighted"]


@dataclass(frozen=True, kw_only=True)
class HarMetric:
    """A metric of action recognition, 0 to 1 or nan.

    Attributes:
        name: Its name in tables and documents.
        title: What people call it.
        of: What the function sees, see above. Macro averages of `counts` are over the classes that the protocol judges,
            others over the classes where they are defined.
        function: Import string of the function.
        averages: Which averages there are. macro: mean over classes; micro: all classes as one; weighted: by labels.
        resampled: Which averages have intervals.
        weighted: Import string of a fast `function(ranks, weights, truth)` for resamples (see `resampling`); without
            one, resamples are scored one after the other.
        class_name, class_title: Column and heading of the values of single classes, where these have names of their
            own.
        column: Heading in the paper's tables; a metric with one is compared with published rows.
        validation: Column of the table `har_train` for the macro average on the val split, by protocol.
    """

    name: str
    title: str
    of: Literal["counts", "cells", "detections"]
    function: str
    averages: tuple[Average, ...] = ("macro", "micro", "weighted")
    resampled: tuple[Literal["macro", "micro"], ...] = ("macro",)
    weighted: str | None = None
    class_name: str = ""
    class_title: str = ""
    column: str | None = None
    validation: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.of != "counts" and "micro" in self.resampled:
            raise ConfigError(f"HAR metric {self.name} is of {self.of}: only metrics of counts have micro resamples")
        if self.of == "detections" and "micro" in self.averages:
            raise ConfigError(f"HAR metric {self.name} is of detections, which have no micro average")

    def load(self) -> Callable[..., Any]:
        """Return the function."""
        return load_object(self.function)

    def class_columns(self) -> dict[str, Ties | None]:
        """Return the columns of `har_classes` for it, and the tie rule of each (None: the protocol's)."""
        name = self.class_name or self.name
        bounds: dict[str, Ties | None] = {f"{name}_worst": "worst", f"{name}_best": "best"}
        return {name: None, **(bounds if self.of == "detections" else {})}


_ALL = (
    HarMetric(
        name="map",
        title="mAP@0.5",
        of="detections",
        function="microg.metrics.har.detection:ranking_ap",
        weighted="microg.metrics.har.resampling:weighted_ap",
        averages=("macro", "weighted"),
        class_name="ap",
        class_title="AP",
        column="mAP@0.5",
        validation={"paper": "val_map_paper", "corrected": "val_map_corrected"},
    ),
    HarMetric(
        name="f1",
        title="F1",
        of="counts",
        function="microg.metrics.har.multilabel:f1",
        resampled=("macro", "micro"),
        column="F1",
        validation={"paper": "val_f1_paper", "corrected": "val_f1_corrected"},
    ),
    HarMetric(name="precision", title="precision", of="counts", function="microg.metrics.har.multilabel:precision"),
    HarMetric(
        name="recall", title="recall", of="counts", function="microg.metrics.har.multilabel:recall", column="Recall"
    ),
    HarMetric(
        name="auroc",
        title="AUROC",
        of="cells",
        function="microg.metrics.har.multilabel:ranking_auroc",
        weighted="microg.metrics.har.resampling:weighted_auroc",
        column="AUROC",
        validation={"corrected": "val_auroc"},
    ),
)
METRICS = Registry("HAR metric", {metric.name: metric for metric in _ALL})


def published_columns() -> dict[str, str]:
    """Return the columns of the paper's tables, by metric.

    >>> published_columns()
    {'map': 'mAP@0.5', 'f1': 'F1', 'recall': 'Recall', 'auroc': 'AUROC'}
    """
    return {name: metric.column for name, metric in METRICS.items() if metric.column is not None}


def resampled() -> dict[str, tuple[HarMetric, Average]]:
    """Return what has intervals, (metric, average), under the names that the table `har_bootstrap` has for it.

    >>> list(resampled())
    ['map', 'f1', 'precision', 'recall', 'auroc', 'f1_micro']
    """
    named: dict[str, tuple[HarMetric, Average]] = {}
    named |= {name: (metric, "macro") for name, metric in METRICS.items() if "macro" in metric.resampled}
    named |= {f"{name}_micro": (metric, "micro") for name, metric in METRICS.items() if "micro" in metric.resampled}
    return named


def validation_columns() -> list[str]:
    """Return the columns of the table `har_train` that hold scores of the val split."""
    return [column for metric in METRICS.values() for column in metric.validation.values()]
