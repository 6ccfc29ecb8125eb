"""What all command-line entry points share: options, error handling and exit codes.

Exit codes: 0 done, 1 finished with failed rows, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar, cast, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException
from typer.models import OptionInfo

from microg.console import say, say_aside
from microg.errors import MicrogError, without_colours
from microg.escaping import json_text, visible, visible_line

if TYPE_CHECKING:
    from microg.config import Setting

EXIT_FAILED_ROWS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

F = TypeVar("F", bound=Callable[..., None])


class SettingOption(OptionInfo):
    """An option that sets one setting: help and completion come from the setting's description, bounds and choices."""

    def __init__(self, key: str, names: tuple[str, ...], of: str | None, note: str, metavar: str | None) -> None:
        super().__init__(default=..., param_decls=names, metavar=metavar, shell_complete=self.complete)
        self.key, self.of, self.note = key, of, note

    def setting_of(self, function: Callable[..., None]) -> Setting:
        """Return the setting that it sets as an option of the command `function`."""
        return next(each for each in settings_in(self.of or COMMANDS[function].settings) if each.key == self.key)

    def complete(self, context: Any, _param: Any, incomplete: str) -> list[str]:
        """Return the choices that begin with what is typed."""
        choices = self.setting_of(cast(SettingsCommand, context.command).function).choices
        return [choice for choice in choices if choice.startswith(incomplete)]


def setting(key: str, *names: str, of: str | None = None, note: str = "", metavar: str | None = None) -> Any:
    """Return the option that sets the setting `key`.

    Args:
        key: Dotted key of the setting.
        names: Names of the option; without any, the parameter's.
        of: Settings class as "module:class", where it is not the command's.
        note: What the help of the option says beside the setting's description.
        metavar: How help writes the value; without it, its choices if it has any.
    """
    return SettingOption(key, names, of, note, metavar=metavar)


@dataclass(frozen=True, kw_only=True)
class CommandInfo:
    """How a function is called from the command line.

    Attributes:
        words: What follows `microg`.
        settings: Class of the settings that options and `--set` change, as "module:class", resolved when it is needed.
        epilog: What help says below the options.
    """

    words: str
    settings: str | None
    epilog: str | None


COMMANDS: dict[Callable[..., None], CommandInfo] = {}


def command(words: str, *, settings: str | None = None, epilog: str | None = None) -> Callable[[F], F]:
    """Return a decorator that makes a function the command `microg WORDS` (see `CommandInfo`)."""

    def register(function: F) -> F:
        COMMANDS[function] = CommandInfo(words=words, settings=settings, epilog=epilog)
        return function

    return register


@contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """Keep what stands on the command line, such as names of files, from steering the terminal that shows it."""
    try:
        yield
    except TyperException as error:
        error.message = visible_line(error.message)
        raise


class CommandGroup(TyperGroup):
    """Commands by name."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Take the words before a command's name."""
        with _visible_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the next word names."""
        with _visible_usage_errors():
            return super().invoke(ctx)


class SettingsCommand(TyperCommand):
    """A command whose help of options comes from its settings, and whose `--settings` lists what `--set` takes.

    The settings are imported only when their help or list is wanted.
    """

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Take the words of the command line."""
        with _visible_usage_errors():
            return super().make_context(*args, **options)

    @property
    def function(self) -> Callable[..., None]:
        """The function of `COMMANDS` that this calls."""
        return cast(Any, self.callback).__wrapped__

    def options(self) -> dict[str, SettingOption]:
        """Return the options that set settings, by the function's parameter."""
        hints = get_type_hints(self.function, include_extras=True)
        found = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
        return {name: each for name, parts in found.items() for each in parts if isinstance(each, SettingOption)}

    def describe_options(self) -> None:
        """Write the help of options from the settings that they set."""
        options = self.options()
        for param in self.params:
            if isinstance(param, TyperOption) and param.name in options:
                option = options[param.name]
                described = option.setting_of(self.function)
                if described.choices and option.metavar is None:
                    param.metavar = f"<{'|'.join(described.choices)}>"  # as Typer writes an Enum's
                    described = replace(described, allowed="")
                param.help = described.text(option.note)
                param.show_default = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        self.describe_options()
        super().format_help(ctx, formatter)


def settings_in(path: str | None) -> list[Setting]:
    """Return the settings of the class at "module:class"; none of None."""
    from microg.config import settings_of

    if path is None:
        return []
    module, _, name = path.partition(":")
    return list(settings_of(getattr(import_module(module), name)))


