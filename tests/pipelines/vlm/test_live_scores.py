from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microg.pipelines.vlm import answer_store, live_scores
from microg.pipelines.vlm.aggregator import fold, live_line
from microg.pipelines.vlm.live_scores import LiveScores
from microg.pipelines.vlm.settings import GenerateSettings
from microg.texts.pairs import pair
from microg.texts.predictions import read_text_predictions
from microg.texts.references import read_text_references
from tests.support.helpers import make_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("live") / "data"
    make_dataset(folder)
    return str(folder)


def answers(data: str) -> list[dict[str, Any]]:
    """Return rows of `generations` that say something else than the references, and one that failed."""
    rows = []
    for key, texts in read_text_references(data).texts.items():
        row = {"key": f"{key.task}:{key.id}", **key._asdict(), "model": "m", "engine": "test"}
        rows.append({**row, "text": f"{texts[0]} indeed", "status": "ok", "error": ""})
    rows[0] |= {"text": None, "status": "error", "error": "no"}
    return rows


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_scores, "_EVERY_S", 0.0)
    monkeypatch.setattr(live_scores, "_SHARE", 1e9)


def whole(data: str, root: Path, rows: list[dict[str, Any]]) -> str:
    """Return the line of scoring everything at once."""
    answer_store.finish(str(root), [row["key"] for row in rows])
    said, truth = read_text_predictions(str(root)), read_text_references(data)
    folded = fold([pair(said, truth, task, missing="zero") for task in ("caption", "vqa")])
    return live_line(folded.scores(), folded.clips())


def test_scores_so_far_become_those_of_everything(data: str, ray_session: None, tmp_path: Path) -> None:
    rows = answers(data)
    found = LiveScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found):
        lines = []
        for start in range(0, len(rows), 5):
            part = rows[start : start + 5]  # a clip's answers come in several parts: none of them is forgotten
            answer_store.commit(str(tmp_path), part)
        for clip in dict.fromkeys(row["clip_id"] for row in rows):
            found.sender.send([row for row in rows if row["clip_id"] == clip])
            lines.append(found.line())
    assert len(set(lines)) > 1
    assert "clips so far" in lines[0]
    assert lines[-1] == whole(data, tmp_path, rows)


def test_what_was_answered_before_counts_and_an_actor_that_is_lost_is_filled_again(
    data: str, ray_session: None, tmp_path: Path
) -> None:
    import ray

    rows = answers(data)
    earlier = [row for row in rows if row["task"] == "caption" or row["qa_index"] == 0]
    answer_store.commit(str(tmp_path), earlier)
    found = LiveScores.open(str(tmp_path), GenerateSettings(dataset=data))
    assert found is not None
    with closing(found):
        later = [row for row in rows if row not in earlier]
        answer_store.commit(str(tmp_path), later)
        found.sender.send(later)
        wanted = whole(data, tmp_path, rows)
        assert found.line() == wanted
        ray.kill(found._aggregator, no_restart=False)
        end = time.monotonic() + 60
        while (line := found.line()) != wanted and time.monotonic() < end:
            time.sleep(0.2)
        assert line == wanted


def test_a_dataset_without_references_has_no_live_scores(ray_session: None, tmp_path: Path) -> None:
    def change(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows["captions"], rows["qa"] = [], []

    make_dataset(tmp_path / "data", change)
    assert LiveScores.open(str(tmp_path / "run"), GenerateSettings(dataset=str(tmp_path / "data"))) is None
