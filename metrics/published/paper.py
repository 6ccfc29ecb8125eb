"""The paper's tables as printed: the rows of Tables 1, 2, 3 and 6 to 10, and where its numbers contradict each other.

Tables 4 and 5 are the rows of `microg.metrics.published.text_row`. Nothing is corrected here: a cell stands as the
paper prints it, and `contradictions` finds by computing what cannot all be true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from microg.data.taxonomy import BY_ID, GROUP_NAMES
from microg.metrics.published import har_entry, har_rows

_DATA = Path(__file__).with_name("data.yaml")
# In the paper's order.
_TABLE1 = (
    *("C2D_8x8_R50", "C2D_NLN_8x8_R50", "I3D_8x8_R50", "I3D_NLN_8x8_R50", "SLOWONLY_8x8_R50", "SLOWONLY_4x16_R50"),
    *("SLOWFAST_8x8_R50", "SLOWFAST_4x16_R50", "MVIT_B_16x4", "MVITv2_S_16x4", "X3D_S", "X3D_L"),
)
_TABLE2 = ("ZEROSHOT_SLOW_8x8_R50_K400", "ZEROSHOT_SLOWFAST_32x2_R101_K600")
_TITLE = re.compile(r"(?P<arch>.+?)[ -](?P<backbone>R50|R101|B|S|L) (?P<frames>\d+)x(?P<rate>\d+)")
_BACKBONES = {"B": "B-CONV"}
_SCORES = ("map", "f1", "recall", "auroc")
_ORIGINS = ("all", "movie", "real")

Split = Literal["val", "test"]


@dataclass(frozen=True)
class PrintedHarRow:
    """A row of Table 1 or 2.

    Attributes:
        name: Name of the published row, see `microg.metrics.published.har_row`.
        arch: Architecture as printed, such as I3D NLN.
        frames: Frames x sampling rate, such as 8×8.
        backbone: As printed, such as R50.
        params: Millions of parameters.
        scores: Percent by metric and split; of val those of the tested epoch.
        doubts: By column (`arch`, `val.f1`, ...), why the published run cannot have this value.
        pretrain: Table 2: data of the first training.
        fine_tune: Table 2: data of the second.
    """

    name: str
    arch: str
    frames: str
    backbone: str
    params: float
    scores: Mapping[Split, Mapping[str, float]]
    doubts: Mapping[str, str]
    pretrain: str = ""
    fine_tune: str = ""


@dataclass(frozen=True)
class PrintedTransfer:
    """A row of Table 3: a model of AVA's actions on a test set; scores in percent."""

    arch: str
    frames: str
    backbone: str
    test_set: str
    map: float
    auroc: float


@dataclass(frozen=True)
class PrintedSplit:
    """A row of Table 6: samples (labels) and clips of a split, with their percent as printed."""

    split: str
    samples: int
    samples_percent: float
    clips: int
    clips_percent: float | None


@dataclass(frozen=True)
class PrintedCounts:
    """A row of Tables 7, 8 or 9: a number for all videos, movies and real videos, with its percent where printed."""

    title: str
    counts: Mapping[str, int]
    percents: Mapping[str, float]
    action_id: int | None = None


@dataclass(frozen=True)
class PrintedQaDataset:
    """A row of Table 10."""

    name: str
    clips: int
    pairs: int
    pairs_per_clip: float
    clip_seconds: float
    pairs_per_second: float
    kinds: str


@dataclass(frozen=True)
class Contradiction:
    """What the paper's numbers say against each other: the tables it is about, and a sentence with the numbers."""

    tables: tuple[int, ...]
    text: str


def har_printed(table: Literal[1, 2]) -> list[PrintedHarRow]:
    """Return the rows of Table 1 (fine-tuned) or 2 (zero-shot from AVA) in the paper's order.

    >>> [(row.arch, row.frames, row.scores["test"]["map"]) for row in har_printed(2)]
    [('Slow', '8×8', 16.24), ('SlowFast', '32×2', 23.81)]
    """
    return [_har_printed(name) for name in (_TABLE1 if table == 1 else _TABLE2)]


def har_place(name: str) -> int:
    """Return the place of a published row in its table; those that the paper does not print come last."""
    order = [*_TABLE1, *_TABLE2]
    return order.index(name) if name in order else len(order)


@cache
def _har_printed(name: str) -> PrintedHarRow:
    entry = har_entry(name)
    title = _TITLE.match(entry["title"])
    assert title is not None, f"{name}: {entry['title']}"
    printed: Mapping[str, Any] = entry.get("printed", {})
    arch = title["arch"]
    runs: dict[Split, Mapping[str, float]] = {"test": entry["test"]}
    if "val" in entry:
        runs["val"] = entry["val"][entry["test"]["epoch"]]
    scores: dict[Split, dict[str, float]] = {}
    doubts = {}
    for split, values in runs.items():
        own = {metric: float(half_up(100 * values[metric], 2)) for metric in _SCORES}
        scores[split] = {metric: printed.get(f"{split}.{metric}", value) for metric, value in own.items()}
        for metric in _SCORES:
            if scores[split][metric] != own[metric]:
                doubts[f"{split}.{metric}"] = f"the published run has {own[metric]:.2f}"
    if "arch" in printed:
        doubts["arch"] = f"{arch} by its parameters and its published run"
    return PrintedHarRow(
        name=name,
        arch=printed.get("arch", arch),
        frames=f"{title['frames']}×{title['rate']}",
        backbone=_BACKBONES.get(title["backbone"], title["backbone"]),
        params=float(half_up(entry["params"] / 1e6, 2)),
        scores=scores,
        doubts=doubts,
        pretrain=entry.get("pretrain", ""),
        fine_tune=entry.get("fine_tune", ""),
    )


