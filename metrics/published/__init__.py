"""Published results as data, to be shown beside our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from microg.errors import ConfigError
from microg.texts.items import TASKS, Task

_HAR = Path(__file__).with_name("har.yaml")
_VLM = Path(__file__).with_name("vlm.yaml")


@dataclass(frozen=True)
class PublishedRow:
    """One row of the published HAR tables: macro scores in [0, 1], and AP by action id where published."""

    name: str
    title: str
    params: int
    label_space: str
    split: str
    epoch: int | None
    scores: Mapping[str, float]
    ap: Mapping[int, float]


def har_row(name: str) -> PublishedRow:
    """Return a row by name: `I3D_NLN_8x8_R50` is its test row, `I3D_NLN_8x8_R50/val/40` validation at epoch 40.

    Raises `ConfigError` naming the rows there are.

    >>> har_row("I3D_NLN_8x8_R50").scores["map"], har_row("I3D_NLN_8x8_R50/val/40").scores["f1"]
    (0.47121, 0.24108)
    """
    model, _, rest = name.partition("/")
    rows = _table()
    if model not in rows:
        raise ConfigError(f"there is no published row {model!r}", f"rows are {', '.join(rows)}")
    row = rows[model]
    if not rest or rest == "test":
        scores = dict(row["test"])
        epoch = scores.pop("epoch", None)
        return PublishedRow(
            name, row["title"], row["params"], row["label_space"], "test", epoch, scores, row.get("test_ap", {})
        )
    split, _, number = rest.partition("/")
    epochs = row.get("val", {})
    if split != "val" or not number.isdecimal() or int(number) not in epochs:
        known = ", ".join(map(str, epochs)) or "none"
        raise ConfigError(f"there is no published result {name!r}", f"validation is {model}/val/EPOCH, epochs: {known}")
    found = epochs[int(number)]
    return PublishedRow(name, row["title"], row["params"], row["label_space"], "val", int(number), found, {})


def har_rows() -> list[str]:
    """Return the names of all published HAR rows."""
    return list(_table())


def har_entry(name: str) -> Mapping[str, Any]:
    """Return all that is known of a published HAR row, as its file has it."""
    return _table()[name]


@dataclass(frozen=True)
class PublishedTextRow:
    """A model's rows in the published captioning and VQA tables: printed values (x 100) by task and column.

    `doubts` says of printed values, by task and column, why they cannot be what their column says.
    """

    name: str
    title: str
    frames: int
    scores: Mapping[Task, Mapping[str, float]]
    doubts: Mapping[str, Mapping[str, str]]


def text_row(name: str) -> PublishedTextRow:
    """Return a model's published captioning and VQA values; case does not count.

    Raises `ConfigError` naming the rows there are.

    >>> text_row("GPT_4o").scores["vqa"]["CIDEr"]
    33.98
    """
    rows = _text_table()
    found = rows.get(name.lower())
    if found is None:
        raise ConfigError(f"there is no published row {name!r}", f"rows are {', '.join(rows)}")
    scores: dict[Task, Any] = {task: found[task] for task in TASKS if task in found}
    return PublishedTextRow(name.lower(), found["title"], found["frames"], scores, found.get("doubts", {}))


def text_rows() -> list[str]:
    """Return the names of all published captioning and VQA rows."""
    return list(_text_table())


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(_HAR.read_text(encoding="utf-8"))


@cache
def _text_table() -> dict[str, Any]:
    return yaml.safe_load(_VLM.read_text(encoding="utf-8"))["rows"]
