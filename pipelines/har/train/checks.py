"""What training needs, read and checked before anything is started or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from microg import storage
from microg.actions.rows import TRUTH_ROWS, conform_rows
from microg.actions.truth import read_truth
from microg.data.dataset import Dataset
from microg.data.key_frames import check_labels
from microg.errors import DatasetError, WeightsError
from microg.formats.key_frame_sources import read_key_frames
from microg.pipelines.core.training.plan import Plan
from microg.pipelines.har.train.loop import TrainingContext
from microg.pipelines.har.train.settings import TrainConfig
from microg.system import zoo
from microg.system.weights import search_folders


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A run whose settings and data were checked.

    Attributes:
        config: The settings, completed by what was found of the weights.
        context: What every worker needs.
        train_rows: The key frames trained on.
        fingerprint: Of the dataset.
    """

    config: TrainConfig
    context: TrainingContext
    train_rows: pa.Table
    fingerprint: str

    def load_report(self) -> dict[str, Any]:
        """Load the initial weights and return what fitted. Raises `WeightsError` when too little did."""
        from microg.models.har.checkpoints import load_weights
        from microg.pipelines.har.train.worker import new_model

        assert self.context.weights is not None
        settings = self.config.weights
        model = new_model(self.config)
        return load_weights(
            model,
            self.context.weights,
            allow_missing=settings.allow_missing,
            layout=settings.layout,
            key=settings.key,
        ).to_dict()


def with_actions(config: TrainConfig, dataset: str) -> TrainConfig:
    """Return the settings with the classes of the head: as they say, or those of the dataset.

    Raises `DatasetError` when the dataset numbers its actions otherwise, and `ConfigError` for a name of no classes.
    """
    if not storage.exists(storage.join(dataset, "dataset.json")):
        return config.replaced(label_space=config.space.name)
    vocabulary = Dataset.open(dataset).vocabulary
    own = vocabulary.space
    if config.label_space in (None, own.name):
        document = {} if vocabulary.document is None else {"vocabulary": vocabulary.document}
        return config.replaced(label_space=own.name, **document)
    if not own.shares_ids(config.space):
        raise DatasetError(
            f"the actions of {dataset} are of {own.name}, those of the model of {config.space.name}",
            "leave label_space out: the head then has the dataset's actions",
        )
    return config


def check_and_plan(config: TrainConfig, dataset: str, run_root: str, *, fetch: bool = True) -> TrainingSetup:
    """Read and check everything that training needs, before anything is started or written.

    Initial weights that have a name in the zoo and are not here are fetched, or without `fetch` left out.
    Raises `MicrogError` naming the row whose box or action cannot be used, the split that is empty, or the weights that
    are not there.
    """
    from microg.models.har.backbones.registry import backbone
    from microg.pipelines.har.samples import View
    from microg.pipelines.har.train.stream import Views

    spec, config = backbone(config.model.name), with_actions(config, dataset)
    space = config.space
    key_frames = read_key_frames(dataset, "train", config.scheme, labelled=True)
    train_rows = key_frames.rows.slice(0, config.limit)
    val_rows = read_key_frames(dataset, "val", config.scheme).rows.slice(0, config.limit)
    for rows in (train_rows, val_rows):
        check_labels(rows, space)
    plan = Plan(
        train=train_rows.num_rows,
        val=val_rows.num_rows,
        batch=config.batch,
        micro_batch=config.micro,
        workers=config.resources.workers,
        epochs=config.epochs,
        validate_every=config.validation.every,
        seed=config.seed,
        noun="key frames",
    )
    wanted = config.weights.file
    weights = None if not fetch and wanted and zoo.missing(wanted) else find_initial_weights(config)
    if weights is not None:
        config = config.replaced(weights={**config.weights.model_dump(), "sha256": storage.sha256(weights)[:16]})
    mode = "train" if config.train_geometry == "crop" else "test"
    views = Views(
        View(spec=spec, mode=mode, seed=config.seed, repeated_clips=plan.train, decoder=config.decoder),
        View(
            spec=spec,
            mode=config.validation.geometry,
            seed=config.seed,
            repeated_clips=plan.val,
            decoder=config.decoder,
        ),
    )
    context = TrainingContext(
        root=storage.absolute(run_root),
        config=config,
        plan=plan,
        views=views,
        weights=weights,
        val_rows=val_rows,
        val_truth=val_truth(dataset, config, val_rows),
    )
    return TrainingSetup(config=config, context=context, train_rows=train_rows, fingerprint=key_frames.fingerprint)


def find_initial_weights(config: TrainConfig) -> str | None:
    """Return the path or URI of the weights that training starts from, None for random ones. Raises `WeightsError`."""
    name = config.weights.file
    if name is None:
        return None
    if not storage.is_local(name):
        if not storage.exists(name):
            raise WeightsError(f"the initial weights {name} are not there", "check the URI and its credentials")
        return name
    found = zoo.obtain(name)
    if found is None:
        looked = ", ".join(str(folder) for folder in search_folders())
        about = f" ({config.weights.about})" if config.weights.about else ""
        raise WeightsError(
            f"the initial weights {name!r}{about} are not in any of {looked}",
            "put the file there, give another with --weights FILE, or start from random weights with --weights none",
        )
    return str(found)


def val_truth(dataset: str, config: TrainConfig, rows: pa.Table) -> pa.Table:
    """Return the truth (`TRUTH_ROWS`) of the val key frames `rows`.

    A dataset's own rows, repeated labels included, which the paper's protocol counts; else what the key frames hold.
    """
    if storage.exists(storage.join(dataset, "dataset.json")):
        truth = read_truth(dataset, config.space, split="val", scheme=config.scheme).rows
        names = zip(truth["clip_id"].to_pylist(), truth["frame"].to_pylist(), strict=True)
        kept = set(rows["key"].to_pylist())
        return truth.filter(pa.array([f"{clip_id}:{frame}" in kept for clip_id, frame in names]))
    found = [
        (row["clip_id"], row["frame"], *row["boxes"][4 * place : 4 * place + 4], action_id, person_id)
        for row in rows.to_pylist()
        for place, (person_id, labels) in enumerate(zip(row["person_id"], row["labels"], strict=True))
        for action_id in labels or [None]
    ]
    columns = dict(zip(TRUTH_ROWS.names[1:], (pa.array(values) for values in zip(*found, strict=True)), strict=True))
    return conform_rows(columns, TRUTH_ROWS, dataset)
