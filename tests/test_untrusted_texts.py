"""Texts of strangers are shown as texts: in pages, tables, plots and terminals, wherever they may stand."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from typer.testing import CliRunner

import microg
from microg.console import ProgressDisplay, say, say_aside
from microg.data.dataset import Dataset
from microg.errors import ConfigError
from microg.jobs import cli, common
from microg.reports.html import environment
from microg.reports.plots import style
from microg.reports.run_kinds.registry import RUN_KINDS
from microg.runs import Run
from microg.screen import Screen, styled
from tests.support import hostile, scored_runs
from tests.support.browser import look
from tests.support.hostile import HOSTILE

_NAMES = ("=1+1<img src=x onerror=alert(1)>", "[link=x]$a$ \x1b]0;x\x07", "-\u202e&\n| _x_", "\udc9b{\\input x}@")


def _command(*words: str) -> str:
    """Run a command and return what it printed; a refusal is as good as an end, any other exception is not."""
    done = CliRunner().invoke(cli.app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    hostile.check_plain(done.output)
    return done.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A dataset and a run of every kind, all of whose texts are hostile, and what was printed while they were made."""
    root = tmp_path_factory.mktemp("hostile")
    dataset = scored_runs.scored_dataset(root / "data")
    hostile.poison(root / "data")
    dataset = Dataset.open(dataset.root)
    runs = root / "runs"
    made = scored_runs.predict_run(runs / _NAMES[0], dataset, 1, model=HOSTILE[0])
    scored_runs.har_score(made, dataset, runs / _NAMES[1])
    said = scored_runs.generate_run(runs / _NAMES[2], dataset, 0.5, seed=3, model=HOSTILE[1])
    scored_runs.vlm_score(said, dataset, runs / _NAMES[3])
    scored_runs.train_run(runs / f"{_NAMES[0]}t")
    scored_runs.tuning_run(runs / f"{_NAMES[1]}l")
    scored_runs.transfer_run(runs / f"{_NAMES[3]}r", dataset, root / "jhmdb")
    scored_runs.sweep_run(runs / f"{_NAMES[1]}s", json.dumps(dict.fromkeys(HOSTILE[9::3], HOSTILE[5])))
    Run.start(str(runs / f"{_NAMES[2]}c"), "curate", scored_runs.Settings()).finish({"counts": {"ok": 1}})
    hostile.poison(runs)
    return SimpleNamespace(root=root, dataset=dataset, runs=runs)


def test_every_kind_of_run_is_among_them(world: SimpleNamespace) -> None:
    found = {json.loads(path.read_text())["command"] for path in world.runs.rglob("run.json")}
    assert found == set(RUN_KINDS)


@pytest.fixture(scope="module")
def written(world: SimpleNamespace) -> Path:
    """A folder of all pages and tables that are made of them; plots, which take long to draw, are empty."""
    out = world.root / "out"
    empty = {"png": cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes(), "svg": b"<svg/>" + b" " * 99}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "_render", lambda figure, kind, **more: empty[kind])
        patch.setattr("microg.reports.plots.dataset.word_cloud", lambda kind, texts: None)
        _command("report", str(world.runs), "--out", str(out / "report"), "--max-clips", "2")
        _command("report", "--leaderboard", str(world.runs), "--out", str(out / "board.html"))
        _command("data", "page", world.dataset.root, str(out / "data.html"))
        _command("data", "stats", world.dataset.root, "--out", str(out / "statistics"), "--no-plots")
    return out


