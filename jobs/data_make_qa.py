"""`microg data make-qa`: questions and answers for a dataset builder, from captions, with every step kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import (
    EXIT_FAILED_ROWS,
    DryRunOption,
    JsonOption,
    LimitOption,
    command,
    given,
    main,
    print_json,
    setting,
)

if TYPE_CHECKING:
    from microg.jobs.commands.data_make_qa.settings import MakeQaConfig
    from microg.models.vlm.api.engine import ApiEngine
    from microg.models.vlm.qa import Candidate

EPILOG = """
**Examples**

`microg data make-qa data/mine --model gpt-4o --run runs/qa --max-cost 5`

`microg data make-qa data/mine --model Qwen/Qwen3-8B --url http://127.0.0.1:8000/v1 --run runs/qa`

`microg data make-qa data/mine --model gpt-4o --run runs/qa --dry-run`

The run folder gets `qa_candidates.parquet` (all candidates, their marks, why they were dropped), `qa.parquet` (those
chosen, as the dataset's table) and `review.csv` (what people should look at). Every reply is cached in it: the same
command after a crash asks only what is missing.
"""


@command("data make-qa", settings="microg.jobs.commands.data_make_qa.settings:MakeQaConfig", epilog=EPILOG)
def make_qa(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with the table captions.")],
    model: Annotated[str, setting("model")],
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume; on this machine.")],
    url: Annotated[str | None, setting("base_url", "--url")] = None,
    count: Annotated[int | None, setting("count")] = None,
    max_tokens: Annotated[int | None, setting("max_tokens")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="US dollars that may be spent at most.")] = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make questions and answers from captions: propose, rank, filter, choose diverse ones, check for review."""
    from microg.config import load_config
    from microg.data.dataset import Dataset
    from microg.errors import ConfigError, DatasetError
    from microg.jobs.commands.data_make_qa.settings import MakeQaConfig
    from microg.models.vlm import qa
    from microg.models.vlm.api.budget import Budget
    from microg.models.vlm.api.gate import LocalGate
    from microg.models.vlm.prompts import prompt
    from microg.runs import Run, exclusive
    from microg.storage import is_local, local_path

    source = Dataset.open(dataset)
    rows = source.table("captions").sort_by("clip_id").to_pylist()[:limit]
    captions = {row["clip_id"]: row["caption"] for row in rows if row["caption"]}
    if not captions:
        raise DatasetError(f"{dataset} has no captions", "make some with 'microg vlm generate --task caption'")
    if not is_local(run_folder):
        raise ConfigError(
            f"{run_folder} is not on this machine", "the cache and the account of costs need a local folder"
        )
    hashes = {name: prompt(name).hash for name in (qa.PROPOSE, qa.RANK, qa.CHECK)}
    settings = load_config(MakeQaConfig, None, [given(context)], prompts=hashes)
    engine = _engine(settings, max_cost)
    plan = _plan(captions, settings, engine)
    if dry_run:
        _show(plan, as_json)
        return
    engine.key()  # before a folder is made
    with exclusive(run_folder):
        folder = Run.start(run_folder, "data make-qa", settings, dataset=source.fingerprint())
        account = Budget(max_cost, journal=local_path(run_folder) / "account.sqlite")
        engine.gate = LocalGate(budget=account)
        found, failed = _made(
            captions, settings, engine, str(local_path(run_folder) / "replies.sqlite"), plan["requests"]
        )
        summary = _write(folder.root, found, failed)
        folder.finish(summary)
    _show(summary, as_json)
    if summary["failed_clips"] or summary["errors"]:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _engine(settings: MakeQaConfig, max_cost: float | None) -> ApiEngine:
    from microg.errors import ConfigError
    from microg.models.vlm.api.engine import ApiEngine
    from microg.models.vlm.api.openai import OpenAiEngine
    from microg.models.vlm.cards import card
    from microg.models.vlm.engines.registry import open_engine, require_price

    if settings.base_url is not None:
        engine = OpenAiEngine(settings.model, settings.base_url)
        require_price(engine, max_cost)
        return engine
    found = card(settings.model)
    engine = open_engine(found, max_cost=max_cost)
    if not isinstance(engine, ApiEngine):
        raise ConfigError(
            f"questions are made through a server, and {found.title} is run by {found.engine}",
            f"serve it ('vllm serve {found.hub_id}') and give --model {found.hub_id} --url http://127.0.0.1:8000/v1",
        )
    return engine


def _plan(captions: dict[str, str], settings: MakeQaConfig, engine: ApiEngine) -> dict[str, Any]:
    """Return how much will be asked at most, and what that costs at most."""
    from microg.models.vlm import qa
    from microg.models.vlm.base import Request, Sampling
    from microg.models.vlm.prompts import prompt

    requests, cost = 0, 0.0
    longest = "x" * 200  # of a question, and of an answer
    for caption in captions.values():
        for name, times in ((qa.PROPOSE, 1), (qa.RANK, 2 * settings.count), (qa.CHECK, settings.count)):
            template = prompt(name)
            given = {"caption": caption, "count": "12", "question": longest, "answer": longest}
            request = Request(
                "", template.render(**{field: given[field] for field in template.fields}), template.system
            )
            sampling = Sampling(settings.max_tokens, json_schema=template.json_schema)
            requests += times
            cost += times * engine.estimate(request, sampling).cost
    known = engine.price is not None
    return {"clips": len(captions), "requests": requests, "cost_at_most": round(cost, 4) if known else None}


def _made(
    captions: dict[str, str], settings: MakeQaConfig, engine: ApiEngine, cache: str, total: int
) -> tuple[list[Candidate], dict[str, str]]:
    from collections.abc import Iterator, Sequence

    from microg.console import ProgressDisplay
    from microg.models.vlm.api.cache import ResponseCache, generate_cached
    from microg.models.vlm.base import Reply, Request, Sampling
    from microg.models.vlm.prompts import Prompt
    from microg.models.vlm.qa import make_pairs

    with ResponseCache(cache) as kept, ProgressDisplay("make-qa", total, unit="requests") as progress:

        def ask(template: Prompt, requests: Sequence[Request]) -> Iterator[Reply]:
            sampling = Sampling(settings.max_tokens, seed=settings.seed, json_schema=template.json_schema)
            for reply in generate_cached(engine, requests, sampling, kept):
                progress.advance(1, reply.status == "error")
                yield reply

        return make_pairs(captions, ask, settings.count)


def _write(root: str, found: list[Candidate], failed: dict[str, str]) -> dict[str, Any]:
    import csv
    import io
    from dataclasses import asdict

    from microg import storage
    from microg.data import schema

    rows = [{**asdict(each), "status": "error" if each.error else "ok"} for each in found]
    rows += [{"clip_id": clip, "status": "error", "error": why} for clip, why in failed.items()]
    storage.write_parquet(storage.join(root, "qa_candidates.parquet"), schema.from_rows("qa_candidates", rows))
    chosen = [each for each in found if each.chosen is not None]
    pairs = [
        {"clip_id": each.clip_id, "qa_index": each.chosen, "question": each.question, "answer": each.answer}
        for each in chosen
    ]
    storage.write_parquet(storage.join(root, "qa.parquet"), schema.from_rows("qa", pairs))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["clip_id", "qa_index", "question", "answer", "review"])
    flagged = [each for each in chosen if each.review]
    writer.writerows([each.clip_id, each.chosen, each.question, each.answer, each.review] for each in flagged)
    storage.write_bytes(storage.join(root, "review.csv"), text.getvalue().encode())
    return {
        "candidates": len(found),
        "chosen": len(chosen),
        "for_review": len(flagged),
        "failed_clips": len(failed),
        "errors": sum(bool(each.error) for each in found),
        "written_to": root,
    }


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        print(f"{name.replace('_', ' ')}: {'unknown' if value is None else value}", file=sys.stdout)


if __name__ == "__main__":
    main("Make questions and answers from captions.")
