"""Key frames to `har_predictions` on Ray Data: decode -> score, in one streaming pass.

Every key frame's rows are committed as they are made: kill anything at any time and the same call does what is missing.
A sample that fails becomes an error row with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from microg import storage
from microg.config import DEVICE, Config, Device, Resources
from microg.data.key_frames import KEY_FRAMES
from microg.data.label_space import LABEL_SPACES, MICROG_50, LabelSpace, label_space
from microg.data.vocabulary import Vocabulary, vocabulary_named
from microg.errors import ConfigError, WeightsError
from microg.models.har.backbones.registry import backbone
from microg.models.har.backbones.spec import RoiScaleSetting
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.pipelines.core.attempts import Attempts, Failure, run_batch_then_singles
from microg.pipelines.core.cluster import decide_device
from microg.pipelines.core.stage import Pipeline, Stage, abort, run_stages
from microg.pipelines.har import prediction_store
from microg.pipelines.har.live_scores import HarSender, LiveHarScores
from microg.pipelines.har.samples import SCHEMA, Sample, View, by_size, collate, decode_rows, from_table, to_table
from microg.system import zoo

if TYPE_CHECKING:
    from microg.models.har.backbones.roi_head import BoxClassifier
    from microg.models.har.checkpoints import LoadReport


Precision = Literal["float32", "bfloat16", "float16"]

# What the driver learns of a scored key frame.
REPORT = pa.schema(
    [
        ("key", pa.string()),
        ("people", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("fix", pa.string()),
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
    space: LabelSpace
    state: list[Any]
    device: str
    precision: Precision
    batch_size: int
    threads: int


class Predictor:
    """Scores blocks of decoded samples. When the model cannot be made, the first call says so (`abort`).

    Ray would try a constructor that raises again and again, and drop the type of an error that a call raises.
    """

    def __init__(
        self, root: str, spec: PredictorSpec, view: View, attempts: Attempts, live: HarSender | None = None
    ) -> None:
        self._root, self._spec, self._view, self._attempts, self._live = root, spec, view, attempts, live
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
        """Score and commit a block of `microg.pipelines.har.samples.SCHEMA`; returns one small row a key frame."""
        samples = from_table(block)
        try:
            if self._broken is not None:
                raise self._broken
            reports = self._score(samples)
        except Exception as error:
            reports = [{"key": sample.key, **abort(error)} for sample in samples]
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
        common = {"score_kind": "logit", "label_space": self._spec.space.name, "model": self._spec.name}
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
        if self._live is not None:
            self._live.send(rows)
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

        from microg.models.har.backbones.roi_head import normalise

        batch = collate(samples, self._view, self._spec.space)
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


# Key frames of a block: one decoding task, and what is lost when a worker dies.
_BLOCK_ROWS, _BLOCK_BYTES = 16, 64 * 2**20


class PredictSettings(Config):
    """What decides predictions, and where they are made."""

    model: str | None = Field(
        default=None,
        description="Model name as in the published tables, or TINY; without it the weights say which they are of.",
    )
    roi_scale: RoiScaleSetting | None = Field(
        default=None,
        description="Scale of boxes on features: published (1/16 for every model) or true (by its stride); without it "
        "as trained, or published.",
    )
    label_space: str | None = Field(
        default=None, description="Action classes of the predictions; filled in when the weights are read."
    )
    vocabulary: dict[str, Any] | None = Field(
        default=None, description="The actions of the label space, where it is a dataset's own; filled in with it."
    )
    weights: str | None = Field(
        default=None, description="Weights file of any known format, or the run folder of 'microg har train'."
    )
    weights_key: str | None = Field(
        default=None,
        description="Name of the weights to take where the file holds several, such as state_dict_ema; without it the "
        "raw ones before averaged ones.",
    )
    weights_digest: str | None = Field(
        default=None, description="First digits of the SHA-256 of the weights; filled in when they are read."
    )
    allow_missing: tuple[str, ...] = Field(
        default=(), description="Patterns of tensors that may be missing in the weights."
    )
    split: Literal["train", "val", "test", "all"] = Field(default="test", description="Split whose samples are taken.")
    scheme: str = Field(default="published", description="Split scheme of the dataset.")
    view: Literal["test", "val"] = Field(
        default="test",
        description="test is the full frame; val the centre crop, by which training selects its best epoch.",
    )
    precision: Precision = Field(default="float32", description="Numbers that the model computes with.")
    limit: int | None = Field(default=None, ge=1, description="Take only the first N samples.")
    batch_size: int = Field(default=8, ge=1, description="Clips that go through the model at a time.")
    device: Device = Field(default="auto", description=DEVICE)
    decoder: DecoderName = Field(default="auto", description=DECODER)
    live_scores: bool = Field(
        default=True, description="Show scores while predictions come in, where the dataset has labels."
    )
    resources: Resources = Resources()

    volatile = frozenset(
        {"weights", "limit", "batch_size", "device", "decoder", "live_scores", "resources", "vocabulary"}
    )

    @property
    def actions(self) -> Vocabulary:
        """The actions that the model knows; MicroG-4M's until the weights were read."""
        return vocabulary_named(self.label_space or MICROG_50.name, self.vocabulary)


