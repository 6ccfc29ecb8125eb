"""METEOR 1.5 for English: alignment statistics from the published jar, summed and scored here.

Source: Denkowski and Lavie 2014, `meteor-1.5.jar -l en -norm`. The reported score is the formula on the corpus's summed
statistics, not the mean of items. The jar's own aggregation counts no chunks for segments matched word for word; so
does this one, to 1e-12, without the locale trouble of the jar's EVAL.

Reading the whole paraphrase table (5.3 million pairs of phrases) is most of METEOR's start-up and nearly all of its
memory. A pair can only match when both phrases are in some text, so that a table without the others gives the same
statistics. What a word is depends on METEOR's own normalizer, which separates texts at characters that are neither
letters nor digits. Pairs are therefore kept, rather more than fewer, when the runs of letters and digits of both
phrases are in some text and, if the table is cut closely, those of neighbouring words are neighbours there, too. The
table is indexed once a machine, into this user's cache folder; cutting it then takes a fraction of a second.
"""

from __future__ import annotations

import atexit
import gzip
import hashlib
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.errors import MetricError
from microg.metrics.text.items import Items, References, numbered
from microg.metrics.text.java import STALL_S, START_S, JavaError, JavaProgram, jar
from microg.metrics.text.state import ItemState
from microg.metrics.text.tokenize import one_line
from microg.system.hardware import usable_cores
from microg.system.weights import cache_folder

# English parameters of the jar.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.20, 0.60, 0.75
_STAGES = ("exact", "stem", "synonym", "paraphrase")
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_SIDES = ("content", "reference_content", "function", "reference_function")
_CHUNKS = 20
# The jar's inner loops are short: what the second compiler gains it does not earn back on corpora of this size.
_FLAGS = ("-XX:TieredStopAtLevel=1",)
_AT_ONCE = 256
_CLOSE_TABLES, _MOST_TABLES = 3, 8
_TABLE = "paraphrases.gz"


