"""Models and scores of a dataset's own actions: trained, predicted, scored; other models mapped or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from microg import storage
from microg.actions.own_classes import class_map, counterparts, scored_truth
from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.label_space import AVA_80_SPACE, JHMDB_21_SPACE, MICROG_50
from microg.data.vocabulary import MICROG_VOCABULARY, read_vocabulary, vocabulary_of
from microg.errors import ConfigError, DatasetError
from microg.metrics.har.protocols import PROTOCOLS
from microg.pipelines.har.live_scores import PART, HarFold
from microg.pipelines.har.train.checks import check_and_plan
from microg.reports.clips.panels import action_panels
from microg.reports.clips.pictures import PictureStyle
from microg.reports.run_folders import read_run
from tests.support import scored_runs
from tests.support.command_line import refused
from tests.support.processes import microg
from tests.support.training import make_training_dataset, run_alone, tiny_config
from tests.support.vocabularies import CREW, crew, with_crews_actions


def own_scored(root: Path) -> tuple[Dataset, Path]:
    """Return a dataset with the crew's actions, and predictions of the same people in MicroG-4M's."""
    published = scored_runs.scored_dataset(root / "published")
    predictions = scored_runs.predict_run(root / "run", published, seed=1, skill=1.5)
    return with_crews_actions(scored_runs.scored_dataset(root / "crew")), predictions


def values(run: Path) -> dict[str, Any]:
    document = json.loads((run / "metrics.json").read_text())
    return {
        f"{name}/{metric}": protocol[metric]["macro"]
        for name, protocol in document["protocols"].items()
        for metric in ("map", "f1", "auroc")
    }


def test_a_model_of_own_actions_is_trained_predicts_and_is_scored(
    tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    make_training_dataset(tmp_path / "data", 4)
    dataset = with_crews_actions(Dataset.open(str(tmp_path / "data")))
    setup = check_and_plan(tiny_config(epochs=1, micro_batch=4), dataset.root, str(tmp_path / "train"))
    assert setup.config.label_space == crew().space.name
    done, loop = run_alone(setup)
    assert done
    assert loop.model.num_classes == 3
    best = tmp_path / "train" / "checkpoints" / "best.pt"
    stored = torch.load(best, weights_only=True)["metadata"]
    assert read_vocabulary(stored["vocabulary"], "best.pt") == crew()

    run = tmp_path / "predict"
    words = ["har", "predict", dataset.root, "--weights", best, "--run", run, "--split", "val", "--json"]
    assert microg(*words, "--set", "resources.max_actors=1") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["label_space"] == crew().space.name
    assert set(report["scores"]) == {"paper", "corrected"}  # live, too
    # whoever reads the run knows the actions without the dataset
    assert read_vocabulary(storage.read_json(str(run / "run.json"))["full_config"]["vocabulary"], "run") == crew()
    assert read_predictions(str(run)).space == crew().space

    scored_runs.har_score(run, dataset, tmp_path / "scores", "--split", "val")
    classes = storage.read_parquet(str(tmp_path / "scores" / "tables" / "har_classes.parquet")).to_pylist()
    assert {row["action"] for row in classes} == {action.name for action in crew().actions}
    assert values(tmp_path / "scores") == {
        f"{name}/{metric}": pytest.approx(scores[metric])
        for name, scores in report["scores"].items()
        for metric in ("map", "f1", "auroc")
    }
    # of the same origin: what was merged since is one action
    assert microg("data", "vocabulary", "merge", dataset.root, 7, "--into", 2) == 0
    scored_runs.har_score(run, dataset, tmp_path / "merged", "--split", "val")
    assert json.loads((tmp_path / "merged" / "metrics.json").read_text())["transfer"]["unscored"] == []


def test_predictions_of_another_set_are_scored_as_by_hand(tmp_path: Path) -> None:
    dataset, predictions = own_scored(tmp_path)
    scored_runs.har_score(predictions, dataset, tmp_path / "mapped")

    # by hand: the scores of 12 and 17, under the crew's ids; 7 has no counterpart
    two = read_vocabulary({**CREW, "actions": CREW["actions"][:2]}, "two")
    places = [MICROG_50.ids.index(12), MICROG_50.ids.index(17)]
    rows = storage.read_parquet(str(predictions / "tables" / "har_predictions.parquet")).to_pylist()
    for row in rows:
        row.update(scores=[row["scores"][place] for place in places], label_space=two.space.name)
    storage.write_parquet(str(tmp_path / "hand.parquet"), schema.from_rows("har_predictions", rows))
    by_hand = with_crews_actions(scored_runs.scored_dataset(tmp_path / "hand")).describe(vocabulary=two.to_dict())
    samples = [
        {**row, "action_id": row["action_id"] if row["action_id"] != 7 else None}
        for row in by_hand.table("samples").to_pylist()
    ]
    by_hand.write("samples", schema.from_rows("samples", samples))
    scored_runs.har_score(tmp_path / "hand.parquet", by_hand, tmp_path / "by-hand")
    assert values(tmp_path / "mapped") == values(tmp_path / "by-hand")

    document = json.loads((tmp_path / "mapped" / "metrics.json").read_text())
    assert document["label_space"] == crew().space.name
    covered = document["transfer"]
    assert (covered["predictions"], covered["labels_left_out"], covered["unscored"]) == ("microg50", 2, ["tumble"])
    assert "1 of 3 actions have no counterpart in microg50" in document["notes"][-1]
    assert storage.read_json(str(tmp_path / "mapped" / "run.json"))["full_config"]["vocabulary"]["name"] == "crew"


def test_live_scores_of_another_set_are_those_of_the_end(tmp_path: Path) -> None:
    dataset, predictions = own_scored(tmp_path)
    scored_runs.har_score(predictions, dataset, tmp_path / "end")
    said = read_predictions(str(predictions))
    truth = read_truth(dataset.root, crew().space)
    names = zip(truth.rows["clip_id"].to_pylist(), truth.rows["frame"].to_pylist(), strict=True)
    keys = pa.array([f"{clip_id}:{frame}" for clip_id, frame in names])
    mapping = class_map(crew(), MICROG_VOCABULARY)
    rows = scored_truth(truth, mapping.space).rows
    live = HarFold(MICROG_50, rows, keys, mapping)(PART, keys.unique().to_pylist(), {"boxes": said.boxes})
    wanted = {name: value for name, value in values(tmp_path / "end").items() if value is not None}
    assert {f"{name}/map" for name in PROTOCOLS} < set(wanted)
    assert {name: live[name] for name in wanted} == wanted


def test_a_model_without_any_counterpart_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, predictions = own_scored(tmp_path)
    bare = [{key: value for key, value in each.items() if key != "counterparts"} for each in CREW["actions"]]
    dataset.describe(vocabulary=read_vocabulary({**CREW, "actions": bare}, "bare").to_dict())
    words = ("har", "score", "--predictions", str(predictions), "--groundtruth", dataset.root)
    said = refused(monkeypatch, capsys, *words)
    assert "no action of crew@" in said
    assert "those of the model, microg50" in said
    assert "microg data vocabulary map" in said


def test_the_classes_of_a_published_row_stand_beside_no_actions_of_ones_own(tmp_path: Path) -> None:
    dataset, predictions = own_scored(tmp_path)
    scored_runs.har_score(predictions, dataset, tmp_path / "scores", "--row", "X3D_L")
    document = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert "published" not in document
    assert "row X3D_L is of microg50" in document["notes"][-1]


def test_undeclared_scores_are_of_the_datasets_own_actions(tmp_path: Path) -> None:
    dataset, _ = own_scored(tmp_path)
    lines = []
    for row in dataset.table("samples").to_pylist():
        box = ",".join(str(row[name]) for name in ("x1", "y1", "x2", "y2"))
        lines.append(f"{row['clip_id']},{row['frame']},{box},{row['action_id']},3.5")
    (tmp_path / "said.csv").write_text("\n".join(lines))
    scored_runs.har_score(tmp_path / "said.csv", dataset, tmp_path / "scores")
    assert values(tmp_path / "scores")["corrected/map"] == 1.0


def test_a_head_of_other_classes_than_the_datasets_is_refused(tmp_path: Path) -> None:
    dataset, _ = own_scored(tmp_path)
    with pytest.raises(DatasetError, match="leave label_space out"):
        check_and_plan(tiny_config(label_space="microg50"), dataset.root, str(tmp_path / "train"))
    with pytest.raises(ConfigError, match="no label space 'kinetics'"):
        check_and_plan(tiny_config(label_space="kinetics"), dataset.root, str(tmp_path / "train"))


def test_pictures_of_answers_name_own_actions(tmp_path: Path) -> None:
    dataset, predictions = own_scored(tmp_path)
    scored_runs.har_score(predictions, dataset, tmp_path / "scores")
    panels, notes = action_panels([read_run(str(tmp_path / "scores"))], dataset, 2, PictureStyle())
    assert notes == []
    names = {action.name for action in crew().actions}
    assert panels
    assert {name for panel in panels for person in panel.people for name in person.truth} <= names
    answered = [answer for panel in panels for person in panel.people for answer in person.models]
    assert {score.action for answer in answered for score in (*answer.predicted, *answer.missed)} <= names - {"tumble"}


def test_counterparts_are_shared_followed_through_changes_and_never_guessed() -> None:
    assert counterparts(crew(), MICROG_VOCABULARY) == {1: (12,), 2: (17,)}
    assert counterparts(crew(), vocabulary_of(JHMDB_21_SPACE)) == {}
    assert counterparts(MICROG_VOCABULARY, crew()) == {12: (1,), 17: (2,)}
    shared = crew().mapped(7, "ava80", 12, "t")
    assert counterparts(shared, vocabulary_of(AVA_80_SPACE)) == {1: (12,), 2: (17,), 7: (12,)}
    # a model of an earlier state
    assert counterparts(crew().merged([7], 2, "t"), crew()) == {1: (1,), 2: (2, 7)}
    split = crew().split(2, ["hold", "pull"], "t")
    assert counterparts(split, crew()) == {1: (1,), 7: (7,), 8: (2,), 9: (2,)}
    # a published set that was changed
    own = MICROG_VOCABULARY.merged([46], 45, "t").mapped(12, "microg50", None, "t")
    found = counterparts(own, MICROG_VOCABULARY)
    assert found[45] == (45, 46)
    assert 12 not in found
    # two datasets meet in a published set
    other = read_vocabulary({"name": "b", "actions": [{"id": 5, "name": "a", "counterparts": {"ava80": 12}}]}, "b")
    assert counterparts(crew(), other) == {1: (5,)}


def test_a_class_of_several_counterparts_takes_the_highest_score() -> None:
    mapping = class_map(crew().merged([7], 2, "t"), crew())
    assert mapping.scores(np.array([[0.1, 0.2, 0.3], [0.6, 0.5, -np.inf]])).tolist() == [[0.1, 0.3], [0.6, 0.5]]
