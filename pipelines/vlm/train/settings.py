"""Settings of fine-tuning a vision-language model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from microg.config import Config
from microg.models.har.training.settings import ScheduleSettings
from microg.models.video.decoders.registry import DECODER, DecoderName
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.sampling import FramePolicy
from microg.models.vlm.tuning.settings import AdapterSettings, Method
from microg.pipelines.core.training.resources import TrainResources
from microg.pipelines.vlm.settings import PromptIds, prompt_for
from microg.texts.items import TASKS, Task


class TuneOptimizer(Config):
    """AdamW."""

    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Decay rates of AdamW's two averages.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay.")
    clip_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Largest norm of the gradient; null does not clip it."
    )


class TuneValidation(Config):
    """When and how the val split is looked at, and which epoch is kept."""

    every: int = Field(default=1, ge=1, description="Epochs between two validations; the last epoch always has one.")
    generate: int = Field(
        default=64, ge=0, description="Clips of the val split that are answered, to be scored; 0 takes the loss alone."
    )
    max_tokens: int = Field(default=256, ge=1, description="Most tokens of one of these answers.")
    select: str = Field(
        default="loss",
        description="What the best epoch is chosen by: loss (lowest), or a text metric such as cider, bleu_4, rouge_l, "
        "exact_match or token_f1 (highest, mean over the tasks that have it).",
    )


class TuneSettings(Config):
    """What decides the tuned model, and where it is tuned."""

    volatile: ClassVar[frozenset[str]] = frozenset(
        {"model", "resources", "decoder", "checkpoint_every_s", "tensorboard", "gradient_checkpointing", "sharding"}
    )
    model: str = Field(
        default="", description="Model: a card of 'microg vlm models' or its file, or a checkpoint folder."
    )
    model_identity: dict[str, str] = Field(
        default_factory=dict, description="What names the model's content; filled in by the command."
    )
    method: Method = Field(
        default="lora",
        description="lora tunes adapters beside frozen weights, qlora the same on weights in four bits (one GPU), full "
        "the weights themselves.",
    )
    adapter: AdapterSettings = AdapterSettings()
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1, description="What the model learns: caption, vqa.")
    prompts: PromptIds = PromptIds()
    prompt_hashes: dict[str, str] = Field(
        default_factory=dict, description="Hashes of the prompts by task; filled in by the command."
    )
    frames: FramePolicy | None = Field(
        default=None, description="How frames of a clip are chosen; without it as the model card says."
    )
    processor: dict[str, Any] = Field(
        default_factory=dict, description="Options of the model's processor, on top of the card's."
    )
    questions: int | None = Field(
        default=None, ge=1, description="Most captions and questions of a clip in one step; without it all of them."
    )
    scheme: str = Field(
        default="source", description="Split scheme of the dataset; source shares no video among splits."
    )
    limit: int | None = Field(default=None, ge=1, description="Take only the first N clips of each split.")
    batch: int = Field(default=8, ge=1, description="Clips of one step, over all workers.")
    epochs: int = Field(default=3, ge=1, description="Times that each clip of the train split is seen.")
    schedule: ScheduleSettings = ScheduleSettings(
        policy="cosine", lr=1e-4, end_lr=0.0, warmup_epochs=0.1, warmup_start_lr=1e-6, after_warmup=True
    )
    optimizer: TuneOptimizer = TuneOptimizer()
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Numbers that the model computes with; auto is bfloat16 on a GPU, float32 elsewhere.",
    )
    gradient_checkpointing: bool = Field(
        default=True, description="Compute activations again on the way back: a third slower, a fraction of the memory."
    )
    sharding: Literal["none", "fsdp"] = Field(
        default="none",
        description="none: each worker holds the whole model (DDP); fsdp: workers share its parameters out.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything that training draws.")
    validation: TuneValidation = TuneValidation()
    decoder: DecoderName = Field(default="auto", description=DECODER)
    checkpoint_every_s: float = Field(default=300.0, gt=0, description="Seconds between two checkpoints.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard logs.")
    resources: TrainResources = TrainResources()

    def prompt_of(self, task: Task) -> Prompt:
        """Return the prompt of a task. Raises `ConfigError` when there is none of that name, or it is for another."""
        return prompt_for(self.prompts, task)

    def policy(self) -> FramePolicy:
        """Return how frames are sampled, once the command filled it in."""
        if self.frames is None:
            raise ValueError("frames are not resolved")
        return self.frames

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch % self.resources.workers:
            raise ValueError(
                f"a batch of {self.batch} clips cannot be shared by {self.resources.workers} workers: choose a multiple"
            )
        if "screening" in self.tasks:
            raise ValueError("tasks are caption and vqa: screenings have no true answers")
        if self.method == "qlora" and self.sharding == "fsdp":
            raise ValueError("qlora is for models that fit one GPU: leave sharding out, or use lora with fsdp")
        return self
