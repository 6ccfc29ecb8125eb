"""`microg data agreement`: how far the annotators of a dataset agree, and models with them."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import AllowExternalOption, JsonOption, command, finish, given, main, names_in, setting

EPILOG = """
**Examples**

`microg data agreement data/mine`

`microg data agreement data/mine --run runs/agreement --kinds action,screening`

`microg data agreement data/mine --annotators anna,ben --with runs/i3d --with runs/qwen`

The run folder gets the tables `agreement` and `disagreements` and the page `agreement.html`.
"""


@command("data agreement", settings="microg.jobs.commands.data_agreement:AgreementConfig", epilog=EPILOG)
def data_agreement(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset folder with the table annotations.")],
    run_folder: Annotated[
        str | None, typer.Option("--run", help="Run folder to write, with a page. [default: print only]")
    ] = None,
    kinds: Annotated[str | None, setting("kinds", note="Names are separated by commas.")] = None,
    annotators: Annotated[str | None, setting("annotators", note="Names are separated by commas.")] = None,
    runs: Annotated[list[str] | None, setting("runs", "--with", metavar="RUN")] = None,
    models: Annotated[bool | None, setting("models", "--models/--no-models")] = None,
    threshold: Annotated[float | None, setting("threshold")] = None,
    resamples: Annotated[int | None, setting("resamples")] = None,
    seed: Annotated[int | None, setting("seed")] = None,
    allow_external: AllowExternalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how far annotators agree: percent, Cohen's and Fleiss' kappa, Krippendorff's alpha, boxes, ids and texts.

    Numbers come with 95% intervals over clips, by action, group, annotator and pair; one that is undefined says why.
    What the dataset held before people judged it is nobody's judgement; name `dataset` among the annotators to compare
    it too.
    """
    from microg.config import load_config
    from microg.jobs.commands.data_agreement import AgreementConfig, compare, show

    options = given(context)
    for name in ("kinds", "annotators"):
        if name in options:
            options[name] = names_in(options[name])
    settings = load_config(AgreementConfig, None, [options])
    finish(compare(dataset, settings, run_folder), show, as_json=as_json)


if __name__ == "__main__":
    main("Say how far annotators agree.")
