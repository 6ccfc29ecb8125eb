"""METEOR's paraphrase table, cut to the words of the texts at hand.

Reading the whole table (5.3 million pairs of phrases) is most of METEOR's start-up and nearly all of its memory. A pair
can only match when every word of both phrases is in some text, so a table of those pairs gives the same statistics.
What a word is depends on METEOR's own normalizer; it separates texts at characters that are not letters or digits, so
that pairs are kept when the runs of letters and digits of both phrases are among those of the texts.

The table is indexed once a machine, into this user's cache folder; cutting it then takes a fraction of a second.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Set
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from metrics.text.java import jar
from microg.arrow import pc
from microg.weights import cache_folder

_BLOCK = 32 << 20
# METEOR's letters and digits; it puts spaces around everything else.
_RUN = re.compile("[0-9A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ]+")
_VERSION = 1


def runs(texts: Iterable[str]) -> set[str]:
    """Return the runs of letters and digits in texts, lower case.

    >>> sorted(runs(["Isn't a T-shirt"]))
    ['a', 'isn', 'shirt', 't']
    """
    return {run.lower() for text in texts for run in _RUN.findall(text)}


def known_runs() -> frozenset[str]:
    """Return the runs of letters and digits in the table's words: no others matter."""
    return frozenset(run for word in _words() for run in _RUN.findall(word))


def write_cut_table(there: Set[str], path: Path) -> int:
    """Write the pairs that can match within texts of the runs `there`, in METEOR's form; returns their number."""
    folder = index()
    phrases, entries = _read(folder / "phrases.arrow"), _read(folder / "entries.arrow")
    present = np.array([all(run in there for run in _RUN.findall(word)) for word in _words()], bool)
    lists = phrases["words"].combine_chunks()
    possible = np.logical_and.reduceat(present[lists.values.to_numpy()], lists.offsets.to_numpy()[:-1])
    first, second = (entries[name].to_numpy() for name in ("first", "second"))
    chosen = np.flatnonzero(possible[first] & possible[second])
    columns = [entries["probability"].to_numpy()[chosen].tolist()]
    columns += [phrases["phrase"].take(pa.array(side[chosen])).to_pylist() for side in (first, second)]
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(f"{probability!r}\n{one}\n{two}\n" for probability, one, two in zip(*columns, strict=True))
    return len(chosen)


def _words() -> list[str]:
    return _read(index() / "words.arrow")["word"].to_pylist()


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
    _write(folder / "words.arrow", pa.table({"word": word.dictionary}))


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
