"""The card that goes with a tuned model: what it is, what it learnt from, how to ask it."""

from __future__ import annotations

from typing import Any

from microg import storage
from microg.pipelines.vlm.train.settings import TuneSettings


def model_card(run: str, settings: TuneSettings, merged: dict[str, Any] | None) -> str:
    """Return a Markdown page about a tuned model, from its run's record."""
    record = storage.read_json(storage.join(run, "run.json"))
    metrics = storage.read_json(storage.join(run, "metrics.json"))
    best = metrics.get("best") or {}
    train, val = (metrics["lessons"][split] for split in ("train", "val"))
    adapter = settings.adapter
    how = (
        "all weights of the language model"
        if settings.method == "full"
        else f"adapters of rank {adapter.rank}, alpha {adapter.alpha:g}"
    )
    parts = [name for name, learns in (("picture encoder", adapter.vision), ("projector", adapter.projector)) if learns]
    prompts = ", ".join(settings.prompt_of(task).id for task in settings.tasks)
    lines = [
        "---",
        "library_name: transformers",
        f"base_model: {metrics['model']}",
        "pipeline_tag: video-text-to-text",
        "---",
        f"# {metrics['model']}, tuned on people in weightlessness",
        "",
        f"- **Base model**: {settings.model} ({', '.join(f'{k} {v}' for k, v in settings.model_identity.items())})",
        f"- **Method**: {settings.method}: {how}" + (f", also {' and '.join(parts)}" if parts else ""),
        f"- **Data**: dataset {record['dataset']}, split scheme `{settings.scheme}`: {train['clips']} clips, "
        f"{train['captions']} captions, {train['answers']} answers; {val['clips']} clips of val chose the epoch",
        f"- **Frames**: {settings.policy().label()}; prompts {prompts}",
        f"- **Training**: {metrics['epochs']} epochs of batches of {settings.batch} clips, rate "
        f"{settings.schedule.lr:g}, seed {settings.seed}, code {record['code_version']}",
        f"- **Kept**: epoch {best.get('epoch', metrics['epochs'])}"
        + (f", {best['select']} {best['value']:.4f} on val" if best else ", the last one"),
    ]
    if merged is not None:
        lines.append(
            f"- **Merged**: {merged['merged']} matrices; logits at most {merged['logits']:.2g} from those with adapters"
        )
    lines += [
        "",
        "Compare it with other models on clips that it has not learnt from only: the held-out clips of the same split.",
        "",
        "```sh",
        "microg vlm generate --model FOLDER --dataset DATASET --split test "
        f"--scheme {settings.scheme} --run runs/answers",
        "```",
        "",
    ]
    return "\n".join(lines)
