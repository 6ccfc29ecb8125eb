"""Examples in docstrings run, and the vocabulary imports neither torch nor Ray."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import microg

MODULES = sorted(module.name for module in pkgutil.walk_packages(microg.__path__, "microg."))
LINKED_ROOMS = {"demo", "jobs", "metrics", "models", "pipelines", "recipes", "reports"}
VOCABULARY = [name for name in MODULES if name.split(".")[1] not in LINKED_ROOMS]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = finder.find(importlib.import_module("microg.data.ids"))
    assert sum(len(test.examples) for test in tests) >= 4


def test_vocabulary_imports_neither_torch_nor_ray():
    assert {"microg.arrow", "microg.actions.rows", "microg.data.schema", "microg.validation"} <= set(VOCABULARY)
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'ray', 'ultralytics', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *VOCABULARY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
