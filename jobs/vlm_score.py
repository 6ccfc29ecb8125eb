"""`microg vlm score`: captions and answers against references, under the paper's protocol and COCO's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.console import say, say_aside
from microg.jobs import common
from microg.jobs.common import EXIT_FAILED_ROWS, command, finish, given, main, names_in, profiled, setting, show_plan

if TYPE_CHECKING:
    from microg.jobs.commands.vlm_score.settings import VlmScoreConfig
    from microg.metrics.judge import Judgement
    from microg.texts.items import Task, TextPredictions, TextReferences
    from microg.texts.pairs import Pairs

EPILOG = """
**Examples**

`microg vlm score --run runs/qwen --references data/microg4m`

`microg vlm score --predictions captions.json --references vqa_and_captioning.json --row gpt_4o`

`microg vlm score --predictions answers.jsonl --references data/mine --task vqa --missing zero --json`

`microg vlm score --predictions answers.csv --references data/mine --answers clean`

`microg vlm score --run runs/a --references data/mine --compare runs/vlm_score/b-1a2b3c4d`

`microg vlm score --run runs/a --references data/mine --judge gpt-4o-mini` (key: OPENAI_API_KEY; more settings:
`--set judge.engine=gemini`, `judge.max_cost=5`, `judge.caption_prompt=judge_caption_v1`)

`microg vlm score --run runs/a --metrics bertscore --set 'settings.bertscore={model: weights/roberta-large}'`

`microg vlm score --run runs/a --address auto --set resources.gpus=1 --set resources.memory_gb=4` (on a Ray cluster;
encoders take a GPU each where there are any)

Predictions: clip id -> caption; a list of {video_id, caption, qa_pairs: [{Q, A}]}; flat rows {clip_id, question or
qa_index, prediction}; as JSON, JSONL, CSV or Parquet. References have the same shapes, or are a dataset folder.
"""


@command("vlm score", settings="microg.jobs.commands.vlm_score.settings:VlmScoreConfig", epilog=EPILOG)
def vlm_score(
    context: typer.Context,
    generated: Annotated[
        str | None, typer.Option("--run", help="Run folder of 'microg vlm generate': its answers are scored.")
    ] = None,
    predictions: Annotated[str | None, typer.Option("--predictions", help="A file of predictions instead.")] = None,
    references: Annotated[
        str | None,
        typer.Option("--references", help="Dataset folder or a file. [default: the dataset that --run was made from]"),
    ] = None,
    task: Annotated[str | None, setting("task")] = None,
    protocol: Annotated[str | None, setting("protocol")] = None,
    metrics: Annotated[
        str | None,
        setting("metrics", note="Commas separate names."),
    ] = None,
    answers: Annotated[str | None, setting("answers")] = None,
    qa_kinds: Annotated[str | None, setting("qa_kinds", "--qa-kinds", metavar="RUN")] = None,
    missing: Annotated[str | None, setting("missing")] = None,
    allow_extra: Annotated[bool | None, setting("allow_extra", "--allow-extra/--no-extra")] = None,
    baselines: Annotated[str | None, setting("baselines")] = None,
    row: Annotated[str | None, setting("row")] = None,
    compare: Annotated[
        list[str] | None, typer.Option("--compare", metavar="RUN", help="Scored runs of other models to compare with.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="More runs after --compare.")] = None,
    prompt: Annotated[str | None, setting("prompt")] = None,
    offline: common.OfflineOption = False,
    split: common.SplitOption = None,
    scheme: common.SchemeOption = None,
    resamples: Annotated[int | None, setting("resamples")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    judge: Annotated[str | None, setting("judge.model", "--judge", metavar="MODEL")] = None,
    judge_url: Annotated[str | None, setting("judge.base_url", "--judge-url")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Run folder to write. [default: runs/vlm_score/NAME-HASH]")
    ] = None,
    address: common.AddressOption = None,
    workers: Annotated[int | None, setting("workers")] = None,
    device: common.DeviceOption = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots.")] = True,
    dry_run: common.DryRunOption = False,
    profile: common.ProfileOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Score captions and answers with text metrics (see --metrics), and short answers by their accuracy besides.

    With intervals over clips, slices by kind of question, baselines that see no video, length statistics, the published
    row, and examples. `paper` scores raw strings as the paper did; `standard` is COCO's tokenization.
    """
    from microg.data.qa_kinds import qa_rules, read_kinds
    from microg.errors import ConfigError
    from microg.jobs.commands.scoring import default_folder, runs_to_compare
    from microg.jobs.commands.vlm_score import run as steps
    from microg.jobs.commands.vlm_score.settings import VlmScoreRun, load_vlm_score_config
    from microg.jobs.commands.vlm_score.show import show
    from microg.locks import exclusive
    from microg.metrics.published import text_row
    from microg.texts.clean import cleaned
    from microg.texts.files import read_text_predictions, read_text_references
    from microg.texts.items import rows_digest
    from microg.texts.pairs import pair

    runs = runs_to_compare(compare, more)
    if (generated is None) == (predictions is None):
        raise ConfigError("give either --run or --predictions", "see 'microg vlm score --help'")
    chosen_metrics = {} if metrics is None else {"metrics": names_in(metrics)}
    settings = load_vlm_score_config(config, overrides or (), given(context) | chosen_metrics)
    if settings.row:
        text_row(settings.row)
    source = generated or str(predictions)
    truth_path = references or _dataset_of(source)
    written = read_text_predictions(source, prompt=settings.prompt)
    plain, wrapped = cleaned(written)
    predicted = plain if settings.answers == "clean" else written
    truth = read_text_references(truth_path, split=settings.split, scheme=settings.scheme)
    pairs = [
        pair(predicted, truth, name, missing=settings.missing, allow_extra=settings.allow_extra)
        for name in _tasks(settings, predicted, truth)
    ]
    # all that can be refused is refused before the work
    kinds = None if settings.qa_kinds is None else read_kinds(settings.qa_kinds)
    prompts = steps.judge_prompts(settings.judge, pairs)
    engine = steps.judge_engine(settings.judge) if prompts else None
    run_config = VlmScoreRun(
        predictions=source,
        references=truth_path,
        predictions_digest=rows_digest(written.rows),
        references_digest=truth.digest(),
        judge_prompts={name: found.digest for name, found in prompts.items()},
        score=settings,
    )
    others = steps.comparable(runs, run_config)
    measurer = steps.Measurer(settings.of_metrics(), settings.resources, settings.workers)
    protocols = ["paper", "standard"] if settings.protocol == "both" else [settings.protocol]
    chosen = measurer.choose(settings.metrics, protocols, all_protocols=len(protocols) > 1)
    if dry_run:
        plan: dict[str, Any] = {
            **{part.task: part.coverage() for part in pairs},
            "metrics": chosen,
            "skipped": measurer.skipped,
            "answers": settings.answers,
            "more_than_an_answer": wrapped,
            "judge": settings.judge.model,
            "requests_to_judge": sum(len(part.items) for part in pairs) if settings.judge.model else 0,
            **settings.model_dump(include={"baselines", "resamples", "seed", "row", "workers"}),
        }
        show_plan(plan, as_json, "nothing was scored")
        return
    root = out or default_folder(steps.COMMAND, source, run_config)
    with exclusive(root):
        folder = steps.start_run(root, run_config)
        reports, throughput = steps.score_pairs(pairs, chosen, measurer, settings, truth, kinds)
        judged: dict[Task, list[Judgement]] = {
            part.task: steps.judge_pairs(part, settings.judge, engine, prompts[part.task])
            for part in pairs
            if engine is not None and part.task in prompts
        }
        notes = [*predicted.notes, *truth.notes, *_left_out(pairs, settings, predicted, truth)]
        notes += _on_answers(settings.answers, wrapped)
        facts = {"model": predicted.model, "skipped": measurer.skipped, "notes": notes, "throughput": throughput}
        facts["qa_kinds"] = settings.qa_kinds or qa_rules().name
        facts["answers"] = {"rule": settings.answers, "wrapped": wrapped}
        if profile:
            facts = profiled(facts, folder.root)
        result = steps.VlmScoreResult(
            config=run_config,
            reports=reports,
            judged=judged,
            prompts=prompts,
            others=others,
            facts=facts,
            kinds=kinds,
        )
        document = steps.write_run(
            folder, result, plots=plots, on_scores=lambda scored: None if as_json else show(scored)
        )
    finish(document, lambda found: say(f"wrote {len(found['files'])} files to {found['run']}"), as_json=as_json)
    failed = sum(counts["failed"] for counts in document.get("judge", {}).values())
    if failed:
        where = folder.path("tables", "text_judgements.parquet")
        say_aside(f"{failed} items could not be judged: their reasons are in {where}; run again to retry")
        raise typer.Exit(EXIT_FAILED_ROWS)


