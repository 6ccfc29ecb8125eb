"""`microg data vocabulary`: what it shows, what changes do to labels, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from microg.annotations.apply import accept_into
from microg.annotations.table import add_annotations, read_annotations
from microg.data import schema
from microg.data.dataset import Dataset
from tests.support.command_line import refused
from tests.support.helpers import make_dataset
from tests.support.processes import microg
from tests.support.vocabularies import CREW, crew, crew_dataset, said_actions


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return crew_dataset(tmp_path / "crew")


def counts(dataset: Dataset, table: str = "actions") -> dict[int, int]:
    return dict(Counter(Dataset.open(dataset.root).table(table)["action_id"].to_pylist()))


def vocabulary(dataset: Dataset, *words: object) -> int:
    return microg("data", "vocabulary", words[0], dataset.root, *words[1:])


def test_actions_are_shown_with_their_labels(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert vocabulary(dataset, "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["label_space"] == crew().space.name
    assert document["labels"] == {"1": 6, "2": 4, "7": 2}
    assert vocabulary(dataset, "show") == 0
    out = capsys.readouterr().out
    assert "no contact with anything" in out
    assert "ava80 17" in out


def test_a_renamed_action_keeps_its_labels_and_its_label_space(dataset: Dataset) -> None:
    assert vocabulary(dataset, "rename", "tumble", "somersault") == 0
    changed = Dataset.open(dataset.root)
    assert changed.vocabulary.by_id[7].name == "somersault"
    assert changed.label_space.name == dataset.label_space.name
    assert changed.vocabulary.history[0].time.endswith("+00:00")
    assert counts(dataset) == {1: 6, 2: 4, 7: 2}


def test_merged_labels_are_recoded_each_once_and_what_was_held_is_kept(dataset: Dataset) -> None:
    assert vocabulary(dataset, "merge", 2, 7, "--into", 1) == 0
    # everybody did 1 already
    assert counts(dataset) == counts(dataset, "samples") == {1: 6}
    held = [each.value["actions"] for each in read_annotations(dataset)]
    assert sorted(held) == [[1, 2]] * 4 + [[1, 7]] * 2


def test_a_merge_that_stopped_halfway_is_ended_by_the_same_command(dataset: Dataset) -> None:
    before = dict(dataset.info)
    assert vocabulary(dataset, "merge", 7, "--into", 2) == 0
    Dataset(dataset.root, {}).describe(**before)  # killed before the last step
    assert vocabulary(dataset, "merge", 7, "--into", 2) == 0
    assert counts(dataset) == {1: 6, 2: 6}
    assert len(read_annotations(dataset)) == 2
    assert len(Dataset.open(dataset.root).vocabulary.history) == 1


def test_a_split_takes_labels_out_until_people_say_what_they_are(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vocabulary(dataset, "split", 7, "roll", "pitch", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["taken_out"], report["waiting"]) == (2, 2)
    assert counts(dataset) == counts(dataset, "samples") == {1: 6, 2: 4}
    # the first of the two people is judged; nobody's label comes back by itself
    (one, other) = sorted(each.about for each in read_annotations(dataset))
    said = said_actions([1, 8], one.clip_id, one.person_id or 0)
    accepted, _ = accept_into(Dataset.open(dataset.root), added=[said])
    assert [(each.about, each.why) for each in accepted.open] == [(other, "action 7 was split since")]
    assert accepted.counts["action"] == {"judged": 1, "settled": 1}
    assert counts(dataset) == {1: 6, 2: 4, 8: 1}
    assert vocabulary(dataset, "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["waiting"] == 1


def test_people_without_any_other_label_stay_where_samples_hold_unlabelled_ones(dataset: Dataset) -> None:
    rows = dataset.table("samples").to_pylist()
    rows = [row for row in rows if row["action_id"] == 7] + [{**rows[0], "person_id": 9, "action_id": None}]
    dataset.write("samples", schema.from_rows("samples", rows))
    assert vocabulary(dataset, "split", 7, "roll", "pitch") == 0
    assert counts(dataset, "samples") == {None: 3}


def test_changing_a_published_set_makes_it_the_datasets_own(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", videos=False)
    assert vocabulary(dataset, "map", 12, "ava80", "none") == 0
    own = Dataset.open(dataset.root).vocabulary
    assert own.name == "own-microg50"
    assert own.by_id[12].counterparts["microg50"] == 12
    assert "ava80" not in own.by_id[12].counterparts
    assert vocabulary(dataset, "set", "microg50") == 0
    assert "vocabulary" not in Dataset.open(dataset.root).info


def test_a_dry_run_says_what_would_change_and_changes_nothing(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dataset.fingerprint()
    assert vocabulary(dataset, "split", 7, "roll", "pitch", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "2 labels were taken out" in out
    assert "--dry-run" in out
    assert Dataset.open(dataset.root).fingerprint() == before
    assert read_annotations(dataset) == []


def test_other_actions_are_taken_when_every_label_stays_what_it_is(dataset: Dataset, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({**CREW, "actions": [*CREW["actions"], {"id": 9, "name": "sleep"}]}))
    assert vocabulary(dataset, "set", more) == 0
    changed = Dataset.open(dataset.root).vocabulary
    assert 9 in changed.by_id
    assert changed.history[-1].change == "set"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rename", "99", "x"], "99 is not in use"),
        (["rename", "1", "tumble"], "the name of '7 tumble' is there twice"),
        (["rename", "1", "two\nlines"], "no text of one line"),
        (["rename", "1", ""], "no id or no name"),
        (["merge", "1", "--into", "1"], "nothing to merge"),
        (["merge", "1", "--into", "99"], "99 is not in use"),
        (["split", "7", "roll"], "into one action"),
        (["split", "7", "roll", "Roll"], "is there twice"),
        (["map", "7", "coco", "1"], "no set of actions 'coco'"),
        (["map", "7", "ava80", "81"], "ava80 has no action '81'"),
        (["map", "7", "ava80", "-1"], "ava80 has no action '-1'"),
        (["set", "microg50"], "'2 hold a rail' (4)"),
        (["set", "nowhere.yaml"], "nowhere.yaml is not there"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(
    words: list[str],
    says: str,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = dataset.fingerprint()
    arguments = [words[0], dataset.root, *words[1:]]
    if "-1" in arguments:
        arguments.insert(1, "--")
    assert says in refused(monkeypatch, capsys, "data", "vocabulary", *arguments)
    assert Dataset.open(dataset.root).fingerprint() == before


@pytest.mark.parametrize(
    ("text", "says"), [("- a", "mapping"), ("a: [", "not valid YAML"), ("name: x\nactions: [{id: 1}]", "has no id or")]
)
def test_a_file_that_is_no_vocabulary_is_refused(
    text: str,
    says: str,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert says in refused(monkeypatch, capsys, "data", "vocabulary", "set", dataset.root, str(tmp_path / "x.yaml"))


def test_judgements_of_people_keep_a_dataset_from_losing_their_actions(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_annotations(dataset, [said_actions([7], "filmA_000", 1)])
    for name in ("actions", "samples"):
        dataset.write(name, schema.empty(name))
    assert "'7 tumble' (1)" in refused(monkeypatch, capsys, "data", "vocabulary", "set", dataset.root, "microg50")