def test_whatever_is_written_for_people_holds_the_texts_as_texts(written: Path) -> None:
    files = [path for path in written.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".csv", ".md", ".tex", ".json"}
    for path in files:
        hostile.CHECKS[path.suffix](path.read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("error:Glyph")
def test_plots_draw_the_texts_as_they_stand() -> None:
    texts = [HOSTILE[0], HOSTILE[9], "$\\frac{1}$", *HOSTILE[15:]]
    with style.styled():
        result, axes = style.figure(12, 12)
        axes.set(title="; ".join(texts), xlabel=texts[1], yscale="log", ylim=(1, 1000))
        style.plain_logarithm(axes.yaxis)
        axes.set_xticks(range(len(texts)), texts, rotation=90)
        axes.legend(handles=[Patch(label=text) for text in texts])
        plot = style.finish(result, "hostile", texts[0])
        ticks = [label.get_text() for label in axes.get_xticklabels()]
    hostile.check_svg(plot.svg.decode())
    assert ticks[2] == texts[2]
    assert ticks[3].startswith("\\x1b[2J")


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Glyph")
def test_every_plot_of_every_kind_of_run_holds_the_texts_as_texts(
    world: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, names = style._render, []

    def checked(figure: Figure, kind: str, **more: Any) -> bytes:
        data = render(figure, kind, **more)
        if kind == "svg":
            hostile.check_svg(data.decode())
            names.append(figure)
        return data

    monkeypatch.setattr(style, "_render", checked)
    _command("report", str(world.runs), "--out", str(tmp_path / "report"), "--max-clips", "0")
    _command("data", "stats", world.dataset.root, "--out", str(tmp_path / "statistics"), "--plots")
    assert len(names) > 12
    for path in (tmp_path / "statistics").glob("*.svg"):
        hostile.check_svg(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["report/report.html", "data.html"])
def test_texts_are_on_the_page_whole(written: Path, name: str) -> None:
    text = hostile.Page((written / name).read_text(encoding="utf-8")).text
    assert sum(part.split("\x1b")[0].split("\n")[0].strip() in text for part in HOSTILE[:7]) >= 5


def test_a_page_with_one_text_that_is_not_escaped_is_seen(written: Path) -> None:
    source = (written / "data.html").read_text(encoding="utf-8")
    for text in HOSTILE[:3]:
        shown = escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
        assert shown in source
        with pytest.raises(AssertionError):
            hostile.check_html(source.replace(shown, text))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["report/report.html", "board.html", "data.html"])
def test_a_browser_runs_nothing_of_them(written: Path, tmp_path: Path, name: str, width: int) -> None:
    seen = look(written / name, tmp_path, width=width)
    assert (seen["needed"], seen["fetched"], seen["console"]) == (width, [], [])


def test_commands_print_them_as_they_stand(world: SimpleNamespace, tmp_path: Path) -> None:
    data = world.dataset.root
    shown = _command("data", "stats", data) + _command("data", "validate", data)
    shown += _command("data", "export", "coco", data, str(tmp_path / "coco"))
    made = scored_runs.generate_run(tmp_path / _NAMES[2], world.dataset, 0.5, seed=3, model=HOSTILE[1])
    said = ("--run", str(made), "--references", data, "--out", str(tmp_path / "texts"))
    shown += _command(
        "vlm", "score", *said, "--missing", "zero", "--metrics", "rouge_l", "--no-plots", "--resamples", "0"
    )
    made = scored_runs.predict_run(tmp_path / _NAMES[0], world.dataset, 1, model=HOSTILE[0])
    seen = ("--predictions", str(made), "--groundtruth", data, "--run", str(tmp_path / "actions"))
    shown += _command("har", "score", *seen, "--no-plots", "--resamples", "0")
    assert "[red]x[/] [link=http://host/]x[/link]" in " ".join(shown.split())


@pytest.mark.parametrize("words", sorted(info.words for info in common.COMMANDS.values()))
def test_every_command_refuses_a_hostile_name_in_plain_letters(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A name of a file may come from a shell's pattern; with too many of them every command ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["microg", *words.split(), *HOSTILE[15:18], "--no-such\x1b[2J\u202e"])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert err
    hostile.check_plain(out + err)


@pytest.mark.parametrize("text", HOSTILE)
def test_errors_notes_and_progress_are_plain(text: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    app = common.make_app("test")

    @app.command()
    def fail() -> None:
        raise ConfigError(f"cannot read {text}", f"rename {text}")

    monkeypatch.setattr(sys, "argv", ["microg"])
    with pytest.raises(SystemExit):
        common.run(app)
    say(text)
    say_aside(text)
    with ProgressDisplay(text, 1) as display:
        display.advance(note=text)
    common.print_json({"text": text})
    out, err = capsys.readouterr()
    hostile.check_plain(out + err)
    assert len(err.splitlines()) == 4  # error, fix, note, progress: none of them began a line of its own
    assert json.loads(out.split("\n", 1)[1]) == {"text": text}


def test_a_traceback_is_plain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = common.make_app("test")

    @app.command()
    def fail() -> None:
        raise ZeroDivisionError("\x1b[2J\u202e")

    monkeypatch.setattr(sys, "argv", ["microg"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ZeroDivisionError) as raised:
        common.run(app)
    sys.excepthook(raised.type, raised.value, raised.tb)
    err = capsys.readouterr().err
    assert "ZeroDivisionError: \\x1b[2J\\u202e" in err
    hostile.check_plain(err)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_colours_of_ours_only(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.table import Table

    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table(text, title=text)
    table.add_row(text)
    table.add_row(styled((text, "bold red")))
    screen = Screen(width=200)
    screen.print(text, styled(text, (text, "italic")), table)
    out = capsys.readouterr().out
    assert "\x1b[1;31m" in out
    hostile.check_plain(re.sub(r"\x1b\[[\d;]*m", "", out))
    first = text.split("\n")[0].split("\x1b")[0].strip()
    assert not first.isprintable() or first in out


_PACKAGE = Path(microg.__file__).parent
_ROOMS = (_PACKAGE, *(path.resolve() for path in _PACKAGE.iterdir() if path.is_symlink()))
_MODULES = [path for room in _ROOMS for path in room.rglob("*.py")]
_TAG = re.compile(
    r"(?<!\?P)<(?!/?img>)/?(a|b|br|div|h\d|html|i|img|li|p|script|span|style|svg|t[dhr]|table|ul)(\s[^<>]*)?/?>",
    re.I,
)


def _texts_in(path: Path) -> Iterator[str]:
    """Yield the texts in a module's code that are no docstrings, where any looks like HTML."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source if _TAG.search(source) else "")
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def test_only_templates_write_html_and_they_trust_no_value() -> None:
    assert len(_MODULES) > 200
    assert [(path.name, text) for path in _MODULES for text in _texts_in(path) if _TAG.search(text)] == []
    assert environment.autoescape is True
    for name in environment.list_templates():
        source = (_PACKAGE / "reports" / "templates" / name).read_text(encoding="utf-8")
        assert not re.search(r"\|\s*(safe|forceescape|tojson)|autoescape|Markup", source), name
        if name.endswith("html.j2"):
            assert not re.search(r"\s(style|on\w+|srcset|action|formaction)\s*=", source), name
            targets = set(re.findall(r'\s(?:href|src)="([^"]*)"', source))
            assert targets <= {"{{ card.picture }}", "{{ source }}", "#{{ section.anchor }}", "#warnings"}, name


@pytest.mark.parametrize(
    "line",
    [
        "print('x')",
        "import csv\n\ncsv.writer(None)",
        "from rich.console import Console",
        "from rich.markup import escape",
        "from markupsafe import Markup",
        "import typer\n\ntyper.echo('x')",
    ],
)
def test_the_linter_refuses_what_goes_round_the_one_place(line: str) -> None:
    words = [sys.executable, "-m", "ruff", "check", "--select", "T20,TID251", "--stdin-filename", "microg/x.py", "-"]
    done = subprocess.run(words, input=f"{line}\n", capture_output=True, text=True, cwd=_PACKAGE.parent)
    assert done.returncode == 1, done.stdout
    assert (
        "microg.console" in done.stdout
        or "microg.screen" in done.stdout
        or "T201" in done.stdout
        or "only" in (done.stdout)
        or "microg.escaping" in done.stdout
    )


def test_tables_of_ours_leave_by_one_door() -> None:
    """What writes CSV otherwise writes published bytes: checked ids and numbers."""
    calls = re.compile(r"\.to_csv\(|\bwrite_csv\(|csv\.writer\(|\.to_html\(|\.to_latex\(|\.to_markdown\(")
    found = {path.name for path in _MODULES if calls.search(path.read_text(encoding="utf-8"))}
    assert found == {"escaping.py", "ava.py", "base.py", "microg4m.py", "write_dataset.py"}