def _dataset_of(run_folder: str) -> str:
    """Return the dataset that a generation run was made from, as its run.json says."""
    from microg import storage
    from microg.errors import ConfigError

    path = storage.join(run_folder, "run.json")
    known = storage.read_json(path) if storage.exists(path) else {}
    settings = known.get("full_config") if isinstance(known, dict) else None
    found = settings.get("dataset") if isinstance(settings, dict) else None
    if not isinstance(found, str):
        raise ConfigError(f"{run_folder} does not say what its answers are to", "give --references")
    return found


def _tasks(settings: VlmScoreConfig, predicted: TextPredictions, truth: TextReferences) -> list[Task]:
    """Return the tasks to score. Raises `ConfigError` when predictions or references hold none of an asked one."""
    from microg.errors import ConfigError
    from microg.texts.items import TASKS

    if settings.task is None:
        shared: list[Task] = [name for name in predicted.tasks() if name in truth.tasks()]
        if not shared:
            raise ConfigError(
                f"predictions are of {' and '.join(predicted.tasks())}, references of {' and '.join(truth.tasks())}"
            )
        return shared
    wanted: list[Task] = [name for name in TASKS if settings.task in (name, "both")]
    for name in wanted:
        for side, found in (("predictions", predicted.tasks()), ("references", truth.tasks())):
            if name not in found:
                raise ConfigError(f"the {side} hold nothing of task {name}", f"they hold {' and '.join(found)}")
    return wanted


def _left_out(
    pairs: list[Pairs], settings: VlmScoreConfig, predicted: TextPredictions, truth: TextReferences
) -> list[str]:
    """Return a note for each task that only predictions or only references hold, where none was asked for."""
    if settings.task is not None:
        return []
    return [
        f"the {side} also hold {task} items: they were not scored, as the other side has none"
        for side, tasks in (("predictions", predicted.tasks()), ("references", truth.tasks()))
        for task in tasks
        if task not in {part.task for part in pairs}
    ]


def _on_answers(rule: str, wrapped: int) -> list[str]:
    """Return a note on texts that are more than an answer, where there are any."""
    what = f"{wrapped:,} predictions hold more than an answer (thoughts, markers, fences, JSON, labels or quotes)"
    done = "which was left out" if rule == "clean" else "all of which was scored: --answers clean leaves it out"
    return [f"{what}, {done}"] if wrapped else []


if __name__ == "__main__":
    main("Score captions and answers.")
