"""`microg data make-qa`: its settings, the plan, the requests and the run folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.errors import DatasetError
from microg.escaping import csv_text
from microg.jobs.commands.asking import AskConfig, asking, check_ready, cost_at_most, open_model
from microg.locks import exclusive
from microg.models.vlm import qa
from microg.models.vlm.prompts import prompt
from microg.runs import Run

_USE = "questions are made"


class MakeQaConfig(AskConfig):
    """What decides the questions."""

    count: int = Field(default=6, ge=1, description="Pairs to keep of each clip; twice as many are proposed.")


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
    longest = "x" * 200  # of a question, and of an answer
    requests = []
    for caption in captions.values():
        for name, times in ((qa.PROPOSE, 1), (qa.RANK, 2 * settings.count), (qa.CHECK, settings.count)):
            template = prompt(name)
            values = {"caption": caption, "count": "12", "question": longest, "answer": longest}
            request = template.request("", None, **{field: values[field] for field in template.fields})
            requests.append((template, request, times))
    return {
        "clips": len(captions),
        "requests": sum(times for _, _, times in requests),
        "cost_at_most": cost_at_most(open_model(settings, _USE, max_cost), requests, settings.max_tokens),
    }


def make(
    captions: dict[str, str], fingerprint: str, settings: MakeQaConfig, run_folder: str, max_cost: float | None
) -> dict[str, Any]:
    """Make the questions into a run folder on this machine and return the summary."""
    most = plan(captions, settings, max_cost)["requests"]
    check_ready(settings, _USE, max_cost)
    with exclusive(run_folder):
        folder = Run.start(run_folder, "data make-qa", settings, dataset=fingerprint)
        with asking(settings, _USE, run_folder, max_cost, most) as ask:
            candidates, failed = qa.make_pairs(captions, ask, settings.count)
        summary = _write(folder.root, candidates, failed)
        folder.finish(summary)
    return summary


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
