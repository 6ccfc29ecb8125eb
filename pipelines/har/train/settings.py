"""Settings of one training run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from microg.config import Config
from microg.models.har.training.settings import OptimizerSettings, ScheduleSettings, StepSettings


class ModelSettings(Config):
    """The backbone by its registered name, which also tells its frames, sizes and stride.

    roi_scale: `published` is 1/16 for every backbone, `true` follows the backbone's stride. drop_path None: as
    published.
    """

    name: str = "TINY"
    roi_scale: Literal["published", "true"] = "published"
    dropout: float = Field(default=0.5, ge=0, lt=1)
    drop_path: float | None = Field(default=None, ge=0, lt=1)

    @field_validator("roi_scale", mode="before")
    @classmethod
    def _read_yaml(cls, value: object) -> object:
        return "true" if value is True else value  # YAML reads the bare word as a boolean


class WeightsSettings(Config):
    """What training starts from. `file` is searched for by name, or a path; None starts from random weights.

    allow_missing: patterns of parameter names that the file need not have, besides the classification head. layout: by
    whose names the file is read; None takes those that fit best. about: what the file is, for people. sha256: the first
    digits of the file's, filled in when it is found.
    """

    volatile = frozenset({"file", "about"})
    file: str | None = None
    allow_missing: tuple[str, ...] = ()
    layout: Literal["microg", "pyslowfast", "pytorchvideo", "torchvision"] | None = None
    about: str = ""
    sha256: str | None = None


class ValidationSettings(Config):
    """When and how the val split is scored.

    every: epochs between two validations; the last epoch always has one. geometry: `val` takes the centre crop, as the
    reference does while training; `test` the whole frame, as it does when testing. select: the mAP by which the best
    epoch is kept.
    """

    every: int = Field(default=5, ge=1)
    geometry: Literal["val", "test"] = "val"
    select: Literal["paper", "corrected"] = "paper"


class TrainResources(Config):
    """What training may use; none of it changes the result.

    workers: processes that train, one GPU each where there are GPUs. worker_cpus, decode_cpus: logical CPUs a worker
    and a decoding task declare. threads: torch threads of a worker without GPU, 0: the cores shared among workers.
    prefetch: micro-batches made ready ahead.
    """

    volatile = frozenset(
        {"workers", "worker_cpus", "worker_gpus", "decode_cpus", "threads", "prefetch", "max_failures", "address"}
    )
    workers: int = Field(default=1, ge=1)
    worker_cpus: float = Field(default=1.0, gt=0)
    worker_gpus: float | None = Field(default=None, ge=0)
    decode_cpus: float = Field(default=1.0, gt=0)
    threads: int = Field(default=0, ge=0)
    prefetch: int = Field(default=2, ge=1)
    max_failures: int = Field(default=3, ge=-1)
    address: str | None = None


class TrainConfig(Config):
    """All settings of a training run.

    batch: key frames of one optimizer step, over all workers. micro_batch: key frames that share batch statistics and
    whose loss is averaged first, what the reference puts on one GPU; None takes the whole batch at once. A worker
    computes batch / (micro_batch * workers) of them in turn, so that the number of workers does not change the result.
    train_geometry: `crop` is the reference's random scale, crop and flip, which cuts people off; `frame` the whole
    frame, as in the test. quarter_turns: turn training crops by any multiple of 90 degrees, too.
    """

    volatile = frozenset({"resources", "checkpoint_every_s", "tensorboard", "row"})
    row: str | None = None
    variant: str | None = None
    model: ModelSettings = ModelSettings()
    weights: WeightsSettings = WeightsSettings()
    label_space: Literal["microg50", "ava80"] = "microg50"
    scheme: str = "published"
    batch: int = Field(default=63, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=40, ge=1)
    train_geometry: Literal["crop", "frame"] = "crop"
    quarter_turns: bool = False
    seed: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    schedule: ScheduleSettings = ScheduleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    step: StepSettings = StepSettings()
    validation: ValidationSettings = ValidationSettings()
    checkpoint_every_s: float = Field(default=120.0, gt=0)
    tensorboard: bool = True
    resources: TrainResources = TrainResources()

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
