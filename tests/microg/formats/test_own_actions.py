"""Actions of a dataset's own through the formats: out, in again, shown with what they mean, refused where unknown."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from microg import formats
from microg.data.dataset import Dataset
from microg.data.label_space import JHMDB_21_SPACE
from microg.data.vocabulary import vocabulary_of
from microg.data.vocabulary_files import load_vocabulary
from microg.errors import FormatError
from microg.formats.labelmap import label_map_text, parse_action, parse_label_map
from tests.support.annotations import rows
from tests.support.command_line import refused
from tests.support.processes import microg
from tests.support.vocabularies import crew, crew_dataset


@pytest.mark.parametrize("name", ["microg4m", "coco", "labelstudio", "cvat"])
def test_own_actions_survive_an_export_and_an_import(name: str, tmp_path: Path) -> None:
    dataset = crew_dataset(tmp_path / "crew")
    assert microg("data", "export", name, dataset.root, tmp_path / "out") == 0
    more = ["--predictions"] if name == "labelstudio" else []
    own = tmp_path / "out" / "vocabulary.yaml"
    source = tmp_path / "out" / "annotations" if name == "cvat" else tmp_path / "out"
    assert microg("data", "import", name, source, tmp_path / "again", "--vocabulary", own, *more) == 0
    again = Dataset.open(str(tmp_path / "again"))
    assert again.vocabulary == crew()
    assert rows(again.table("actions")) == rows(dataset.table("actions"))
    # and into the dataset itself, whose actions need not be told
    assert microg("data", "import", name, source, dataset.root, "--merge", *more) == 0


def test_the_train_ready_folder_names_own_actions(tmp_path: Path) -> None:
    dataset = crew_dataset(tmp_path / "crew")
    assert microg("data", "export", "ava", dataset.root, tmp_path / "ava", "--split", "source") == 0
    text = (tmp_path / "ava" / "annotations" / "label_map.pbtxt").read_text()
    assert parse_label_map(text, "here") == {action.id: action.name for action in crew().actions}
    assert "label_type: MOVING_ABOUT" in text
    result = formats.read("ava", str(tmp_path / "ava"), vocabulary=crew())
    assert {row["action_id"] for row in result.tables["actions"].to_pylist()} == {1, 2, 7}


def test_annotators_see_names_groups_and_definitions(tmp_path: Path) -> None:
    dataset = crew_dataset(tmp_path / "crew")
    formats.write("labelstudio", dataset, str(tmp_path / "ls"))
    config = ET.parse(tmp_path / "ls" / "labeling_config.xml").getroot()
    group, rail = next(each for each in config.iter("Taxonomy"))
    assert (group.get("value"), rail.get("value")) == ("moving about", "2 hold a rail")
    assert [each.get("hint") for each in group] == ["no contact with anything", "not float"]
    formats.write("cvat", dataset, str(tmp_path / "cvat"))
    (label,) = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert label["attributes"][2]["values"] == ["none", *(action.label for action in crew().actions)]
    assert "no contact with anything" in (tmp_path / "cvat" / "guide.md").read_text()


def test_an_action_that_is_not_in_the_vocabulary_is_refused_with_the_option_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = crew_dataset(tmp_path / "crew")
    formats.write("cvat", dataset, str(tmp_path / "cvat"))
    said = refused(monkeypatch, capsys, "data", "import", "cvat", str(tmp_path / "cvat"), str(tmp_path / "new"))
    assert "is not one of the 50 actions" in said or "has the number of" in said
    assert "--vocabulary FILE.yaml" in said
    assert not (tmp_path / "new" / "dataset.json").exists()


def test_ids_alone_are_held_against_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crew_dataset(tmp_path / "crew")
    assert microg("data", "export", "microg4m", tmp_path / "crew", tmp_path / "out") == 0
    capsys.readouterr()
    few = tmp_path / "few.yaml"
    few.write_text("name: few\nactions: [{id: 1, name: sleep}, {id: 2, name: hold a rail}]\n")
    words = ["data", "import", "microg4m", str(tmp_path / "out"), str(tmp_path / "new"), "--vocabulary", str(few)]
    assert "id 1 is called" in refused(monkeypatch, capsys, *words)
    (tmp_path / "out" / "label_map" / "label_map.pbtxt").unlink()
    assert "'few': 7 (2 labels)" in refused(monkeypatch, capsys, *words)


def test_a_dataset_is_merged_with_its_own_actions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = crew_dataset(tmp_path / "crew")
    formats.write("coco", dataset, str(tmp_path / "coco"))
    words = ["data", "import", "coco", str(tmp_path / "coco"), dataset.root, "--merge", "--vocabulary", "jhmdb21"]
    assert "a merge uses the dataset's own" in refused(monkeypatch, capsys, *words)


def test_a_published_set_can_be_named_in_place_of_a_file(tmp_path: Path) -> None:
    assert load_vocabulary("jhmdb21") == vocabulary_of(JHMDB_21_SPACE)
    dataset = crew_dataset(tmp_path / "crew")
    assert load_vocabulary(f"{dataset.root}/dataset.json") == crew()


def test_a_label_of_two_actions_and_one_that_was_split_are_refused() -> None:
    changed = crew().merged([7], 1, "t")
    assert parse_action("7 tumble", "here", changed) == 1
    with pytest.raises(FormatError, match="has the number of"):
        parse_action("2 tumble", "here", crew())
    with pytest.raises(FormatError, match="say which it is: 8 roll, 9 pitch"):
        parse_action("7 tumble", "here", crew().split(7, ["roll", "pitch"], "t"))


def test_a_label_map_says_any_name(tmp_path: Path) -> None:
    text = label_map_text(crew())
    assert parse_label_map(text, "here")[1] == 'float {free} "slowly"'