def show_settings(settings: list[Setting]) -> None:
    """Print keys, defaults and meanings, section by section."""
    from rich.table import Table

    from microg.screen import styled, wide_screen

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("key", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    section = None
    for each in settings:
        if each.section != section:
            section = each.section
            table.add_row("", "", styled((section, "bold")))
        table.add_row(each.key, each.default, each.meaning + (f" [{each.allowed}]" if each.allowed else ""))
    wide_screen().print(table)


def _list_settings(context: typer.Context, wanted: bool) -> None:
    if wanted:
        show_settings(settings_in(COMMANDS[cast(SettingsCommand, context.command).function].settings))
        raise typer.Exit


def _allow_external(wanted: bool) -> None:
    if wanted:
        os.environ["MICROG_ALLOW_EXTERNAL"] = "1"  # `microg.data.places`; processes that this one starts inherit it


def _offline(wanted: bool) -> None:
    if wanted:  # `microg.system.zoo` and the hub's own client; processes that this one starts inherit it
        os.environ["MICROG_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"


AddressOption = Annotated[str | None, setting("resources.address", "--address")]
DeviceOption = Annotated[str | None, setting("device")]
LimitOption = Annotated[int | None, setting("limit", "--limit")]
SplitOption = Annotated[str | None, setting("split", "--split")]
SchemeOption = Annotated[str | None, setting("scheme", "--scheme")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", "--recipe", help="Recipe with the settings: a YAML file, or a name in recipes/."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting (see --settings); may be given repeatedly."),
]
SettingsOption = Annotated[
    bool,
    typer.Option(
        "--settings",
        is_eager=True,
        expose_value=False,
        callback=_list_settings,
        help="List every key of --set with its default and meaning, and stop.",
    ),
]
AllowExternalOption = Annotated[
    bool,
    typer.Option(
        "--allow-external",
        expose_value=False,
        callback=_allow_external,
        help="Open videos that the dataset names outside its folder: absolute paths, links, other stores and hosts.",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        expose_value=False,
        callback=_offline,
        help="Fetch nothing: what is not on this machine is an error that says where to get it.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
ProfileOption = Annotated[
    bool,
    typer.Option("--profile", help="Write what each worker did when to timeline.json in the run folder, for Perfetto."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def given(context: typer.Context) -> dict[str, Any]:
    """Return what the options of this call set: dotted keys with the values that stand on the command line."""
    values: dict[str, Any] = {}
    for name, option in cast(SettingsCommand, context.command).options().items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            values[option.key] = context.params[name]
    return values


def names_in(text: str) -> list[str]:
    """Return the names in a text that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def make_app(help_text: str) -> typer.Typer:
    """Return a Typer application in the house style."""
    return typer.Typer(
        cls=CommandGroup,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def mount(app: typer.Typer, function: Callable[..., None]) -> None:
    """Add a function of `COMMANDS` to an application, by the last of its words."""
    info = COMMANDS[function]
    app.command(info.words.rpartition(" ")[2], cls=SettingsCommand, epilog=info.epilog)(function)


def main(help_text: str) -> None:
    """Run a job's script: the one command that it registered, or its commands by name."""
    app = make_app(help_text)
    for function in COMMANDS:
        mount(app, function)
    run(app)


def finish(
    report: Any,
    show: Callable[[Any], None],
    *,
    as_json: bool,
    failed: object = False,
    profile: str | None = None,
) -> None:
    """End a command: print its report, and exit with code 1 where rows failed.

    Args:
        report: What the command found out.
        show: Prints the report for people.
        as_json: Whether to print it as JSON instead.
        failed: Whether something failed; a count or a list will do.
        profile: Run folder that gets the timeline of `--profile`, or None.
    """
    if profile is not None:
        report = profiled(report, profile)
    print_json(report) if as_json else show(report)
    if failed:
        raise typer.Exit(EXIT_FAILED_ROWS)


def print_json(value: Any) -> None:
    """Print a JSON document on standard output."""
    sys.stdout.write(json_text(value) + "\n")


def show_plan(plan: dict[str, Any], as_json: bool, nothing: str) -> None:
    """Print what `--dry-run` found out; `nothing` says what was not done."""
    if as_json:
        print_json(plan)
        return
    show_plan_values(plan)
    say(f"{nothing} (--dry-run)")


def show_plan_values(plan: dict[str, Any]) -> None:
    """Print a plan's values, one a line, and its stages, if it has any, one a line below that."""
    for name, value in plan.items():
        if name == "stages":
            from microg.pipelines.core.stage import plan_lines

            say("stages:", *(f"  {line}" for line in plan_lines(value)))
        else:
            say(f"{name}: {value}")


def profiled(report: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write the timeline that `--profile` asks for, and return the report with its path in it."""
    from microg.pipelines.core.telemetry import write_timeline

    path = write_timeline(folder)
    if path is None:
        say_aside("no timeline: nothing was left to do, so nothing ran on Ray")
        return report
    say_aside(f"timeline: {path} (open it in https://ui.perfetto.dev)")
    return report | {"timeline": path}


def run(app: typer.Typer) -> None:
    """Run an application: an error that its user can act on becomes one line on standard error and exit code 2.

    Those are `MicrogError`, and what the operating system (permissions, a full disk) or an object store refuses;
    anything else is a bug and shows its traceback. `--debug` may stand anywhere on the command line and shows every
    traceback.
    """
    warnings.formatwarning = _visible_warning
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
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this
            say_aside("interrupted; run the same command again to resume")
        raise
    except Exception as error:
        from microg import storage_faults

        known = storage_faults.explain(error) or _rays(error)
        if debug or known is None:
            raise
        _refuse(known)
    finally:
        sys.excepthook = _show_traceback  # now, as Typer sets its own


def _rays(error: Exception) -> MicrogError | None:
    """Return what an error of Ray means that no pipeline expected; None for errors of others."""
    from microg.pipelines.core.ray_errors import explain, is_rays

    return explain(error) if is_rays(error) else None


def _visible_warning(*about: Any, _format: Any = warnings.formatwarning, **more: Any) -> str:
    return visible(_format(*about, **more))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = without_colours("".join(traceback.format_exception(kind, error, trace)))
    say_aside(*text.rstrip().split("\n"))


def _refuse(error: MicrogError) -> NoReturn:
    say_aside(f"error: {error.what}")
    if error.fix:
        say_aside(f"  fix: {error.fix}")
    sys.exit(EXIT_BAD_INPUT)
