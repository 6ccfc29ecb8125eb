"""`microg har score --thresholds-from`: thresholds of classes chosen on val, applied to test, recorded and shown."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from microg import storage
from microg.jobs import cli
from microg.reports.plots.har import f1_against_threshold
from microg.reports.run_folders import find_runs
from microg.reports.run_kinds.har_score import KIND
from microg.reports.run_kinds.kind import ReportOptions, SectionInputs
from tests.support.command_line import refused
from tests.support.har_cases import random_rows, write_csv


def score(*words: object, run: str) -> dict[str, Any]:
    arguments = ["har", "score", *map(str, words), "--resamples", "30", "--no-plots", "--run", run, "--json"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The words that score each of two sets in the current folder."""
    monkeypatch.chdir(tmp_path)
    words = {}
    for name, seed in (("val", 1), ("test", 2)):
        predictions, truth = random_rows(seed)
        persons: dict[tuple, int] = {}
        people = [(*row, persons.setdefault(row[:6], len(persons) + 1)) for row in truth]
        paths = write_csv(tmp_path / f"{name}-said.csv", predictions), write_csv(tmp_path / f"{name}.csv", people)
        words[name] = ["--predictions", str(paths[0]), "--groundtruth", str(paths[1]), "--scores", "logit"]
    return words


def table(run: str, name: str, protocol: str = "corrected") -> pd.DataFrame:
    frame = storage.read_parquet(f"{run}/tables/{name}.parquet").to_pandas()
    return frame[frame["protocol"] == protocol].set_index("action_id")


def test_thresholds_of_val_are_applied_to_test_recorded_and_shown(files: dict[str, list[str]]) -> None:
    val = score(*files["val"], run="val")
    assert val["thresholds"]["chosen_by"] is None
    sweep = table("val", "har_f1_curves")
    best = table("val", "har_thresholds")
    known = best[best["support"] > 0]
    assert known["f1_best"].tolist() == pytest.approx(sweep.groupby("action_id")["f1"].max().loc[known.index].tolist())
    assert known["chosen"].isna().all()

    least = int(known["support"].sort_values().iloc[1])  # one class has too few labels
    test = score(*files["test"], "--thresholds-from", "val", "--least-labels", least, run="test")
    assert (test["thresholds"]["chosen_by"], test["thresholds"]["least_labels"]) == ("val", least)
    mine = table("test", "har_thresholds")
    assert mine["chosen"].tolist() == best["best"].where(best["support"] >= least, 0.0).tolist()
    assert test["thresholds"]["protocols"]["corrected"]["chosen"] == (best["support"] >= least).sum() == 5
    known = mine[mine["support"] > 0]
    for protocol, values in test["thresholds"]["protocols"].items():
        assert values["f1"] == pytest.approx(test["protocols"][protocol]["f1"]["macro"])
        assert values["f1_best"] >= max(values["f1"], values["f1_chosen"])
    values = test["thresholds"]["protocols"]["corrected"]
    assert values["f1_chosen"] == pytest.approx(known["f1_chosen"].mean())
    assert values["gain_low"] < values["f1_chosen"] - values["f1"] < values["gain_high"]
    config = storage.read_json("test/run.json")["config"]
    assert config["thresholds_digest"]
    assert "thresholds_from" not in config  # where it lies does not count
    (one,) = find_runs(["test"])
    inputs = SectionInputs(datasets=(), options=ReportOptions(), notes=[])
    made = next(part for part in KIND.sections if part.name == "thresholds").make([one], inputs)
    assert made is not None
    assert f"{100 * values['f1']:.2f} -&gt; {100 * values['f1_chosen']:.2f} %" in made.html
    plot = f1_against_threshold(mine.reset_index(), table("test", "har_f1_curves").reset_index())
    assert plot is not None
    assert "6 most frequent classes" in plot.description
    shown = CliRunner().invoke(cli.app, ["har", "score", *files["test"], "--thresholds-from", "val", "--no-plots"])
    text = " ".join(shown.output.split())
    assert "at one threshold" in text
    assert "at those of val" in text


def test_thresholds_that_do_not_fit_or_flatter_are_refused_or_noted(
    files: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score(*files["val"], run="val")
    again = score(*files["val"], "--thresholds-from", "val", run="again")
    assert any("on the very truth" in note for note in again["notes"])
    cases = {"jhmdb": ("--onto", "jhmdb21"), "gone": ()}
    for run, more in cases.items():
        words = [*files["test"], *more, "--thresholds-from", "val" if more else run, "--run", run]
        message = refused(monkeypatch, capsys, "har", "score", *words)
        assert "for label_space microg50, not jhmdb21" in message or "gone is no run of" in message
        assert not Path(run).exists()
    score(*files["test"], run="other")
    message = refused(
        monkeypatch,
        capsys,
        "har",
        "score",
        *files["test"],
        "--thresholds-from",
        "val",
        "--resamples",
        "30",
        "--run",
        "other",
    )
    assert "thresholds_digest" in message


def test_a_published_model_gains_on_test_by_thresholds_of_val(oracles: Path, tmp_path: Path) -> None:
    folder = oracles / "har_scores"
    runs = {"val": "det_val_40_I3D_NLN_8x8_R50", "test": "det_test_I3D_NLN_8x8_R50"}
    for name, file in runs.items():
        words = ["--predictions", folder / f"{file}.parquet", "--groundtruth", folder / f"gt_{name}.csv.gz"]
        more = ["--thresholds-from", tmp_path / "val"] if name == "test" else []
        found = score(*words, *more, "--scores", "logit", run=str(tmp_path / name))
    values = found["thresholds"]["protocols"]
    assert values["paper"]["f1"] == pytest.approx(0.2807, abs=5e-5)
    assert values["corrected"]["f1"] == pytest.approx(0.3616, abs=5e-5)
    for name, lone in (("paper", 0.2929), ("corrected", 0.3677)):
        assert values[name]["f1_chosen"] == pytest.approx(lone, abs=5e-5)
        assert values[name]["f1"] < lone < values[name]["f1_best"]
    # what is best for one or two labels of val is chance: without the least number of labels both averages fall
    lax = score(
        *words,
        "--thresholds-from",
        tmp_path / "val",
        "--least-labels",
        1,
        "--scores",
        "logit",
        run=str(tmp_path / "lax"),
    )
    found = lax["thresholds"]["protocols"]["corrected"]
    assert found["f1_chosen"] < found["f1"]
    assert found["f1_chosen_micro"] < 0.6 < found["f1_micro"]