class Meteor:
    """The jar as a server of statistics: `workers` programs, started when they are needed, restarted when they fail.

    They read the part of the paraphrase table that the texts can match, and start anew when later texts can match more:
    a few times by neighbouring words, then by words, and in the end they read the whole table. stall_s: seconds without
    an answer after which one counts as hung.
    """

    def __init__(self, *, workers: int | None = None, stall_s: float = STALL_S) -> None:
        self._workers = workers or max(1, min(4, int(usable_cores())))
        self._stall_s = stall_s
        self._programs: list[JavaProgram | None] = [None] * self._workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._vocabulary = Vocabulary.empty()
        self._tables = 0
        self._stopped = False

    def statistics(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the jar's statistics (n, 23) int64 of the best reference of each item; equal items are asked once.

        After a failure a program is started again and asked again from the item on; raises `MetricError`, with the
        item's name, when that item makes it fail again.
        """
        pairs = zip(predictions, references, strict=True)
        lines = [" ||| ".join(["SCORE", *map(one_line, true), one_line(said)]) for said, true in pairs]
        distinct = list(dict.fromkeys(lines))
        if not distinct:
            return np.empty((0, len(MeteorState.columns)), np.int64)
        self._read_table_for(distinct)
        self._stopped = False
        try:
            known = dict(zip(distinct, self._answers(distinct), strict=True))
        except _ItemError as error:
            item = lines.index(error.line)
            raise MetricError(
                f"METEOR fails at item {names[item] if names else item!r} "
                f"({len(predictions[item].split())} words): {error.what}",
                "shorten or remove this text; many repeated words on both sides take METEOR minutes",
            ) from error
        numbers = np.array([known[line].split() for line in lines], np.float64)
        return numbers.astype(np.int64)

    def _read_table_for(self, lines: Sequence[str]) -> None:
        """Cut the paraphrase table anew, and end the programs, when it was not cut for what is in `lines`."""
        if self._tables > _MOST_TABLES:
            return
        wanted = Vocabulary.of(text for line in lines for text in line.split(" ||| ")[1:])
        if self._folder is not None and self._vocabulary.covers(wanted, closely=self._tables <= _CLOSE_TABLES):
            return
        self.close()  # which ends the programs that read the table before
        self._tables, self._vocabulary = self._tables + 1, self._vocabulary | wanted
        if self._tables <= _MOST_TABLES:
            self._folder = tempfile.TemporaryDirectory(prefix="microg-meteor-")
            path = Path(self._folder.name, _TABLE)
            write_cut_table(self._vocabulary, path, closely=self._tables <= _CLOSE_TABLES)

    def _answers(self, lines: list[str]) -> list[str]:
        """Return the answer to each line; programs take the next few lines when they have answered the last."""
        parts = [lines[start : start + _AT_ONCE] for start in range(0, len(lines), _AT_ONCE)]
        answers: list[list[str]] = [[] for _ in parts]
        left = deque(range(len(parts)))

        def work(place: int) -> None:
            while True:
                try:
                    number = left.popleft()
                except IndexError:
                    return
                answers[number] = self._part(place, parts[number])

        with ThreadPoolExecutor(self._workers) as pool:
            running = [pool.submit(work, place) for place in range(min(self._workers, len(parts)))]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:  # an item that fails, or Ctrl-C: nobody waits for the rest
                left.clear()
                self._stopped = True
                self._end_programs()
                raise
        return [answer for part in answers for answer in part]

    def _part(self, place: int, lines: list[str]) -> list[str]:
        answers: list[str] = []
        failed_at = -1
        while len(answers) < len(lines):
            program = self._running(place)
            try:
                answers += program.ask(lines[len(answers) :], stall_s=self._stall_s)
            except JavaError as error:
                answers += error.answers
                if self._stopped or len(answers) == failed_at:
                    raise _ItemError(lines[len(answers)], error.what) from error
                failed_at = len(answers)
        return answers

    def _running(self, place: int) -> JavaProgram:
        program = self._programs[place]
        if program is None or program.closed:
            arguments = ["-jar", str(jar("meteor", "meteor-1.5.jar")), "-", "-", "-stdio", "-l", "en", "-norm"]
            if self._folder is not None:
                arguments += ["-a", str(Path(self._folder.name, _TABLE))]
            program = self._programs[place] = JavaProgram("METEOR", _FLAGS, arguments)
            if self._stopped:  # Ctrl-C came while it started: whoever ended the others did not see it
                program.kill()
            program.ask(["SCORE ||| a ||| a"], stall_s=START_S)  # starting is no hanging, however busy the machine
        return program

    def close(self) -> None:
        """End the programs; asking again starts them again."""
        self._end_programs()
        self._programs = [None] * self._workers
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _end_programs(self) -> None:
        for program in self._programs:
            if program is not None:
                program.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ItemError(Exception):
    """A line at which the jar fails again and again."""

    def __init__(self, line: str, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


_shared: Meteor | None = None


def shared(workers: int | None = None) -> Meteor:
    """Return this process's METEOR; it ends with the process. The first call says how many programs it has."""
    global _shared
    if _shared is None:
        _shared = Meteor(workers=workers)
        atexit.register(_shared.close)
    return _shared


class MeteorState(ItemState):
    """The jar's 23 integers of each item: lengths, function words, matches of four kinds, chunks, matched words."""

    columns: ClassVar[tuple[str, ...]] = (
        "words",
        "reference_words",
        "function_words",
        "reference_function_words",
        *(f"{stage}_{side}" for stage in _STAGES for side in _SIDES),
        "chunks",
        "matched",
        "reference_matched",
    )
    values = ("meteor",)

    def measure(self, items: Items) -> np.ndarray:
        """Return the statistics (n, 23); chunks of segments matched word for word are set to 0."""
        found = shared().statistics(items.predictions, items.references, items.ids)
        return without_perfect_chunks(np.where(items.empty()[:, None] & (np.arange(23) >= 4), 0, found))

    def score(self, totals: np.ndarray, count: np.ndarray) -> dict[str, np.ndarray]:
        """Return METEOR, 0 to 1, of summed statistics (..., 23)."""
        totals = np.asarray(totals, np.float64)
        matches = totals[..., 4:_CHUNKS].reshape(*totals.shape[:-1], len(_STAGES), len(_SIDES))
        precision = _weighted(matches[..., 0], matches[..., 2], totals[..., 0], totals[..., 2])
        recall = _weighted(matches[..., 1], matches[..., 3], totals[..., 1], totals[..., 3])
        mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
        matched = (totals[..., _CHUNKS + 1] + totals[..., _CHUNKS + 2]) / 2
        penalty = _GAMMA * _ratio(totals[..., _CHUNKS], matched) ** _BETA
        return {"meteor": mean * (1 - penalty)}


def meteor(predictions: Iterable[Any], references: References) -> float:
    """Return METEOR, 0 to 1, of a corpus; starts this process's Java program at the first call."""
    items = numbered(predictions, references)
    return MeteorState.empty().take(items, items).compute()["meteor"]


def without_perfect_chunks(statistics: np.ndarray) -> np.ndarray:
    """Return statistics (n, 23) in which segments that match word for word, in one chunk, have none."""
    words, reference_words = statistics[:, 0], statistics[:, 1]
    chunks, matched, reference_matched = statistics[:, _CHUNKS], statistics[:, _CHUNKS + 1], statistics[:, _CHUNKS + 2]
    perfect = (chunks == 1) & (matched == words) & (reference_matched == reference_words)
    result = statistics.copy()
    result[perfect, _CHUNKS] = 0
    return result


def _weighted(content: np.ndarray, function: np.ndarray, words: np.ndarray, function_words: np.ndarray) -> np.ndarray:
    """Return matches (..., stages) over words, content words weighing `_DELTA`."""
    matches = ((_DELTA * content + (1 - _DELTA) * function) * _WEIGHTS).sum(axis=-1)
    return _ratio(matches, _DELTA * (words - function_words) + (1 - _DELTA) * function_words)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=np.asarray(below) > 0)


