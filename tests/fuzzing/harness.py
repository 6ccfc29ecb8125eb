"""Reads mutated files and tells what came of it: `python -m tests.fuzzing.harness --inputs 10000 --table FILE.md`.

Each reader has a process of its own that its parent watches, so that a hang, a crash of native code and memory are
seen too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import torch

from microg.errors import MicrogError, describe
from tests.fuzzing.mutations import mutate
from tests.fuzzing.readers import Reader, all_readers

SLOW_S, MEMORY_GB = 10.0, 2.0
_SILENCE_S = 60.0  # after which a process hangs


@dataclass
class Outcome:
    """What came of a reader's inputs.

    Attributes:
        reader: Its name.
        inputs: How many were read.
        refused: How many ended in the error that the reader is to raise.
        others: Other exceptions: type and message, with how often and the number of the first such input.
        slowest_s: Seconds of the slowest input.
        peak_gb: Highest memory of the process, with its libraries.
        outside: Files that appeared outside the reader's folder.
    """

    reader: str
    inputs: int = 0
    refused: int = 0
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_gb: float = 0.0
    outside: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.others and not self.outside and self.slowest_s < SLOW_S and self.peak_gb < MEMORY_GB


def one_input(reader: Reader, files: list[Path], sound: list[bytes], use: object, seed: int) -> Exception | None:
    """Read one mutated input, put the sound one back, and return what was raised."""
    rng = random.Random(f"{reader.name} {seed}")
    place = rng.randrange(len(files))
    files[place].write_bytes(mutate(sound[place], rng))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use()  # type: ignore[operator]
    except Exception as error:
        return error
    finally:
        files[place].write_bytes(sound[place])
    return None


def fuzz(reader: Reader, numbers: range, beat: object = lambda number: None) -> Outcome:
    """Read inputs by their numbers, from which each can be made again."""
    outcome = Outcome(reader.name)
    others: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "a" / "b" / "c"
        folder.mkdir(parents=True)
        before = Path.cwd()
        os.chdir(folder)
        try:
            files, use = reader.make(folder)
            sound = [file.read_bytes() for file in files]
            use()  # what is sound is read
            for number in numbers:
                beat(number)  # type: ignore[operator]
                started = time.monotonic()
                error = one_input(reader, files, sound, use, number)
                outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - started)
                outcome.inputs += 1
                if isinstance(error, (MicrogError, *reader.refusals)):
                    outcome.refused += 1
                elif error is not None:
                    others.setdefault(f"{type(error).__name__}: {error}"[:160], []).append(number)
                error = None  # it would keep open what its frames hold
            outcome.outside = [
                str(path) for path in Path(parent).rglob("*") if path.is_file() and folder not in path.parents
            ]
        finally:
            os.chdir(before)
    outcome.others = {what: (len(found), found[0]) for what, found in others.items()}
    outcome.peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return outcome


def _child(reader: Reader, numbers: range, out: TextIO, errors: TextIO) -> None:
    os.dup2(errors.fileno(), 2)
    status = 1
    try:
        outcome = fuzz(reader, numbers, lambda number: print(number, file=out, flush=True))
        print(json.dumps(asdict(outcome)), file=out, flush=True)
        status = 0
    except BaseException as error:
        print(describe(error), file=errors, flush=True)
    finally:
        os._exit(status)


def watched(reader: Reader, inputs: int) -> Outcome:
    """Fuzz a reader in processes of its own; an input that ends or hangs one is an outcome like others."""
    total, first = Outcome(reader.name), 0
    counts: Counter[str] = Counter()
    while first < inputs:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            child = os.fork()  # it has imported what takes seconds
            if not child:
                _child(reader, range(first, inputs), out, errors)
            size, since, ended = 0, time.monotonic(), (0, 0)
            while not ended[0]:
                time.sleep(0.05)
                ended = os.waitpid(child, os.WNOHANG)
                if os.fstat(out.fileno()).st_size != size:
                    size, since = os.fstat(out.fileno()).st_size, time.monotonic()
                elif time.monotonic() - since > _SILENCE_S and not ended[0]:
                    os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(ended[1])
            out.seek(0)
            lines = out.read().splitlines()
            errors.seek(0)
            last_words = (errors.read().strip().splitlines() or [""])[-1]
        if code == 0 and lines and lines[-1].startswith("{"):
            part = Outcome(**json.loads(lines[-1]))
            first = inputs
        else:
            if not lines:
                raise RuntimeError(f"{reader.name} does not read what is sound: {last_words}")
            number = int(lines[-1])
            what = "it hung" if code == -signal.SIGKILL else f"it ended the process ({code}): {last_words}"
            part = Outcome(reader.name, number + 1 - first, others={what: (1, number)})
            first = number + 1
        total.inputs, total.refused = total.inputs + part.inputs, total.refused + part.refused
        for what, (count, number) in part.others.items():
            counts[what] += count
            total.others[what] = (counts[what], total.others.get(what, (0, number))[1])
        total.slowest_s, total.peak_gb = max(total.slowest_s, part.slowest_s), max(total.peak_gb, part.peak_gb)
        total.outside += part.outside
    return total


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = [
        "| reader | inputs | refused | other exceptions | slowest (s) | peak memory (GB) | files outside |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in outcomes:
        others = sum(count for count, _ in each.others.values())
        lines.append(
            f"| {each.reader} | {each.inputs:,} | {each.refused:,} | {others} | {each.slowest_s:.2f} | "
            f"{each.peak_gb:.2f} | {len(each.outside)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fuzz all readers, or those whose name holds a word; exit code 1 where something must not have happened."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="Inputs a reader.")
    parser.add_argument("--only", default="", help="Regular expression that is in a reader's name.")
    parser.add_argument("--table", type=Path, help="Markdown file to write.")
    options = parser.parse_args()
    torch.set_num_threads(1)  # its threads do not survive a fork
    outcomes = []
    for reader in all_readers():
        if re.search(options.only, reader.name):
            outcome = watched(reader, options.inputs)
            outcomes.append(outcome)
            print(f"{'ok ' if outcome.sound else 'BAD'} {table([outcome]).splitlines()[-1]}", flush=True)
            for what, (count, number) in outcome.others.items():
                print(f"      {count} times, first at input {number}: {what}", flush=True)
            for path in outcome.outside:
                print(f"      outside: {path}", flush=True)
    if options.table:
        options.table.write_text(table(outcomes), "utf-8")
    sys.exit(not all(outcome.sound for outcome in outcomes))


if __name__ == "__main__":
    main()
