"""Settings of one training run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from microg.config import Config
from microg.data.label_space import MICROG_50, LabelSpace
from microg.data.vocabulary import vocabulary_named
from microg.models.har.backbones.spec import RoiScaleSetting
from microg.models.har.training.settings import OptimizerSettings, ScheduleSettings, StepSettings
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.pipelines.core.training.resources import TrainResources


class ModelSettings(Config):
    """The backbone and its head."""

    name: str = Field(
        default="TINY", description="Registered name of the backbone, which also says its frames, sizes and stride."
    )
    roi_scale: RoiScaleSetting = Field(
        default="published", description="Scale of boxes on features: 1/16 for every backbone, or by its stride."
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout before the classification layer.")
    drop_path: float | None = Field(
        default=None, ge=0, lt=1, description="Stochastic depth of the backbone; without it as published."
    )


class WeightsSettings(Config):
    """What training starts from."""

    volatile = frozenset({"file", "about"})
    file: str | None = Field(
        default=None, description="File of initial weights: a path, or a name that is searched for; without it random."
    )
    allow_missing: tuple[str, ...] = Field(
        default=(), description="Patterns of parameters that the file may lack, besides the classification head."
    )
    layout: Literal["microg", "pyslowfast", "pytorchvideo", "torchvision"] | None = Field(
        default=None, description="Whose parameter names the file has; without it those that fit best."
    )
    key: str | None = Field(
        default=None,
        description="Name of the weights to take where the file holds several, such as state_dict_ema; without it the "
        "raw ones before averaged ones.",
    )
    about: str = Field(default="", description="What the file is, for people.")
    sha256: str | None = Field(
        default=None, description="First digits of the SHA-256 of the file; filled in when it is found."
    )


class ValidationSettings(Config):
    """When and how the val split is scored."""

    every: int = Field(default=5, ge=1, description="Epochs between two validations; the last epoch always has one.")
    geometry: Literal["val", "test"] = Field(
        default="val", description="val takes the centre crop, as the reference does in training; test the whole frame."
    )
    select: Literal["paper", "corrected"] = Field(
        default="paper", description="Protocol of the mAP by which the best epoch is kept."
    )


class TrainConfig(Config):
    """All settings of a training run."""

    volatile = frozenset({"resources", "decoder", "checkpoint_every_s", "tensorboard", "row", "vocabulary"})
    row: str | None = Field(default=None, description="Published row that the recipe re-makes; the recipe fills it in.")
    variant: str | None = Field(
        default=None, description="Variant of the recipe: published (as it ran, defects included) or intended (fixed)."
    )
    model: ModelSettings = ModelSettings()
    weights: WeightsSettings = WeightsSettings()
    label_space: str | None = Field(
        default=None,
        description="Action classes of the head: microg50, ava80, or without it those of the dataset; filled in when "
        "the dataset is read.",
    )
    vocabulary: dict[str, Any] | None = Field(
        default=None, description="The actions of the label space, where it is a dataset's own; filled in with it."
    )
    scheme: str = Field(default="published", description="Split scheme of the dataset.")
    batch: int = Field(default=63, ge=1, description="Key frames of one optimizer step, over all workers.")
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Key frames that share batch statistics, what the reference puts on one GPU; without it the whole "
        "batch. `batch` is a multiple of it times the workers.",
    )
    epochs: int = Field(default=40, ge=1, description="Times that each key frame of the train split is seen.")
    train_geometry: Literal["crop", "frame"] = Field(
        default="crop",
        description="crop: the reference's random scale, crop and flip, which cuts people off; frame: all of it.",
    )
    quarter_turns: bool = Field(
        default=False, description="Also turn training crops by random multiples of 90 degrees."
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything that training draws.")
    limit: int | None = Field(default=None, ge=1, description="Take only the first N key frames of each split.")
    schedule: ScheduleSettings = ScheduleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    step: StepSettings = StepSettings()
    validation: ValidationSettings = ValidationSettings()
    decoder: DecoderName = Field(default="auto", description=DECODER)
    checkpoint_every_s: float = Field(default=120.0, gt=0, description="Seconds between two checkpoints.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard logs.")
    resources: TrainResources = TrainResources()

    @property
    def space(self) -> LabelSpace:
        """Classes of the head; those of MicroG-4M until the dataset was read."""
        return vocabulary_named(self.label_space or MICROG_50.name, self.vocabulary).space

    @property
    def micro(self) -> int:
        """Key frames of one micro-batch."""
        return self.micro_batch or self.batch

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        if self.quarter_turns and self.train_geometry != "crop":
            raise ValueError("quarter_turns needs train_geometry: crop, whose clips are square")
        if self.batch % self.micro:
            raise ValueError(f"batch {self.batch} is no multiple of micro_batch {self.micro}")
        if (self.batch // self.micro) % self.resources.workers:
            raise ValueError(
                f"{self.batch // self.micro} micro-batches of {self.micro} cannot be shared by "
                f"{self.resources.workers} workers: choose batch = micro_batch x workers x any number"
            )
        return self
