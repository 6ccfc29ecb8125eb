"""Last stage of a curation: an actor holds the detector, observes one clip or several at once, and commits each."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from microg.arrow import parse_schema
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import Detector, DetectorSettings
from microg.models.video.decoders.registry import open_decoder
from microg.pipelines.core.attempts import MAX_ATTEMPTS, Attempts, Failure, Turns, run_batch_then_singles
from microg.pipelines.core.shared_files import SharedFile
from microg.pipelines.core.stage import UNWRITABLE, Stage, abort
from microg.pipelines.curate import observations

if TYPE_CHECKING:
    from microg.models.curation.clip_process import ClipProcess
    from microg.models.curation.observe import Observation

# What the driver learns of an observed clip; `rows` is 0 for footage that gave none.
REPORT = pa.schema([*parse_schema("key: string, rows: int32, status error fix: string"), *observations.CLOCKS])
# So many clips' requests are a batch, at most; with fewer than twice as many clips batches would not be full.
_JOINED = 4
_CRASHED = "WorkerCrashed: observing this clip kills its worker"


class Observer:
    """Observes with a detector, or with the stored detections of folder `detections`.

    With `clips_at_once` above 1 as many threads may call it: each clip is decoded, measured and tracked by a process of
    its own, and the network here sees frames of all of them together.

    `weights`, and `calibration` (their INT8 form), come with the job, so that a node needs no copy of its own. When
    they cannot be used, the first call says so: Ray would try a constructor that raises again and again.
    """

    def __init__(
        self,
        root: str,
        attempts: Attempts,
        *,
        tracker: TrackerSettings,
        detector: DetectorSettings,
        weights: SharedFile | None = None,
        calibration: SharedFile | None = None,
        detections: str | None = None,
        threads: int = 1,
        clips_at_once: int = 1,
        decoder: str = "auto",
    ) -> None:
        from microg.models.curation.clip_process import limit_threads

        limit_threads(threads)
        self._root, self._attempts = root, attempts
        self._turns = Turns() if clips_at_once > 1 else None
        self._tracker, self._settings, self._stored = tracker, detector, detections
        self._decoder = decoder
        self._detector: Detector | None = None
        self._processes: SimpleQueue[ClipProcess] | None = None
        self._broken: Exception | None = None
        try:
            open_decoder(decoder)
            if detections is None and weights is not None:
                if calibration is not None:
                    self._settings = detector.replaced(calibration=str(calibration.path()))
                self._load(weights, threads, clips_at_once)
        except Exception as error:
            self._broken = error

    def _load(self, weights: SharedFile, threads: int, clips_at_once: int) -> None:
        from microg.models.curation.clip_process import ClipProcess
        from microg.models.detection.load import detector_on, make_engine
        from microg.models.detection.shared_engine import SharedEngine

        settings, path = self._settings, weights.path()
        engine = make_engine(settings, path, threads=threads)
        if clips_at_once == 1:
            self._detector = detector_on(engine, settings)
            return
        # Other backends see one frame at a time anyway.
        size = settings.batch_size * min(clips_at_once // 2, _JOINED) if settings.backend == "torch" else 1
        self._engine = SharedEngine(engine, size)
        processes = [ClipProcess(self._tracker, settings, self._decoder) for _ in range(clips_at_once)]
        processes[0].start()  # what keeps it from starting is told now
        self._processes = SimpleQueue()
        for process in processes:
            self._processes.put(process)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Observe and commit a batch; returns one small row a clip, for the progress display.

        What keeps every clip from being done (a detector that cannot be loaded, a folder that cannot be written) is
        reported as a row (`abort`) on which the driver ends the run: Ray would drop the error's type.
        """
        reports = []
        for row in batch.to_pylist():
            try:
                if row["status"] == UNWRITABLE:  # met where clips are cut
                    reports.append(row)
                    continue
                if self._broken is not None:
                    raise self._broken
                row = self._observe_or_error(row) if row["status"] == "observe" else row
                row["written"] = time.time_ns()
                observations.commit(self._root, [row])
                reports.append({**row, "rows": int(row.get("clip_id") is not None)})
            except Exception as error:
                reports.append({"key": row["key"], **abort(error)})
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _observe_or_error(self, row: dict[str, Any]) -> dict[str, Any]:
        observe = self._observe if self._processes is None else self._observe_in_process
        [seen] = run_batch_then_singles(
            lambda rows: [observe(each) for each in rows],
            [row],
            name=lambda each: each["key"],
            crashed=_CRASHED,
            attempts=self._attempts,
            turns=self._turns,
        )
        if isinstance(seen, Failure):
            return row | {"status": "error", "error": seen.error}
        return row | observations.to_row(seen) | {"status": "ok"}

    def _observe(self, row: dict[str, Any]) -> Observation:
        from microg.models.curation.observe import observe
        from microg.models.detection.replay import read_detections

        stored = None
        if self._stored is not None:
            stored = read_detections(self._stored, row["clip_id"], row["num_frames"])
        return observe(
            row["uri"],
            self._detector,
            num_frames=row["num_frames"],
            stored=stored,
            tracker=self._tracker,
            batch_size=self._settings.batch_size,
            frame_step=self._settings.frame_step,
            decoder=self._decoder,
        )

    def _observe_in_process(self, row: dict[str, Any]) -> Observation | Failure:
        """Observe in the next process that is free."""
        from microg.models.curation.clip_process import ClipProcessDiedError

        assert self._processes is not None
        process = self._processes.get()
        try:
            for _ in range(MAX_ATTEMPTS):
                with suppress(ClipProcessDiedError):
                    seen = process.observe(row["uri"], row["num_frames"], self._engine)
                    return Failure(seen) if isinstance(seen, str) else seen
            return Failure(_CRASHED)
        finally:
            self._processes.put(process)


# One clip a call, committed before the next: what is lost with an actor is one clip.
OBSERVE = Stage(name="observe", work=Observer, reads=observations.WORK, writes=REPORT, holds_model=True, rows=1)
