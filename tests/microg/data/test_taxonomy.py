from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from microg.data import taxonomy
from microg.errors import DatasetError


def test_actions_are_the_published_ones(oracles: Path):
    with (oracles / "har_scores" / "classes.csv").open(newline="") as file:
        rows = [(int(row["action_id"]), row["action_name"], row["label_type"]) for row in csv.DictReader(file)]
    assert [(action.id, action.name, action.group) for action in taxonomy.ACTIONS] == rows


def test_fifty_actions_in_three_groups():
    assert len(taxonomy.ACTIONS) == len(taxonomy.BY_ID) == 50
    assert Counter(action.group for action in taxonomy.ACTIONS) == {
        "PERSON_MOVEMENT": 11,
        "OBJECT_MANIPULATION": 26,
        "PERSON_INTERACTION": 13,
    }
    assert set(taxonomy.GROUP_NAMES) == set(taxonomy.GROUPS)


def test_class_index_is_the_rank_of_the_id():
    assert list(taxonomy.ACTION_IDS) == sorted(taxonomy.ACTION_IDS)
    assert [taxonomy.CLASS_INDEX[action_id] for action_id in taxonomy.ACTION_IDS] == list(range(50))
    assert (taxonomy.CLASS_INDEX[1], taxonomy.CLASS_INDEX[80]) == (0, 49)


def test_ava_has_its_own_eighty_classes():
    assert list(taxonomy.AVA_80) == list(range(1, 81))
    assert len(set(taxonomy.AVA_80.values())) == 80
    different = {action.id for action in taxonomy.ACTIONS if taxonomy.AVA_80[action.id] != action.name}
    assert different == {26, 28, 61}
    assert taxonomy.AVA_80[26] == "dress/put on clothing"


def test_maps_lead_from_our_actions_to_real_classes():
    assert set(taxonomy.TO_AVA_80) == set(taxonomy.ACTION_IDS)
    assert taxonomy.TO_AVA_80[28] is None
    assert all(target == source for source, target in taxonomy.TO_AVA_80.items() if target is not None)
    assert len(taxonomy.JHMDB_21) == len(set(taxonomy.JHMDB_21)) == 21
    assert set(taxonomy.TO_JHMDB_21) <= set(taxonomy.ACTION_IDS)
    assert set(taxonomy.TO_JHMDB_21.values()) <= set(taxonomy.JHMDB_21)
    assert len(set(taxonomy.TO_JHMDB_21.values())) == len(taxonomy.TO_JHMDB_21)


def test_unknown_action_id_is_an_error():
    assert taxonomy.action(69).name == "hand wave"
    with pytest.raises(DatasetError, match="action id 2 is not one of the 50"):
        taxonomy.action(2)
