"""Exact scores of the val split from logits computed on any number of workers: rows are gathered, none is averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg.actions.rows import PREDICTION_BOXES, conform_rows
from microg.data.label_space import LabelSpace
from microg.errors import WorkerError
from microg.metrics.har.protocols import CORRECTED, PAPER
from microg.metrics.har.registry import METRICS
from microg.metrics.har.scores import HarState
from microg.pipelines.har.samples import SampleBatch

_BOX = ("x1", "y1", "x2", "y2")


@dataclass
class ValSums:
    """What one worker saw of the val split; small enough to send."""

    tables: list[pa.Table]
    keys: list[str]
    failed: list[str]
    loss_sum: float = 0.0


class Scorer:
    """Scores the val split against `truth` (`TRUTH_ROWS`); `first_box` tells the place of each key frame's first box.

    The place decides the order of prediction rows, so that scores do not depend on who computed them.
    """

    def __init__(self, rows: pa.Table, truth: pa.Table, space: LabelSpace) -> None:
        self._space, self._truth = space, truth
        counts = [len(people) for people in rows["person_id"].to_pylist()]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._keys = rows["key"].to_pylist()
        self._first_box = dict(zip(self._keys, starts[:-1].tolist(), strict=True))
        self.boxes = int(starts[-1])

    def rows(self, batch: SampleBatch, logits: np.ndarray) -> pa.Table:
        """Return logits (M, classes) of a batch as `PREDICTION_BOXES`."""
        owner = batch.boxes[:, 0].numpy().astype(np.int64)
        within = np.arange(len(owner)) - np.searchsorted(owner, owner)  # boxes of one key frame follow each other
        place = np.array([self._first_box[batch.keys[index]] for index in owner], np.int64) + within
        columns = {
            "row": pa.array(place * len(self._space)),
            "clip_id": pa.array([clip_id for clip_id, _, _ in batch.people], pa.string()),
            "frame": pa.array([frame for _, frame, _ in batch.people]),
            **{name: pa.array(side) for name, side in zip(_BOX, batch.normalised.T, strict=True)},
            "scores": pa.array(list(logits.astype(np.float64)), pa.list_(pa.float64())),
        }
        return conform_rows(columns, PREDICTION_BOXES, "validation")

    def scores(self, parts: list[ValSums]) -> dict[str, Any]:
        """Return the scores of all workers' rows together; values that are not defined are None.

        Raises `WorkerError` when a key frame is missing or there twice: every one counts exactly once.
        """
        seen = [key for part in parts for key in (*part.keys, *(failure.split(" ")[0] for failure in part.failed))]
        if sorted(seen) != sorted(self._keys):
            raise WorkerError(
                f"validation saw {len(seen)} key frames, {len(set(seen))} of them different, of {len(self._keys)}",
                "run the same command again to resume",
            )
        states = {protocol.name: HarState(self._space, protocol) for protocol in (PAPER, CORRECTED)}
        result: dict[str, Any] = {}
        boxes = 0
        for name, state in states.items():
            for part in parts:
                shard = HarState(self._space, state.protocol)
                for table in part.tables:
                    shard.update(predictions=table)
                state.merge(shard)
            values = state.update(truth=self._truth).compute()
            boxes = sum(table.num_rows for part in parts for table in part.tables)
            columns = {metric.name: metric.validation.get(name) for metric in METRICS.values()}
            result |= {column: values[metric]["macro"] for metric, column in columns.items() if column is not None}
        cells = boxes * len(self._space)
        loss = sum(part.loss_sum for part in parts) / cells if cells else float("nan")
        result |= {"val_boxes": boxes, "val_loss": loss}
        return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in result.items()}
