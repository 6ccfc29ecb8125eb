"""`microg data label-qa`: kinds of a dataset's questions by a language model, beside those by rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.qa_kinds import TABLE, qa_kind, qa_rules
from microg.errors import DatasetError
from microg.escaping import csv_text
from microg.jobs.commands.asking import AskConfig, asking, check_ready, cost_at_most, open_model
from microg.locks import exclusive
from microg.models.vlm.prompts import prompt
from microg.models.vlm.qa import read_json
from microg.runs import Run

PROMPT = "qa-kind-v1"
_USE = "questions are labelled"

Question = dict[str, Any]


class LabelQaConfig(AskConfig):
    """What decides the labels."""


def read_questions(dataset: str, limit: int | None) -> tuple[list[Question], str]:
    """Return a dataset's questions (rows of `qa`), the first `limit` of them, and its fingerprint."""
    source = Dataset.open(dataset)
    rows = source.table("qa").sort_by([("clip_id", "ascending"), ("qa_index", "ascending")]).to_pylist()
    questions = [row for row in rows if row["question"] and row["answer"]][:limit]
    if not questions:
        raise DatasetError(f"{dataset} has no questions", "make some with 'microg data make-qa'")
    return questions, source.fingerprint()


def plan(questions: Sequence[Question], settings: LabelQaConfig, max_cost: float | None) -> dict[str, Any]:
    """Return how many requests are sent at most, and what they cost at most."""
    template = prompt(PROMPT)
    requests = [
        (template, template.request("", None, question=row["question"], answer=row["answer"]), 1) for row in questions
    ]
    return {
        "questions": len(questions),
        "cost_at_most": cost_at_most(open_model(settings, _USE, max_cost), requests, settings.max_tokens),
    }


def label(
    questions: Sequence[Question], fingerprint: str, settings: LabelQaConfig, run_folder: str, max_cost: float | None
) -> dict[str, Any]:
    """Label the questions into a run folder on this machine and return the summary."""
    check_ready(settings, _USE, max_cost)
    template = prompt(PROMPT)
    requests = [
        template.request(str(place), None, question=row["question"], answer=row["answer"])
        for place, row in enumerate(questions)
    ]
    with exclusive(run_folder):
        folder = Run.start(run_folder, "data label-qa", settings, dataset=fingerprint)
        with asking(settings, _USE, run_folder, max_cost, len(requests)) as ask:
            replies = read_json(PROMPT, ask(template, requests))
        rows = [_labelled(row, *replies[str(place)]) for place, row in enumerate(questions)]
        summary = _write(folder.root, rows)
        folder.finish(summary)
    return summary


def _labelled(row: Question, value: dict[str, Any], problem: str) -> dict[str, Any]:
    kind = None if problem else value["kind"]
    if not problem and kind not in qa_rules().kinds:
        kind, problem = None, f"{kind!r} is no kind of question"
    by_rules = qa_kind(row["question"], row["answer"])
    return {**row, "kind": kind, "by_rules": by_rules, "status": "error" if problem else "ok", "error": problem or None}


def _write(root: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    storage.write_parquet(storage.join(root, "tables", f"{TABLE}.parquet"), schema.from_rows(TABLE, list(rows)))
    good = [row for row in rows if row["status"] == "ok"]
    apart = [row for row in good if row["kind"] != row["by_rules"]]
    columns = ("clip_id", "qa_index", "question", "answer", "kind", "by_rules")
    text = csv_text(columns, (tuple(row[name] for name in columns) for row in apart))
    storage.write_bytes(storage.join(root, "review.csv"), text.encode())
    return {
        "questions": len(rows),
        "failed": len(rows) - len(good),
        **dict(Counter(row["kind"] for row in good).most_common()),
        "for_review": len(apart),
        "agreement_with_rules": round(1 - len(apart) / len(good), 4) if good else None,
        "kappa": _kappa([(row["kind"], row["by_rules"]) for row in good]),
        "rules": qa_rules().name,
        "written_to": root,
    }


def _kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa of two labellers, None where there is no disagreement to expect.

    >>> _kappa([("causal", "causal"), ("temporal", "causal"), ("temporal", "temporal"), ("causal", "causal")])
    0.5
    """
    if not pairs:
        return None
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(first[kind] * second[kind] for kind in first) / len(pairs) ** 2
    observed = sum(one == other for one, other in pairs) / len(pairs)
    return None if chance == 1 else round((observed - chance) / (1 - chance), 4)
