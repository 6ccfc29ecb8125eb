"""`microg data label-qa`: kinds of questions by a language model, for statistics and for slices of scores."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import (
    DeviceOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    OfflineOption,
    SetOption,
    SettingsOption,
    command,
    finish,
    given,
    main,
    setting,
)

EPILOG = """
**Examples**

`microg data label-qa data/microg4m --model gpt-4o --run runs/kinds --max-cost 5`

`microg data label-qa data/mine --model Qwen/Qwen3-8B --url http://127.0.0.1:8000/v1 --run runs/kinds`

`microg data label-qa data/mine --model qwen2.5-vl-7b --engine transformers --run runs/kinds`

`microg data stats data/mine --qa-kinds runs/kinds`, `microg vlm score --run runs/qwen --qa-kinds runs/kinds`

The run folder gets the table `qa_kinds` and `review.csv`, the questions where model and rules disagree. Every reply is
cached in it: the same command after a crash asks only what is missing.
"""


@command("data label-qa", settings="microg.jobs.commands.data_label_qa:LabelQaConfig", epilog=EPILOG)
def label_qa(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with the table qa.")],
    model: Annotated[str, setting("model")],
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume; on this machine.")],
    url: Annotated[str | None, setting("base_url", "--url")] = None,
    engine: Annotated[str | None, setting("engine")] = None,
    device: DeviceOption = None,
    trust_remote_code: Annotated[bool | None, setting("trust_remote_code", "--trust-remote-code")] = None,
    overrides: SetOption = None,
    list_settings: SettingsOption = False,
    offline: OfflineOption = False,
    max_tokens: Annotated[int | None, setting("max_tokens")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="US dollars that may be spent at most.")] = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a language model of which of the paper's seven kinds each question is, and how far the rules agree.

    Without it questions are of the kinds that the versioned rules of this package say.
    """
    from microg.config import load_config
    from microg.jobs.commands.asking import require_local, show
    from microg.jobs.commands.data_label_qa import PROMPT, LabelQaConfig, label, plan, read_questions
    from microg.models.vlm.prompts import prompt

    settings = load_config(
        LabelQaConfig, None, [*(overrides or []), given(context)], prompts={PROMPT: prompt(PROMPT).hash}
    )
    require_local(run_folder)
    questions, fingerprint = read_questions(dataset, limit)
    if dry_run:
        finish(plan(questions, settings, max_cost), show, as_json=as_json)
        return
    summary = label(questions, fingerprint, settings, run_folder, max_cost)
    finish(summary, show, as_json=as_json, failed=summary["failed"])


if __name__ == "__main__":
    main("Label questions by kind.")
