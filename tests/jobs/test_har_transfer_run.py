"""`microg har transfer`: Table 3 from weights of AVA's classes on a JHMDB folder and on our own layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microg import storage
from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data.crosswalk import jhmdb_crosswalk
from microg.data.dataset import Dataset
from microg.data.label_space import JHMDB_21_SPACE
from microg.models.har.backbones.registry import build
from microg.models.har.checkpoints import save_weights
from microg.reports.pages.report import paper_tables
from microg.reports.run_folders import find_runs
from tests.support.clips import make_clips
from tests.support.jhmdb import jhmdb_dataset, write_jhmdb
from tests.support.processes import microg
from tests.support.scored_runs import scored_dataset
from tests.support.vocabularies import with_crews_actions

ACTIONS = {"stand": 2, "walk": 2, "kick_ball": 1, "golf": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JHMDB's folder imported into `jhmdb`, four of our clips in `microg`, and weights of 80 and of 50 classes."""
    root = tmp_path_factory.mktemp("transfer")
    write_jhmdb(root / "JHMDB", ACTIONS)
    assert microg("data", "import", "jhmdb", root / "JHMDB", root / "jhmdb", "--key-frames", "middle") == 0
    make_clips(root / "microg", 4)  # who stand and carry
    torch.manual_seed(0)
    for classes, space in ((80, "ava80"), (50, "microg50")):
        network = build("TINY", num_classes=classes, roi_scale="true")
        torch.nn.init.normal_(network.detection_head.proj.weight, std=0.5)
        save_weights(network, str(root / f"{space}.pt"), label_space=space)
    return root


def words(folder: Path, *more: object, weights: str = "ava80.pt") -> list[object]:
    datasets = ["--jhmdb", folder / "jhmdb", "--microg", folder / "microg"]
    return ["har", "transfer", *datasets, "--weights", folder / weights, "--resamples", 30, *more]


