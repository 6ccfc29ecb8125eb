"""What every job shows and measures while its rows come in: progress, Ray's counters, and where the time went."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from microg import storage
from microg.console import ProgressDisplay
from microg.system.hardware import usable_cores

TIMELINE = "timeline.json"
# Ray's workers report what they ran once a second.
_REPORTED_AFTER_S = 2.0


class Telemetry:
    """Progress of one job; use as a context manager, and call `row`.

    stages: what a row takes time for, in order. unit: what a row is called ("clips"). While it is connected, Ray
    exports the counters `microg_rows` (tags job, status) and `microg_stage_seconds` (tags job, stage) to Prometheus.
    """

    def __init__(self, job: str, total: int | None, *, unit: str, stages: Sequence[str]) -> None:
        self.display = ProgressDisplay(job, total, unit=unit)
        self.seconds = dict.fromkeys(stages, 0.0)
        self._job = job
        self._first: float | None = None
        self._first_rows = 0
        self._ended: float | None = None
        self._counters: tuple[Any, Any] | None = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.display.__enter__()
        return self

    def row(self, seconds: Mapping[str, float | None], rows: int = 1, failed: int = 0, note: str | None = None) -> None:
        """Count `rows` that ended together, `failed` of them with an error, and the seconds each stage took for them.

        Seconds of other names than the stages are left out.
        """
        if self._first is None and rows > 0:
            self._first, self._first_rows = time.monotonic(), rows
        taken = {stage: seconds.get(stage) or 0.0 for stage in self.seconds}
        for stage, value in taken.items():
            self.seconds[stage] += value
        self._export(taken, {"ok": rows - failed, "error": failed})
        self.display.advance(rows, failed, note)

    def _export(self, seconds: Mapping[str, float], rows: Mapping[str, int]) -> None:
        import ray

        if self._counters is None:
            if not ray.is_initialized():
                return
            from ray.util.metrics import Counter

            self._counters = (
                Counter("microg_rows", "Rows that jobs finished.", ("job", "status")),
                Counter("microg_stage_seconds", "Seconds that workers spent on rows.", ("job", "stage")),
            )
        for counter, tag, values in zip(self._counters, ("status", "stage"), (rows, seconds), strict=True):
            for name, value in values.items():
                if value > 0:  # a training worker that was restarted goes back some steps
                    counter.inc(value, {"job": self._job, tag: name})

    def __exit__(self, *ended: object) -> None:
        self._ended = time.monotonic()
        self.display.__exit__(*ended)

    def throughput(self, device: str | None = None) -> dict[str, Any]:
        """Return the closing block: what was done, how fast, and what limited it.

        `startup_s` is the time to the first row, in which Ray and the models start; `steady_rows_per_s` is the rate
        after it, None with too few rows. `stages` are seconds a row; `workers_busy` is their sum over the wall time,
        `utilisation` that as a share of the cores (None on a GPU or a cluster, where seconds of workers are no seconds
        of these cores). `bottleneck` is the stage with the most seconds, `start` where starting took longer than all
        that followed, None where no stage was measured.
        """
        ended = time.monotonic() if self._ended is None else self._ended
        wall, rows = max(ended - self._started, 1e-9), self.display.done
        startup = wall if self._first is None else self._first - self._started
        after, total = rows - self._first_rows, sum(self.seconds.values())
        slowest = max(self.seconds, key=lambda stage: self.seconds[stage]) if total else None
        here = device in (None, "cpu") and _on_this_machine()
        return {
            "unit": self.display.unit,
            "rows": rows,
            "failed": self.display.failed,
            "wall_s": wall,
            "rows_per_s": rows / wall,
            "startup_s": startup,
            "steady_rows_per_s": after / (wall - startup) if after > 0 and wall > startup else None,
            "stages": {stage: value / max(rows, 1) for stage, value in self.seconds.items()},
            "workers_busy": total / wall,
            "utilisation": total / wall / usable_cores() if here else None,
            "device": device,
            "bottleneck": "start" if slowest and startup > wall / 2 else slowest,
        }


class BusyClock:
    """Seconds in which a worker is busy, counted once where several of its threads are; use as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads, self._since, self._seconds = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        with self._lock:
            self._count()
            self._threads += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count()
            self._threads -= 1

    def take(self) -> float:
        """Return the seconds since this was called last."""
        with self._lock:
            self._count()
            seconds, self._seconds = self._seconds, 0.0
            return seconds

    def _count(self) -> None:
        now = time.monotonic()
        if self._threads:
            self._seconds += now - self._since
        self._since = now


def _on_this_machine() -> bool:
    import ray

    return not ray.is_initialized() or len(ray.nodes()) == 1


def throughput_line(found: Mapping[str, Any]) -> str:
    """Return a closing block as one line for people."""
    unit = found["unit"]
    one = unit.removesuffix("s")
    line = f"{found['rows']:,} {unit} in {found['wall_s']:.0f} s"
    line += f" on {found['device']}" if found["device"] else ""
    line += f" (the first after {found['startup_s']:.0f} s"
    steady = found["steady_rows_per_s"]
    line += f", then {steady:.2f} {unit}/s)" if steady else ")"
    if found["bottleneck"]:
        stages = ", ".join(f"{stage} {_duration(value)}" for stage, value in found["stages"].items())
        line += f"; a {one}: {stages}; {found['workers_busy']:.1f} workers busy"
        if found["utilisation"] is not None:
            line += f" ({found['utilisation']:.0%} of the cores)"
        line += f"; bottleneck: {found['bottleneck']}"
    return line


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def write_timeline(folder: str) -> str | None:
    """Write what Ray's workers did when into `folder`, in the trace format of Perfetto and Chrome; returns the path.

    None when nothing ran on Ray.
    """
    import ray

    if not ray.is_initialized():
        return None
    time.sleep(_REPORTED_AFTER_S)
    events: Any = ray.timeline()
    if not events:
        return None
    path = storage.join(folder, TIMELINE)
    storage.write_bytes(path, json.dumps(events).encode())
    return path
