"""The connection to Ray: what it prints must not mix with what a command prints."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg.config import Resources
from microg.errors import ConfigError, MicrogError, WorkerError, WriteError
from microg.pipelines.core import ray_errors, session
from microg.pipelines.core.session import connect
from tests.support.environment import without_ray
from tests.support.processes import ROOT
from tests.support.ray_head import bare_head, free_ports
from tests.support.sources import modules


def test_messages_of_the_cluster_leave_standard_output_to_the_command(
    ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray._private import worker
    from ray._private.utils import publish_error_to_driver

    capsys.readouterr()
    connected: Any = worker.global_worker
    text = "a message of the cluster"
    publish_error_to_driver("test", text, gcs_client=connected.gcs_client)
    out = err = ""
    deadline = time.monotonic() + 20
    while text not in out + err and time.monotonic() < deadline:
        time.sleep(0.1)
        captured = capsys.readouterr()
        out, err = out + captured.out, err + captured.err
    assert text in err
    assert text not in out


@pytest.mark.parametrize(("address", "kind"), [(None, WorkerError), ("127.0.0.1:1", ConfigError)])
def test_a_ray_that_does_not_answer_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, address: str | None, kind: type[MicrogError]
) -> None:
    import ray

    def failing(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")  # what Ray raises

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", failing)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(kind, match="timed out during startup"):
        connect(Resources(address=address))


_CONNECT = """
from microg.config import Resources
from microg.pipelines.core import session
import ray
session.connect(Resources())
print(ray.get_runtime_context().gcs_address, ray.get(ray.remote(lambda: "works").remote()))
"""


def connected(folder: str, **variables: str) -> tuple[str, str]:
    """Connect as a command does, with `folder` for Ray's temporary files; return the address and standard error."""
    command = [sys.executable, "-c", _CONNECT]
    done = subprocess.run(
        command, cwd=ROOT, env=without_ray(RAY_TMPDIR=folder, **variables), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    address, works = done.stdout.split()
    assert works == "works"
    return address, done.stderr


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A folder for Ray's temporary files whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        yield folder


def test_a_command_starts_its_own_ray_beside_one_that_runs_and_joins_it_only_by_its_address(ray_folder: str) -> None:
    with bare_head(ray_folder) as known:
        address, error = connected(ray_folder)
        assert address != known
        assert error == f"a Ray runs here at {known}; this command starts its own (--address {known} joins it)\n"
        assert connected(ray_folder, RAY_ADDRESS=known, RAY_AUTH_MODE="disabled") == (known, "")


def test_a_command_starts_its_own_ray_where_a_dead_one_left_its_address(ray_folder: str) -> None:
    left = f"127.0.0.1:{free_ports(1)[0]}"
    (Path(ray_folder) / "ray").mkdir()
    (Path(ray_folder) / "ray" / "ray_current_cluster").write_text(left)
    address, error = connected(ray_folder)
    assert address != left
    assert error == f"the Ray that ran here at {left} has ended; this command starts its own\n"


def test_a_local_ray_without_room_for_its_files_is_refused_and_does_not_hang(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    session.require_room()
    monkeypatch.setattr(ray_errors, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(WriteError, match=f"Ray has no room for its own files: {tmp_path} has 1 MB free"):
        session.require_room()


def test_commands_connect_before_they_import_ray() -> None:
    late, callers = [], 0
    for name, file in modules(demo=True):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef) or name == "microg.pipelines.core.session":
                continue
            inner = list(ast.walk(node))
            calls = [each.lineno for each in inner if isinstance(each, ast.Call) and _connects(each)]
            callers += bool(calls)
            imports = [each.lineno for each in inner if isinstance(each, ast.Import | ast.ImportFrom) and _of_ray(each)]
            late += [f"{name}:{line}" for line in imports if calls and line < min(calls)]
    assert callers >= 6
    assert late == [], "Ray would not ask for a token: see microg.pipelines.core.session._make_token"


def _connects(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("connect", "session.connect")


def _of_ray(found: ast.Import | ast.ImportFrom) -> bool:
    names = [found.module or ""] if isinstance(found, ast.ImportFrom) else [each.name for each in found.names]
    return any(name.partition(".")[0] == "ray" for name in names)


_STRANGER = """
import subprocess, sys
from microg.pipelines.core import session
session.connect()
import ray
from tests.support.environment import without_ray
assert ray.get(ray.remote(lambda: 1).remote()) == 1
code = "import ray, sys; ray.init(address=sys.argv[1]); print('joined', ray.get(ray.remote(lambda: 1).remote()))"
command = [sys.executable, "-c", code, ray.get_runtime_context().gcs_address]
for mode in ("disabled", "token"):
    environment = without_ray(RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN="of somebody else")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(done.returncode != 0 and "joined" not in done.stdout and "AuthenticationError" in done.stderr)
"""


@pytest.mark.slow
def test_nobody_without_its_token_runs_anything_on_a_local_ray(ray_folder: str) -> None:
    command = [sys.executable, "-c", _STRANGER]
    environment = without_ray(RAY_TMPDIR=ray_folder)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


_BEGUN = """
import signal, sys
from microg.pipelines.core import session
session.begin()
{then}
"""
_USED = """
session.connect()
import ray
from ray._private.utils import read_ray_address
print(ray.get(ray.remote(lambda: 6 * 7).remote()), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


@pytest.mark.parametrize(
    ("then", "code", "said"),
    [
        (_USED, 0, "42 False"),  # tasks run, and SIGTERM ends the command in order
        ("sys.exit(2)", 2, ""),  # what the command checks meanwhile is wrong
    ],
)
def test_a_ray_that_comes_up_beside_the_driver_works_and_ends_with_it(
    tmp_path: Path, then: str, code: int, said: str
) -> None:
    import psutil

    folder = tempfile.mkdtemp(dir="/tmp")  # sockets have short names
    process = subprocess.run(
        [sys.executable, "-c", _BEGUN.format(then=then)],
        cwd=ROOT,
        env=without_ray(RAY_TMPDIR=folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (process.returncode, process.stdout.strip()) == (code, said), process.stderr
    assert process.stderr == ""
    deadline = time.monotonic() + 20
    while left := [each for each in psutil.process_iter(["cmdline"]) if folder in " ".join(each.info["cmdline"] or [])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)
