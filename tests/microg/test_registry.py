import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from microg.errors import ConfigError
from microg.registry import Registry, load_object


@dataclass(frozen=True)
class Colour:
    name: str
    code: str


RED = Colour("red", "f00")


def test_an_import_string_is_resolved_when_it_is_asked_for_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine_lazy.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    tools = Registry("tool", {"double": "mine_lazy:double"})
    assert list(tools) == ["double"]
    assert tools.find("double") == "mine_lazy:double"
    assert "mine_lazy" not in sys.modules
    assert tools.load("double")(4) == tools.load("mine_lazy:double")(4) == 8


def test_records_are_entries_and_a_record_of_the_users_own_is_named_by_its_place():
    colours = Registry("colour", {"blue": Colour("blue", "00f")})
    assert colours.find("blue").code == "00f"
    assert colours.find(f"{__name__}:RED") is RED
    assert colours.load("blue") is colours["blue"]


def test_an_unknown_name_is_told_the_names_and_the_nearest():
    colours = Registry("colour", {"blue": "a:b", "green": "a:c"})
    with pytest.raises(ConfigError, match=r"there is no colour 'gren', did you mean 'green'\? \(colours are blue, gr"):
        colours.find("gren")
    with pytest.raises(ConfigError, match=r"there is no colour 'xxxx' \("):
        colours.load("xxxx")


def test_a_place_that_is_not_there_is_a_message_and_an_error_inside_a_module_is_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine_broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="there is no module 'mine_absent'"):
        load_object("mine_absent:thing")
    with pytest.raises(ConfigError, match="the module math has no 'sqroot'"):
        load_object("math:sqroot")
    with pytest.raises(ConfigError, match="the form is module:object"):
        load_object(":sqrt")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load_object("mine_broken:thing")
