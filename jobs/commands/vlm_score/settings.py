"""Settings of `microg vlm score`: from the recipe's keys `row` and `score`, `--set`, and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from microg.config import Config, Device, Resources, load_config, recipe_section
from microg.metrics.text.registry import METRICS


class JudgeConfig(Config):
    """A model that judges the answers; without `model` there is none."""

    volatile: ClassVar[frozenset[str]] = frozenset({"concurrency", "deadline_s", "cache", "max_cost"})
    model: str | None = Field(default=None, description="Model that judges the answers.")
    engine: str = Field(default="openai", description="Engine that asks the judge: one behind an API.")
    base_url: str | None = Field(
        default=None, description="Server of the judge; without it OPENAI_BASE_URL, or the provider's own."
    )
    key_variable: str | None = Field(
        default=None, description="Environment variable with the key; without it the provider's usual one."
    )
    max_cost: float | None = Field(
        default=None, gt=0, description="US dollars that this command may spend, where the model's price is known."
    )
    prompt: str = Field(
        default="judge_vqa_v1", description="Prompt that judges answers, a name or a YAML file; '' judges none."
    )
    caption_prompt: str = Field(
        default="", description="Prompt that judges captions, a name or a YAML file; '' judges none."
    )
    structured: bool = Field(default=True, description="Ask for replies in JSON.")
    concurrency: int = Field(default=8, ge=1, le=1000, description="Most requests under way at once.")
    deadline_s: float = Field(default=300.0, gt=0, description="Seconds that all attempts of a request may take.")
    cache: str = Field(default="runs/judge_cache.sqlite", description="File of the replies that are known already.")


class VlmScoreConfig(Config):
    """What to compute, and where."""

    volatile: ClassVar[frozenset[str]] = frozenset({"workers", "device", "resources"})
    task: Literal["caption", "vqa", "both"] | None = Field(
        default=None, description="What is scored; without it all that the predictions hold."
    )
    protocol: Literal["paper", "standard", "both"] = Field(default="both", description="Protocol of scoring.")
    metrics: tuple[str, ...] = Field(
        default=(), description=f"Metrics to compute, of {', '.join(METRICS)}; without any all that this machine can."
    )
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings of metrics, such as bertscore: {model: ..., layer: ...}."
    )
    answers: Literal["raw", "clean"] = Field(
        default="raw",
        description="What is scored of a text: raw is all of it, as the paper did; clean leaves out thoughts, chat "
        "markers, fences, JSON, labels and quotes around the answer.",
    )
    missing: Literal["error", "zero"] = Field(
        default="error", description="What an item without a prediction is: an error, or a score of zero."
    )
    allow_extra: bool = Field(default=False, description="Leave out predictions without a reference.")
    baselines: Literal["cheap", "all", "none"] = Field(
        default="cheap", description="Metrics that the constant, blind and shuffled baselines are scored with."
    )
    resamples: int = Field(default=2000, ge=0, le=1_000_000, description="Bootstrap resamples; 0 gives no intervals.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples and of the baselines.")
    row: str | None = Field(default=None, description="Published row to show beside, such as gpt_4o.")
    prompt: str | None = Field(default=None, description="Prompt id, where a run holds answers to several.")
    split: Literal["train", "val", "test"] | None = Field(
        default=None, description="Split of a dataset folder; without it all clips."
    )
    scheme: str = Field(default="published", description="Split scheme of a dataset folder.")
    qa_kinds: str | None = Field(
        default=None,
        description="Run of 'microg data label-qa' with the kinds of questions; without it those that the rules say.",
    )
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    workers: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Scoring workers on Ray, 0 scores in this process; without it as many as pay, none for little.",
    )
    device: Device = Field(
        default="auto",
        description="Where encoders compute, unless their settings say: auto is a GPU if there is one.",
    )
    resources: Resources = Resources()

    def of_metrics(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each metric, with the device of those that encode."""
        encoding = [] if self.device == "auto" else [name for name, metric in METRICS.items() if metric.encodes]
        return {**self.settings, **{name: {"device": self.device} | self.settings.get(name, {}) for name in encoding}}


class VlmScoreRun(Config):
    """What a run folder records: the settings, and the contents that were scored. Paths do not count."""

    volatile: ClassVar[frozenset[str]] = frozenset({"predictions", "references"})
    predictions: str = Field(description="Where the predictions lie.")
    references: str = Field(description="Where the references lie.")
    predictions_digest: str = Field(description="Digest of the predictions' rows.")
    references_digest: str = Field(description="Digest of the references.")
    judge_prompts: dict[str, str] = Field(default_factory=dict, description="Digests of the judge's prompts by task.")
    score: VlmScoreConfig


def load_vlm_score_config(recipe: str | None, overrides: Iterable[str], options: Mapping[str, Any]) -> VlmScoreConfig:
    """Build the settings of `microg vlm score`: the recipe's row and section `score`, `--set`, then options by key."""
    return load_config(VlmScoreConfig, None, [*overrides, options], **recipe_section(recipe, "score", row="row"))
