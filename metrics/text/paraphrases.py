"""METEOR's paraphrase table, cut to the texts at hand.

Reading the whole table (5.3 million pairs of phrases) is most of METEOR's start-up and nearly all of its memory. A pair
can only match when both phrases are in some text, so that a table without the others gives the same statistics. What a
word is depends on METEOR's own normalizer, which separates texts at characters that are neither letters nor digits.
Pairs are therefore kept, rather more than fewer, when the runs of letters and digits of both phrases are in some text
and, if the table is cut closely, those of neighbouring words are neighbours there, too.

The table is indexed once a machine, into this user's cache folder; cutting it then takes a fraction of a second.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.metrics.text.java import jar
from microg.system.weights import cache_folder

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


def write_cut_table(there: Vocabulary, path: Path, *, closely: bool) -> int:
    """Write the pairs of phrases that can match within texts, in METEOR's form; returns their number."""
    table = _table()
    present = np.zeros(len(table.runs), bool)
    present[there.runs] = True
    word = _all_of(table.word_runs, present)
    possible = _all_of(table.phrase_words, word)
    if closely:
        inner, pair = table.neighbours(possible)
        possible[inner[~np.isin(pair, there.pairs)]] = False
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
