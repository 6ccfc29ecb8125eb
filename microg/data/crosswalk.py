"""Which AVA class a model of AVA's actions would answer for the actions of a test set, by name and not through a third.

MicroG-4M uses AVA's own ids (`microg.data.taxonomy`); for JHMDB's 21 actions there is a versioned map with a reason a
pair (`crosswalk_jhmdb21.yaml`), because the paper does not print its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from microg.data.label_space import AVA_80_SPACE, LabelSpace, label_space


@dataclass(frozen=True)
class Pair:
    """An action of the test set, the AVA class that stands for it, and why."""

    action_id: int
    ava_id: int
    why: str


@dataclass(frozen=True)
class Crosswalk:
    """A map from the actions of a test set to AVA's classes; several actions may share a class.

    `left_out` says of each action without a class why it has none, by name.
    """

    name: str
    version: int
    truth: LabelSpace
    pairs: tuple[Pair, ...]
    left_out: Mapping[str, str]

    @property
    def labels(self) -> dict[int, int]:
        """AVA's id by the action's."""
        return {pair.action_id: pair.ava_id for pair in self.pairs}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with names."""
        names, ava = self.truth.names, AVA_80_SPACE.names
        return {
            "name": self.name,
            "version": self.version,
            "pairs": [
                {"jhmdb": names[pair.action_id], "ava_id": pair.ava_id, "ava": ava[pair.ava_id], "why": pair.why}
                for pair in self.pairs
            ],
            "left_out": [{"jhmdb": name, "why": why} for name, why in self.left_out.items()],
        }


@cache
def jhmdb_crosswalk() -> Crosswalk:
    """Return the map of JHMDB's actions of this version of the package.

    >>> len(jhmdb_crosswalk().labels), len(set(jhmdb_crosswalk().labels.values())), len(jhmdb_crosswalk().left_out)
    (15, 14, 6)
    """
    found = yaml.safe_load(resources.files("microg.data").joinpath("crosswalk_jhmdb21.yaml").read_text("utf-8"))
    truth = label_space(found["truth"])
    ids = {name: action_id for action_id, name in truth.names.items()}
    pairs = tuple(Pair(ids[pair["action"]], pair["ava"], pair["why"]) for pair in found["pairs"])
    return Crosswalk(found["name"], found["version"], truth, pairs, found["left_out"])
