"""What all command-line entry points share: options, error handling and exit codes.

Exit codes: 0 done, 1 finished with failed rows, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from microg.errors import MicrogError, describe

EXIT_FAILED_ROWS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray address (auto, ray://host:10001, host:6379); default: a local Ray.")
]
ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML recipe with the settings.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be given repeatedly.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N rows.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
ProfileOption = Annotated[
    bool,
    typer.Option("--profile", help="Write what each worker did when to timeline.json in the run folder, for Perfetto."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def make_app(help_text: str) -> typer.Typer:
    """Return a Typer application in the house style."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def print_json(value: Any) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_plan(plan: dict[str, Any], as_json: bool, nothing: str) -> None:
    """Print what `--dry-run` found out; `nothing` says what was not done."""
    if as_json:
        print_json(plan)
        return
    for name, value in plan.items():
        print(f"{name}: {value}")
    print(f"{nothing} (--dry-run)")


def profiled(report: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write the timeline that `--profile` asks for, and return the report with its path in it."""
    from microg.pipelines.core.telemetry import write_timeline

    path = write_timeline(folder)
    if path is None:
        print("no timeline: nothing was left to do, so nothing ran on Ray", file=sys.stderr)
        return report
    print(f"timeline: {path} (open it in https://ui.perfetto.dev)", file=sys.stderr)
    return report | {"timeline": path}


def run(app: typer.Typer) -> None:
    """Run an application: an error that its user can act on becomes one line on standard error and exit code 2.

    Those are `MicrogError`, and what the operating system (permissions, a full disk) or an object store refuses;
    anything else is a bug and shows its traceback. `--debug` may stand anywhere on the command line and shows every
    traceback.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
        os.environ["MICROG_DEBUG"] = "1"
    try:
        app()
    except MicrogError as error:
        if debug:
            raise
        _refuse(error)
    except OSError as error:
        if debug:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        print("  fix: --debug shows where it happened", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this
            print("interrupted; run the same command again to resume", file=sys.stderr)
        raise
    except Exception as error:
        from microg import storage

        known = storage.unreachable(error)
        if debug or known is None:
            raise
        _refuse(known)


def _refuse(error: MicrogError) -> NoReturn:
    print(f"error: {error.what}", file=sys.stderr)
    if error.fix:
        print(f"  fix: {error.fix}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
