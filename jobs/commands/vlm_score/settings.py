"""Settings of `microg vlm score`: from the recipe's keys `row` and `score`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from microg.config import Config, Resources
from microg.jobs.commands.scoring import load_score_config


class JudgeConfig(Config):
    """A judge of answers; without `model` there is none.

    base_url None: the provider's own (for `openai` the variable OPENAI_BASE_URL, if set). key_variable None: the
    provider's usual one. prompt: of the task vqa, caption_prompt: of captions, each a name or a YAML file; "" judges
    that task not at all. max_cost: US dollars that this command may spend, where the model's price is known.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"concurrency", "deadline_s", "cache", "max_cost"})
    model: str | None = None
    engine: Literal["openai", "gemini"] = "openai"
    base_url: str | None = None
    key_variable: str | None = None
    max_cost: float | None = Field(default=None, gt=0)
    prompt: str = "judge_vqa_v1"
    caption_prompt: str = ""
    structured: bool = True
    concurrency: int = Field(default=8, ge=1, le=1000)
    deadline_s: float = Field(default=300.0, gt=0)
    cache: str = "runs/judge_cache.sqlite"


class VlmScoreConfig(Config):
    """What to compute. `task` None: what the predictions hold. `metrics` empty: all that can be had here.

    settings: of metrics that take any, by metric, e.g. bertscore: {model: ..., layer: ...}. baselines: which metrics
    they are scored with: cheap ones, all, or none at all. workers, resources: see `TextScoring`.
    """

    volatile: ClassVar[frozenset[str]] = frozenset({"workers", "resources"})
    task: Literal["caption", "vqa", "both"] | None = None
    protocol: Literal["paper", "standard", "both"] = "both"
    metrics: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    missing: Literal["error", "zero"] = "error"
    allow_extra: bool = False
    baselines: Literal["cheap", "all", "none"] = "cheap"
    resamples: int = Field(default=2000, ge=0, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    row: str | None = None
    prompt: str | None = None
    split: Literal["train", "val", "test"] | None = None
    scheme: str = "published"
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    workers: int | None = Field(default=None, ge=0, le=100_000)
    resources: Resources = Resources()


class VlmScoreRun(Config):
    """What a run folder records: the settings, and the contents that were scored. Paths do not count."""

    volatile: ClassVar[frozenset[str]] = frozenset({"predictions", "references"})
    predictions: str
    references: str
    predictions_digest: str
    references_digest: str
    judge_prompts: dict[str, str] = Field(default_factory=dict)
    score: VlmScoreConfig


def load_vlm_score_config(recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> VlmScoreConfig:
    """Build the settings of `microg vlm score` (see `load_score_config`)."""
    return load_score_config(VlmScoreConfig, recipe, overrides, options)
