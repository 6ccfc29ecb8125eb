from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from microg.pipelines.core import telemetry
from microg.pipelines.core.telemetry import Telemetry, throughput_line, write_timeline


class Clock:
    """Stands for time.monotonic; moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(telemetry.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(telemetry, "usable_cores", lambda: 4.0)
    return Clock(monkeypatch)


def test_the_closing_block_tells_start_rate_and_what_limits_it(clock: Clock) -> None:
    with Telemetry("predict", 5, unit="clips", stages=("decode", "model")) as found:
        clock.now += 10
        found.row({"decode": 1.0, "model": 4.0, "other": 9.0})
        clock.now += 20
        found.row({"decode": 1.0, "model": None}, rows=4, failed=1)
        clock.now += 10
    clock.now += 50  # what comes after is not the job's
    block = found.throughput("cpu")
    assert (block["unit"], block["rows"], block["failed"], block["wall_s"]) == ("clips", 5, 1, 40.0)
    assert block["startup_s"] == 10.0
    assert block["rows_per_s"] == pytest.approx(5 / 40)
    assert block["steady_rows_per_s"] == pytest.approx(4 / 30)
    assert block["stages"] == {"decode": pytest.approx(2 / 5), "model": pytest.approx(4 / 5)}
    assert block["workers_busy"] == pytest.approx(6 / 40)
    assert block["utilisation"] == pytest.approx(6 / 40 / 4)
    assert block["bottleneck"] == "model"


def test_a_short_job_is_limited_by_its_start(clock: Clock) -> None:
    with Telemetry("predict", 1, unit="clips", stages=("model",)) as found:
        clock.now += 10
        found.row({"model": 2.0})
        clock.now += 1
    block = found.throughput()
    assert block["bottleneck"] == "start"
    assert block["steady_rows_per_s"] is None


def test_a_job_without_rows_has_a_closing_block_too(clock: Clock) -> None:
    with Telemetry("predict", 0, unit="clips", stages=("model",)) as found:
        clock.now += 3
    block = found.throughput()
    assert (block["rows"], block["bottleneck"], block["startup_s"]) == (0, None, 3.0)
    assert throughput_line(block).startswith("0 clips in 3 s")


def test_on_a_gpu_seconds_of_workers_are_no_share_of_the_cores(clock: Clock) -> None:
    with Telemetry("predict", 1, unit="clips", stages=("model",)) as found:
        clock.now += 1
        found.row({"model": 1.0})
    assert found.throughput("cuda")["utilisation"] is None


def test_the_closing_line_names_everything_that_was_measured(clock: Clock) -> None:
    with Telemetry("curate", None, unit="clips", stages=("trim", "detect")) as found:
        clock.now += 5
        found.row({"trim": 0.05, "detect": 3.0})
        clock.now += 35
        found.row({"trim": 0.05, "detect": 3.0})
    assert throughput_line(found.throughput("cpu")) == (
        "2 clips in 40 s on cpu (the first after 5 s, then 0.03 clips/s); a clip: trim 50 ms, detect 3.00 s; "
        "0.2 workers busy (4% of the cores); bottleneck: detect"
    )


def exported(name: str, **tags: str) -> float | None:
    """Return the sum of a counter over the processes of this machine's Ray, as Prometheus would read it."""
    import ray

    values = []
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in tags.items()]
        values += [
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(name) and all(tag in line for tag in wanted)
        ]
    return sum(values) if values else None


def test_ray_exports_rows_and_seconds_of_a_job_to_prometheus(ray_session: None) -> None:
    job = f"telemetry-{time.time_ns()}"
    with Telemetry(job, 3, unit="clips", stages=("model",)) as found:
        found.row({"model": 1.5})
        found.row({"model": 0.5}, rows=2, failed=1)
        found.row({}, rows=-1)  # a restarted worker goes back: a counter cannot
    wanted: dict[tuple[str, str, str], float] = {
        ("ray_microg_rows", "status", "ok"): 2.0,
        ("ray_microg_rows", "status", "error"): 1.0,
        ("ray_microg_stage_seconds", "stage", "model"): 2.0,
    }
    deadline = time.monotonic() + 60
    while True:
        read = {key: exported(key[0], job=job, **{key[1]: key[2]}) for key in wanted}
        if read == wanted or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert read == wanted


def test_a_timeline_holds_what_the_workers_ran(ray_session: None, tmp_path: Path) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def looked_at_in_the_timeline() -> int:
        return 1

    assert ray.get(looked_at_in_the_timeline.remote()) == 1
    path = write_timeline(str(tmp_path))
    assert path == str(tmp_path / telemetry.TIMELINE)
    events: list[dict[str, Any]] = json.loads((tmp_path / telemetry.TIMELINE).read_text())
    assert any("looked_at_in_the_timeline" in event["name"] for event in events)
    assert all({"ph", "name", "pid"} <= event.keys() for event in events)
