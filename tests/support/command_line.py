"""The `microg` script as its users meet it."""

from __future__ import annotations

import sys

import pytest

from microg.jobs import cli


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run as the script does; return what is on standard error: an error of one line, and perhaps how to fix it.

    Asserts exit code 2 and that nothing else was printed.
    """
    monkeypatch.setattr(sys, "argv", ["microg", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(line.startswith("  fix: ") for line in lines[1:])
    return err
