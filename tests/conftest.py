"""Shared fixtures: the oracle and video folders, and one local Ray for the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MICROG_OFFLINE", "1")  # weights that a test names are not fetched

_SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, _SHARED / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to the folder with the {name}")
    return folder


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder with expected numbers computed by the reference code."""
    return _folder("MICROG_ORACLES", "oracles")


@pytest.fixture(scope="session")
def videos() -> Path:
    """Folder with real test videos and small detector weights."""
    return _folder("MICROG_VIDEOS", "video")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder with small inputs that failed once, and what is right for each."""
    return _folder("MICROG_CASES", "cases")


@pytest.fixture(scope="session")
def facts() -> Path:
    """Folder with what is known of the paper, its printed tables among it."""
    return _folder("MICROG_FACTS", "facts")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests."""
    from microg.pipelines.core import session

    session.connect()
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an architecture (`microg.demo.tiny_models.ARCHITECTURES`) to the folder of its tiny random
    model.
    """
    from microg.demo.tiny_models import build

    return cache(lambda architecture: build(architecture, tmp_path_factory.mktemp(architecture) / "model"))
