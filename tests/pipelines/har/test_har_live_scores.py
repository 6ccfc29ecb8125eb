"""Running scores of predictions: folded states are the offline bits, replays count once, a lost actor loses nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from microg.actions.predictions import read_predictions
from microg.actions.truth import read_truth
from microg.data.dataset import Dataset
from microg.data.label_space import AVA_80_SPACE, MICROG_50
from microg.data.vocabulary import vocabulary_of
from microg.formats.key_frame_sources import read_key_frames
from microg.metrics.har.protocols import PROTOCOLS
from microg.metrics.har.scoring import score
from microg.pipelines.core import live_scores
from microg.pipelines.core.live_scores import Aggregator
from microg.pipelines.har import prediction_store
from microg.pipelines.har.live_scores import PART, LiveHarScores, key_frame_states, live_line
from tests.support import scored_runs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scored_runs.scored_dataset(tmp_path_factory.mktemp("live") / "data")


def _rows(dataset: Dataset) -> list[list[dict[str, Any]]]:
    """Return rows of predictions by key frame; the last key frame failed."""
    draw = np.random.default_rng(3)
    found = []
    for key_frame in read_key_frames(dataset.root, "test", "published").rows.to_pylist():
        people = len(key_frame["person_id"])
        scores = draw.normal(size=(people, len(MICROG_50))).astype(np.float32)
        found.append(
            prediction_store.rows_of(key_frame, scores, "", score_kind="logit", label_space="microg50", model="TINY")
        )
    for row in found[-1]:
        row.update(scores=None, status="error", error="no")
    return found


def _offline(dataset: Dataset, root: Path, rows: list[list[dict[str, Any]]]) -> dict[str, str]:
    """Score the finished table at once; values in hexadecimal, for their bits."""
    if not prediction_store.finished_keys(str(root)):
        prediction_store.commit(str(root), [row for part in rows for row in part])
    prediction_store.finish(str(root), read_key_frames(dataset.root, "test", "published").rows)
    report = score(read_predictions(str(root)), read_truth(dataset.root, MICROG_50), list(PROTOCOLS.values()))
    return {
        f"{name}/{metric}": averages["macro"].hex()
        for name, result in report.results.items()
        for metric, averages in result.overall.values.items()
    }


def _hex(scores: Any) -> dict[str, str]:
    return {name: value.hex() for name, value in scores.items()}


def _open(dataset: Dataset, root: Path, space: Any = MICROG_50) -> LiveHarScores | None:
    key_frames = read_key_frames(dataset.root, "test", "published").rows
    return LiveHarScores.open(
        str(root), dataset.root, key_frames, vocabulary_of(space), split="test", scheme="published"
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_scores, "_EVERY_S", 0.0)
    monkeypatch.setattr(live_scores, "_SHARE", 1e9)


def test_folded_states_give_the_bits_of_scoring_at_once_in_any_order_and_however_often(
    dataset: Dataset, ray_session: None, tmp_path: Path
) -> None:
    found = _open(dataset, tmp_path / "live")
    assert found is not None
    rows = _rows(dataset)
    places = {name: at for at, name in enumerate(row["sample_id"] for part in rows for row in part)}
    with closing(found):
        aggregator = Aggregator(found._fold)
    parts = [*rows, *rows]
    random.Random(1).shuffle(parts)
    for part in parts:
        for key, states in key_frame_states(part[::-1], places, MICROG_50).items():
            aggregator.put(PART, key, states)
    assert aggregator.counts() == {PART: len(rows)}
    assert _hex(aggregator.scores()[PART]) == _offline(dataset, tmp_path / "run", rows)


def test_scores_follow_the_work_and_survive_the_death_of_the_actor(
    dataset: Dataset, ray_session: None, tmp_path: Path
) -> None:
    import ray

    rows = _rows(dataset)
    prediction_store.commit(str(tmp_path), rows[0])  # of an earlier invocation
    found = _open(dataset, tmp_path)
    assert found is not None
    with closing(found):
        lines = [found.line()]
        pid: Any = ray.get(found.aggregator.__ray_call__.remote(lambda _: os.getpid()))
        for part in rows[1:-1]:
            prediction_store.commit(str(tmp_path), part)
            found.sender.send(part)
            lines.append(found.line())
        os.kill(pid, signal.SIGKILL)
        prediction_store.commit(str(tmp_path), rows[-1])
        found.sender.send(rows[-1])
        wanted, end = _offline(dataset, tmp_path, rows), time.monotonic() + 60
        while not (line := found.line()).startswith(f"{len(rows)} key frames") and time.monotonic() < end:
            time.sleep(0.2)
        scores = found.final()[PART]
    assert lines[0].startswith("1 key frames so far: mAP@0.5")
    assert len(set(lines)) == len(lines)
    assert line == live_line({PART: scores}, {PART: len(rows)})
    assert _hex(scores) == wanted


def test_predictions_that_the_labels_do_not_fit_have_no_live_scores(ray_session: None, tmp_path: Path) -> None:
    from microg.data.label_space import JHMDB_21_SPACE

    labelled = scored_runs.scored_dataset(tmp_path / "labelled")
    assert _open(labelled, tmp_path / "run", JHMDB_21_SPACE) is None
    zero_shot = _open(labelled, tmp_path / "run", AVA_80_SPACE)
    assert zero_shot is not None
    zero_shot.close()
    bare = [{**row, "action_id": None} for row in labelled.table("samples").to_pylist()]
    labelled.write("samples", pa.Table.from_pylist(bare, schema=labelled.table("samples").schema))
    assert _open(labelled, tmp_path / "run") is None
