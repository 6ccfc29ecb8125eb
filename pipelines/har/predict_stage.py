"""Last stage of prediction: an actor that holds the model, scores decoded key frames and commits their rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from microg.data.label_space import label_space
from microg.errors import describe
from microg.pipelines.core import attempts as ledgers
from microg.pipelines.core.stage import ABORT
from microg.pipelines.har import prediction_store
from microg.pipelines.har.sample_tables import Sample, from_table
from microg.pipelines.har.samples import View, by_size, collate

Precision = Literal["float32", "bfloat16", "float16"]

# What a scored key frame tells the driver.
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


@dataclass(frozen=True)
class Model:
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

    def __init__(self, root: str, model: Model, view: View, ledger: Any, scope: str) -> None:
        self._root, self._model, self._view, self._ledger, self._scope = root, model, view, ledger, scope
        self._space = label_space(model.label_space)
        self._network: Any = None
        self._broken: Exception | None = None
        try:
            self._network = self._loaded()
        except Exception as error:
            self._broken = error

    def _loaded(self) -> Any:
        import ray
        import torch

        from microg.models.har.backbones.registry import build

        model = self._model
        if model.threads:
            torch.set_num_threads(model.threads)
        # the published numbers are those of full float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        network = build(model.name, num_classes=model.num_classes, roi_scale=model.roi_scale)  # type: ignore[arg-type]
        stored: Any = ray.get(model.state[0])
        # copied, because arrays in Ray's store are read-only, of which torch would warn
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in stored.items()})
        return network.to(model.device).eval()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Score and commit a block of `microg.pipelines.har.sample_tables.SCHEMA`; returns one small row a key
        frame.
        """
        samples = from_table(block)
        try:
            if self._broken is not None:
                raise self._broken
            reports = self._scored(samples)
        except Exception as error:
            reports = [{"key": sample.key, "status": ABORT, "error": describe(error)} for sample in samples]
        return pa.Table.from_pylist(reports, schema=REPORT)

    def _scored(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        results: dict[str, tuple[np.ndarray | None, str, float]] = {
            sample.key: (None, sample.error, 0.0) for sample in samples
        }
        for batch in by_size([sample for sample in samples if not sample.error], self._model.batch_size):
            started = time.monotonic()
            answers = ledgers.together_or_alone(
                self._forward,
                batch,
                name=lambda sample: sample.key,
                ledger=self._ledger,
                scope=self._scope,
                failed=lambda _, error: error,
                crashed=_CRASHED,
            )
            seconds = (time.monotonic() - started) / len(batch)
            for sample, answer in zip(batch, answers, strict=True):
                failed = isinstance(answer, str)
                results[sample.key] = (None, answer, seconds) if failed else (answer, "", seconds)
        common = {"score_kind": "logit", "label_space": self._model.label_space, "model": self._model.name}
        rows = []
        for sample in samples:
            scores, error, _ = results[sample.key]
            key_frame = {
                "clip_id": sample.clip_id,
                "frame": sample.frame,
                "person_id": sample.person_id,
                "boxes": sample.normalised,
            }
            rows += prediction_store.rows_of(key_frame, scores, error, **common)
        prediction_store.commit(self._root, rows)
        return [
            {
                "key": sample.key,
                "people": len(sample.person_id),
                "status": "error" if error else "ok",
                "error": error,
                "decode_s": sample.seconds,
                "model_s": seconds,
            }
            for sample in samples
            for _, error, seconds in [results[sample.key]]
        ]

    def _forward(self, samples: Sequence[Sample]) -> list[np.ndarray | str]:
        """Return logits (people, classes) float32 of each sample."""
        import torch

        from microg.models.har.normalise import normalise

        batch = collate(samples, self._view, self._space)
        kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self._model.precision)
        device = self._model.device
        with torch.inference_mode(), torch.autocast(device.split(":")[0], dtype=kind, enabled=kind is not None):
            logits = self._network(normalise(batch.clips.to(device)), batch.boxes.to(device))
        found = logits.float().cpu().numpy()
        if not np.isfinite(found).all():
            raise FloatingPointError("the model's logits are not finite numbers")
        edges = np.cumsum([len(sample.person_id) for sample in samples])[:-1]
        return np.split(found, edges)  # type: ignore[return-value]
