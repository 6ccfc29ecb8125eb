"""No module imports another that imports it, however far round: neither in functions nor for types."""

from __future__ import annotations

from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter

import grimp


def circle(imports: Mapping[str, Set[str]]) -> list[str]:
    """Return modules of which each imports the next and the last is the first again; empty when there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def test_a_circle_of_imports_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    found = circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    assert found[0] == found[-1]
    assert set(found) == {"b", "c"}


def test_no_modules_import_each_other():
    graph = grimp.build_graph("microg", cache_dir=None)
    assert circle({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}) == []
