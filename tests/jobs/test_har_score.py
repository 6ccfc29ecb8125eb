"""`microg har score` from the command line: what it prints and writes, comparison of runs, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from microg.jobs import cli
from microg.metrics.published import har_row, har_rows
from tests.support.command_line import refused
from tests.support.har_cases import LEFT, RIGHT, random_rows, write_csv
from tests.support.helpers import make_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Predictions and truth with every oddity, in the current folder; returns their paths."""
    predictions, truth = random_rows(8)
    persons: dict[tuple, int] = {}
    rows = [(*row, persons.setdefault(row[:6], len(persons) + 1)) for row in truth]
    monkeypatch.chdir(tmp_path)
    return str(write_csv(tmp_path / "said.csv", predictions)), str(write_csv(tmp_path / "true.csv", rows))


def _microg(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["har", "score", *arguments])


def _json(*arguments: str) -> dict[str, Any]:
    done = _microg(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    return refused(monkeypatch, capsys, "har", "score", *arguments).splitlines()[0]


def test_writes_a_run_folder_with_tables_plots_and_metrics(files: tuple[str, str]):
    found = _json("--predictions", files[0], "--groundtruth", files[1], "--run", "runs/one", "--resamples", "20")
    assert found["run"] == "runs/one"
    assert all(Path(path).is_file() for path in found["files"])
    names = {Path(path).name for path in found["files"]}
    assert {"har_scores.parquet", "har_classes.parquet", "har_curves.parquet", "har_bootstrap.parquet"} <= names
    assert {"har_ap.png", "har_precision_recall.svg", "har_support.png", "metrics.json"} <= names
    manifest = json.loads(Path("runs/one/run.json").read_text())
    assert (manifest["command"], manifest["protocol"]) == ("har score", "both")
    metrics = json.loads(Path("runs/one/metrics.json").read_text())
    assert metrics["protocols"] == found["protocols"]
    table = pq.read_table("runs/one/tables/har_scores.parquet").to_pylist()
    whole = next(
        row
        for row in table
        if (row["protocol"], row["slice"], row["metric"], row["average"]) == ("corrected", "all", "map", "macro")
    )
    assert whole["value"] == found["protocols"]["corrected"]["map"]["macro"]
    limits = found["protocols"]["corrected"]["intervals"]["map_macro"]["clip"]
    assert (whole["clip_low"], whole["clip_high"]) == (limits["low"], limits["high"])
    assert pq.read_table("runs/one/tables/har_bootstrap.parquet").num_rows == 2 * 6 * 20


def test_table_shows_both_protocols_slices_classes_and_named_warnings(files: tuple[str, str]):
    shown = _microg("--predictions", files[0], "--groundtruth", files[1], "--resamples", "0", "--no-plots").output
    for text in (
        "mAP@0.5",
        "AUROC",
        "weighted",
        "paper",
        "corrected",
        "several",
        "person movement",
        "5-50",
        "bend/bow",
        "warning: duplicate boxes:",
        "warning: missing key frames:",
        "warning: boxes without truth:",
        "warning: duplicate truth:",
        "wrote 7 files to runs/har_score/said-",
    ):
        assert text in shown


def test_one_protocol_is_one_protocol(files: tuple[str, str]):
    for name in ("paper", "corrected"):
        found = _json(
            "--predictions", files[0], "--groundtruth", files[1], "--protocol", name, "--resamples", "0", "--no-plots"
        )
        assert list(found["protocols"]) == [name]


def test_same_settings_resume_and_others_are_refused(files: tuple[str, str], monkeypatch, capsys):
    both = ("--predictions", files[0], "--groundtruth", files[1], "--run", "r", "--no-plots")
    _json(*both, "--resamples", "5")
    _json(*both, "--resamples", "5")
    assert len(json.loads(Path("r/run.json").read_text())["resumes"]) == 1
    error = _refused(monkeypatch, capsys, *both, "--resamples", "6")
    assert "score.resamples" in error.replace("config.", "")


def test_the_run_is_of_contents_and_not_of_file_names_or_forms(files: tuple[str, str]):
    settings = ("--run", "r", "--no-plots", "--resamples", "0")
    _json("--predictions", files[0], "--groundtruth", files[1], *settings)
    moved = Path("moved.csv")
    text = Path(files[0]).read_text()
    moved.write_text("video_id,frame,x1,y1,x2,y2,action_id,score\n" + text)
    _json("--predictions", str(moved), "--groundtruth", files[1], *settings)
    assert len(json.loads(Path("r/run.json").read_text())["resumes"]) == 1


def _other(files: tuple[str, str], name: str, shift: float) -> str:
    """Write predictions of another model; returns their path."""
    rows = [line.split(",") for line in Path(files[0]).read_text().splitlines()]
    changed = [(*row[:7], float(row[7]) + shift * (number % 3)) for number, row in enumerate(rows)]
    return str(write_csv(Path(name), changed))


def test_compare_pairs_the_resamples_and_shows_other_runs(files: tuple[str, str]):
    common = ("--groundtruth", files[1], "--resamples", "50", "--no-plots")
    _json("--predictions", _other(files, "b.csv", 1.0), "--run", "b", *common)
    _json("--predictions", _other(files, "c.csv", -2.0), "--run", "c", *common)
    found = _json("--predictions", files[0], "--run", "a", "--compare", "b", "c", *common)
    rows = {(row["run"], row["protocol"], row["metric"]): row for row in found["comparisons"]}
    assert {key[0] for key in rows} == {"b", "c"}
    row = rows["b", "corrected", "map"]
    assert row["difference"] == pytest.approx(row["here"] - row["there"])
    theirs = json.loads(Path("b/metrics.json").read_text())
    assert row["there"] == theirs["protocols"]["corrected"]["map"]["macro"]
    for unit in ("clip", "source"):
        assert 0 <= row[unit]["p_worse"] <= 1
        assert row[unit]["low"] <= row[unit]["high"]
    # turned round, the same pairs say the opposite
    turned = _json("--predictions", "b.csv", "--run", "b", "--compare", "a", *common)
    back = next(r for r in turned["comparisons"] if (r["protocol"], r["metric"]) == ("corrected", "map"))
    assert back["clip"]["p_worse"] == pytest.approx(1 - row["clip"]["p_worse"])
    assert "clip" not in rows["b", "paper", "map"]
    assert (
        "this run against others" in _microg("--predictions", files[0], "--run", "a", "--compare", "b", *common).output
    )


def test_runs_that_cannot_be_compared_are_refused_before_anything_is_written(
    files: tuple[str, str], monkeypatch, capsys
):
    common = ("--groundtruth", files[1], "--no-plots")
    _json("--predictions", files[0], "--run", "b", "--resamples", "5", *common)
    lines = Path(files[1]).read_text().splitlines()
    Path("less.csv").write_text("\n".join(lines[:-3]) + "\n")
    here = ("--predictions", files[0], "--run", "new", "--compare", "b")
    assert "with resamples 5, not 6" in _refused(monkeypatch, capsys, *here, *common, "--resamples", "6")
    error = _refused(monkeypatch, capsys, *here, "--groundtruth", "less.csv", "--resamples", "5")
    assert "b was scored on other truth" in error
    nothing = ("--predictions", files[0], "--compare", "nowhere", *common)
    assert "no finished run of 'microg har score'" in _refused(monkeypatch, capsys, *nothing)
    assert "unexpected argument 'b'" in _refused(monkeypatch, capsys, "--predictions", files[0], *common, "b")
    assert not Path("new").exists()


def test_recipe_names_the_published_row_and_the_command_line_wins(files: tuple[str, str]):
    Path("recipe.yaml").write_text("row: X3D_L\nscore: {resamples: 3, protocol: paper}\ntrain: {epochs: 40}\n")
    common = ("--predictions", files[0], "--groundtruth", files[1], "--config", "recipe.yaml", "--no-plots")
    found = _json(*common)
    assert found["published"]["row"] == "X3D_L"
    assert {row["metric"]: row["published"] for row in found["published"]["metrics"]} == har_row("X3D_L").scores
    assert list(found["protocols"]) == ["paper"]
    found = _json(*common, "--protocol", "both", "--set", "seed=4", "--row", "X3D_S")
    assert list(found["protocols"]) == ["paper", "corrected"]
    assert found["published"]["row"] == "X3D_S"
    assert "published row X3D_L" in _microg(*common).output


def test_every_recipe_of_a_published_row_can_be_scored_with():
    from microg.jobs.commands.har_score.settings import load_har_score_config

    recipes = sorted((ROOT / "recipes" / "har").glob("*.yaml"))
    settings = [load_har_score_config(str(path), (), {}) for path in recipes]
    rows = {setting.row for setting in settings} - {None}
    assert rows == set(har_rows())
    for setting in settings:
        if setting.row is not None:
            # without one predictions are of what their rows say, or MicroG-4M's
            assert (setting.label_space or "microg50") == har_row(setting.row).label_space


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("score: {sead: 1}", "did you mean 'seed'"),
        ("score: [1]", "no mapping 'score'"),
        ("[", "not valid YAML"),
        ("score: {protocol: best}", "protocol"),
        ("row: NOPE", "no published row 'NOPE'"),
    ],
)
def test_bad_recipe_is_refused(files: tuple[str, str], monkeypatch, capsys, recipe: str, message: str):
    Path("recipe.yaml").write_text(recipe)
    common = ("--predictions", files[0], "--groundtruth", files[1], "--config", "recipe.yaml")
    assert message in _refused(monkeypatch, capsys, *common)


