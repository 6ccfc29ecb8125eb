"""`microg data make-qa`: its settings, the plan, the requests and the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from microg import storage
from microg.config import Config
from microg.console import ProgressDisplay, say
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import ConfigError, DatasetError
from microg.escaping import csv_text
from microg.locks import exclusive
from microg.models.vlm import qa
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.cache import ResponseCache, generate_cached
from microg.models.vlm.api.gate import LocalGate
from microg.models.vlm.base import Engine, Reply, Request, Sampling
from microg.models.vlm.cards import card, open_card
from microg.models.vlm.engines.registry import open_engine, require_server
from microg.models.vlm.prompts import Prompt, prompt
from microg.runs import Run


class MakeQaConfig(Config):
    """What decides the questions."""

    model: str = Field(description="A model card of 'microg vlm models', or with `base_url` a model's name.")
    base_url: str | None = Field(default=None, description="OpenAI-compatible server that has the model.")
    count: int = Field(default=6, ge=1, description="Pairs to keep of each clip; twice as many are proposed.")
    limit: int | None = Field(default=None, description="Take only the first N captions.")
    max_tokens: int = Field(default=2000, ge=1, description="Most tokens of one reply, thinking included.")
    seed: int = Field(default=0, description="Seed of sampling.")
    prompts: dict[str, str] = Field(
        default_factory=dict, description="Hashes of the prompts by name; filled in by the command."
    )


def require_local(run_folder: str) -> None:
    """Raise `ConfigError` where the run folder is not on this machine."""
    if not storage.is_local(run_folder):
        raise ConfigError(
            f"{run_folder} is not on this machine", "the cache and the account of costs need a local folder"
        )


def read_captions(dataset: str, limit: int | None) -> tuple[dict[str, str], str]:
    """Return a dataset's captions by clip, the first `limit` of them, and its fingerprint."""
    source = Dataset.open(dataset)
    rows = source.table("captions").sort_by("clip_id").to_pylist()[:limit]
    captions = {row["clip_id"]: row["caption"] for row in rows if row["caption"]}
    if not captions:
        raise DatasetError(f"{dataset} has no captions", "make some with 'microg vlm generate --task caption'")
    return captions, source.fingerprint()


def plan(captions: dict[str, str], settings: MakeQaConfig, max_cost: float | None) -> dict[str, Any]:
    """Return how many requests are sent at most, and what they cost at most."""
    engine = _open(settings, max_cost)
    requests = 0
    costs: list[Any] = []
    longest = "x" * 200  # of a question, and of an answer
    for caption in captions.values():
        for name, times in ((qa.PROPOSE, 1), (qa.RANK, 2 * settings.count), (qa.CHECK, settings.count)):
            template = prompt(name)
            values = {"caption": caption, "count": "12", "question": longest, "answer": longest}
            request = template.request("", None, **{field: values[field] for field in template.fields})
            cost = engine.estimate(request, Sampling(settings.max_tokens, json_schema=template.json_schema)).cost
            requests += times
            costs.append(None if cost is None else times * cost)
    return {
        "clips": len(captions),
        "requests": requests,
        "cost_at_most": None if None in costs else round(sum(costs), 4),
    }


def make(
    captions: dict[str, str], fingerprint: str, settings: MakeQaConfig, run_folder: str, max_cost: float | None
) -> dict[str, Any]:
    """Make the questions into a run folder on this machine and return the summary."""
    most = plan(captions, settings, max_cost)["requests"]
    _open(settings, max_cost).check_ready()  # before a folder is made
    with exclusive(run_folder):
        folder = Run.start(run_folder, "data make-qa", settings, dataset=fingerprint)
        account = Budget(max_cost, journal=storage.local_path(run_folder) / "account.sqlite")
        engine = _open(settings, max_cost, gate=LocalGate(budget=account))
        with (
            ResponseCache(storage.local_path(run_folder) / "replies.sqlite") as cache,
            ProgressDisplay("make-qa", most, unit="requests") as progress,
        ):

            def ask(template: Prompt, requests: Sequence[Request]) -> Iterator[Reply]:
                sampling = Sampling(settings.max_tokens, seed=settings.seed, json_schema=template.json_schema)
                for reply in generate_cached(engine, requests, sampling, cache):
                    progress.advance(1, reply.status == "error")
                    yield reply

            candidates, failed = qa.make_pairs(captions, ask, settings.count)
        summary = _write(folder.root, candidates, failed)
        folder.finish(summary)
    return summary


def show(values: dict[str, Any]) -> None:
    """Print a plan or a summary."""
    for name, value in values.items():
        say(f"{name.replace('_', ' ')}: {'unknown' if value is None else value}")


def _open(settings: MakeQaConfig, max_cost: float | None, **more: Any) -> Engine:
    if settings.base_url is not None:
        return open_engine("openai", settings.model, max_cost=max_cost, base_url=settings.base_url, **more)
    found = card(settings.model).require()
    require_server(
        found.engine,
        "questions are made",
        f"serve it ('vllm serve {found.hub_id}') and give --model {found.hub_id} --url http://127.0.0.1:8000/v1",
    )
    return open_card(found, max_cost=max_cost, **more)


def _write(root: str, candidates: list[qa.Candidate], failed: dict[str, str]) -> dict[str, Any]:
    rows = [{**asdict(each), "status": "error" if each.error else "ok"} for each in candidates]
    rows += [{"clip_id": clip, "status": "error", "error": why} for clip, why in failed.items()]
    storage.write_parquet(storage.join(root, "qa_candidates.parquet"), schema.from_rows("qa_candidates", rows))
    chosen = [each for each in candidates if each.chosen is not None]
    pairs = [
        {"clip_id": each.clip_id, "qa_index": each.chosen, "question": each.question, "answer": each.answer}
        for each in chosen
    ]
    storage.write_parquet(storage.join(root, "qa.parquet"), schema.from_rows("qa", pairs))
    flagged = [each for each in chosen if each.review]
    text = csv_text(
        ("clip_id", "qa_index", "question", "answer", "review"),
        ((each.clip_id, each.chosen, each.question, each.answer, each.review) for each in flagged),
    )
    storage.write_bytes(storage.join(root, "review.csv"), text.encode())
    return {
        "candidates": len(candidates),
        "chosen": len(chosen),
        "for_review": len(flagged),
        "failed_clips": len(failed),
        "errors": sum(bool(each.error) for each in candidates),
        "written_to": root,
    }
