from __future__ import annotations

import sys

import pytest

from microg.console import ProgressDisplay


def test_line_tells_done_total_rate_eta_and_failures(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with ProgressDisplay("trim", 20) as display:
        clock[0] += 5
        display.advance(10, failed=1)
        assert display.line() == "trim: 10/20 clips, 2.00/s, ETA 5 s, 1 failed"
        assert display.rate == 2.0


def test_unknown_total_has_no_eta():
    with ProgressDisplay("scan", None, unit="files") as display:
        display.advance(3)
        assert display.line().startswith("scan: 3 files, ")
        assert "ETA" not in display.line()


def test_outside_a_terminal_lines_come_every_few_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with ProgressDisplay("trim", 100, every_s=5) as display:
        for _ in range(100):
            clock[0] += 0.11
            display.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("trim: 100/100 clips")


def test_nothing_done_says_nothing(capsys: pytest.CaptureFixture[str]):
    with ProgressDisplay("trim", 0):
        pass
    assert capsys.readouterr().err == ""


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressDisplay("trim", 4) as display:
        display.advance(4, failed=2)
    text = capsys.readouterr().err
    assert "4/4" in text
    assert "2 failed" in text


def test_bar_shows_texts_of_data_as_they_stand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressDisplay("[red]a[/]\x1b]0;x\x07", 1) as display:
        display.advance(note="[link=x]b\u202e\x9b31m")
    text = capsys.readouterr().err
    assert "[red]a[/]\\x1b]0;x\\x07" in text
    assert "[link=x]b\\u202e\\x9b31m" in text


def test_bar_is_closed_when_the_work_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = ProgressDisplay("trim", 4)

    def work() -> None:
        with display:
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        work()
    assert display._live is not None
    assert not display._live.live.is_started
