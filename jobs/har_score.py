"""`microg har score`: HAR predictions against truth, under the paper's protocol and the corrected one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from microg.jobs.common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    SchemeOption,
    SetOption,
    SettingsOption,
    SplitOption,
    command,
    given,
    main,
    print_json,
    setting,
    show_plan,
)

if TYPE_CHECKING:
    from microg.actions.rows import Predictions, Truth
    from microg.actions.transfer import Coverage
    from microg.jobs.commands.har_score.settings import HarScoreConfig
    from microg.metrics.har.scoring import Report
    from microg.metrics.published import PublishedRow

EPILOG = """
**Examples**

`microg har score --predictions detections.csv --groundtruth ava_test.csv --scores logit`

`microg har score --predictions runs/i3d --groundtruth data/microg4m --config recipes/har/i3d_nln_8x8_r50.yaml`

`microg har score --predictions runs/slow_ava --groundtruth data/microg4m --onto ava80`

`microg har score --predictions det.parquet --groundtruth ava_test.csv --run runs/mine --compare runs/other --json`
"""


@command("har score", settings="microg.jobs.commands.har_score.settings:HarScoreConfig", epilog=EPILOG)
def har_score(
    context: typer.Context,
    predictions: Annotated[
        str, typer.Option("--predictions", help="AVA-style CSV, Parquet, or the run folder of 'microg har predict'.")
    ],
    groundtruth: Annotated[
        str, typer.Option("--groundtruth", help="AVA-style CSV, Parquet, or a dataset folder (see --split).")
    ],
    protocol: Annotated[str | None, setting("protocol")] = None,
    scores: Annotated[str | None, setting("score_kind", "--scores")] = None,
    space: Annotated[str | None, setting("label_space", "--label-space")] = None,
    onto: Annotated[str | None, setting("onto", "--onto")] = None,
    truth_space: Annotated[str | None, setting("truth_space", "--truth-space")] = None,
    row: Annotated[str | None, setting("row")] = None,
    compare: Annotated[
        list[str] | None, typer.Option("--compare", metavar="RUN", help="Run folders of other models to compare with.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="More runs after --compare.")] = None,
    split: SplitOption = None,
    scheme: SchemeOption = None,
    resamples: Annotated[int | None, setting("resamples")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    match_order: Annotated[str | None, setting("match_order", "--match-order")] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write. [default: runs/har_score/NAME-HASH]")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    list_settings: SettingsOption = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots.")] = True,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score action predictions: mAP@0.5, F1, precision, recall and AUROC, with intervals, slices and warnings.

    `paper` is the reference's scoring to the letter; `corrected` takes truth by box, removes duplicates, groups ties
    and thresholds at p >= 0.5. Key frames without predictions count as misses.
    """
    from microg.actions.predictions import read_predictions
    from microg.actions.transfer import transfer
    from microg.actions.truth import read_truth
    from microg.data.label_space import label_space
    from microg.errors import ConfigError
    from microg.jobs.commands.har_score.settings import load_har_score_config, truth_label_space
    from microg.metrics.har.protocols import protocols
    from microg.metrics.har.scoring import score
    from microg.metrics.published import har_row

    if more and not compare:
        raise ConfigError(f"unexpected argument {more[0]!r}", "runs to compare with follow --compare")
    others = [*(compare or []), *(more or [])]
    settings = load_har_score_config(config, overrides or (), given(context))
    chosen = protocols(settings.protocol)
    published = har_row(settings.row) if settings.row else None
    said = read_predictions(predictions, score_kind=settings.score_kind, space=settings.label_space)
    labels = truth_label_space(groundtruth, said.space, settings)
    truth = read_truth(groundtruth, labels, split=settings.split, scheme=settings.scheme)
    coverage = None
    if settings.onto is not None:
        said, truth, coverage = transfer(said, truth, labels, label_space(settings.onto))
    if dry_run:
        _plan(said, truth, settings, coverage, as_json)
        return
    report = score(
        said, truth, chosen, resamples=settings.resamples, seed=settings.seed, match_order=settings.match_order
    )
    paths = (predictions, groundtruth)
    _finish(report, said, truth, coverage, settings, published, paths, run_folder, others, plots, as_json)


def _finish(
    report: Report,
    said: Predictions,
    truth: Truth,
    coverage: Coverage | None,
    settings: HarScoreConfig,
    published: PublishedRow | None,
    paths: tuple[str, str],
    folder: str | None,
    others: list[str],
    plots: bool,
    as_json: bool,
) -> None:
    from microg.jobs.commands.har_score.run import compare_runs, default_folder, result_document, write_run
    from microg.jobs.commands.har_score.settings import HarScoreRun
    from microg.jobs.commands.har_score.show import show
    from microg.metrics.har.scoring import rows_digest

    asked = HarScoreRun(
        predictions=paths[0],
        groundtruth=paths[1],
        score_kind=said.score_kind,
        label_space=said.space.name,
        predictions_digest=rows_digest(said.rows, ordered=True),
        truth_digest=rows_digest(truth.rows, ordered=False),
        score=settings,
    )
    # before anything is written, so that a bad --compare leaves no half-made run
    comparisons, other_classes = compare_runs(report, asked, others)
    folder = folder or default_folder(asked)
    notes = [*said.notes, *truth.notes]
    document = result_document(report, asked, published, comparisons, notes, coverage)
    written = write_run(folder, asked, report, published, document, other_classes, plots)
    document = {"run": folder, **document, "files": written}
    if as_json:
        print_json(document)
        return
    show(document, report, published)


def _plan(said: Predictions, truth: Truth, settings: HarScoreConfig, coverage: Coverage | None, as_json: bool) -> None:
    plan: dict[str, Any] = {
        "prediction_rows": said.rows.num_rows,
        "truth_rows": truth.rows.num_rows,
        "scores": said.score_kind,
        "label_space": said.space.name,
        **settings.model_dump(exclude={"score_kind", "label_space"}),
    }
    if coverage is not None:
        plan["transfer"] = coverage.to_dict()
    show_plan(plan, as_json, "nothing was scored")


if __name__ == "__main__":
    main("Score action predictions.")
