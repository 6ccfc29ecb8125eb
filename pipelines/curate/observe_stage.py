"""Last stage of a curation: an actor that holds the detector, observes clips one by one, and commits each."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from microg.arrow import parse_schema
from microg.errors import describe
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import Detector, DetectorSettings
from microg.pipelines.core.attempts import Attempts
from microg.pipelines.core.shared_files import SharedFile
from microg.pipelines.core.stage import ABORT, Stage
from microg.pipelines.curate import observations

# What the driver learns of an observed clip; `rows` is 0 for footage that gave none.
REPORT = pa.schema([*parse_schema("key: string, rows: int32, status error: string"), *observations.CLOCKS])


class Observer:
    """Observes with a detector, or with the stored detections of folder `detections`.

    `weights` come with the job, so that a node needs no copy of its own. When they cannot be used, the first call says
    so: Ray would try a constructor that raises again and again.
    """

    def __init__(
        self,
        root: str,
        attempts: Attempts,
        *,
        tracker: TrackerSettings,
        detector: DetectorSettings,
        weights: SharedFile | None = None,
        detections: str | None = None,
        threads: int = 1,
    ) -> None:
        _limit_threads(threads)
        self._root, self._attempts = root, attempts
        self._tracker, self._settings, self._stored = tracker, detector, detections
        self._detector: Detector | None = None
        self._broken: Exception | None = None
        if detections is None and weights is not None:
            from microg.models.detection.load import load_detector

            try:
                local = detector.replaced(weights=str(weights.path()))
                self._detector = load_detector(local, threads=threads)
            except Exception as error:
                self._broken = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Observe and commit a batch; returns one small row a clip, for the progress display.

        What keeps every clip from being done (a detector that cannot be loaded, a folder that cannot be written) is
        reported as a row of status `ABORT`, on which the driver ends the run: Ray would drop the error's type.
        """
        reports = []
        for row in batch.to_pylist():
            try:
                if self._broken is not None:
                    raise self._broken
                row = self._observe_or_error(row) if row["status"] == "observe" else row
                row["written"] = time.time_ns()
                observations.commit(self._root, [row])
                reports.append({**row, "rows": int(row.get("clip_id") is not None)})
            except Exception as error:
                reports.append({"key": row["key"], "status": ABORT, "error": describe(error)})
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _observe_or_error(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._attempts.crashed_before(row["key"]):
            return row | {"status": "error", "error": "WorkerCrashed: observing this clip kills its worker"}
        try:
            row = row | self._observe(row) | {"status": "ok"}
        except Exception as error:
            row = row | {"status": "error", "error": describe(error)}
        self._attempts.mark_finished(row["key"])
        return row

    def _observe(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the columns that observing a clip adds to its row."""
        from microg.models.curation.observe import observe
        from microg.models.detection.replay import read_detections

        stored = None
        if self._stored is not None:
            stored = read_detections(self._stored, row["clip_id"], row["num_frames"])
        seen = observe(
            row["uri"],
            self._detector,
            num_frames=row["num_frames"],
            stored=stored,
            tracker=self._tracker,
            batch_size=self._settings.batch_size,
            frame_step=self._settings.frame_step,
        )
        return observations.to_row(seen)


def _limit_threads(threads: int) -> None:
    """Keep the numeric libraries of this process to `threads` threads: one actor a core, not each on all cores."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


# One clip a call, committed before the next: what is lost with an actor is one clip.
OBSERVE = Stage(name="observe", work=Observer, reads=observations.WORK, writes=REPORT, holds_model=True, rows=1)
