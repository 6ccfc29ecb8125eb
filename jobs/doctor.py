"""`microg doctor`: what is installed, what hardware there is, what would run where, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from microg.jobs.common import JsonOption, command, finish, main


@command("doctor")
def doctor(
    weights: Annotated[
        str | None, typer.Option(help="Detector weights to look for: a file name or a path; default: yolo11n.pt.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster to look at.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long engines may take to load.")
    ] = 45.0,
    show_all: Annotated[bool, typer.Option("--all", help="List packages that are as they should be too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what is installed, which engines and weights are usable, and how to get what is missing.

    Exit code: 0 the core works, 1 a part of it is missing or broken.

    Examples:

    - `microg doctor`
    - `microg doctor --json > doctor.json`
    - `microg doctor --weights yolo11m.pt --address ray://head:10001`
    """
    from microg.jobs.commands.doctor import show
    from microg.system.doctor import DEFAULT_DETECTOR, diagnose

    diagnosis = diagnose(weights or DEFAULT_DETECTOR, address, timeout)
    finish(diagnosis.to_json(), lambda _: show(diagnosis, show_all), as_json=as_json, failed=not diagnosis.healthy)


if __name__ == "__main__":
    main("Tell what is installed and what would run where.")
