"""Scoring across label spaces: which classes meet, what becomes of the others, and the published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from microg import storage
from microg.actions.rows import Predictions, Truth
from microg.actions.transfer import transfer
from microg.data.label_space import AVA_80_SPACE, JHMDB_21_SPACE, MICROG_50, LabelSpace
from microg.data.taxonomy import JHMDB_21, TO_JHMDB_21
from microg.errors import ConfigError
from tests.support.har_cases import LEFT, RIGHT, prediction_boxes, truth_rows
from tests.support.helpers import make_dataset
from tests.support.processes import microg

OVERLAP = (7, 10, 11, 12, 14, 20, 36, 46, 58, 67, 69)


def predictions(rows: list[tuple], space: LabelSpace = MICROG_50) -> Predictions:
    return Predictions(prediction_boxes(rows, space), "logit", space)


def pairs(rows: Any) -> list[tuple[int, float | None]]:
    return [(row["action_id"], row.get("score")) for row in rows.to_pylist()]


def test_our_scores_meet_the_eleven_classes_of_jhmdb() -> None:
    said = predictions([("a_000", 5, *LEFT, action_id, float(action_id)) for action_id in MICROG_50.ids])
    truth = Truth(truth_rows([("a_000", 5, *LEFT, 12), ("a_000", 5, *LEFT, 17), ("a_000", 5, *RIGHT, 17)]))
    mapped, labels, covered = transfer(said, truth, MICROG_50, JHMDB_21_SPACE)
    assert mapped.space.ids == OVERLAP
    assert mapped.space.names[46] == "push"
    assert mapped.space.group(46) == "OBJECT_MANIPULATION"
    assert pairs(mapped.rows) == [(action_id, float(action_id)) for action_id in OVERLAP]
    assert labels.rows["action_id"].to_pylist() == [12, None, None]  # both boxes stay: as negatives of what is scored
    assert (covered.classes, len(covered.scored), covered.with_truth) == (21, 11, 1)
    assert (covered.labels, covered.labels_left_out) == (1, 2)
    assert set(covered.unscored) == set(JHMDB_21) - set(TO_JHMDB_21.values())


def test_jhmdb_scores_and_labels_are_numbered_by_name() -> None:
    sit, catch = JHMDB_21.index("sit") + 1, JHMDB_21.index("catch") + 1
    said = predictions([("a_000", 5, *LEFT, number, 1.0) for number in range(1, 22)], JHMDB_21_SPACE)
    truth = Truth(truth_rows([("a_000", 5, *LEFT, sit), ("a_000", 5, *LEFT, catch)]))
    mapped, labels, covered = transfer(said, truth, JHMDB_21_SPACE, MICROG_50)
    assert sorted(action_id for action_id, _ in pairs(mapped.rows)) == list(OVERLAP)
    assert labels.rows["action_id"].to_pylist() == [11, None]
    assert (covered.classes, len(covered.scored), len(covered.unscored)) == (50, 11, 39)


def test_an_ava_model_is_not_asked_to_operate_a_spaceship() -> None:
    said = predictions([("a_000", 5, *LEFT, action_id, 1.0) for action_id in AVA_80_SPACE.ids], AVA_80_SPACE)
    truth = Truth(truth_rows([("a_000", 5, *LEFT, 28), ("a_000", 5, *LEFT, 61)]))
    mapped, labels, covered = transfer(said, truth, MICROG_50, MICROG_50)
    assert len(mapped.space) == 49
    assert 28 not in mapped.space.ids
    assert covered.unscored == ("operate spaceship",)
    assert labels.rows["action_id"].to_pylist() == [None, 61]
    # and the other way round: what AVA calls 28 is "drive", which we have not
    reverse = transfer(
        predictions([("a_000", 5, *LEFT, 28, 1.0), ("a_000", 5, *LEFT, 12, 1.0)]),
        Truth(truth_rows([("a_000", 5, *LEFT, 28), ("a_000", 5, *LEFT, 2), ("a_000", 5, *LEFT, 12)])),
        AVA_80_SPACE,
        AVA_80_SPACE,
    )
    assert pairs(reverse[0].rows) == [(12, 1.0)]
    assert (reverse[2].labels, reverse[2].labels_left_out, len(reverse[2].scored)) == (1, 2, 49)
    assert "drive (e.g., a car, a truck)" in reverse[2].unscored


def test_people_without_labels_stay_without() -> None:
    rows = truth_rows([("a_000", 5, *LEFT, 12), ("a_000", 5, *RIGHT, None)])
    _, labels, covered = transfer(predictions([("a_000", 5, *LEFT, 12, 1.0)]), Truth(rows), MICROG_50, MICROG_50)
    assert labels.rows["action_id"].to_pylist() == [12, None]
    assert covered.labels_left_out == 0


def test_spaces_without_a_common_class_are_refused() -> None:
    nothing = LabelSpace("other", (1,), {1: "fly"}, {}, {})
    with pytest.raises(ConfigError, match="no class in common"):
        transfer(predictions([("a_000", 5, *LEFT, 12, 1.0)]), Truth(truth_rows([])), MICROG_50, nothing)


def score(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert microg("har", "score", *words, "--resamples", 0, "--no-plots", "--json") == 0
    return json.loads(capsys.readouterr().out)


def classes(document: dict[str, Any], protocol: str = "paper") -> dict[int, dict[str, Any]]:
    table = storage.read_parquet(Path(document["run"]) / "tables" / "har_classes.parquet")
    return {row["action_id"]: row for row in table.to_pylist() if row["protocol"] == protocol}


def test_a_dataset_is_scored_in_its_own_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "set", videos=False)
    lines = [
        f"{clip},6,0.2,0.3,0.5,0.7,{action_id},{0.01 * action_id}"
        for clip in ("filmA_000", "filmA_001")
        for action_id in AVA_80_SPACE.ids
    ]
    Path("said.csv").write_text("\n".join(lines) + "\n")
    words = ["--predictions", "said.csv", "--label-space", "ava80", "--scores", "logit", "--split", "train"]
    words += ["--scheme", "source", "--groundtruth", "set"]
    found = score(capsys, *words, "--onto", "jhmdb21", "--run", "one")
    assert found["label_space"] == "jhmdb21"
    assert found["transfer"]["truth"] == "microg50"
    assert {row["action_id"] for row in found["transfer"]["scored"]} == set(OVERLAP)
    assert (found["transfer"]["with_truth"], found["transfer"]["labels"]) == (1, 3)
    assert found["protocols"]["paper"]["map"]["macro"] == classes(found)[12]["ap"]
    words_with_row = [*words, "--onto", "jhmdb21", "--row", "ZEROSHOT_SLOW_8x8_R50_K400/test"]
    assert microg("har", "score", *words_with_row, "--no-plots", "--resamples", 0) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "published row ZEROSHOT" in shown  # it has the average precision of "stand"
    words_with_row[-1] = "C2D_NLN_8x8_R50"
    assert microg("har", "score", *words_with_row, "--no-plots", "--resamples", 0) == 0
    assert "tells nothing for just the classes scored here" in " ".join(capsys.readouterr().out.split())
    assert "11 of the 21 classes of jhmdb21 are scored, 1 of them with truth" in shown
    assert "3 labels are scored; 3 have no class there" in shown
    assert "not scored: brush_hair, catch, golf" in shown
    assert microg("har", "score", *words, "--onto", "jhmdb21", "--dry-run") == 0
    assert "transfer" in capsys.readouterr().out
    assert microg("har", "score", *words, "--truth-space", "microg50") == 2
    assert "--onto" in capsys.readouterr().err
    assert microg("har", "score", *words, "--onto", "kinetics") == 2
    assert "onto" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(oracles: Path) -> tuple[Path, Path, dict[int, dict[str, float]]]:
    """Predictions of the best published model, truth, and the expected scores by class."""
    scores = pd.read_csv(oracles / "har_scores/ap_per_class_test.csv.gz")
    mine = scores[(scores["model"] == "I3D_NLN_8x8_R50") & scores["ap_stable"].notna()].set_index("action_id")
    return (
        oracles / "har_scores/det_test_I3D_NLN_8x8_R50.parquet",
        oracles / "har_scores/gt_test.csv.gz",
        {int(action_id): dict(row) for action_id, row in mine.iterrows()},  # type: ignore[arg-type]
    )


def test_the_published_model_keeps_its_scores_on_the_jhmdb_classes(
    model: tuple[Path, Path, dict[int, dict[str, float]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, truth, expected = model
    words = ["--predictions", said, "--groundtruth", truth, "--scores", "logit"]
    found = score(capsys, *words, "--onto", "jhmdb21", "--row", "I3D_NLN_8x8_R50", "--run", tmp_path / "run")
    with_truth = [action_id for action_id in OVERLAP if action_id in expected]
    assert with_truth == [7, 10, 11, 12, 14, 36, 46, 69]
    for protocol, column in (("paper", "ap_stable"), ("corrected", "ap_corrected")):
        rows = classes(found, protocol)
        assert set(rows) == set(OVERLAP)
        for action_id in with_truth:
            assert rows[action_id]["ap"] == pytest.approx(expected[action_id][column], abs=1e-7)
        macro = np.mean([expected[action_id][column] for action_id in with_truth])
        assert found["protocols"][protocol]["map"]["macro"] == pytest.approx(macro, abs=1e-7)
    (beside,) = found["published"]["metrics"]
    assert beside["metric"] == "map"
    assert beside["published"] == pytest.approx(
        np.mean([expected[action_id]["ap_published"] for action_id in with_truth]), abs=1e-6
    )
    assert beside["inside"]
    assert found["transfer"]["with_truth"] == 8


def test_scores_of_eighty_classes_meet_the_forty_nine_that_mean_the_same(
    model: tuple[Path, Path, dict[int, dict[str, float]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, truth, expected = model
    ours = pd.read_parquet(said)
    boxes = ours.drop_duplicates([name for name in ours.columns if name not in ("action_id", "score")])
    more = boxes.assign(score=0.5).merge(
        pd.DataFrame({"action_id": [a for a in AVA_80_SPACE.ids if a not in MICROG_50.ids]}),
        how="cross",
        suffixes=("_ours", ""),
    )
    pd.concat([ours, more[ours.columns]]).to_parquet(tmp_path / "ava.parquet")
    words = ["--predictions", tmp_path / "ava.parquet", "--groundtruth", truth, "--scores", "logit"]
    found = score(
        capsys,
        *words,
        "--label-space",
        "ava80",
        "--truth-space",
        "microg50",
        "--onto",
        "ava80",
        "--run",
        tmp_path / "run",
    )
    rows = classes(found)
    assert len(rows) == 49
    for action_id, row in expected.items():
        if action_id != 28:
            assert rows[action_id]["ap"] == pytest.approx(row["ap_stable"], abs=1e-7)
    covered = found["transfer"]
    assert (covered["classes"], covered["with_truth"], len(covered["unscored"])) == (80, 40, 31)
    assert covered["labels"] + covered["labels_left_out"] == 2656