_GOOD = [("a_001", 5, *LEFT, 1, -1.0), ("a_001", 5, *LEFT, 3, 2.0)]
BAD_INPUT = {
    "wrong column count": ([_GOOD[0], ("a_001", 5, 0.1)], "said.csv, line 2: 3 columns instead of 8"),
    "unknown action id": ([_GOOD[0], ("a_001", 5, *LEFT, 2, 1.0)], "said.csv, line 2: unknown action id 2"),
    "nan": ([_GOOD[0], ("a_001", 5, *LEFT, 3, "nan")], "said.csv, line 2: score is nan"),
    "infinite": ([_GOOD[0], ("a_001", 5, *LEFT, 3, "inf")], "said.csv, line 2: score is inf"),
    "box": ([_GOOD[0], ("a_001", 5, 0.4, 0.1, 0.1, 0.9, 3, 1.0)], "said.csv, line 2: box with x2 0.1 <= x1 0.4"),
    "no overlap": ([("b_001", 5, *LEFT, 1, -1.0)], "no overlap: of 1 predicted clips none is in the truth"),
    "not declared": ([("a_001", 5, *LEFT, 1, 0.5)], "does not say what its scores are"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_predictions_get_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys, case: str):
    rows, message = BAD_INPUT[case]
    (tmp_path / "said.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    write_csv(tmp_path / "true.csv", [("a_001", 5, *LEFT, 1)])
    monkeypatch.chdir(tmp_path)
    assert message in _refused(monkeypatch, capsys, "--predictions", "said.csv", "--groundtruth", "true.csv")
    assert not Path("runs").exists()


def test_duplicate_ids_get_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("said.csv"), _GOOD)
    write_csv(Path("true.csv"), [("a_001", 5, *LEFT, 1), ("a_001", 5, *RIGHT, 1)])
    error = _refused(monkeypatch, capsys, "--predictions", "said.csv", "--groundtruth", "true.csv")
    assert "true.csv, line 2: person id 1 is there twice in this key frame" in error


def test_missing_key_frames_are_misses_said_aloud_and_no_failure(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("said.csv"), _GOOD)
    truth = [("a_001", 5, *LEFT, 1), ("b_001", 7, *LEFT, 1), ("b_001", 9, *LEFT, 1)]
    write_csv(Path("true.csv"), truth)
    common = ("--predictions", "said.csv", "--groundtruth", "true.csv", "--resamples", "0", "--no-plots")
    found = _json(*common)
    missing = next(finding for finding in found["findings"] if finding["code"] == "missing-key-frames")
    assert missing["count"] == 2
    for protocol in found["protocols"].values():
        assert protocol["map"]["macro"] == pytest.approx(1 / 3)
    assert "missing key frames: 2 of 3 have no prediction" in " ".join(_microg(*common).output.split())


def test_truth_may_be_a_dataset_with_a_split(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data", videos=False)
    rows = [("walkC_000", 6, 0.2, 0.3, 0.5, 0.7, action, 1.0 - number) for number, action in enumerate((12, 17, 1))]
    write_csv(Path("said.csv"), rows)
    found = _json(
        "--predictions", "said.csv", "--groundtruth", "data", "--scheme", "source", "--no-plots", "--resamples", "0"
    )
    assert found["counts"]["labels"] == 2
    assert found["protocols"]["paper"]["map"]["macro"] == 1.0
    assert "origin/real" in found["protocols"]["corrected"]["slices"]


def test_dry_run_reads_and_writes_nothing(files: tuple[str, str]):
    plan = _json("--predictions", files[0], "--groundtruth", files[1], "--dry-run")
    assert plan["prediction_rows"] > 0
    assert plan["scores"] == "logit"
    assert not Path("runs").exists()


def test_runs_as_a_script_on_the_published_files(oracles: Path, tmp_path: Path):
    folder = oracles / "har_scores"
    command = [
        sys.executable,
        str(ROOT / "jobs" / "har_score.py"),
        "--predictions",
        str(folder / "det_test_X3D_L.parquet"),
        "--groundtruth",
        str(folder / "gt_test.csv.gz"),
        "--config",
        str(ROOT / "recipes" / "har" / "x3d_l.yaml"),
        "--resamples",
        "0",
        "--no-plots",
        "--json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [finding["code"] for finding in found["findings"]] == ["roi-scale", "duplicate-boxes", "duplicate-truth"]
    assert all(row["inside"] for row in found["published"]["metrics"])
    expected = json.loads((folder / "expected.json").read_text())["models"]["X3D_L"]
    assert found["protocols"]["corrected"]["map"]["macro"] == pytest.approx(expected["corrected"]["map41"], abs=1e-8)
    assert found["counts"]["clips"] == 953
