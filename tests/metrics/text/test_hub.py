"""Encoders by name where there is no network: said at once, and what is in the cache is used without asking."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from microg.errors import WeightsError
from microg.metrics.text.hub import cache_first
from tests.support.hub_server import FakeHub, serve

# A client reads its settings when it is imported, so each case is a process of its own.
_LOAD = """
import sys, time
from microg.metrics.text.bertscore import BertScoreConfig, load_bertscore
from microg.errors import WeightsError
start = time.monotonic()
try:
    load_bertscore(BertScoreConfig(model=sys.argv[1], layer=1, device="cpu"))
    print("loaded")
except WeightsError as error:
    print(error.what)
print(time.monotonic() - start)
"""


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _load(model: str, endpoint: str, home: Path) -> tuple[str, float]:
    environment = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, model],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    what, seconds = done.stdout.splitlines()
    return what, float(seconds)


def _never(local_files_only: bool) -> None:
    assert local_files_only, "a download was tried"
    raise OSError("not there")


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(OSError, match=rf"not in the local cache, and the model hub {endpoint} cannot be reached"):
        cache_first(_never, "some/model", local_files_only=False)
    with pytest.raises(WeightsError, match=r"roberta-large is not on this machine .* run this command again there"):
        cache_first(_never, "roberta-large", local_files_only=False)


@pytest.mark.slow
def test_a_silent_hub_is_given_up_after_one_attempt(silent: str, tmp_path: Path) -> None:
    what, seconds = _load("roberta-large", silent, tmp_path)
    assert what.startswith("roberta-large is not on this machine and cannot be fetched from")
    assert "cannot be reached (ReadTimeout" in what
    assert seconds < 40  # five attempts of ten seconds each, and the sleeps between them, are over a minute


def test_an_unknown_model_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(FakeHub("some/model", "model", {})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        with pytest.raises(OSError, match=f"the model hub {hub.url} has no roberta-tiny"):
            cache_first(_never, "roberta-tiny", local_files_only=False)
        assert [request.path for request in hub.requests if "/models/" in request.path] == ["/api/models/roberta-tiny"]


def test_a_model_that_the_hub_has_is_downloaded_when_it_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(local_files_only: bool) -> str:
        asked.append(local_files_only)
        if local_files_only:
            raise OSError("not there")
        return "model"

    with serve(FakeHub("some/model", "model", {})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        assert cache_first(load, "some/model", local_files_only=False) == "model"
    assert asked == [True, False]


@pytest.mark.parametrize(("model", "local"), [("roberta-large", True), ("no/such/folder", False)])
def test_the_hub_is_not_asked_where_it_cannot_help(model: str, local: bool) -> None:
    with pytest.raises(OSError, match=r"^not there$"):
        cache_first(_never, model, local_files_only=local)