def test_table_3_is_what_scoring_each_set_by_hand_gives(
    folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    more = ("--run", folder / "run", "--set", "predict.resources.max_actors=1", "--json")
    assert microg(*words(folder, *more)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label_space"] == "ava80"
    assert [row["action_id"] for row in found["matched"]] == [12]
    assert {row["jhmdb"] for row in found["crosswalk"]["left_out"]} >= {"golf", "pour"}

    # JHMDB by a loop over the boxes of its own predictions
    said = read_predictions(str(folder / "run" / "jhmdb"))
    labels = jhmdb_crosswalk().labels
    true = {
        row["clip_id"]: labels.get(row["action_id"])
        for row in read_truth(str(folder / "jhmdb"), JHMDB_21_SPACE).rows.to_pylist()
    }
    boxes, scores = said.distinct()
    for selection, ids in (("mapped", {12, 14, 35}), ("matched", {12})):
        precisions = []
        for action_id in ids:
            order = np.argsort(-scores[:, said.space.ids.index(action_id)])
            marks = np.array([true[clip] == action_id for clip in boxes["clip_id"].iloc[order]])
            precision = np.cumsum(marks) / np.arange(1, len(marks) + 1)
            precisions.append(np.mean(np.maximum.accumulate(precision[::-1])[::-1][marks]))
        scored = found["sets"]["jhmdb"]["scores"][selection]
        assert scored["protocols"]["corrected"]["map"]["value"] == pytest.approx(np.mean(precisions), abs=1e-12)
        assert scored["protocols"]["paper"]["map"]["value"] == pytest.approx(np.mean(precisions), abs=1e-12)

    # MicroG-4M by the commands that score one set
    same = ["har", "score", "--predictions", folder / "run" / "microg", "--groundtruth", folder / "microg"]
    for selection, onto in (("published", []), ("mapped", ["--onto", "microg50"])):
        one = [*same, *onto, "--run", folder / selection, "--resamples", 30, "--no-plots", "--json"]
        assert microg(*one) == 0
        alone = json.loads(capsys.readouterr().out)["protocols"]
        for protocol, cells in found["sets"]["microg"]["scores"][selection]["protocols"].items():
            for metric, cell in cells.items():
                assert cell["value"] == alone[protocol][metric]["macro"]
        limits = alone["corrected"]["intervals"]["map_macro"]["clip"]
        cell = found["sets"]["microg"]["scores"][selection]["protocols"]["corrected"]["map"]
        assert (cell["low"], cell["high"]) == (limits["low"], limits["high"])

    values = {name: part["scores"]["matched"]["protocols"]["paper"]["map"] for name, part in found["sets"].items()}
    drop = found["drop"]["matched"]["paper"]["map"]["value"]
    assert drop == pytest.approx(values["jhmdb"]["value"] - values["microg"]["value"])
    check_run(folder, found)
    check_report(folder, found)

    # the same command again does nothing on Ray, and gives the same
    assert microg(*words(folder, *more)) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["sets"] == found["sets"]
    assert microg(*words(folder, *more[:-1])) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "every class of the map (3 of 14)" in shown
    assert "jhmdb - microg" in shown
    assert "not in AVA: brush_hair, golf" in shown


def check_run(folder: Path, found: dict[str, Any]) -> None:
    manifest = storage.read_json(str(folder / "run" / "run.json"))
    assert manifest["command"] == "har transfer"
    assert manifest["config"]["crosswalk"] == "ava80-jhmdb21-v1"
    assert manifest["config"]["transfer"]["predict"]["weights_digest"] == found["weights_digest"]
    fingerprints = [Dataset.open(str(folder / name)).fingerprint() for name in ("jhmdb", "microg")]
    assert manifest["dataset"] == "-".join(fingerprints)
    classes = storage.read_parquet(str(folder / "run" / "tables" / "har_transfer.parquet")).to_pandas()
    mine = classes[(classes["data"] == "jhmdb") & (classes["selection"] == "mapped")]
    values = mine[mine["protocol"] == "corrected"].set_index("action")["ap"].dropna()
    assert set(values.index) == {"stand", "walk", "kick (an object)"}
    cell = found["sets"]["jhmdb"]["scores"]["mapped"]["protocols"]["corrected"]["map"]
    assert cell["value"] == pytest.approx(values.mean())


def check_report(folder: Path, found: dict[str, Any]) -> None:
    """Table 3 of a report of the run has its numbers; JHMDB has no row in the paper's tables, but one of its own."""
    datasets = [Dataset.open(str(folder / name)) for name in ("jhmdb", "microg")]
    tables = {table.number or table.name: table for table in paper_tables(find_runs([str(folder / "run")]), datasets)}
    cells = {(row.cells[3].text, row.protocol): row.cells[4] for row in tables[3].rows if row.origin == "ours"}
    for name, part in found["sets"].items():
        title = {"jhmdb": "JHMDB", "microg": "MicroG-4M"}[name]
        scores = part["scores"]["mapped"]
        shown = cells[f"{title}, every class of the map ({scores['with_truth']})", "corrected"]
        printed = scores["protocols"]["corrected"]["map"]
        assert (shown.value, shown.low, shown.high) == tuple(100 * printed[key] for key in ("value", "low", "high"))
    drop = cells["drop from JHMDB to MicroG-4M, the classes that both test sets have", "paper"]
    assert drop.value == 100 * found["drop"]["matched"]["paper"]["map"]["value"]
    assert {row.run for row in tables["dataset_overview"].rows if row.origin == "ours"} == {datasets[1].info["name"]}
    own = tables["own_actions_1"].rows
    assert len(own) == len(JHMDB_21_SPACE)
    assert {row.cells[1].text: row.cells[3].value for row in own if row.cells[3].value} == ACTIONS


def test_a_dry_run_says_what_would_be_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert microg(*words(folder, "--run", folder / "dry", "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["jhmdb"]["plan"]["key_frames_to_do"] == sum(ACTIONS.values())
    assert len(plan["crosswalk"]["pairs"]) == 15
    assert microg(*words(folder, "--run", folder / "dry", "--dry-run")) == 0
    assert "15 pairs, 6 left out" in capsys.readouterr().out
    assert not (folder / "dry").exists()


def test_models_and_datasets_of_other_classes_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert microg(*arguments) == 2
        return " ".join(capsys.readouterr().err.split())

    run = ("--run", tmp_path / "run", "--dry-run")
    assert "of 50 classes is not of label space ava80" in refused(*words(folder, *run, weights="microg50.pt"))
    both = ["har", "transfer", "--weights", folder / "ava80.pt", *run]
    swapped = [*both, "--jhmdb", folder / "microg", "--microg", folder / "jhmdb"]
    assert "microg data import jhmdb" in refused(*swapped)
    jhmdb_dataset(tmp_path / "small")
    assert "of jhmdb21, not microg50" in refused(*both, "--jhmdb", tmp_path / "small", "--microg", tmp_path / "small")
    own = with_crews_actions(scored_dataset(tmp_path / "crew"))
    assert microg(*both, "--jhmdb", folder / "jhmdb", "--microg", own.root) == 0  # some have counterparts in AVA
    bare = own.vocabulary.mapped(1, "ava80", None, "t").mapped(2, "ava80", None, "t")
    own.describe(vocabulary=bare.to_dict())
    said = refused(*both, "--jhmdb", folder / "jhmdb", "--microg", own.root)
    assert "of crew@" in said
    assert "microg data vocabulary map" in said
    # ids of JHMDB mean other actions: they are never scored as they stand
    lone = ["har", "score", "--predictions", tmp_path / "said.csv", "--groundtruth", tmp_path / "small"]
    (tmp_path / "said.csv").write_text("Film0_run_000,3,0.2,0.2,0.6,0.8,10,1.5\n")
    assert "say with --onto" in refused(*lone, "--scores", "logit", "--label-space", "ava80")
