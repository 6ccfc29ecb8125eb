"""Vocabularies: reading, renaming, merging, splitting, and what old labels mean."""

from __future__ import annotations

import pytest

from microg.data.dataset import Dataset
from microg.data.label_space import LABEL_SPACES, MICROG_50
from microg.data.vocabulary import MICROG_VOCABULARY, read_vocabulary, vocabulary_of
from microg.errors import DatasetError

CREW = {
    "name": "crew",
    "actions": [
        {"id": 1, "name": "float", "group": "moving", "definition": "no contact with anything"},
        {"id": 2, "name": "push", "counterparts": {"microg50": 46, "ava80": 46}},
        {"id": 3, "name": "pull", "note": "not push"},
    ],
}


def crew():
    return read_vocabulary(CREW, "crew.yaml")


def test_a_dataset_has_the_published_actions_until_it_gets_its_own(tmp_path):
    dataset = Dataset.create(str(tmp_path / "d"), "d")
    assert dataset.vocabulary == MICROG_VOCABULARY
    assert dataset.label_space is MICROG_50
    own = dataset.describe(vocabulary=crew().to_dict())
    assert Dataset.open(own.root).vocabulary == crew()
    assert own.label_space.ids == (1, 2, 3)
    assert own.label_space.counterparts == {2: 46}
    assert own.label_space.groups == {1: "moving"}


@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=LABEL_SPACES)
def test_published_sets_are_vocabularies_of_their_own_label_space(space):
    assert vocabulary_of(space).space is space


def test_renaming_keeps_the_label_space_and_other_actions_make_another():
    assert crew().renamed(1, "drift", "t").space.name == crew().space.name
    assert crew().merged([3], 2, "t").space.name != crew().space.name
    other = read_vocabulary({**CREW, "actions": [{"id": 1, "name": "swim"}]}, "x")
    assert other.space.name != crew().space.name


def test_merged_labels_mean_the_one_that_stays_and_split_ones_wait_for_a_decision():
    changed = crew().merged([3], 2, "t").split(2, ["push hard", "push lightly"], "t")
    assert [action.id for action in changed.actions] == [1, 4, 5]
    assert changed.in_use(1) == 1
    assert changed.in_use(3) is None
    assert changed.in_use(2) is None
    assert crew().merged([3], 2, "t").in_use(3) == 2
    with pytest.raises(DatasetError, match="action id 77 is not in the vocabulary 'crew'"):
        changed.in_use(77)
    assert read_vocabulary(changed.to_dict(), "again") == changed


def test_a_changed_published_set_gets_a_name_of_its_own_and_keeps_its_counterparts():
    changed = MICROG_VOCABULARY.renamed(12, "stand upright", "t")
    assert changed.name == "own-microg50"
    assert changed.space.counterparts[12] == 12
    assert changed.history[0].note == "12 stand is now called stand upright"


@pytest.mark.parametrize(("text", "action_id"), [("1 float", 1), ("1", 1), ("FLOAT", 1), (" push ", 2)])
def test_annotators_labels_are_understood_in_any_form(text, action_id):
    assert crew().parse(text) == action_id


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"name": "x"}, "is no vocabulary"),
        ({"name": "x", "actions": []}, "has 0 actions"),
        ({"name": "x", "actions": [{"id": 1}]}, "action 1 has no id or no name"),
        ({"name": "x", "actions": [{"id": 0, "name": "a"}]}, "0 is no id"),
        ({"name": "x", "actions": [{"id": True, "name": "a"}]}, "True is no id"),
        ({"name": "x", "actions": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "the id of '1 b' is there twice"),
        (
            {"name": "x", "actions": [{"id": 1, "name": "a"}, {"id": 2, "name": "A"}]},
            "the name of '2 A' is there twice",
        ),
        ({"name": "x", "actions": [{"id": 1, "name": "a", "colour": "red"}]}, "unknown key 'colour'"),
        ({"name": "x", "actions": [{"id": 1, "name": "a\nb"}]}, "no text of one line"),
        ({"name": "microg50", "actions": [{"id": 1, "name": "a"}]}, "the name of a published set"),
        ({"name": "x", "actions": [{"id": 1, "name": "a", "counterparts": {"ava80": 81}}]}, "ava80 has no action 81"),
        ({"name": "x", "actions": [{"id": 1, "name": "a", "counterparts": {"coco": 1}}]}, "no set of actions 'coco'"),
    ],
)
def test_what_is_no_vocabulary_is_refused_by_name(document, says):
    with pytest.raises(DatasetError) as error:
        read_vocabulary(document, "x.yaml")
    assert says in str(error.value)
