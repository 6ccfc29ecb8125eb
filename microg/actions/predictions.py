"""Readers of HAR predictions: AVA-style CSV, long Parquet, and our own `har_predictions` table or run folder.

What scores are (logits or probabilities) is declared by the caller, by the name of the score column (`logit`,
`probability`) or by the table; a declaration that the values contradict is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa

from microg import storage
from microg.actions.csv_files import ALIASES, PREDICTION_COLUMNS, read_rows
from microg.actions.rows import (
    PREDICTION_BOXES,
    PREDICTION_ROWS,
    Predictions,
    ScoreKind,
    Where,
    check_prediction_boxes,
    check_prediction_rows,
    conform_rows,
)
from microg.arrow import pc
from microg.data import schema
from microg.data.label_space import LABEL_SPACES, MICROG_50, LabelSpace
from microg.data.vocabulary import Vocabulary, vocabulary_named
from microg.errors import ConfigError, FormatError
from microg.reading import reads

_TABLE = "har_predictions"
_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)


def sample_id(clip_id: str, frame: int, person_id: int) -> str:
    """Return the id of a (key frame, person) sample, as the table `har_predictions` has it.

    >>> sample_id("Apollo13_032", 52, 1)
    'Apollo13_032:52:1'
    """
    return f"{clip_id}:{frame}:{person_id}"


@reads()
def read_predictions(
    path: str,
    *,
    score_kind: ScoreKind | None = None,
    space: str | None = None,
    known: Sequence[Vocabulary] = (),
    default: str = MICROG_50.name,
) -> Predictions:
    """Read predictions from any form; `score_kind` and `space` declare what the file itself does not.

    `known` are vocabularies of datasets that may be meant; that of the run that wrote the file is known, too.
    Without any declaration scores are logits of `default`, MicroG-4M's 50 classes as the reference writes them; should
    then every score lie between 0 and 1, a declaration is asked for. Raises `FormatError` with the line or row of the
    first value that cannot be scored, and `ConfigError` when a declaration contradicts the file's own, or nothing tells
    its classes.
    """
    spaces = _Spaces(path, tuple(known), default)
    if not storage.exists(path):
        raise FormatError(f"predictions {path} are not there")
    if path.removesuffix(".gz").endswith((".csv", ".txt")):
        read = read_rows(path, PREDICTION_COLUMNS)
        header = [name.lower() for name in read.header or ()]
        own: ScoreKind | None = next((kind for kind in _KINDS if kind in header), None)
        return _from_long(
            path, read.columns, lambda row: f"{path}, line {row + read.first_line}", own, score_kind, space, spaces
        )
    table = prediction_table(path)
    if "scores" in table.column_names:
        return _from_wide(table, path, score_kind, space, spaces)
    columns, own = _long_columns(table)
    return _from_long(path, columns, lambda row: f"{path}, row {row + 1}", own, score_kind, space, spaces)


@dataclass(frozen=True)
class _Spaces:
    """Where label spaces of predictions at `path` are looked up."""

    path: str
    known: tuple[Vocabulary, ...]
    default: str

    def find(self, name: str | None) -> LabelSpace:
        """Return the label space of a name; of None the default one."""
        return vocabulary_of_predictions(self.path, name or self.default, self.known).space


def vocabulary_of_predictions(path: str, name: str, known: Sequence[Vocabulary] = ()) -> Vocabulary:
    """Return the actions of predictions at `path` whose label space has this name.

    It is one of `known`, a published one, or that of the run that wrote them. Raises `ConfigError` when none is.
    """
    found = next((each for each in known if each.space.name == name), None)
    return found or vocabulary_named(name, None if name in LABEL_SPACES else _vocabulary_beside(path))


def _vocabulary_beside(path: str) -> Any:
    """Return the vocabulary in the record of the run that wrote `path`, None where there is none."""
    folder = path.rstrip("/")
    for _ in range(3):  # the run's folder, its tables, a table
        record = storage.join(folder, "run.json")
        if storage.exists(record):
            document = storage.read_json(record)
            config = document.get("full_config") if isinstance(document, dict) else None
            return config.get("vocabulary") if isinstance(config, dict) else None
        folder = folder.rpartition("/")[0] or "."
    return None


def _from_long(
    path: str,
    columns: Mapping[str, pa.ChunkedArray | pa.Array],
    where: Where,
    own_kind: ScoreKind | None,
    kind: ScoreKind | None,
    space: str | None,
    spaces: _Spaces,
) -> Predictions:
    """Read one row a (box, class), and fold it."""
    chosen = spaces.find(space)
    declared = cast("ScoreKind | None", _agreed("score kind", path, own_kind, kind))
    rows = conform_rows(columns, PREDICTION_ROWS, path)
    if not rows.num_rows:
        raise FormatError(f"{path} holds no predictions")
    check_prediction_rows(rows, chosen, declared or "logit", where)
    _refuse_doubt(declared, rows["score"].to_numpy(), path)
    return Predictions.from_rows(rows, declared or "logit", chosen)


def _refuse_doubt(declared: ScoreKind | None, scores: np.ndarray, path: str) -> None:
    # real logits never lie between 0 and 1 all together
    if declared is None and scores.size and ((scores >= 0) & (scores <= 1)).all():
        raise FormatError(
            f"{path} does not say what its scores are, and all lie between 0 and 1",
            "declare them with --scores probability or --scores logit",
        )


def _agreed(what: str, path: str, own: str | None, declared: str | None) -> str | None:
    if own is not None and declared is not None and own != declared:
        raise ConfigError(f"{path} declares {what} {own!r}, but {declared!r} was asked for", "drop one of the two")
    return own if own is not None else declared


def prediction_table(path: str) -> pa.Table:
    """Return the rows of a Parquet file or of a run's table of predictions, as they are stored.

    Raises `FormatError` for a folder that has none.
    """
    fs, plain = storage.filesystem(path)
    if not fs.isdir(plain):
        return storage.read_parquet(path)
    for candidate in (storage.join(path, "tables", f"{_TABLE}.parquet"), storage.join(path, f"{_TABLE}.parquet")):
        if storage.exists(candidate):
            return storage.read_parquet(candidate)
    for folder in (storage.join(path, _TABLE), storage.join(path, "tables", _TABLE), path):
        if storage.exists(folder) and any(
            name.endswith(".parquet") for name in fs.ls(storage.filesystem(folder)[1], detail=False)
        ):
            return storage.read_parquet_folder(folder, schema.RUN_TABLES[_TABLE])
    raise FormatError(
        f"{path} holds no table {_TABLE}", "give a CSV or Parquet file, or the run of 'microg har predict'"
    )


def _long_columns(table: pa.Table) -> tuple[dict[str, pa.ChunkedArray], ScoreKind | None]:
    columns: dict[str, pa.ChunkedArray] = {}
    own: ScoreKind | None = None
    for name in table.column_names:
        canonical = ALIASES.get(str(name), str(name))
        if canonical in PREDICTION_ROWS.names:
            columns[canonical] = table[name]
        if name in _KINDS:
            own = cast(ScoreKind, name)
    return columns, own


def _from_wide(table: pa.Table, path: str, kind: ScoreKind | None, space: str | None, spaces: _Spaces) -> Predictions:
    """Read one row a sample; rows with another status than ok have no scores and are missing."""
    table = schema.conform(_TABLE, table)
    failed = pc.fill_null(pc.not_equal(table["status"], "ok"), False)
    bad = table.filter(failed).num_rows
    notes = (f"{bad} samples failed when they were predicted: they have no scores",) if bad else ()
    table = table.filter(pc.invert(failed))
    own_kind, own_space = _declared(table, "score_kind", path), _declared(table, "label_space", path)
    if own_kind is not None and own_kind not in _KINDS:
        raise FormatError(f"{path}: score_kind {own_kind!r} is unknown", f"it is {' or '.join(_KINDS)}")
    ids = table["sample_id"].to_pylist()
    _check_sample_ids(ids, path)
    chosen = spaces.find(_agreed("label space", path, own_space, space))
    lengths = pc.fill_null(pc.list_value_length(table["scores"]), 0).to_numpy()
    wrong = np.flatnonzero(lengths != len(chosen))
    if len(wrong):
        raise FormatError(
            f"{path}, sample {ids[wrong[0]]}: {lengths[wrong[0]]} scores instead of {len(chosen)}",
            f"label space {chosen.name} has {len(chosen)} classes",
        )
    if not table.num_rows and not notes:
        raise FormatError(f"{path} holds no predictions")
    declared = cast("ScoreKind | None", _agreed("score kind", path, own_kind, kind))
    columns = {name: table[name] for name in ("clip_id", "frame", "x1", "y1", "x2", "y2", "scores")}
    columns["row"] = pa.array(np.arange(table.num_rows) * len(chosen))
    boxes = conform_rows(columns, PREDICTION_BOXES, path)
    check_prediction_boxes(boxes, chosen, declared or "logit", lambda row: f"{path}, sample {ids[row]}")
    _refuse_doubt(declared, pc.list_flatten(boxes["scores"]).to_numpy(), path)
    return Predictions(boxes, declared or "logit", chosen, notes)


def _check_sample_ids(ids: list[str | None], path: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(ids, 1):
        if name is None:
            raise FormatError(f"{path}, row {number}: sample_id is empty")
        if name in seen:
            raise FormatError(f"{path}, row {number}: duplicate sample id {name}", "one row a (key frame, person)")
        seen.add(name)


def _declared(table: pa.Table, column: str, path: str) -> str | None:
    values = [value for value in pc.unique(table[column]).to_pylist() if value is not None]
    if len(values) > 1:
        raise FormatError(f"{path} mixes {column}s {', '.join(map(str, values))}", "score one model at a time")
    return values[0] if values else None
