"""`microg vlm generate`: ask a vision-language model about the clips of a dataset, on Ray.

`jobs/vlm_score.py` scores the answers. Also `python jobs/vlm_eval.py --model CARD --dataset D --run R`,
and the same behind `ray job submit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs import common
from microg.jobs.common import command, finish, given, main, names_in, setting, show_plan

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

`microg vlm generate --adapter runs/tuned --dataset data/microg4m --split test --scheme source --run runs/tuned-answers`

`microg vlm generate --model qwen2.5-vl-7b --dataset data/microg4m --run runs/tp --address auto --set tensor_parallel=4`

`microg vlm generate --recipe recipes/vlm/mplug-owl3.yaml --dataset data/microg4m --run runs/owl3 --trust-remote-code`

More settings: `--set api.requests_per_minute=500`, `sampling.max_tokens=512`, `settings.max_num_seqs=64` (of the
engine), `'frames={kind: uniform, count: 8, resize: {longest: 448}}'`, `resources.gpus=0.5`, `resources.max_actors=8`.
"""


@command("vlm generate", settings="microg.pipelines.vlm.settings:GenerateSettings", epilog=EPILOG)
def vlm_generate(
    context: typer.Context,
    model: Annotated[str | None, setting("model")] = None,
    dataset: Annotated[str | None, setting("dataset")] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write or resume. [default: runs/vlm/MODEL-HASH]")
    ] = None,
    task: Annotated[str | None, setting("tasks", "--task", note="Names are separated by commas.")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Prompt id of 'microg vlm prompts', one a task."),
    ] = None,
    frames: Annotated[str | None, setting("frames", note="Forms: uniform:8, fps:2, key:5:6, dense, ...")] = None,
    split: common.SplitOption = None,
    scheme: common.SchemeOption = None,
    all_clips: Annotated[bool | None, setting("all_clips", "--all-clips/--with-reference")] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run of 'microg vlm train' whose tuned model is asked, merged if need be."),
    ] = None,
    url: Annotated[str | None, setting("url")] = None,
    engine: Annotated[str | None, setting("engine")] = None,
    trust_remote_code: Annotated[bool | None, setting("trust_remote_code", "--trust-remote-code")] = None,
    max_cost: Annotated[float | None, setting("max_cost")] = None,
    batch: Annotated[bool | None, setting("batch", "--batch/--no-batch")] = None,
    end_scores: Annotated[str | None, setting("end_scores", "--end-scores", metavar="METRIC,METRIC")] = None,
    decoder: Annotated[str | None, setting("decoder")] = None,
    device: common.DeviceOption = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    allow_external: common.AllowExternalOption = False,
    offline: common.OfflineOption = False,
    address: common.AddressOption = None,
    limit: common.LimitOption = None,
    dry_run: common.DryRunOption = False,
    profile: common.ProfileOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Ask a model for captions and answers: one row a (clip, task, question), with the exact frames it was shown.

    Clips are decoded once for all their questions. Killed at any time, the same command does what is missing; what
    failed is tried again. A run may grow (more clips, another task), but not change its model, prompts or frames.
    `microg vlm score --run` takes the run folder. API keys are read from the environment (see the model card).
    """
    from microg.jobs.commands.vlm_eval import run as vlm_eval_run

    options = given(context) | _tuned(adapter, model)
    settings = _settings(config, list(overrides or []), options, list(prompt or []))
    if dry_run:
        show_plan(vlm_eval_run.plan(settings, run_folder), as_json, "nothing was asked")
        return
    report = vlm_eval_run.generate(settings, run_folder)
    folder = report["run"] if profile else None
    finish(report, vlm_eval_run.show, as_json=as_json, failed=report["failed"], profile=folder)


def _tuned(adapter: str | None, model: str | None) -> dict[str, str]:
    """Return the model that `--adapter` stands for. Raises `ConfigError` beside `--model`."""
    from microg.errors import ConfigError

    if adapter is None:
        return {}
    if model is not None:
        raise ConfigError("--adapter names the tuned model, --model another one", "give one of them")
    from microg.pipelines.vlm.train.merge import tuned_model

    return {"model": tuned_model(adapter)}


def _settings(
    config: str | None, overrides: list[str], options: dict[str, Any], prompts: list[str]
) -> GenerateSettings:
    """Build the settings: the recipe's section `generate`, then `--set`, then options."""
    from microg.config import load_config, recipe_section
    from microg.errors import ConfigError
    from microg.models.vlm.prompts import prompt
    from microg.models.vlm.sampling import parse_policy
    from microg.pipelines.vlm.settings import GenerateSettings

    found = [prompt(name) for name in prompts]
    if len({each.task for each in found}) < len(found):
        raise ConfigError(f"--prompt {' and '.join(prompts)} are for one task", "give one prompt a task")
    options = options | {f"prompts.{each.task}": each.id for each in found}
    if "tasks" in options:
        options["tasks"] = names_in(options["tasks"])
    if "end_scores" in options:
        options["end_scores"] = names_in(options["end_scores"])
    if "frames" in options:
        options["frames"] = parse_policy(options["frames"]).model_dump()
    settings = load_config(GenerateSettings, None, [*overrides, options], **recipe_section(config, "generate"))
    if not settings.dataset:
        raise ConfigError("which dataset to ask about is missing", "--dataset FOLDER")
    return settings


if __name__ == "__main__":
    main("Ask a vision-language model about clips.")
