"""Settings of `microg vlm train-tiny`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from microg.config import Config
from microg.demo.tiny_models.size import Size
from microg.models.har.training.settings import ScheduleSettings
from microg.models.vlm.prompts import Prompt
from microg.models.vlm.sampling import FramePolicy, Uniform
from microg.pipelines.vlm.settings import PromptIds, prompt_for
from microg.texts.items import TASKS, Task


class VlmOptimizer(Config):
    """AdamW, and Muon for the picture encoder's blocks."""

    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="Decay rates of AdamW's two averages.")
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of matrices.")
    clip_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Largest norm of the gradient; null does not clip it."
    )
    muon: float = Field(
        default=3.0, ge=0, description="Rate of Muon as a multiple of the schedule's; 0 leaves all to AdamW."
    )


class VlmTrainSettings(Config):
    """What decides the trained model, and where it is trained.

    Each of the two phases, the picture encoder alone and then the whole model, has the schedule once.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"checkpoint_every_s", "device", "threads"})
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1, description="Tasks that the model learns.")
    prompts: PromptIds = PromptIds()
    scheme: str = Field(default="published", description="Split scheme of the dataset.")
    limit: int | None = Field(default=None, ge=1, description="Take only the first N clips of each split.")
    frames: FramePolicy = Field(
        default=Uniform(count=4, rule="middles"),
        description="How frames of a clip are chosen, here and whenever the trained model is asked.",
    )
    size: Size = Field(
        default=Size(
            layers=3,
            vision_hidden=96,
            vision_layers=4,
            vision_heads=3,
            side=140,
            vocabulary=2000,
            context=2048,
            spread=0.06,
        ),
        description="Size of the model, which is trained from nothing; `side` is that of a frame in pixels.",
    )
    views: int = Field(
        default=1, ge=1, le=15, description="Versions of a clip that are kept, with frames a little earlier or later."
    )
    move: float = Field(
        default=0.06, ge=0, le=0.5, description="Part of a side by which frames are shifted and scaled at random."
    )
    mirror: bool = Field(
        default=True, description="Mirror half of the clips, but none whose texts tell left from right."
    )
    lessons: int = Field(default=8, ge=1, description="Most captions and questions of a clip in one epoch.")
    shares: dict[str, float] = Field(
        default_factory=lambda: {"unanswerable": 0.34, "caption": 0.7, "count": 0.7},
        description="Share of the epochs in which a text of a kind is used (caption, yes/no, count, unanswerable, "
        "other); 1 for kinds that are not named.",
    )
    asked_more: int = Field(
        default=2,
        ge=0,
        description="Further yes/no questions a clip and epoch, which the dataset's action labels answer.",
    )
    cells: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the losses on where people are and what they do; 0 leaves them out.",
    )
    words: float = Field(
        default=0.2, ge=0, description="Weight of the loss on the words of a clip's texts; 0 leaves it out."
    )
    vision_epochs: int = Field(
        default=9, ge=0, description="Times that each clip is seen in the first phase, by the picture encoder alone."
    )
    encoder_rate: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Part of the schedule's rate at which the encoder learns in the second phase.",
    )
    epochs: int = Field(default=6, ge=1, description="Times that each clip is seen in the second phase.")
    batch: int = Field(default=8, ge=1, description="Clips of one step.")
    schedule: ScheduleSettings = ScheduleSettings(
        policy="cosine", lr=2e-3, end_lr=2e-5, warmup_epochs=0.3, warmup_start_lr=1e-5, after_warmup=True
    )
    optimizer: VlmOptimizer = VlmOptimizer()
    seed: int = Field(default=0, ge=0, description="Seed of everything that training draws.")
    validate_every: int = Field(
        default=3, ge=1, description="Epochs between two validations; the last epoch always has one."
    )
    checkpoint_every_s: float = Field(default=60.0, gt=0, description="Seconds between two checkpoints.")
    device: str = Field(default="auto", description="Device of training: auto, cpu or cuda.")
    threads: int = Field(default=0, ge=0, description="Torch threads; 0 takes torch's own number.")

    def phrases(self) -> list[str]:
        """Return what every prompt repeats: the wording before and after the question."""
        users = [self.prompt_of(task).user for task in self.tasks]
        return sorted({part for user in users for part in user.split("{question}") if part})

    def prompt_of(self, task: Task) -> Prompt:
        """Return the prompt of a task. Raises `ConfigError` when there is none of that name, or it is for another."""
        return prompt_for(self.prompts, task)
