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
    from microg.models.vlm.base import Engine


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


def judge_engine(asked: JudgeConfig) -> Engine:
    """Return the judge's engine. Raises `ConfigError` without a key, and for a cap without a known price."""
    from microg.models.vlm.api.budget import Budget
    from microg.models.vlm.api.gate import Limits, LocalGate
    from microg.models.vlm.api.response import RetryPolicy
    from microg.models.vlm.engines.registry import open_engine, require_server

    require_server(asked.engine, "a judge is asked")
    named = {} if asked.key_variable is None else {"key_variable": asked.key_variable}
    engine = open_engine(
        asked.engine,
        str(asked.model),
        max_cost=asked.max_cost,
        base_url=asked.base_url,
        concurrency=asked.concurrency,
        retry=RetryPolicy(deadline_s=asked.deadline_s),
        gate=LocalGate(Limits(concurrency=asked.concurrency), Budget(asked.max_cost)),
        **named,
    )
    engine.check_ready()  # a missing key is told before hours of scoring, not after
    return engine


def judge_pairs(pairs: Pairs, asked: JudgeConfig, engine: Engine, prompt: JudgePrompt) -> list[Judgement]:
    """Judge the items of one task, with progress."""
    from microg.models.vlm.api.cache import ResponseCache
    from microg.pipelines.vlm.judge import judge

    with (
        ResponseCache(asked.cache) as cache,
        ProgressDisplay(f"judging {pairs.task}", len(pairs.items), unit="items") as progress,
    ):
        return judge(pairs.items, engine, prompt, cache, structured=asked.structured, progress=progress.advance)
