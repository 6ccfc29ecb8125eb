"""What is known of synthetic footage: five Parquet tables beside it, in its `truth` folder.

`file` is the path relative to the footage folder. Frames count from 1 at the file's own rate, `time_s` is their
presentation time. Boxes are divided by the frame's width and height. Person ids are kept through a file's shots.
"""

from __future__ import annotations

import pyarrow as pa

from microg import storage
from microg.errors import DatasetError

TABLES: dict[str, pa.Schema] = {
    "files": pa.schema(
        [
            ("file", pa.string()),
            ("container", pa.string()),
            ("codec", pa.string()),
            ("fps", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("frames", pa.int32()),
            ("duration_s", pa.float64()),
            ("sha256", pa.string()),
        ]
    ),
    "shots": pa.schema(
        [
            ("file", pa.string()),
            ("shot", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("first_frame", pa.int32()),
            ("last_frame", pa.int32()),
            ("module", pa.string()),
            ("people", pa.int32()),
            ("caption", pa.string()),
        ]
    ),
    "boxes": pa.schema(
        [
            ("file", pa.string()),
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("shot", pa.int32()),
            ("person_id", pa.int32()),
            ("x1", pa.float64()),
            ("y1", pa.float64()),
            ("x2", pa.float64()),
            ("y2", pa.float64()),
        ]
    ),
    "actions": pa.schema(
        [("file", pa.string()), ("shot", pa.int32()), ("person_id", pa.int32()), ("action_id", pa.int32())]
    ),
    "qa": pa.schema(
        [
            ("file", pa.string()),
            ("shot", pa.int32()),
            ("qa_index", pa.int32()),
            ("question", pa.string()),
            ("answer", pa.string()),
        ]
    ),
}


def truth_folder(folder: str) -> str:
    """Return the folder with the truth tables, given it or the footage folder above it.

    Raises `DatasetError` when neither has them.
    """
    for candidate in (folder, storage.join(folder, "truth")):
        if storage.exists(storage.join(candidate, "files.parquet")):
            return candidate
    raise DatasetError(
        f"{folder} holds no truth tables of synthetic footage", "make some with 'microg data synth FOLDER --footage'"
    )


def read(folder: str, name: str) -> pa.Table:
    """Read one truth table. Raises `DatasetError` when it is missing or of another schema."""
    uri = storage.join(folder, f"{name}.parquet")
    if not storage.exists(uri):
        raise DatasetError(f"{uri} is missing", "make the footage again into an empty folder")
    table = storage.read_parquet(uri)
    try:
        return table.select(TABLES[name].names).cast(TABLES[name])
    except (KeyError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{uri} is not a truth table: {error}") from error


def write(folder: str, name: str, rows: list[dict]) -> pa.Table:
    """Write one truth table from rows and return it."""
    table = pa.Table.from_pylist(rows, schema=TABLES[name])
    storage.write_parquet(storage.join(folder, f"{name}.parquet"), table)
    return table
