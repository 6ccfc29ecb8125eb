"""Every command that a document shows exists, with its options, and would be understood; the site builds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from microg.config import load_config
from microg.jobs import cli
from microg.jobs.commands.har_score.settings import HarScoreConfig
from microg.jobs.commands.har_transfer.settings import HarTransferConfig
from microg.jobs.commands.vlm_score.settings import VlmScoreConfig
from microg.pipelines.curate.pipeline import CurateSettings
from microg.pipelines.har.predict import PredictSettings
from microg.pipelines.har.train.settings import TrainConfig
from microg.pipelines.vlm.settings import GenerateSettings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs").rglob("*.md")) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
IDS = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
SETTINGS = {
    "curate": CurateSettings,
    "har train": TrainConfig,
    "har predict": PredictSettings,
    "har score": HarScoreConfig,
    "har transfer": HarTransferConfig,
    "vlm score": VlmScoreConfig,
    "vlm generate": GenerateSettings,
}
_BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(microg [^`]*)`")
_OPTION = re.compile(r"`(--[a-z][a-z-]*)[^`]*`")
# Of other tools, which documents name too.
FOREIGN = {"--working-dir", "--with", "--strict", "--help", "--debug", "--group", "--no-group", "--extra"}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


@cache
def commands() -> dict[str, Any]:
    """Return every command by the words that call it after `microg`."""
    return dict(leaves(get_command(cli.app)))


def split(words: list[str]) -> tuple[str, Any, list[str]]:
    """Return a command's name, the command, and its arguments."""
    for count in (3, 2, 1):
        name = " ".join(words[:count])
        if name in commands():
            return name, commands()[name], words[count:]
    raise AssertionError(f"there is no command 'microg {' '.join(words[:2])}'")


def shown(text: str) -> Iterator[list[str]]:
    """Yield the words after `microg` of every command in blocks of shell, also of scripts that are submitted."""
    scripts = {
        f"{found.callback.__module__.removeprefix('microg.').replace('.', '/')}.py": name
        for name, found in commands().items()
    }
    for block in _BLOCK.finditer(text):
        for line in re.sub(r"\\\n", " ", block[2]).splitlines():
            words = shlex.split(line, comments=True)
            while words and (words[:2] == ["uv", "run"] or re.match(r"[A-Z_]+=", words[0])):
                words = words[2:] if words[0] == "uv" else words[1:]
            if words[:1] == ["microg"]:
                yield words[1:]
            for script in (word for word in words if word.startswith("jobs/")):
                assert script in scripts, f"{script} is no job"
                yield [*scripts[script].split(), *words[words.index(script) + 1 :]]


def check_blocks(text: str) -> None:
    for words in shown(text):
        if words in ([], ["--help"], ["--version"]):
            continue
        name, command, arguments = split(words)
        context = command.make_context(name, list(arguments))  # raises for what the command line would refuse
        if name in SETTINGS:
            load_config(SETTINGS[name], None, context.params.get("overrides") or ())


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_commands_in_blocks_are_understood(document: Path):
    check_blocks(document.read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_commands_and_options_in_sentences_exist(document: Path):
    text = _FENCED.sub("", document.read_text())
    options = FOREIGN | {
        name
        for command in commands().values()
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
    }
    for found in _INLINE.finditer(text):
        words = found[1].split()[1:]
        if words[0].isupper() or words[0].startswith(("-", "...")):
            continue
        if any(name.startswith(f"{' '.join(words)} ") for name in commands()):  # a group of them
            continue
        _, command, arguments = split(words)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | FOREIGN
        assert [word for word in arguments if word.startswith("--") and word.split("=")[0] not in known] == [], found[0]
    assert [found[0] for found in _OPTION.finditer(text) if found[1] not in options] == []


@pytest.mark.parametrize(
    "line", ["microg curat a b", "microg curate a b --weight x", "microg har train", "python jobs/har_trian.py x"]
)
def test_a_wrong_command_in_a_block_is_found(line: str):
    with pytest.raises(Exception, match=r"no command|No such option|Missing|no job"):
        check_blocks(f"```sh\n{line}\n```\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning ends the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config as load

    folder = tmp_path_factory.mktemp("site")
    config = load(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.run_event("startup", command="build", dirty=False)
    try:
        build(config)
    finally:
        config.plugins.run_event("shutdown")
    return folder


def test_the_site_builds_and_asks_nobody_for_anything(site: Path):
    pages = sorted(site.rglob("index.html"))
    assert len(pages) >= len(DOCUMENTS) - 2
    for page in pages:
        content = page.read_text()
        assert "<!-- registry:" not in content
        assert re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="https?:', content) == []
        assert re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="https?:', content) == []


def test_the_site_shows_what_the_code_holds(site: Path):
    from microg.data import schema
    from microg.models.har.backbones.registry import names
    from microg.models.vlm.cards import names as cards

    def text(page: str) -> str:
        return (site / page / "index.html").read_text()

    assert all(f">{name}<" in text("data") for name in (*schema.TABLES, *schema.RUN_TABLES))
    assert all(f">{name}<" in text("capabilities/har") for name in names())
    assert all(f">{name}<" in text("capabilities/vlm") for name in cards())
    assert all(f'id="microg-{name.replace(" ", "-")}"' in text("reference/commands") for name in commands())
    assert all(path.name in text("recipes") for path in (ROOT / "recipes").glob("*/*.yaml"))
    assert "microg.data.dataset.Dataset.fingerprint" in text("reference/microg")