_BLOCK = 32 << 20
# METEOR's letters and digits; it puts spaces around everything else.
_RUN = re.compile("[0-9A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ]+")
_VERSION = 2


@dataclass(frozen=True)
class Vocabulary:
    """What of the table's runs (numbers) is in texts, and which are neighbours there (pair numbers): sorted arrays."""

    runs: np.ndarray
    pairs: np.ndarray

    @classmethod
    def empty(cls) -> Vocabulary:
        """Return the vocabulary of no texts."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of texts."""
        table = _table()
        unknown = len(table.runs)
        numbers = [[table.runs.get(run.lower(), unknown) for run in _RUN.findall(text)] + [unknown] for text in texts]
        flat = np.fromiter((number for row in numbers for number in row), np.int64)
        pairs = np.unique(flat[:-1] * unknown + flat[1:])[: None if len(flat) else 0]
        known = np.unique(flat[flat < unknown])
        return cls(known, pairs[np.isin(pairs, table.pairs, assume_unique=True)])

    def __or__(self, other: Vocabulary) -> Vocabulary:
        return Vocabulary(np.union1d(self.runs, other.runs), np.union1d(self.pairs, other.pairs))

    def covers(self, other: Vocabulary, *, closely: bool) -> bool:
        """Return whether a table cut to this one serves the other."""
        inside = bool(np.isin(other.runs, self.runs).all())
        return inside and (not closely or bool(np.isin(other.pairs, self.pairs).all()))


def write_cut_table(vocabulary: Vocabulary, path: Path, *, closely: bool) -> int:
    """Write the pairs of phrases that can match within texts, in METEOR's form; returns their number."""
    table = _table()
    present = np.zeros(len(table.runs), bool)
    present[vocabulary.runs] = True
    word = _all_of(table.word_runs, present)
    possible = _all_of(table.phrase_words, word)
    if closely:
        inner, pair = table.neighbours(possible)
        possible[inner[~np.isin(pair, vocabulary.pairs)]] = False
    first, second = (table.entries[name].to_numpy() for name in ("first", "second"))
    chosen = np.flatnonzero(possible[first] & possible[second])
    columns = [table.entries["probability"].to_numpy()[chosen].tolist()]
    columns += [table.phrases.take(pa.array(side[chosen])).to_pylist() for side in (first, second)]
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(f"{probability!r}\n{one}\n{two}\n" for probability, one, two in zip(*columns, strict=True))
    return len(chosen)


