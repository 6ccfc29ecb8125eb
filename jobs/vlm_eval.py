"""`microg vlm generate`: what a vision-language model says about the clips of a dataset, on Ray.

Also `python jobs/vlm_eval.py --model CARD --dataset D --run R`, and the same behind `ray job submit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import (
    EXIT_FAILED_ROWS,
    AddressOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    SetOption,
    make_app,
    print_json,
    profiled,
    run,
    show_plan,
)

if TYPE_CHECKING:
    from microg.pipelines.vlm.settings import GenerateSettings

EPILOG = """
**Examples**

`microg vlm generate --model qwen2.5-vl-7b --dataset data/microg4m --run runs/qwen`

`microg vlm generate --recipe recipes/vlm/gpt-4o.yaml --dataset data/microg4m --run runs/gpt-4o --dry-run`

`microg vlm generate --model gpt-4o --task vqa --prompt vqa-unanswerable-v1 --dataset data/mine --run runs/unanswerable
--max-cost 5 --limit 20`

`microg vlm generate --model weights/my-qwen --dataset data/mine --run runs/mine --frames uniform:16`

`microg vlm generate --model Qwen/Qwen3-VL-8B-Instruct --url http://127.0.0.1:8000/v1 --dataset data/mine --run runs/q3`

`microg vlm generate --model qwen2.5-vl-7b --dataset data/microg4m --run runs/tp --address auto --set tensor_parallel=4`

More settings: `--set api.requests_per_minute=500`, `sampling.max_tokens=512`, `settings.max_num_seqs=64` (of the
engine), `'frames={kind: uniform, count: 8, resize: {longest: 448}}'`, `resources.gpus=0.5`, `resources.max_actors=8`.
"""


def vlm_generate(
    model: Annotated[
        str | None,
        typer.Option(
            help="A model card of 'microg vlm models' or its file, a checkpoint folder, or with --url a name."
        ),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset folder.")] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write or resume. [default: runs/vlm/MODEL-HASH]")
    ] = None,
    task: Annotated[str | None, typer.Option(help="caption, vqa, or both: caption,vqa. [default: both]")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt id of 'microg vlm prompts'; one a task. [default: *-v1]")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="uniform:8, fps:2, key:5:6, dense, ... [default: as the model card says]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test. [default: all clips]")] = None,
    scheme: Annotated[str | None, typer.Option(help="Split scheme. [default: published]")] = None,
    all_clips: Annotated[
        bool | None,
        typer.Option("--all-clips/--with-reference", help="Captions also of clips that have none to compare with."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="OpenAI-compatible server that has the model.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="vllm, transformers, openai or gemini. [default: as the model card says]")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="US dollars that this run may cost in all its invocations together.")
    ] = None,
    batch: Annotated[
        bool | None, typer.Option("--batch/--no-batch", help="OpenAI's batch mode: half the price, within a day.")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", "--recipe", help="Recipe: key generate.")] = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a model for captions and answers: one row a (clip, task, question), with the exact frames it was shown.

    Clips are decoded once for all their questions. Killed at any time, the same command does what is missing; what
    failed is tried again. A run may grow (more clips, another task), but not change its model, prompts or frames.
    `microg vlm score --run` takes the run folder. API keys are read from the environment (see the model card).
    """
    from microg.jobs.commands.vlm_eval import run as vlm_eval_run

    options: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "tasks": _names(task),
        "split": split,
        "scheme": scheme,
        "all_clips": all_clips,
        "url": url,
        "engine": engine,
        "max_cost": max_cost,
        "limit": limit,
        "batch": batch,
    }
    settings = _settings(config, list(overrides or []), options, list(prompt or []), frames, address)
    if dry_run:
        show_plan(vlm_eval_run.plan(settings, run_folder), as_json, "nothing was asked")
        return
    report = vlm_eval_run.generate(settings, run_folder)
    if profile:
        report = profiled(report, report["run"])
    if as_json:
        print_json(report)
    else:
        vlm_eval_run.show(report)
    if report["failed"]:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _settings(
    config: str | None,
    overrides: list[str],
    options: dict[str, Any],
    prompts: list[str],
    frames: str | None,
    address: str | None,
) -> GenerateSettings:
    """Build the settings: the recipe's section `generate`, then `--set`, then options."""
    from microg.config import load_config, recipe_section
    from microg.errors import ConfigError
    from microg.models.vlm.prompts import prompt
    from microg.models.vlm.sampling import parse_policy
    from microg.pipelines.vlm.settings import GenerateSettings

    values = {} if config is None else recipe_section(config, "generate")
    settings = load_config(GenerateSettings, None, overrides, **values)
    given = {name: value for name, value in options.items() if value is not None}
    if prompts:
        found = [prompt(name) for name in prompts]
        if len({each.task for each in found}) < len(found):
            raise ConfigError(f"--prompt {' and '.join(prompts)} are for one task", "give one prompt a task")
        given["prompts"] = {**settings.prompts.model_dump(), **{each.task: each.id for each in found}}
    if frames is not None:
        given["frames"] = parse_policy(frames).model_dump()
    if address is not None:
        given["resources"] = {**settings.resources.model_dump(exclude_unset=True), "address": address}
    if not settings.dataset and "dataset" not in given:
        raise ConfigError("which dataset to ask about is missing", "--dataset FOLDER")
    return load_config(GenerateSettings, None, (), **{**settings.model_dump(exclude_unset=True), **given})


if __name__ == "__main__":
    app = make_app("Ask a vision-language model about clips.")
    app.command(epilog=EPILOG)(vlm_generate)
    run(app)
