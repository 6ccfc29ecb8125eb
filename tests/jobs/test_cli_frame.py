"""What every `microg` command promises: quick help with examples, clean errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from microg.errors import ConfigError, DownloadError
from microg.jobs import cli, common
from microg.jobs.common import COMMANDS, settings_in
from microg.system.downloads import REPOS
from tests.support.hub_server import FakeHub, serve

TOKEN = "hf_secretKeyOfTheTest"


def commands(app: typer.Typer, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command below `app`."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        yield (*prefix, name)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, (*prefix, str(group.name)))


@pytest.fixture
def microg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Return a function that runs the `microg` script in this process: (words, environment) -> code, out, err."""

    def call(*arguments: str, **environment: str) -> SimpleNamespace:
        for name in ("HF_TOKEN", "HF_ENDPOINT", "MICROG_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["microg", *arguments])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


def in_process(monkeypatch: pytest.MonkeyPatch, failure: BaseException | None, *arguments: str) -> int:
    """Run a command that raises `failure` the way the `microg` script would; return its exit code."""
    app = common.make_app("test")

    @app.command()
    def fail() -> None:
        if failure is not None:
            raise failure

    monkeypatch.setattr(sys, "argv", ["microg", *arguments])
    try:
        common.run(app)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("words", sorted(commands(cli.app)), ids=" ".join)
def test_help_of_each_command_has_an_example(words: tuple[str, ...]):
    result = CliRunner().invoke(cli.app, [*words, "--help"], terminal_width=200)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "xample" in text
    assert f"microg {' '.join(words)}" in text.partition("xample")[2]


def test_help_imports_nothing_heavy_and_little_else():
    code = (
        "import time, typer, typer.rich_utils, sys\nlibraries = time.process_time()\n"
        "sys.argv = ['microg', '--help']\nfrom microg.jobs import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = 'torch ray pandas cv2 av matplotlib huggingface_hub pyarrow'.split()\n"
        "print('HEAVY', [name for name in heavy if name in sys.modules])\n"
        "print('RATIO', time.process_time() / libraries)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert float(done.stdout.rpartition("RATIO")[2]) < 3  # of the CPU time of Python and Typer alone; measured 1.4


def test_version_is_printed():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("microg ")


def test_unknown_option_or_command_exits_2():
    assert CliRunner().invoke(cli.app, ["no-such-command"]).exit_code == 2
    assert CliRunner().invoke(cli.app, ["data", "download", "--no-such-option"]).exit_code == 2


def test_success_exits_0(monkeypatch: pytest.MonkeyPatch):
    assert in_process(monkeypatch, None) == 0


def test_our_error_is_one_line_with_its_fix_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert in_process(monkeypatch, ConfigError("the knob is off", "turn it on")) == 2
    assert capsys.readouterr().err == "error: the knob is off\n  fix: turn it on\n"


def test_refusal_by_the_system_is_one_line_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert in_process(monkeypatch, PermissionError(13, "Permission denied", "/x")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: /x: permission denied\n")
    assert "Traceback" not in error


def test_debug_anywhere_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, microg: Callable[..., SimpleNamespace]):
    monkeypatch.delenv("MICROG_DEBUG", raising=False)
    with pytest.raises(ConfigError):
        in_process(monkeypatch, ConfigError("x"), "--debug")
    assert os.environ.pop("MICROG_DEBUG") == "1"
    command = ("data", "download", "dataset", "/nowhere/x", "--verify")
    hidden = microg(*command)
    assert hidden.code == 2
    assert hidden.err.startswith("error: /nowhere/x has no download.json")
    with pytest.raises(DownloadError):
        microg(*command[:2], "--debug", *command[2:])


def test_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ZeroDivisionError):
        in_process(monkeypatch, ZeroDivisionError())


def test_interruption_exits_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert in_process(monkeypatch, KeyboardInterrupt()) == 130
    assert "run the same command again to resume" in capsys.readouterr().err


def test_download_command_fetches_checks_and_names_the_next_step(
    tmp_path: Path, microg: Callable[..., SimpleNamespace]
):
    files = {"annotation_files/actions.csv": b"video_id\n", "videos.zip": os.urandom(50_000)}
    folder = str(tmp_path / "hub")
    with serve(FakeHub(REPOS["dataset"].id, "dataset", files, token=TOKEN)) as server:
        command = ("data", "download", "dataset", folder, "--endpoint", server.url)
        plan = microg(*command, "--dry-run", "--json", HF_TOKEN=TOKEN)
        assert json.loads(plan.out)[0]["missing"] == sorted(files)
        assert not (tmp_path / "hub").exists()
        done = microg(*command, HF_TOKEN=TOKEN)
    assert done.code == 0
    assert f"microg data import microg4m {folder} DATASET" in done.out
    assert (tmp_path / "hub" / "videos.zip").read_bytes() == files["videos.zip"]
    checked = microg("data", "download", "dataset", folder, "--verify")
    assert checked.code == 0
    assert "all 2 files" in checked.out
    assert TOKEN not in done.out + done.err + plan.out + plan.err


def test_download_all_makes_a_folder_for_each_repository(tmp_path: Path, microg: Callable[..., SimpleNamespace]):
    with serve(FakeHub(REPOS["dataset"].id, "dataset", {"README.md": b"x"})) as server:
        done = microg("data", "download", "all", str(tmp_path), "--endpoint", server.url)
    assert (tmp_path / "MicroG-4M" / "README.md").read_bytes() == b"x"
    assert done.code == 2  # this hub has only the first of them
    assert "MicroG-HAR-train-ready is not at http://127.0.0.1" in done.err


def test_token_shows_nowhere_even_in_tracebacks(tmp_path: Path, microg: Callable[..., SimpleNamespace]):
    with serve(FakeHub(REPOS["dataset"].id, "dataset", {"a": b"1"}, token="another")) as server:
        command = ("data", "download", "dataset", str(tmp_path / "out"), "--endpoint", server.url)
        debug = subprocess.run(
            [sys.executable, "-m", "microg.jobs.cli", *command, "--debug"],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_TOKEN": TOKEN, "HF_DEBUG": "1"},
        )
    gone = microg(*command, HF_TOKEN=TOKEN)
    assert "Traceback" in debug.stderr
    assert "HF_TOKEN was refused" in debug.stderr
    assert gone.code == 2
    assert "cannot be reached" in gone.err
    assert TOKEN not in debug.stdout + debug.stderr + gone.out + gone.err


def test_doctor_exits_1_when_a_core_part_is_broken_and_tells_which(
    tmp_path: Path, microg: Callable[..., SimpleNamespace]
):
    healthy = microg("doctor", "--json", "--timeout", "0.5", RAY_ADDRESS="local")
    assert healthy.code == 0
    assert json.loads(healthy.out)["healthy"] is True
    for module in ("cv2", "torch"):  # the probes' processes find these first
        (tmp_path / f"{module}.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    broken = microg("doctor", "--timeout", "30", RAY_ADDRESS="local", PYTHONPATH=str(tmp_path))
    assert broken.code == 1
    assert "libGL.so.1" in broken.out
    verdict = broken.out.splitlines()[-1]
    assert "core parts do not work: opencv" in verdict
    assert "pyav" not in verdict


def test_doctor_does_not_call_working_what_it_could_not_load_in_time(microg: Callable[..., SimpleNamespace]):
    hasty = microg("doctor", "--timeout", "0.1", RAY_ADDRESS="local")
    assert "did not load in time" in " ".join(hasty.out.split())
    assert "The core works" not in hasty.out


DOORS = sorted({Path(str(sys.modules[function.__module__].__file__)).name for function in COMMANDS})


@pytest.mark.parametrize("door", DOORS)
def test_job_module_runs_as_a_script(door: str):
    script = Path(cli.__file__).with_name(door)
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    several = sum(Path(str(sys.modules[function.__module__].__file__)).name == door for function in COMMANDS) > 1
    assert ("Commands" if several else "xample") in done.stdout


def test_jobs_are_doors_the_frame_and_nothing_else():
    assert {path.name for path in Path(cli.__file__).parent.glob("*.py")} == {
        *DOORS,
        "__init__.py",
        "cli.py",
        "common.py",
    }


@pytest.mark.parametrize("function", COMMANDS, ids=lambda function: COMMANDS[function].words)
def test_options_are_described_by_the_settings_that_they_set(function: Callable[..., None]):
    info = COMMANDS[function]
    options = CliRunner().invoke(cli.app, [*info.words.split(), "--help"], terminal_width=200).output
    listing = CliRunner().invoke(cli.app, [*info.words.split(), "--settings"])
    if "--set " not in options:
        assert listing.exit_code == 2
        return
    assert listing.exit_code == 0
    for each in settings_in(info.settings):
        assert each.key in listing.output


def test_help_shows_bounds_and_default_of_a_setting():
    group: Any = typer.main.get_command(cli.app)
    command = group.commands["vlm"].commands["train"]
    command.describe_options()
    texts = {param.name: param.help for param in command.params}
    assert texts["epochs"].endswith(". [at least 1; default: 3]")
    assert texts["scheme"].endswith(" [default: source]")


@pytest.mark.parametrize(
    ("words", "metavar", "completed"),
    [
        ("curate --detector-backend o", "<auto|torch|onnxruntime|openvino>", ["onnxruntime", "openvino"]),
        ("vlm score --baselines ", "<cheap|all|none>", ["cheap", "all", "none"]),
        ("curate --detections ", "DIR", []),
    ],
)
def test_choices_of_a_setting_are_shown_and_completed(words: str, metavar: str, completed: list[str]):
    *command, option, _ = words.split(" ")
    helped = CliRunner().invoke(cli.app, [*command, "--help"], terminal_width=300, env={"COLUMNS": "300"})
    line = next(each for each in helped.output.splitlines() if f" {option} " in each)
    assert metavar in line
    typed = ["microg", *words.split(" ")]
    variables = {"COMP_WORDS": " ".join(typed), "COMP_CWORD": str(len(typed) - 1), "_MICROG_COMPLETE": "complete_bash"}
    result = CliRunner().invoke(cli.app, [], prog_name="microg", env=variables)
    assert result.output.split() == completed


def test_what_stands_on_the_command_line_is_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    seen: list[dict[str, object]] = []

    def door(
        context: typer.Context,
        rotations: Annotated[int | None, common.setting("detector.rotations")] = None,
        pretrimmed: Annotated[bool, common.setting("pretrimmed", "--pretrimmed/--raw")] = False,
        limit: common.LimitOption = None,
    ) -> None:
        seen.append(common.given(context))

    monkeypatch.setitem(common.COMMANDS, door, common.CommandInfo(words="door", settings=None, epilog=None))
    app = common.make_app("test")
    common.mount(app, door)
    for words in ([], ["--rotations", "4", "--raw"], ["--limit", "3"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert seen == [{}, {"detector.rotations": 4, "pretrimmed": False}, {"limit": 3}]


@pytest.mark.parametrize(
    "command",
    [
        "curate",
        "har train",
        "har sweep",
        "har predict",
        "har transfer",
        "har forward",
        "vlm generate",
        "vlm score",
        "vlm train",
    ],
)
def test_every_job_that_computes_with_a_model_takes_a_device(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "--device" in shown.output
