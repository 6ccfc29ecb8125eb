"""The connection to Ray: what it prints must not mix with what a command prints."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from microg.config import Resources
from microg.errors import ConfigError, MicrogError, WorkerError
from microg.pipelines.core.session import DECODE_CPUS, connect


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


def test_decoding_runs_beside_an_actor_that_asks_for_one_cpu(ray_session: None) -> None:
    import ray

    class Model:
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"decoded_by": batch["by"], "asked": [os.getpid()] * len(batch["by"])}

    def decode(batch: Any) -> dict[str, Any]:
        return {"by": [os.getpid()] * len(batch["id"])}

    actors = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.range(4).map_batches(decode, num_cpus=DECODE_CPUS).map_batches(Model, num_cpus=1, compute=actors)
    rows = dataset.take_all()
    assert len(rows) == 4
    assert all(row["decoded_by"] != row["asked"] for row in rows)
