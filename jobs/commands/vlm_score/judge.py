"""The judge of `microg vlm score`: its prompts, its engine, and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from microg.console import ProgressDisplay
from microg.errors import ConfigError
from microg.jobs.commands.vlm_score.settings import JudgeConfig
from microg.metrics.judge import Judgement, JudgePrompt, judge_prompt
from microg.texts.items import Task
from microg.texts.pairs import Pairs

if TYPE_CHECKING:
    from microg.models.vlm.api.engine import ApiEngine


def judge_prompts(asked: JudgeConfig, pairs: Sequence[Pairs]) -> dict[Task, JudgePrompt]:
    """Return the prompts of the tasks to judge; none without a model. Raises `ConfigError` for one that cannot work."""
    if asked.model is None:
        return {}
    names = {"vqa": asked.prompt, "caption": asked.caption_prompt}
    result: dict[Task, JudgePrompt] = {}
    for part in pairs:
        if names[part.task]:
            found = judge_prompt(names[part.task])
            if found.task != part.task:
                raise ConfigError(f"judge prompt {found.id} is for task {found.task}, not {part.task}")
            result[part.task] = found
    if not result:
        raise ConfigError(
            "there is nothing to judge: captions are judged on demand only",
            "--set judge.caption_prompt=judge_caption_v1",
        )
    return result


def judge_engine(asked: JudgeConfig) -> ApiEngine:
    """Return the judge's engine. Raises `ConfigError` without a key, and for a cap without a known price."""
    from microg.models.vlm.api.budget import Budget
    from microg.models.vlm.api.gate import Limits, LocalGate
    from microg.models.vlm.api.gemini import GeminiEngine
    from microg.models.vlm.api.openai import OpenAiEngine
    from microg.models.vlm.api.retry import RetryPolicy

    kind = {"openai": OpenAiEngine, "gemini": GeminiEngine}[asked.engine]
    named = {} if asked.key_variable is None else {"key_variable": asked.key_variable}
    engine = kind(
        str(asked.model),
        asked.base_url,
        concurrency=asked.concurrency,
        retry=RetryPolicy(deadline_s=asked.deadline_s),
        gate=LocalGate(Limits(concurrency=asked.concurrency), Budget(asked.max_cost)),
        **named,
    )
    engine.key()  # a missing one is told before hours of scoring, not after
    if asked.max_cost is not None and engine.price is None and not engine.local:
        raise ConfigError(
            f"the price of {asked.model} is not known, so a cap on costs cannot be held",
            "put it into a price table and name that in the environment variable MICROG_PRICES",
        )
    return engine


def judge_pairs(pairs: Pairs, asked: JudgeConfig, engine: ApiEngine, prompt: JudgePrompt) -> list[Judgement]:
    """Judge the items of one task, with progress."""
    from microg.models.vlm.api.cache import ResponseCache
    from microg.pipelines.vlm.judge import judge

    with (
        ResponseCache(asked.cache) as cache,
        ProgressDisplay(f"judging {pairs.task}", len(pairs.items), unit="items") as progress,
    ):
        return judge(pairs.items, engine, prompt, cache, structured=asked.structured, progress=progress.advance)
