"""A dataset on disk: `dataset.json`, `tables/*.parquet` and `videos/*.mp4` under one root."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microg import storage
from microg.data import places, schema
from microg.data.ids import check_id
from microg.data.label_space import MICROG_50, LabelSpace, label_space
from microg.data.vocabulary import Vocabulary, read_vocabulary, vocabulary_of
from microg.errors import DatasetError

_FORMAT = "microg-dataset/1"
# Keys and tables that say how a dataset came about, and not what it is.
_TRACE = frozenset({"annotations", "acceptance"})


@dataclass(frozen=True)
class Dataset:
    """A handle on a dataset folder (local, or any fsspec URI). Tables are read when asked for."""

    root: str
    info: dict[str, Any]

    @classmethod
    def open(cls, root: str) -> Dataset:
        """Open an existing dataset. Raises `DatasetError` when `root` is not one."""
        root = str(root)
        path = storage.join(root, "dataset.json")
        if not storage.exists(path):
            raise DatasetError(
                f"{root} is not a dataset: it has no dataset.json",
                "make one with 'microg curate', 'microg data synth' or 'microg data import'",
            )
        info = storage.read_json(path)
        if not isinstance(info, dict) or info.get("format") != _FORMAT:
            raise DatasetError(f"{path} is not of format {_FORMAT}", "was it written by another version?")
        return cls(root, info)

    @classmethod
    def create(cls, root: str, name: str, **info: Any) -> Dataset:
        """Create a dataset folder, or open it when it is there already."""
        root = str(root)
        path = storage.join(root, "dataset.json")
        if storage.exists(path):
            return cls.open(root)
        document = {"format": _FORMAT, "name": name, **info}
        storage.make_dirs(storage.join(root, "tables"))
        storage.make_dirs(storage.join(root, "videos"))
        storage.write_json(path, document)
        return cls(root, document)

    @property
    def vocabulary(self) -> Vocabulary:
        """The actions that its people are labelled with: MicroG-4M's, unless it has others."""
        if "vocabulary" in self.info:
            return read_vocabulary(self.info["vocabulary"], storage.join(self.root, "dataset.json"))
        return vocabulary_of(label_space(str(self.info.get("label_space", MICROG_50.name))))

    @property
    def label_space(self) -> LabelSpace:
        """What its actions are numbered by."""
        return self.vocabulary.space

    def describe(self, **info: Any) -> Dataset:
        """Write keys of `dataset.json`, atomically, and return the dataset as it is now; None removes a key."""
        path = storage.join(self.root, "dataset.json")
        document = {key: value for key, value in {**storage.read_json(path), **info}.items() if value is not None}
        storage.write_json(path, document)
        return Dataset(self.root, document)

    def refuse_other_labels(self, command: str) -> None:
        """Raise `DatasetError` when its actions are not MicroG-4M's, for a command that can make no others."""
        if self.label_space != MICROG_50:
            raise DatasetError(
                f"the actions of {self.root} are those of {self.label_space.name}; '{command}' makes MicroG-4M's only",
                "use a dataset of MicroG-4M's actions",
            )

    def table_path(self, name: str) -> str:
        """Return where table `name` is stored."""
        if name not in schema.TABLES:
            raise DatasetError(f"there is no table {name!r}", f"tables are {', '.join(schema.TABLES)}")
        return storage.join(self.root, "tables", f"{name}.parquet")

    def has(self, name: str) -> bool:
        """Tell whether table `name` was written."""
        return storage.exists(self.table_path(name))

    def table(self, name: str) -> pa.Table:
        """Return table `name`, without rows when it was never written. Raises `DatasetError` for unfit values."""
        return schema.conform(name, self.stored_table(name))

    def stored_table(self, name: str) -> pa.Table:
        """Return table `name` with whatever values are stored, of the right types: for finding out what is wrong."""
        if not self.has(name):
            return schema.empty(name)
        return schema.cast(name, storage.read_parquet(self.table_path(name)))

    def write(self, name: str, table: pa.Table) -> None:
        """Replace table `name` atomically; the table is cast to its schema."""
        storage.write_parquet(self.table_path(name), schema.conform(name, table))

    def video_uri(self, clip_id: str) -> str:
        """Return where the video of `clip_id` is kept by default."""
        return storage.join(self.root, "videos", f"{check_id(clip_id, 'clip id')}.mp4")

    def resolve(self, uri: str, clip_id: str | None = None) -> str:
        """Return a clip's `uri` column as an absolute path or URI.

        Raises `DatasetError` when there is none, or when it leads out of the dataset's folder (links count) and the
        user does not allow that.
        """
        if not uri:
            raise DatasetError(f"a clip of {self.root} has no video", "its uri in the table 'clips' is empty")
        return places.resolve(self.root, uri, f"the video of clip {clip_id}" if clip_id else "a clip's video")

    def split_clips(self, split: str, scheme: str) -> pa.Array:
        """Return the clip ids of a split. Raises `DatasetError`, with the schemes there are, when it has none."""
        splits = self.table("splits")
        rows = (pc.field("split") == split) & (pc.field("scheme") == scheme)
        chosen = splits.filter(rows)["clip_id"].combine_chunks()
        if not len(chosen):
            schemes = sorted(set(splits["scheme"].drop_null().to_pylist()))
            raise DatasetError(
                f"dataset {self.root} has no {split} split of scheme {scheme!r}",
                f"schemes there are {', '.join(schemes)}" if schemes else f"run 'microg data split {self.root}'",
            )
        return chosen

    def kept_clips(self) -> pa.Table:
        """Return the rows of `clips` with status `ok`."""
        return self.table("clips").filter(pc.field("status") == "ok")

    def fingerprint(self) -> str:
        """Return a short hash of all tables' rows (not of the pixels, which `clips.sha256` stands for).

        Neither the order of rows nor how the files are encoded counts, so that a table written again by another
        number of workers or another Parquet version is the same; a table without rows is as good as none. What people
        said counts only by what was accepted of it, and a vocabulary by what it is, not by when it was changed.
        """
        info = {key: value for key, value in self.info.items() if key not in _TRACE}
        if isinstance(info.get("vocabulary"), dict):
            info["vocabulary"] = {key: value for key, value in info["vocabulary"].items() if key != "history"}
        digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
        for name in schema.TABLES:
            if name in _TRACE:
                continue
            table = self.table(name)
            if table.num_rows:
                digest.update(f"{name}:{table.num_rows}".encode())
                digest.update(_content_digest(table))
        return digest.hexdigest()[:16]


def _content_digest(table: pa.Table) -> bytes:
    """Return a hash of a table's rows in any order; columns are numbers, booleans or strings."""
    ordered = table.sort_by([(name, "ascending") for name in table.column_names])
    digest = hashlib.sha256()
    for name in ordered.column_names:
        column = ordered[name].combine_chunks()
        digest.update(f"{name}:{column.type}".encode())
        digest.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_string(column.type):
            column = column.fill_null("")
            digest.update(pc.call_function("binary_length", [column]).to_numpy(zero_copy_only=False).tobytes())
            digest.update("".join(column.to_pylist()).encode())
        else:
            filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
            digest.update(np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).tobytes())
    return digest.digest()
