"""`microg har score`: HAR predictions against truth, under the paper's protocol and the corrected one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from microg.console import say
from microg.jobs import common
from microg.jobs.common import command, finish, given, main, setting, show_plan

EPILOG = """
**Examples**

`microg har score --predictions detections.csv --groundtruth ava_test.csv --scores logit`

`microg har score --predictions runs/i3d --groundtruth data/microg4m --config recipes/har/i3d_nln_8x8_r50.yaml`

`microg har score --predictions runs/i3d --groundtruth data/microg4m --thresholds-from runs/i3d-val-scores`

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
    thresholds_from: Annotated[
        str | None,
        typer.Option(
            "--thresholds-from",
            metavar="RUN",
            help="Run of har score on val: F1 is also told at the threshold of each class that was best there.",
        ),
    ] = None,
    least_labels: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --thresholds-from: labels that a class needs there; others keep the protocol's threshold.",
        ),
    ] = 10,
    split: common.SplitOption = None,
    scheme: common.SchemeOption = None,
    resamples: Annotated[int | None, setting("resamples")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    match_order: Annotated[str | None, setting("match_order", "--match-order")] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write. [default: runs/har_score/NAME-HASH]")
    ] = None,
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    list_settings: common.SettingsOption = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots.")] = True,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Score action predictions: mAP@0.5, F1, precision, recall and AUROC, with intervals, slices and warnings.

    `paper` is the reference's scoring to the letter; `corrected` takes truth by box, removes duplicates, groups ties
    and thresholds at p >= 0.5. Key frames without predictions count as misses.
    """
    from microg.actions.own_classes import onto_own
    from microg.actions.predictions import read_predictions, vocabulary_of_predictions
    from microg.actions.transfer import transfer
    from microg.actions.truth import read_truth
    from microg.data.label_space import LABEL_SPACES, MICROG_50, label_space
    from microg.jobs.commands.har_score.run import COMMAND, HarScoreResult, write_run
    from microg.jobs.commands.har_score.settings import (
        HarScoreRun,
        load_har_score_config,
        truth_label_space,
        truth_vocabulary,
    )
    from microg.jobs.commands.har_score.show import show
    from microg.jobs.commands.har_score.thresholds import Thresholds, thresholds_of_run
    from microg.jobs.commands.scoring import default_folder, runs_to_compare
    from microg.locks import exclusive
    from microg.metrics.har.protocols import protocols
    from microg.metrics.har.scoring import rows_digest, score
    from microg.metrics.published import har_row

    others = runs_to_compare(compare, more)
    settings = load_har_score_config(config, overrides or (), given(context))
    chosen = protocols(settings.protocol)
    published = har_row(settings.row) if settings.row else None
    own = truth_vocabulary(groundtruth)
    predicted = read_predictions(
        predictions,
        score_kind=settings.score_kind,
        space=settings.label_space,
        known=() if own is None else (own,),
        default=MICROG_50.name if own is None or own.published else own.space.name,
    )
    truth_labels = truth_label_space(groundtruth, predicted.space, settings)
    truth = read_truth(groundtruth, truth_labels, split=settings.split, scheme=settings.scheme)
    coverage = None
    if settings.onto is not None:
        predicted, truth, coverage = transfer(predicted, truth, truth_labels, label_space(settings.onto))
    elif own is not None and not truth_labels.shares_ids(predicted.space):
        said = vocabulary_of_predictions(predictions, predicted.space.name, (own,))
        predicted, truth, coverage = onto_own(predicted, said, truth, own)
    elsewhere = None
    if thresholds_from is not None:
        same = {"label_space": predicted.space.name, "score_kind": predicted.score_kind, "least_labels": least_labels}
        elsewhere = thresholds_of_run(thresholds_from, **same)
    if dry_run:
        plan: dict[str, Any] = {
            "prediction_rows": predicted.rows.num_rows,
            "truth_rows": truth.rows.num_rows,
            "scores": predicted.score_kind,
            "label_space": predicted.space.name,
            **settings.model_dump(exclude={"score_kind", "label_space"}),
            **({} if coverage is None else {"transfer": coverage.to_dict()}),
        }
        show_plan(plan, as_json, "nothing was scored")
        return
    run_config = HarScoreRun(
        predictions=predictions,
        groundtruth=groundtruth,
        score_kind=predicted.score_kind,
        label_space=predicted.space.name,
        vocabulary=None if own is None or own.space.name != predicted.space.name else own.document,
        predictions_digest=rows_digest(predicted.rows, ordered=True),
        truth_digest=rows_digest(truth.rows, ordered=False),
        thresholds_from=thresholds_from,
        thresholds_digest=None if elsewhere is None else elsewhere.digest,
        score=settings,
    )
    notes = [*predicted.notes, *truth.notes]
    if published is not None and predicted.space.name not in LABEL_SPACES:
        notes.append(f"row {published.name} is of {published.label_space}, not of {predicted.space.name}: left out")
        published = None
    if elsewhere is not None and elsewhere.truth_digest == run_config.truth_digest:
        notes.append("the thresholds were chosen on the very truth that is scored here: F1 there is too good")
    folder = run_folder or default_folder(COMMAND, predictions, run_config)
    with exclusive(folder):
        report = score(predicted, truth, chosen, **settings.model_dump(include={"resamples", "seed", "match_order"}))
        result = HarScoreResult(
            report=report,
            config=run_config,
            published=published,
            coverage=coverage,
            thresholds=Thresholds.of(report, run_config, elsewhere),
            notes=notes,
        )
        document = write_run(
            result,
            folder,
            others,
            plots=plots,
            on_scores=lambda scored: None if as_json else show(scored, report, published),
        )
    finish(document, lambda found: say(f"wrote {len(found['files'])} files to {found['run']}"), as_json=as_json)


if __name__ == "__main__":
    main("Score action predictions.")
