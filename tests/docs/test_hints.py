"""Hints lead somewhere: every command, option and setting that an error or a note names is one that there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from microg.jobs.common import COMMANDS, settings_in
from tests.docs.test_documented_commands import FOREIGN, ROOT, commands
from tests.support.sources import modules

# `microg WORDS`, quoted or at the start of a hint, up to what ends it
_COMMAND = re.compile(r"(?:^|['`(]|: )microg ((?:[a-z][a-z-]*)(?: [^'`;,()]*)?)")
_OPTION = re.compile(r"(?<![\w/-])(--[a-z][a-z-]+)")
_SETTING = re.compile(r"--set (?:')?([a-z_.]+)=")
# Options of other programs that hints and command lines of ours name.
_OTHERS = FOREIGN | {
    *("--head", "--shm-size", "--reinstall-package", "--no-sandbox", "--force", "--run-as-user"),
}


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each string of a module that is no docstring; parts of f-strings that are computed are written as X."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node)} - {id(node)}
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | documented:
            yield node.lineno, node.value


@cache
def hints() -> list[tuple[str, str]]:
    """Return every string of our own modules that may be said to a user, with its place."""
    found = []
    for _, file in modules():
        relative = file.relative_to(ROOT).as_posix()
        for line, text in _texts(ast.parse(file.read_text("utf-8"))):
            found.append((f"{relative}:{line}", " ".join(text.split())))
    return found


def _options(command: Any) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def wrong_commands(texts: list[tuple[str, str]]) -> list[str]:
    """Return the hints whose command does not exist, or has not the options that they name."""
    wrong = []
    for place, text in texts:
        for found in _COMMAND.finditer(text):
            words = found[1].split()
            name = next((n for k in (3, 2, 1) if (n := " ".join(words[:k])) in commands()), None)
            if name is None:
                told = [word for word in words if word not in ("X", "...")]
                if not any(each.startswith(f"{' '.join(told)} ") for each in commands()):
                    wrong.append(f"{place}: there is no command 'microg {found[1]}'")
                continue
            known = _options(commands()[name]) | _OTHERS
            lost = [option for option in _OPTION.findall(found[1]) if option not in known]
            wrong += [f"{place}: 'microg {name}' has no option {option}" for option in lost]
    return wrong


def wrong_options(texts: list[tuple[str, str]]) -> list[str]:
    """Return the hints that name an option that no command has."""
    known = set().union(*(_options(command) for command in commands().values())) | _OTHERS
    said = [(place, text) for place, text in texts if " " in text]  # else an argument of some program
    return [f"{place}: {name}" for place, text in said for name in _OPTION.findall(text) if name not in known]


def test_every_command_that_a_hint_names_exists_with_its_options():
    assert len([text for _, text in hints() if _COMMAND.search(text)]) > 40
    assert wrong_commands(hints()) == []


def test_every_option_that_a_hint_names_is_some_commands():
    assert wrong_options(hints()) == []


def test_every_setting_that_a_hint_sets_exists():
    known = {setting.key for info in COMMANDS.values() for setting in settings_in(info.settings)}
    named = {(place, key) for place, text in hints() for key in _SETTING.findall(text)}
    assert named
    # parts of a key may be of a setting that is a mapping, or belong to what the setting chooses
    assert [f"{place}: {key}" for place, key in sorted(named) if not known & {key, key.partition(".")[0]}] == []


@pytest.mark.parametrize("hint", ["try 'microg curat A B'", "microg har train --weight x", "see 'microg data explode'"])
def test_a_hint_that_leads_nowhere_is_found(hint: str):
    assert wrong_commands([("here", hint)])


def test_every_file_of_the_documentation_that_a_text_names_is_there():
    named = {(place, page) for place, text in hints() for page in re.findall(r"docs/[a-z_/]+\.md", text)}
    assert [place for place, page in named if not (Path(ROOT) / page).is_file()] == []
