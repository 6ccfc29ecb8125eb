"""Label spaces that scores are given in: the 50 classes of MicroG-4M and the 80 of AVA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from microg.errors import ConfigError
from microg.taxonomy import ACTION_IDS, AVA_80, BY_ID


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of action ids; the class index is an id's place in it."""

    name: str
    ids: tuple[int, ...]
    names: Mapping[int, str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, action_ids: np.ndarray) -> np.ndarray:
        """Return the class index (int64) of each action id, -1 for an id outside the space.

        >>> MICROG_50.index(np.array([1, 3, 2, 80])).tolist()
        [0, 1, -1, 49]
        """
        table = np.full(max(self.ids) + 2, -1, dtype=np.int64)
        table[list(self.ids)] = np.arange(len(self.ids))
        # one past the largest id stands for everything outside
        return table[np.where((action_ids < 0) | (action_ids > max(self.ids)), len(table) - 1, action_ids)]

    def group(self, action_id: int) -> str | None:
        """Return the action group of an id, None for an AVA class that MicroG-4M does not use."""
        return BY_ID[action_id].group if action_id in BY_ID else None


MICROG_50 = LabelSpace("microg50", ACTION_IDS, {action_id: BY_ID[action_id].name for action_id in ACTION_IDS})
AVA_80_SPACE = LabelSpace("ava80", tuple(AVA_80), AVA_80)
LABEL_SPACES = {space.name: space for space in (MICROG_50, AVA_80_SPACE)}


def label_space(name: str) -> LabelSpace:
    """Return a label space by name. Raises `ConfigError` naming those there are.

    >>> len(label_space("ava80"))
    80
    """
    try:
        return LABEL_SPACES[name]
    except KeyError:
        raise ConfigError(f"there is no label space {name!r}", f"label spaces are {', '.join(LABEL_SPACES)}") from None
