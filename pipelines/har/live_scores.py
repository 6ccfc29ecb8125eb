"""Running scores during prediction: actors send the boxes that they scored, mAP and F1 follow while the work goes on.

See `microg.pipelines.core.live_scores`. There is one part; keys are key frames. Truth stays with the aggregator, which
counts that of the key frames that are done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg.actions.own_classes import ClassMap, class_map, scored_truth
from microg.actions.rows import PREDICTION_BOXES, conform_rows
from microg.actions.truth import read_truth
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.label_space import LabelSpace
from microg.data.vocabulary import Vocabulary
from microg.errors import MicrogError
from microg.metrics.har.protocols import PROTOCOLS
from microg.metrics.har.registry import METRICS, published_columns
from microg.metrics.har.scores import HarState
from microg.pipelines.core import live_scores
from microg.pipelines.core.live_scores import Scores, States
from microg.pipelines.har import prediction_store

PART = "key frames"
_BOXES = "boxes"
_SHOWN = ("map", "f1")


@dataclass(frozen=True)
class HarFold:
    """Scores boxes against the truth of their key frames.

    Attributes:
        space: Label space of the predictions.
        truth: Rows of `TRUTH_ROWS` of all key frames.
        keys: The key frame of each row, as `clip:frame`.
        mapping: How the predictions become scores of the truth's classes, where those are others.
    """

    space: LabelSpace
    truth: pa.Table
    keys: pa.Array
    mapping: ClassMap | None = None

    def __call__(self, part: str, keys: Sequence[str], tables: Mapping[str, pa.Table]) -> Scores:
        """Return macro averages by `protocol/metric`."""
        done = self.truth.filter(pc.is_in(self.keys, pa.array(keys, pa.string())))
        boxes, space = tables.get(_BOXES), self.space
        if self.mapping is not None:
            space = self.mapping.space
            boxes = None if boxes is None else self.mapping.boxes(boxes, len(self.space))
        result = {}
        for protocol in PROTOCOLS.values():
            state = HarState(space, protocol).update(predictions=boxes, truth=done)
            for name, averages in state.compute().items():
                result[f"{protocol.name}/{name}"] = averages["macro"]
        return result


def key_frame_states(
    rows: Sequence[Mapping[str, Any]], places: Mapping[str, int], space: LabelSpace
) -> dict[str, dict[str, pa.Table]]:
    """Return the states of key frames: the boxes that have scores, numbered as in the finished table.

    Args:
        rows: Rows of `har_predictions`; those of a key frame are all there.
        places: Number of each sample in the finished table; rows of others are left out.
        space: Label space of the scores.
    """
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["sample_id"] in places:
            by_key.setdefault(f"{row['clip_id']}:{row['frame']}", []).append(row)
    return {key: {_BOXES: _boxes(found, places, space)} for key, found in by_key.items()}


def _boxes(rows: Sequence[Mapping[str, Any]], places: Mapping[str, int], space: LabelSpace) -> pa.Table:
    good = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: places[row["sample_id"]])
    if not good:
        return PREDICTION_BOXES.empty_table()
    columns: dict[str, pa.Array] = {
        name: pa.array([row[name] for row in good]) for name in ("clip_id", "frame", "x1", "y1", "x2", "y2")
    }
    # the finished table has them in this type
    columns["scores"] = pa.array([np.asarray(row["scores"], np.float32) for row in good], pa.list_(pa.float32()))
    columns["row"] = pa.array([places[row["sample_id"]] * len(space) for row in good])
    return conform_rows(columns, PREDICTION_BOXES, "predictions")


@dataclass(frozen=True)
class HarSender:
    """A predictor's end. places: a reference to the places of samples, see `key_frame_states`."""

    aggregator: Any
    places: tuple[Any, ...]
    space: LabelSpace

    def send(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the states of the key frames of these rows, without waiting."""
        import ray

        now = time.time()
        for key, states in key_frame_states(rows, ray.get(self.places[0]), self.space).items():
            self.aggregator.put.remote(PART, key, states, now)


class LiveHarScores(live_scores.LiveScores):
    """The driver's end, of what earlier invocations predicted too; `open` returns None where nothing can be scored."""

    def __init__(self, root: str, key_frames: pa.Table, fold: HarFold) -> None:
        import ray

        self._root, self._fold = root, fold
        samples = prediction_store.sample_ids(key_frames)
        self._places = {sample: place for place, sample in enumerate(samples)}
        super().__init__(fold)
        self.sender = HarSender(self.aggregator, (ray.put(self._places),), fold.space)

    @classmethod
    def open(
        cls, root: str, dataset: str, key_frames: pa.Table, said: Vocabulary, *, split: str, scheme: str
    ) -> LiveHarScores | None:
        """Start on the connected Ray for the `key_frames` of a dataset whose labels the predictions can be held to.

        `said` are the actions that the model knows.
        """
        space, mapping = said.space, None
        try:
            own = Dataset.open(dataset).vocabulary
            if own.space.shares_ids(space):
                rows = read_truth(dataset, space, split=split, scheme=scheme).rows
            elif own.published and said.published:
                return None
            else:
                mapping = class_map(own, said)
                rows = scored_truth(read_truth(dataset, own.space, split=split, scheme=scheme), mapping.space).rows
        except MicrogError:
            return None
        if rows["action_id"].null_count == rows.num_rows:  # people whom nobody labelled yet
            return None
        parts = [rows["clip_id"].cast(pa.string()), rows["frame"].cast(pa.string()), ":"]
        keys = pc.binary_join_element_wise(*parts).combine_chunks()
        return cls(root, key_frames, HarFold(space, rows, keys, mapping))

    def committed(self) -> dict[str, dict[str, States]]:
        """Return the states of the key frames that have rows."""
        columns = ["sample_id", "clip_id", "frame", "person_id", "x1", "y1", "x2", "y2", "scores", "status"]
        rows = prediction_store.files(self._root).newest(columns).to_pylist()
        return {PART: dict(key_frame_states(rows, self._places, self._fold.space))}

    def by_protocol(self) -> dict[str, dict[str, float]]:
        """Return the macro averages of all that is committed, by protocol and metric of the paper's tables."""
        found = self.final().get(PART, {})
        return {protocol: {name: found[f"{protocol}/{name}"] for name in published_columns()} for protocol in PROTOCOLS}

    def describe(self, scores: Mapping[str, Scores], counts: Mapping[str, int]) -> str:
        """Return scores as one line."""
        return live_line(scores, counts)


def live_line(scores: Mapping[str, Scores], counts: Mapping[str, int]) -> str:
    """Return partial scores as one line, in percent under the paper's protocol.

    >>> live_line({"key frames": {"paper/map": 0.5, "paper/f1": 0.25}}, {"key frames": 1091})
    '1,091 key frames so far: mAP@0.5 50.00, F1 25.00'
    """
    found = scores.get(PART, {})
    values = [
        f"{METRICS[name].title} {100 * found[f'paper/{name}']:.2f}" for name in _SHOWN if f"paper/{name}" in found
    ]
    return f"{counts[PART]:,} key frames so far: {', '.join(values)}" if values else ""
