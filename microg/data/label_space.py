"""Label spaces that scores are given in: the 50 classes of MicroG-4M, the 80 of AVA and the 21 of JHMDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from microg.data.taxonomy import ACTION_IDS, AVA_80, BY_ID, JHMDB_21, TO_AVA_80, TO_JHMDB_21
from microg.errors import ConfigError


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of action ids; the class index is an id's place in it.

    `counterparts` maps an id to ours (of MicroG-4M's 50) for the classes that mean the same. `groups` has the action
    group of each id that belongs to one.
    """

    name: str
    ids: tuple[int, ...]
    names: Mapping[int, str] = field(repr=False)
    counterparts: Mapping[int, int] = field(repr=False)
    groups: Mapping[int, str] = field(repr=False)

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
        """Return the action group of an id, None for a class that MicroG-4M does not use.

        >>> MICROG_50.group(12), JHMDB_21_SPACE.group(16), JHMDB_21_SPACE.group(1)
        ('PERSON_MOVEMENT', 'PERSON_MOVEMENT', None)
        """
        return self.groups.get(action_id)

    def shares_ids(self, other: LabelSpace) -> bool:
        """Tell whether labels of both are numbered alike: MicroG-4M uses the ids of AVA.

        >>> AVA_80_SPACE.shares_ids(MICROG_50), AVA_80_SPACE.shares_ids(JHMDB_21_SPACE)
        (True, False)
        """
        return self.name == other.name or {self.name, other.name} == {"microg50", "ava80"}


_GROUPS = {action_id: BY_ID[action_id].group for action_id in ACTION_IDS}
_JHMDB_NAMES = dict(enumerate(JHMDB_21, 1))
_JHMDB_COUNTERPARTS = {JHMDB_21.index(name) + 1: action_id for action_id, name in TO_JHMDB_21.items()}

MICROG_50 = LabelSpace(
    "microg50",
    ACTION_IDS,
    {action_id: BY_ID[action_id].name for action_id in ACTION_IDS},
    {action_id: action_id for action_id in ACTION_IDS},
    _GROUPS,
)
AVA_80_SPACE = LabelSpace(
    "ava80", tuple(AVA_80), AVA_80, {ava: action_id for action_id, ava in TO_AVA_80.items() if ava is not None}, _GROUPS
)
# JHMDB's classes in alphabetical order, numbered from 1.
JHMDB_21_SPACE = LabelSpace(
    "jhmdb21",
    tuple(_JHMDB_NAMES),
    _JHMDB_NAMES,
    _JHMDB_COUNTERPARTS,
    {jhmdb: _GROUPS[action_id] for jhmdb, action_id in _JHMDB_COUNTERPARTS.items()},
)
LABEL_SPACES = {space.name: space for space in (MICROG_50, AVA_80_SPACE, JHMDB_21_SPACE)}


def label_space(name: str) -> LabelSpace:
    """Return a label space by name. Raises `ConfigError` naming those there are.

    >>> len(label_space("ava80"))
    80
    """
    try:
        return LABEL_SPACES[name]
    except KeyError:
        own = "; the actions of a dataset are known from its dataset.json, or from a run on it" if "@" in name else ""
        known = f"label spaces are {', '.join(LABEL_SPACES)}{own}"
        raise ConfigError(f"there is no label space {name!r}", known) from None
