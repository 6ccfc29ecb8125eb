"""Whatever is in a file: its reader ends in one typed error, soon, in little memory, and touches nothing else.

Each reader gets 200 inputs here and 10,000 nightly (`tests/fuzzing/harness.py`, docs/security.md).
"""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from microg import formats
from microg.errors import MicrogError
from tests.fuzzing.harness import fuzz
from tests.fuzzing.mutations import mutate
from tests.fuzzing.readers import Reader, all_readers
from tests.support.sources import modules

READERS = {reader.name: reader for reader in all_readers()}
INPUTS = 200


@pytest.mark.parametrize("name", READERS)
def test_a_reader_ends_in_its_own_error_whatever_it_reads(name: str) -> None:
    outcome = fuzz(READERS[name], range(INPUTS))
    assert outcome.others == {}, f"the numbers name inputs: fuzz(READERS[{name!r}], range(NUMBER, NUMBER + 1))"
    assert outcome.outside == []
    assert outcome.inputs == INPUTS
    assert outcome.refused > 0  # the changes are such that a reader notices them


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_hypothesis_finds_no_input_that_ends_in_another_error(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    files, use = reader.make(tmp_path)
    sound = [file.read_bytes() for file in files]

    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        phases=set(Phase) - {Phase.explain},
    )
    @given(
        st.integers(0, len(files) - 1), st.lists(st.integers(0, 2**32), min_size=1, max_size=3), st.binary(max_size=20)
    )
    def read(place: int, seeds: list[int], tail: bytes) -> None:
        data = sound[place]
        for seed in seeds:
            data = mutate(data, random.Random(seed))
        files[place].write_bytes(data + tail)
        try:
            use()
        except (MicrogError, *reader.refusals):
            pass
        finally:
            files[place].write_bytes(sound[place])

    read()


def test_a_new_dataset_format_is_fuzzed_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.FORMATS, "mine", formats.FORMATS["coco"])
    assert "format mine" in {reader.name for reader in all_readers()}


# Functions that are called like readers and have no file of strangers of their own: what they stand on is fuzzed.
_NOT_READERS = frozenset(
    {
        *("microg.storage.read_bytes", "microg.storage.read_blocks"),  # bytes as they are
        "microg.system.zoo.locate_weights",
    }
)


def _called_like_readers() -> set[str]:
    """Return the public functions whose name and first parameter say that they read a file or a text."""
    found = set()
    for module, file in modules():
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith(("read", "parse", "load_weights", "unpack")):
                first = node.args.args[0].arg if node.args.args else ""
                if first in ("path", "file", "archive", "data", "raw", "uri", "root", "folder"):
                    found.add(f"{module}.{node.name}")
    return found


def test_every_function_that_reads_a_file_is_reached_by_the_fuzzed_readers(tmp_path: Path) -> None:
    import sys

    reached: set[str] = set()

    def note(frame: object, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code  # type: ignore[attr-defined]
            reached.add(f"{frame.f_globals.get('__name__')}.{code.co_name}")  # type: ignore[attr-defined]

    for place, reader in enumerate(READERS.values()):
        folder = tmp_path / str(place)
        folder.mkdir()
        _, use = reader.make(folder)
        sys.setprofile(note)
        try:
            use()
        finally:
            sys.setprofile(None)
    assert _called_like_readers() - reached - _NOT_READERS == set()


def test_the_harness_sees_other_exceptions_files_outside_and_what_it_reads(tmp_path: Path) -> None:
    def make(folder: Path) -> tuple[list[Path], object]:
        path = folder / "a.txt"
        path.write_bytes(b"0123456789")

        def use() -> None:
            if path.read_bytes() != b"0123456789":
                (folder.parent / "escaped").write_bytes(b"x")
                raise KeyError("seen")

        return [path], use

    outcome = fuzz(Reader("bad", make), range(20))  # type: ignore[arg-type]
    assert sum(count for count, _ in outcome.others.values()) > 10
    assert [Path(path).name for path in outcome.outside] == ["escaped"]
    assert not outcome.sound