@dataclass(frozen=True)
class _Table:
    """The index: runs by text, words as lists of runs, phrases as lists of words, entries as pairs of phrases.

    pairs: numbers `first * len(runs) + second` of neighbouring words that are one run each, ascending.
    """

    runs: dict[str, int]
    word_runs: Any
    phrase_words: Any
    phrases: pa.ChunkedArray
    entries: pa.Table
    pairs: np.ndarray
    entire: np.ndarray  # (words,) bool: whether a word is nothing but its run

    def neighbours(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (phrase, pair) numbers of neighbouring words that are one run each, in the chosen phrases."""
        lengths = np.diff(self.phrase_words.offsets.to_numpy())
        phrase = np.repeat(np.arange(len(lengths)), lengths)
        taken = np.repeat(chosen, lengths)
        phrase, word = phrase[taken], self.phrase_words.values.to_numpy()[taken]
        offsets = self.word_runs.offsets.to_numpy()
        single = (np.diff(offsets) == 1) & self.entire
        run = np.where(single, np.r_[self.word_runs.values.to_numpy(), 0][offsets[:-1]], -1).astype(np.int64)[word]
        inside = (phrase[:-1] == phrase[1:]) & (run[:-1] >= 0) & (run[1:] >= 0)
        return phrase[:-1][inside], (run[:-1] * len(self.runs) + run[1:])[inside]


@cache
def _table() -> _Table:
    folder = index()
    words, phrases = _read(folder / "words.arrow"), _read(folder / "phrases.arrow")
    runs = {run: number for number, run in enumerate(_read(folder / "runs.arrow")["run"].to_pylist())}
    return _Table(
        runs,
        words["runs"].combine_chunks(),
        phrases["words"].combine_chunks(),
        phrases["phrase"],
        _read(folder / "entries.arrow"),
        _read(folder / "pairs.arrow")["pair"].to_numpy(),
        words["entire"].to_numpy(zero_copy_only=False),
    )


def _all_of(lists: Any, fine: np.ndarray) -> np.ndarray:
    """Return for each list of numbers whether all of them are `fine`."""
    lengths = np.diff(lists.offsets.to_numpy())
    of = np.repeat(np.arange(len(lengths)), lengths)
    result = np.ones(len(lengths), bool)
    result[of[~fine[lists.values.to_numpy()]]] = False
    return result


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@cache
def index() -> Path:
    """Return the folder of the index; made when it is not there. Processes that make it at once make the same."""
    table = jar("meteor", "data", "paraphrase-en.gz")
    stat = table.stat()
    key = hashlib.sha256(f"{_VERSION} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"meteor-paraphrases-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        _make_index(table, made)
        try:
            made.replace(folder)
        except OSError:  # another process was first
            for path in made.iterdir():
                path.unlink()
            made.rmdir()
    return folder


def _make_index(table: Path, folder: Path) -> None:
    probabilities: list[pa.Array] = []
    parts: list[pa.Array] = []
    for lines in _blocks(table):
        entry = np.arange(0, len(lines), 3)
        probabilities.append(pc.utf8_rtrim_whitespace(lines.take(pa.array(entry))).cast(pa.float64()))
        parts += [lines.take(pa.array(entry + side)).dictionary_encode() for side in (1, 2)]
    coded = pa.chunked_array(parts).unify_dictionaries()
    phrases = pc.utf8_trim_whitespace(coded.chunk(0).dictionary)
    words = pc.utf8_split_whitespace(phrases)
    word = words.values.dictionary_encode()
    codes = [chunk.indices for chunk in coded.chunks]
    sides = {"first": pa.concat_arrays(codes[::2]), "second": pa.concat_arrays(codes[1::2])}
    _write(folder / "entries.arrow", pa.table({**sides, "probability": pa.concat_arrays(probabilities)}))
    lists = pa.ListArray.from_arrays(words.offsets, word.indices)
    _write(folder / "phrases.arrow", pa.table({"phrase": phrases, "words": lists}))
    texts = word.dictionary.to_pylist()
    found = [[run.lower() for run in _RUN.findall(text)] for text in texts]
    numbers = {run: number for number, run in enumerate(sorted({run for row in found for run in row}))}
    word_runs = pa.array([[numbers[run] for run in row] for row in found], pa.list_(pa.int32()))
    entire = np.array([row == [text] for row, text in zip(found, texts, strict=True)], bool)
    _write(folder / "runs.arrow", pa.table({"run": list(numbers)}))
    _write(folder / "words.arrow", pa.table({"runs": word_runs, "entire": entire}))
    empty = pa.table({"first": [], "second": []})
    made = _Table(numbers, word_runs, lists, pa.chunked_array([phrases]), empty, np.empty(0, np.int64), entire)
    pairs = np.unique(made.neighbours(np.ones(len(phrases), bool))[1])
    _write(folder / "pairs.arrow", pa.table({"pair": pairs}))


def _blocks(table: Path) -> Iterator[pa.StringArray]:
    """Yield lines, line ends included, of whole entries (probability, phrase, phrase), a bounded number at once."""
    with gzip.open(table) as file:
        kept = b""
        while block := file.read(_BLOCK):
            block = kept + block
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
            offsets = np.r_[0, ends[: len(ends) - len(ends) % 3]].astype(np.int32)
            yield pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(block))
            kept = block[offsets[-1] :]
    if kept:
        raise ValueError(f"{table} ends within an entry")


def _write(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table.combine_chunks())