def open_network(
    settings: PredictSettings, known: Sequence[Vocabulary] = ()
) -> tuple[BoxClassifier, PredictSettings, LoadReport]:
    """Build the model of `settings` with its weights; return it, the settings filled in, and what was loaded.

    `settings.weights` is a file of any known format, or the run folder of a training, whose best weights are taken.
    Our own files say which model they are for; others need `settings.model`. The classification head must be there.
    `known` are vocabularies that `settings.label_space` may name, beside the published ones and that of the weights.
    Raises `WeightsError`, and `ConfigError` when the weights are of another model.
    """
    from microg.models.har.backbones.registry import build
    from microg.models.har.checkpoints import load_weights
    from microg.models.har.checkpoints.files import read_weights

    path = weights_file(settings.weights)
    stored = read_weights(path, settings.weights_key).metadata
    name = settings.model or stored.get("model")
    if name is None:
        raise ConfigError(f"{path} does not say which model it is for", "name it with --model")
    spec = backbone(name)
    if stored.get("model", spec.name) != spec.name:
        raise ConfigError(f"{path} holds weights of {stored['model']}, not of {spec.name}", "leave --model out")
    classes = stored.get("num_classes", spec.num_classes)
    roi_scale = settings.roi_scale or stored.get("roi_scale", "published")
    network = build(spec.name, num_classes=classes, roi_scale=roi_scale)
    report = load_weights(
        network, path, allow_missing=settings.allow_missing, require_head=True, key=settings.weights_key
    )
    vocabulary = _vocabulary(classes, settings, stored, known)
    filled = settings.replaced(
        model=spec.name,
        roi_scale=roi_scale,
        weights=path,
        weights_digest=storage.sha256(path)[:16],
        label_space=vocabulary.space.name,
        vocabulary=vocabulary.document,
    )
    return network.eval(), filled, report


def _vocabulary(
    classes: int, settings: PredictSettings, stored: Mapping[str, Any], known: Sequence[Vocabulary]
) -> Vocabulary:
    """Return the actions of a model with so many classes: as the settings name them, or the weights say."""
    trained = stored.get("label_space")
    if settings.label_space in (None, trained) and stored.get("vocabulary") is not None:
        found = vocabulary_named(str(trained), stored["vocabulary"])
    else:
        wanted = settings.label_space or trained
        found = next((each for each in known if each.space.name == wanted), None)
        if found is None:
            return vocabulary_named(label_space_of(classes, wanted))
    if len(found.space) != classes:
        raise ConfigError(f"a model of {classes} classes is not of label space {found.space.name}")
    return found


def weights_file(path: str | None) -> str:
    """Return the weights file that `path` means: a name that is searched for, a path or URI, or a training's run."""
    if path is None:
        raise ConfigError("which weights to use is missing", "--weights FILE, or the run folder of 'microg har train'")
    if storage.exists(storage.join(path, "run.json")):
        best = storage.join(path, "checkpoints", "best.pt")
        if not storage.exists(best):
            raise WeightsError(f"run {path} has no best weights yet", "train until its first validation")
        return best
    found = zoo.obtain(path) if storage.is_local(path) else None
    return str(found) if found is not None else path


def with_device(settings: PredictSettings) -> tuple[PredictSettings, str]:
    """Return the settings with the resources of one actor, and its device, on the connected Ray.

    Raises `ConfigError` for a device that no actor can be given.
    """
    resources, device = decide_device(
        settings.resources,
        settings.device,
        who=f"the model {settings.model}",
        fix="use --device cpu, or connect to a cluster that has one",
    )
    return settings.replaced(resources=resources), device


def label_space_of(classes: int, declared: str | None = None) -> str:
    """Return the published label space of a model with so many classes.

    Raises `ConfigError` when none has that many.
    """
    fitting = [name for name, space in LABEL_SPACES.items() if len(space) == classes]
    if declared in fitting:
        return declared
    if declared is not None or not fitting:
        wanted = f"label space {declared}" if declared else "a known label space"
        raise ConfigError(f"a model of {classes} classes is not of {wanted}")
    return fitting[0]


def _classes(number: int, settings: PredictSettings) -> LabelSpace:
    """Return the label space of a model with so many classes, as the settings or the number tell it."""
    if settings.vocabulary is None:
        return label_space(label_space_of(number, settings.label_space))
    return settings.actions.space


PIPELINE = Pipeline(
    name="predict",
    source=KEY_FRAMES,
    stages=(DECODE, SCORE),
    key="key",
    unit="key frames",
    failure="no sample can be scored",
)


def sized_pipeline(settings: PredictSettings) -> Pipeline:
    """Return the pipeline with the resources of `settings`."""
    return PIPELINE.sized("score", settings.resources)


def run_prediction(
    key_frames: pa.Table,
    root: str,
    settings: PredictSettings,
    network: BoxClassifier,
    *,
    device: str,
    live: LiveHarScores | None = None,
) -> dict[str, Any]:
    """Score `key_frames` into `root` on the connected Ray, and return the closing block.

    `live` shows the scores of what is done beside the progress.

    Raises `ConfigError` when Ray cannot give what `settings.resources` asks for, and `WorkerError` when no sample can
    be scored: the model cannot be made, `root` cannot be written, or Ray gives up.
    """
    import ray

    resources = settings.resources
    view = View(spec=backbone(network.spec.name), mode=settings.view, decoder=settings.decoder)
    state = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    spec = PredictorSpec(
        name=network.spec.name,
        num_classes=network.num_classes,
        roi_scale=network.roi_scale,
        space=_classes(network.num_classes, settings),
        state=[ray.put(state)],
        device=device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        threads=0 if resources.gpus else max(1, int(resources.cpus)),
    )
    pipeline = sized_pipeline(settings).bound(
        decode={"view": view},
        score={"root": root, "spec": spec, "view": view, "live": None if live is None else live.sender},
    )
    rows = max(1, min(max(_BLOCK_ROWS, settings.batch_size), _BLOCK_BYTES // view.clip_bytes))
    blocks = [key_frames.slice(start, rows).combine_chunks() for start in range(0, key_frames.num_rows, rows)]
    shown = None if live is None else lambda report: live.line()
    return run_stages(pipeline, blocks, total=key_frames.num_rows, device=device, on_report=shown)