def transfer_printed() -> list[PrintedTransfer]:
    """Return the rows of Table 3."""
    return [PrintedTransfer(*row) for row in _data()["transfer"]]


def splits_printed() -> list[PrintedSplit]:
    """Return the rows of Table 6, the total last."""
    return [PrintedSplit(*row) for row in _data()["splits"]]


def counts_printed(table: Literal[7, 8, 9]) -> list[PrintedCounts]:
    """Return the rows of Table 7 (label types), 8 (people in a clip) or 9 (actions), by origin.

    >>> counts_printed(8)[1].counts
    {'all': 623, 'movie': 395, 'real': 228}
    """
    if table == 9:
        return [
            PrintedCounts(name, dict(zip(_ORIGINS, counts, strict=True)), {}, number)
            for number, name, *counts in _data()["actions"]
        ]
    return [
        PrintedCounts(name, dict(zip(_ORIGINS, cells[::2], strict=True)), dict(zip(_ORIGINS, cells[1::2], strict=True)))
        for name, *cells in _data()["label_types" if table == 7 else "people"]
    ]


def qa_datasets_printed() -> list[PrintedQaDataset]:
    """Return the rows of Table 10, MicroG-4M last."""
    return [PrintedQaDataset(*row) for row in _data()["qa_datasets"]]


def contradictions() -> list[Contradiction]:
    """Find where the paper's numbers contradict each other, or those of its published runs."""
    return [*_label_totals(), *_label_types(), *_runs(), *_names(), *_rates()]


def _label_totals() -> list[Contradiction]:
    split = splits_printed()[-1].samples
    types = sum(row.counts["all"] for row in counts_printed(7))
    actions = sum(row.counts["all"] for row in counts_printed(9))
    found = []
    if len({split, types, actions}) > 1:
        text = (
            f"labels: Table 6 has {split:,} in all, the rows of Table 7 add up to {types:,}, those of Table 9 to "
            f"{actions:,}"
        )
        found.append(Contradiction((6, 7, 9), text))
    elsewhere = _data()["text"]["object manipulation"]
    (row,) = (row for row in counts_printed(7) if row.title == "Object Manipulation")
    if elsewhere != row.counts["all"]:
        gap, missing = row.counts["all"] - elsewhere, types - split
        text = f"object manipulation: {row.counts['all']:,} labels in Table 7, {elsewhere:,} elsewhere in the paper"
        text += "; the gap is that of the totals" if gap == missing else ""
        found.append(Contradiction((7,), text))
    return found


def _label_types() -> list[Contradiction]:
    by_group: dict[str, dict[str, int]] = {}
    for row in counts_printed(9):
        assert row.action_id is not None
        sums = by_group.setdefault(GROUP_NAMES[BY_ID[row.action_id].group], dict.fromkeys(_ORIGINS, 0))
        for origin in _ORIGINS:
            sums[origin] += row.counts[origin]
    found = []
    for row in counts_printed(7):
        movie, real, total = (row.counts[origin] for origin in ("movie", "real", "all"))
        if movie + real != total:
            own = by_group[row.title.lower()]
            text = (
                f"{row.title}: {movie:,} in movies and {real:,} in real videos are {movie + real:,}, not {total:,}; "
                f"Table 9 has {own['movie']:,} and {own['real']:,}"
            )
            found.append(Contradiction((7,), text))
    return found


def _runs() -> list[Contradiction]:
    found = []
    for row in map(_har_printed, har_rows()):
        for column, doubt in row.doubts.items():
            split, _, metric = column.partition(".")
            if metric:
                table = 1 if row.name in _TABLE1 else 2
                value = row.scores["val" if split == "val" else "test"][metric]
                text = f"{row.arch} {row.frames}: {metric} on {split} is printed as {value:.2f}; {doubt}"
                found.append(Contradiction((table,), text))
    return found


def _names() -> list[Contradiction]:
    by_name: dict[tuple[str, str, str], list[PrintedHarRow]] = {}
    for row in har_printed(1):
        by_name.setdefault((row.arch, row.frames, row.backbone), []).append(row)
    found = []
    for (arch, frames, _), rows in by_name.items():
        if len(rows) > 1:
            sizes = " and ".join(f"{row.params:.2f} M" for row in rows)
            doubted = [row for row in rows if "arch" in row.doubts]
            right = "; ".join(f"that of {row.params:.2f} M is {row.doubts['arch']}" for row in doubted)
            found.append(Contradiction((1,), f"{len(rows)} rows are named {arch} {frames}, of {sizes}: {right}"))
    return found


def _rates() -> list[Contradiction]:
    found = []
    for row in qa_datasets_printed():
        own = row.pairs_per_clip, row.pairs_per_second
        for printed, value, what in zip(
            own,
            (row.pairs / row.clips, row.pairs / row.clips / row.clip_seconds),
            ("QA pairs a clip", "QA pairs a second"),
            strict=True,
        ):
            digits = len(str(printed).partition(".")[2])
            if abs(printed - value) > 0.5 * 10**-digits + 1e-9:
                found.append(
                    Contradiction((10,), f"{row.name}: {what} are printed as {printed}, its numbers give {value:.4f}")
                )
    return found


def half_up(value: float, digits: int) -> Decimal:
    """Round as the paper prints: halves up, of the shortest decimal that the float stands for.

    >>> half_up(100 * 0.24645, 2)
    Decimal('24.65')
    """
    return Decimal(f"{value:.9g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


@cache
def _data() -> Mapping[str, Any]:
    return yaml.safe_load(_DATA.read_text(encoding="utf-8"))
