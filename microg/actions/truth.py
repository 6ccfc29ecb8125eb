"""Readers of HAR truth: AVA-style CSV, long Parquet (a `samples` table), and a dataset folder with a split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from microg import storage
from microg.actions.csv_files import ALIASES, TRUTH_COLUMNS, read_rows
from microg.actions.rows import TRUTH_ROWS, Truth, Where, check_truth_rows, conform_rows
from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.label_space import LabelSpace
from microg.data.schema import ORIGINS
from microg.errors import FormatError
from microg.reading import reads


@reads()
def read_truth(path: str, space: LabelSpace, *, split: str = "test", scheme: str = "published") -> Truth:
    """Read truth from any form; `split` (or all) and `scheme` choose the samples of a dataset folder.

    An `origin` column (movie | real), or the dataset's clips, tell the origins. Raises `FormatError` with the line or
    row of the first value that cannot be used.
    """
    if not storage.exists(path):
        raise FormatError(f"truth {path} is not there")
    if storage.exists(storage.join(path, "dataset.json")):
        return _from_dataset(path, space, split, scheme)
    if path.removesuffix(".gz").endswith((".csv", ".txt")):
        read = read_rows(path, TRUTH_COLUMNS)
        return _finish(path, read.columns, space, lambda row: f"{path}, line {row + read.first_line}")
    fs, plain = storage.filesystem(path)
    if fs.isdir(plain):
        raise FormatError(f"{path} is neither a dataset nor a file of truth", "give a CSV or Parquet file or a dataset")
    table = storage.read_parquet(path)
    columns: dict[str, pa.ChunkedArray] = {
        ALIASES.get(str(name), str(name)): table[name] for name in table.column_names
    }
    wanted = {name: columns[name] for name in (*TRUTH_ROWS.names, "origin") if name in columns}
    return _finish(path, wanted, space, lambda row: f"{path}, row {row + 1}")


def _finish(path: str, columns: dict[str, pa.ChunkedArray], space: LabelSpace, where: Where) -> Truth:
    rows = conform_rows(columns, TRUTH_ROWS, path)
    negative = rows["clip_id"].is_valid()
    for name in ("x1", "y1", "x2", "y2", "action_id"):
        negative = pc.and_(negative, pc.is_null(rows[name]))
    places = np.flatnonzero(pc.invert(negative).to_numpy())
    rows = rows.take(pa.array(places))
    if not rows.num_rows:
        raise FormatError(f"{path} holds no truth")
    check_truth_rows(rows, space, lambda row: where(int(places[row])))
    count = pc.sum(negative).as_py()
    notes = (f"{count} key frames of the truth have no box: what is predicted there is false",) if count else ()
    origins = _origins(rows["clip_id"], columns["origin"].take(pa.array(places)), path) if "origin" in columns else {}
    return Truth(rows, origins, notes)


def _from_dataset(path: str, space: LabelSpace, split: str, scheme: str) -> Truth:
    dataset = Dataset.open(path)
    samples = dataset.table("samples")
    if split != "all":
        samples = samples.filter(pc.is_in(samples["clip_id"], dataset.split_clips(split, scheme)))
    columns = {name: samples[name] for name in samples.column_names}
    truth = _finish(path, columns, space, lambda row: f"{path}, row {row + 1} of the {split} samples")
    clips = dataset.table("clips")
    known = clips.filter(pc.is_valid(clips["origin"]))
    return Truth(truth.rows, _origins(known["clip_id"], known["origin"], path), truth.notes)


def _origins(clips: pa.ChunkedArray, origins: pa.ChunkedArray, path: str) -> dict[str, str]:
    pairs = pa.table({"clip": clips.cast(pa.string()), "origin": origins.cast(pa.string())})
    pairs = pairs.group_by(["clip", "origin"], use_threads=False).aggregate([])
    result: dict[str, str] = {}
    for clip, origin in zip(pairs["clip"].to_pylist(), pairs["origin"].to_pylist(), strict=True):
        if origin is None:
            continue
        if origin not in ORIGINS:
            raise FormatError(f"{path}: clip {clip} has origin {origin!r}", f"origins are {' and '.join(ORIGINS)}")
        if result.setdefault(clip, origin) != origin:
            raise FormatError(f"{path}: clip {clip} is both movie and real")
    return result
