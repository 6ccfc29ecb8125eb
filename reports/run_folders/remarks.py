"""What the runs themselves warn of: findings of the scorers, missing and failed rows, notes, values to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microg.reports.run_folders.runs import RunFolder


@dataclass(frozen=True)
class Remark:
    """One warning: the run, a short name of what it is, the message, and examples."""

    run: str
    code: str
    message: str
    examples: tuple[str, ...] = ()


def remarks(runs: Sequence[RunFolder]) -> list[Remark]:
    """Return all warnings, in the order of the runs."""
    found: list[Remark] = []
    for run in runs:
        if run.problem:
            found.append(Remark(run.name, "damaged", run.problem))
        if not run.finished:
            found.append(Remark(run.name, "unfinished", "the run has not come to its end: its numbers are not shown"))
        maker = _MAKERS.get(run.command)
        if maker is not None:
            found += maker(run)
        notes = run.metrics.get("notes")
        found += [Remark(run.name, "note", str(note)) for note in notes or []] if isinstance(notes, list) else []
    return found


def _har(run: RunFolder) -> list[Remark]:
    found = [
        Remark(run.name, str(item["code"]), str(item["message"]), tuple(map(str, item.get("examples") or ())))
        for item in run.metrics.get("findings", [])
    ]
    for item in run.metrics.get("published", {}).get("metrics", []):
        if not item["inside"]:
            message = (
                f"the published {item['metric']} {100 * item['published']:.2f} lies outside "
                f"{100 * item['bracket_low']:.2f} to {100 * item['bracket_high']:.2f}, which ties and rounding allow "
                "these predictions"
            )
            found.append(Remark(run.name, "not-the-published-run", message))
    return found


def _text(run: RunFolder) -> list[Remark]:
    found = []
    for task, counts in run.metrics.get("coverage", {}).items():
        for what in ("missing", "failed", "empty", "extra"):
            if counts.get(what):
                message = f"{counts[what]:,} of {counts.get('items', 0):,} items {_MEANING[what]}"
                found.append(Remark(run.name, f"{what}-{task}", message))
    for task, by_protocol in run.metrics.get("tasks", {}).items():
        for protocol, part in by_protocol.items():
            for metric, number in (part.get("over_length") or {}).items():
                if number:
                    message = f"{metric} ({protocol}) cut {number:,} texts at its encoder's length"
                    found.append(Remark(run.name, f"cut-{task}", message))
    for name, why in (run.metrics.get("skipped") or {}).items():
        found.append(Remark(run.name, "not-computed", f"{name}: {why}"))
    return found


_MEANING = {
    "missing": "have no prediction and score 0",
    "failed": "failed when they were generated and score 0",
    "empty": "are answered with nothing and score 0",
    "extra": "are predicted without a reference",
}


def _predict(run: RunFolder) -> list[Remark]:
    found = []
    loaded = run.metrics.get("weights_loaded") or {}
    for what in ("missing", "mismatched", "filled"):
        names = loaded.get(what) or []
        if names:
            message = f"{len(names)} tensors of the model are {what} in the weights"
            found.append(Remark(run.name, f"weights-{what}", message, tuple(map(str, names[:3]))))
    return found + _failed(run, "sample_id", "samples could not be predicted")


def _generate(run: RunFolder) -> list[Remark]:
    return _failed(run, "row", "answers failed")


def _failed(run: RunFolder, key: str, what: str) -> list[Remark]:
    errors = run.metrics.get("errors") or []
    if not errors:
        return []
    number = run.metrics.get("failed") or len(errors)
    examples = tuple(f"{item.get(key)}: {item.get('error')}" for item in errors[:3])
    return [Remark(run.name, "failed-rows", f"{number:,} {what}", examples)]


def _train(run: RunFolder) -> list[Remark]:
    failures = run.metrics.get("failures") or []
    if not failures:
        return []
    return [Remark(run.name, "failed-rows", f"{len(failures)} clips could not be used", tuple(map(str, failures[:3])))]


_MAKERS = {
    "har score": _har,
    "vlm score": _text,
    "har predict": _predict,
    "har train": _train,
    "vlm generate": _generate,
}
