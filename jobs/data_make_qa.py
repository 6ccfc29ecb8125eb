"""`microg data make-qa`: questions and answers for a dataset builder, from captions, with every step kept."""

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

`microg data make-qa data/mine --model gpt-4o --run runs/qa --max-cost 5`

`microg data make-qa data/mine --model Qwen/Qwen3-8B --url http://127.0.0.1:8000/v1 --run runs/qa`

`microg data make-qa data/mine --model qwen2.5-vl-7b --engine vllm --run runs/qa`

`microg data make-qa data/mine --model gpt-4o --run runs/qa --dry-run`

The run folder gets `qa_candidates.parquet` (all candidates, their marks, why they were dropped), `qa.parquet` (those
chosen, as the dataset's table) and `review.csv` (what people should look at). Every reply is cached in it: the same
command after a crash asks only what is missing.
"""


@command("data make-qa", settings="microg.jobs.commands.data_make_qa:MakeQaConfig", epilog=EPILOG)
def make_qa(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with the table captions.")],
    model: Annotated[str, setting("model")],
    run_folder: Annotated[str, typer.Option("--run", help="Run folder to make or to resume; on this machine.")],
    url: Annotated[str | None, setting("base_url", "--url")] = None,
    engine: Annotated[str | None, setting("engine")] = None,
    device: DeviceOption = None,
    trust_remote_code: Annotated[bool | None, setting("trust_remote_code", "--trust-remote-code")] = None,
    overrides: SetOption = None,
    list_settings: SettingsOption = False,
    offline: OfflineOption = False,
    count: Annotated[int | None, setting("count")] = None,
    max_tokens: Annotated[int | None, setting("max_tokens")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="US dollars that may be spent at most.")] = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make questions and answers from captions: propose, rank, filter, choose diverse ones, check for review."""
    from microg.config import load_config
    from microg.jobs.commands.asking import require_local, show
    from microg.jobs.commands.data_make_qa import MakeQaConfig, make, plan, read_captions
    from microg.models.vlm.prompts import prompt
    from microg.models.vlm.qa import PROMPTS

    hashes = {name: prompt(name).hash for name in PROMPTS}
    settings = load_config(MakeQaConfig, None, [*(overrides or []), given(context)], prompts=hashes)
    require_local(run_folder)
    captions, fingerprint = read_captions(dataset, limit)
    if dry_run:
        finish(plan(captions, settings, max_cost), show, as_json=as_json)
        return
    summary = make(captions, fingerprint, settings, run_folder, max_cost)
    finish(summary, show, as_json=as_json, failed=summary["failed_clips"] or summary["errors"])


if __name__ == "__main__":
    main("Make questions and answers from captions.")
