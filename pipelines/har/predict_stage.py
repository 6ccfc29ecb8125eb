"""Stages of prediction: tasks that decode key frames, and actors that score them and commit their rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from microg.data.key_frames import KEY_FRAMES
from microg.data.label_space import label_space
from microg.errors import describe
from microg.pipelines.core.attempts import Attempts, Failure, run_batch_then_singles
from microg.pipelines.core.stage import ABORT, Stage
from microg.pipelines.har import prediction_store
from microg.pipelines.har.sample_tables import SCHEMA, Sample, from_table, to_table
from microg.pipelines.har.samples import View, by_size, collate, decode_rows

Precision = Literal["float32", "bfloat16", "float16"]

# What the driver learns of a scored key frame.
REPORT = pa.schema(
    [
        ("key", pa.string()),
        ("people", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("decode_s", pa.float32()),
        ("model_s", pa.float32()),
    ]
)
_CRASHED = "WorkerCrashed: predicting this sample kills its worker"


@dataclass(frozen=True, kw_only=True)
class PredictorSpec:
    """Which model, and how it runs; `state` is a list of one reference to its tensors by name in Ray's store."""

    name: str
    num_classes: int
    roi_scale: str
    label_space: str
    state: list[Any]
    device: str
    precision: Precision
    batch_size: int
    threads: int


class Predictor:
    """Scores blocks of decoded samples. When the model cannot be made, the first call says so as a row `ABORT`.

    Ray would try a constructor that raises again and again, and drop the type of an error that a call raises.
    """

    def __init__(self, root: str, spec: PredictorSpec, view: View, attempts: Attempts) -> None:
        self._root, self._spec, self._view, self._attempts = root, spec, view, attempts
        self._space = label_space(spec.label_space)
        self._network: Any = None
        self._broken: Exception | None = None
        try:
            self._network = self._load()
        except Exception as error:
            self._broken = error

    def _load(self) -> Any:
        import ray
        import torch

        from microg.models.har.backbones.registry import build

        spec = self._spec
        if spec.threads:
            torch.set_num_threads(spec.threads)
        # the published numbers are those of full float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        network = build(spec.name, num_classes=spec.num_classes, roi_scale=spec.roi_scale)  # type: ignore[arg-type]
        stored: Any = ray.get(spec.state[0])
        # copied, because arrays in Ray's store are read-only, of which torch would warn
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in stored.items()})
        return network.to(spec.device).eval()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Score and commit a block of `microg.pipelines.har.sample_tables.SCHEMA`; returns one small row a key
        frame.
        """
        samples = from_table(block)
        try:
            if self._broken is not None:
                raise self._broken
            reports = self._score(samples)
        except Exception as error:
            reports = [{"key": sample.key, "status": ABORT, "error": describe(error)} for sample in samples]
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _score(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        scores: dict[str, np.ndarray | Failure] = {
            sample.key: Failure(sample.error) for sample in samples if sample.error
        }
        seconds: dict[str, float] = {}
        for batch in by_size([sample for sample in samples if not sample.error], self._spec.batch_size):
            started = time.monotonic()
            found = run_batch_then_singles(
                self._forward, batch, name=lambda sample: sample.key, crashed=_CRASHED, attempts=self._attempts
            )
            scores |= zip([sample.key for sample in batch], found, strict=True)
            seconds |= dict.fromkeys((s.key for s in batch), (time.monotonic() - started) / len(batch))
        errors = {key: found.error if isinstance(found, Failure) else "" for key, found in scores.items()}
        common = {"score_kind": "logit", "label_space": self._spec.label_space, "model": self._spec.name}
        rows = []
        for sample in samples:
            key_frame = {
                "clip_id": sample.clip_id,
                "frame": sample.frame,
                "person_id": sample.person_id,
                "boxes": sample.normalised,
            }
            found = scores[sample.key]
            logits = None if isinstance(found, Failure) else found
            rows += prediction_store.rows_of(key_frame, logits, errors[sample.key], **common)
        prediction_store.commit(self._root, rows)
        return [
            {
                "key": sample.key,
                "people": len(sample.person_id),
                "status": "error" if errors[sample.key] else "ok",
                "error": errors[sample.key],
                "decode_s": sample.seconds,
                "model_s": seconds.get(sample.key, 0.0),
            }
            for sample in samples
        ]

    def _forward(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Return logits (people, classes) float32 of each sample."""
        import torch

        from microg.models.har.normalise import normalise

        batch = collate(samples, self._view, self._space)
        kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self._spec.precision)
        device = self._spec.device
        with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype=kind, enabled=kind is not None):
            logits = self._network(normalise(batch.clips.to(device)), batch.boxes.to(device))
        scores = logits.float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError("the model's logits are not finite numbers")
        edges = np.cumsum([len(sample.person_id) for sample in samples])[:-1]
        return np.split(scores, edges)


def decode_key_frames(block: pa.Table, *, view: View, attempts: Attempts) -> pa.Table:
    """Decode a block of `microg.data.key_frames.KEY_FRAMES` to samples."""
    return to_table(decode_rows(block.to_pylist(), view, attempts=attempts))


DECODE = Stage(name="decode", work=decode_key_frames, reads=KEY_FRAMES, writes=SCHEMA)
SCORE = Stage(name="score", work=Predictor, reads=SCHEMA, writes=REPORT, holds_model=True)
