"""`microg vlm generate --batch`: what is asked goes to the provider in batches, once, whoever dies while they wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.models.vlm.api.openai_batch import OpenAiBatch
from tests.support.helpers import make_dataset
from tests.support.openai_server import BatchServer, OpenAiServer, prompt_of
from tests.support.prices import write_prices
from tests.support.processes import microg

ROWS = 4 * 7
KEY = "sk-test-0123456789"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batched") / "data"
    make_dataset(folder)
    return folder


def said(body: dict[str, Any]) -> str:
    return f"said {prompt_of(body).rpartition('Question: ')[2][-30:]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with BatchServer(answer=said) as running:
        yield running


def words(data: Path, run: Path, server: OpenAiServer, *more: object) -> list[object]:
    return [
        "vlm",
        "generate",
        "--model",
        "m",
        "--url",
        server.url,
        "--dataset",
        data,
        "--run",
        run,
        "--batch",
        "--frames",
        "uniform:2",
        "--set",
        "api.poll_s=0.05",
        *more,
    ]


def table_of(run: Path) -> list[dict[str, Any]]:
    return storage.read_parquet(str(run / "tables" / "generations.parquet")).to_pylist()


def asked(server: BatchServer) -> list[str]:
    """Return the prompt of every line of every file that was sent."""
    lines = [line for batch in server.batches.values() for line in server.files[batch["input_file_id"]].splitlines()]
    return [prompt_of(json.loads(line)["body"]) for line in lines]


def test_a_batch_gives_the_rows_that_single_requests_give(
    data: Path, server: BatchServer, ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microg(*words(data, tmp_path / "run", server, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["failed"], report["asked_now"]["rows"]) == (0, ROWS)
    assert len(server.requests) == 0  # nothing was asked outside the batch
    single = [word for word in words(data, tmp_path / "single", server) if word != "--batch"]
    assert microg(*single) == 0
    left_out = ("latency_s", "attempts", "cached", "written")
    rows, others = table_of(tmp_path / "run"), table_of(tmp_path / "single")
    assert len(rows) == ROWS
    assert [{key: row[key] for key in row if key not in left_out} for row in rows] == [
        {key: row[key] for key in row if key not in left_out} for row in others
    ]
    before = len(server.batches)
    assert microg(*words(data, tmp_path / "run", server)) == 0
    assert len(server.batches) == before


def test_interrupted_while_it_waits_a_run_goes_on_with_the_same_batches(
    data: Path, server: BatchServer, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenAiBatch, "collect", interrupted)
        assert microg(*words(data, tmp_path / "run", server, "--task", "vqa")) == 130
    sent = asked(server)
    assert len(sent) == ROWS - 4
    assert not (tmp_path / "run" / "tables").exists()
    assert microg(*words(data, tmp_path / "run", server)) == 0  # and asks the captions, which nobody did
    assert len(asked(server)) == ROWS
    assert sorted(asked(server)[: len(sent)]) == sorted(sent)
    assert {row["status"] for row in table_of(tmp_path / "run")} == {"ok"}


def test_a_batch_above_the_cap_is_not_sent(
    data: Path, server: BatchServer, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MICROG_PRICES", str(write_prices(tmp_path)))
    assert microg(*words(data, tmp_path / "run", server, "--max-cost", 1)) == 2
    assert "may cost up to" in capsys.readouterr().err
    assert not server.batches


def test_a_model_without_a_batch_mode_says_so(
    data: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    where = ["--dataset", data, "--run", tmp_path / "run", "--batch"]
    assert microg("vlm", "generate", "--model", "gemini-3.8-flash", *where) == 2
    assert "has no batch mode here" in capsys.readouterr().err
