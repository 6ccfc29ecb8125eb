"""Settings of `microg vlm train`."""

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
    """AdamW, and Muon for the picture encoder's blocks, at `muon` times the schedule's rate (0: AdamW alone)."""

    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_grad_norm: float | None = Field(default=1.0, gt=0)
    muon: float = Field(default=3.0, ge=0)


class VlmTrainSettings(Config):
    """What decides the trained model, and where it is trained.

    size: of the model, which is trained from nothing. frames: how a clip is shown, here and whenever the trained model
    is asked. views: how many versions of each clip are kept, whose frames are taken a little earlier or later. move: by
    how much of a side frames are shifted and scaled at random; mirror: mirrored half of the time, unless a text of the
    clip tells left from right. lessons: how many are shown of a clip in an epoch at most, at random. shares: in how
    many epochs a lesson of a kind is shown (caption, yes/no, count, unanswerable, other), 1 where a kind is not named.
    asked_more: further yes/no questions a clip and epoch, answered by the dataset's action labels
    (`microg.demo.tiny_vlm.lessons`), where lessons leave room. cells: weight of the losses on where people are and
    what they do, asked of each cell and of each person (0: none, as where labels or boxes are missing). words: weight
    of the loss on which words are said of a clip (0: none). vision_epochs: how often each clip is shown before the
    `epochs`, to the picture encoder alone, which learns from those losses at half of the cost. encoder_rate: at which
    part of the schedule's rate it goes on to learn in the `epochs`. Each of the two phases has the schedule once.
    batch: clips of one step. validate_every: epochs between two looks at the val split; the last epoch has one.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"checkpoint_every_s", "device", "threads"})
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1)
    prompts: PromptIds = PromptIds()
    scheme: str = "published"
    limit: int | None = Field(default=None, ge=1)
    frames: FramePolicy = Uniform(count=4, rule="middles")
    size: Size = Size(
        layers=3,
        vision_hidden=96,
        vision_layers=4,
        vision_heads=3,
        side=140,
        vocabulary=2000,
        context=2048,
        spread=0.06,
    )
    views: int = Field(default=1, ge=1, le=15)
    move: float = Field(default=0.06, ge=0, le=0.5)
    mirror: bool = True
    lessons: int = Field(default=8, ge=1)
    shares: dict[str, float] = Field(default_factory=lambda: {"unanswerable": 0.34, "caption": 0.7, "count": 0.7})
    asked_more: int = Field(default=2, ge=0)
    cells: float = Field(default=1.0, ge=0)
    words: float = Field(default=0.2, ge=0)
    vision_epochs: int = Field(default=9, ge=0)
    encoder_rate: float = Field(default=0.3, ge=0, le=1)
    epochs: int = Field(default=6, ge=1)
    batch: int = Field(default=8, ge=1)
    schedule: ScheduleSettings = ScheduleSettings(
        policy="cosine", lr=2e-3, end_lr=2e-5, warmup_epochs=0.3, warmup_start_lr=1e-5, after_warmup=True
    )
    optimizer: VlmOptimizer = VlmOptimizer()
    seed: int = Field(default=0, ge=0)
    validate_every: int = Field(default=3, ge=1)
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    device: str = "auto"
    threads: int = Field(default=0, ge=0)

    def phrases(self) -> list[str]:
        """Return what every prompt repeats: the wording before and after the question."""
        users = [self.prompt_of(task).user for task in self.tasks]
        return sorted({part for user in users for part in user.split("{question}") if part})

    def prompt_of(self, task: Task) -> Prompt:
        """Return the prompt of a task. Raises `ConfigError` when there is none of that name, or it is for another."""
        return prompt_for(self.prompts, task)
