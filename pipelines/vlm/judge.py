"""Judging answers through any engine: each item once, replies cached, failures kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from microg.data import schema
from microg.errors import describe
from microg.metrics.judge import SCHEMA, Judgement, JudgePrompt, read_verdict
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.texts.pairs import Pair

_EMPTY = "the answer is empty"


def judge(
    pairs: Sequence[Pair],
    engine: Engine,
    prompt: JudgePrompt,
    cache: ResponseCache,
    *,
    structured: bool = True,
    progress: Callable[[int, int], object] = lambda done, failed: None,
) -> list[Judgement]:
    """Return one judgement an item, in order; what is empty or missing is incorrect and costs no request.

    `structured` asks the server for JSON of the verdict's shape. `progress` is called with (1, failed) as items are
    done. Raises `ConfigError` where no request can succeed.
    """
    by_key = {pair.key.id: pair for pair in pairs}
    judgements: dict[str, Judgement] = {}
    requests = []
    for key, pair in by_key.items():
        if pair.state == "ok":
            requests.append(Request(key, prompt.fill(pair), prompt.system))
        else:
            judgements[key] = Judgement(pair, "incorrect", 0.0, _EMPTY, cost=0.0)
            progress(1, 0)
    sampling = Sampling(max_tokens=200, json_schema=SCHEMA if structured else None)
    # a reply that cannot be read is asked again next time
    for reply in generate_cached(engine, requests, sampling, cache, _readable):
        judgements[reply.key] = _judgement(by_key[reply.key], reply)
        progress(1, judgements[reply.key].error is not None)
    return [judgements[pair.key.id] for pair in pairs]


def judgements_table(judgements: Iterable[Judgement], model: str, prompt: JudgePrompt) -> pa.Table:
    """Return the table `text_judgements`."""
    rows = [
        {
            **item.pair.key._asdict(),
            "verdict": item.verdict,
            "score": item.score,
            "reason": item.reason,
            "model": model,
            "prompt_id": prompt.id,
            "prompt_hash": prompt.digest,
            "cached": item.cached,
            "status": "ok" if item.error is None else "error",
            "error": item.error,
        }
        for item in judgements
    ]
    return schema.from_rows("text_judgements", rows)


def _readable(reply: Reply) -> bool:
    try:
        read_verdict(reply.text or "")
    except ValueError:
        return False
    return True


def _judgement(pair: Pair, reply: Reply) -> Judgement:
    if reply.status != "ok" or reply.text is None:
        return Judgement(pair, error=reply.error or "no text", cost=reply.cost)
    try:
        verdict, score, reason = read_verdict(reply.text)
    except ValueError as error:
        return Judgement(pair, error=f"unreadable verdict: {describe(error)}", cached=reply.cached, cost=reply.cost)
    return Judgement(pair, verdict, score, reason, cached=reply.cached, cost=reply.cost)
