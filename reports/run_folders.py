"""Run folders as reports read them: which kind a folder is, what was asked, how it ended, its tables.

A run that is not finished, or that lacks a table, is read as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary, vocabulary_named
from microg.errors import DatasetError, MicrogError
from microg.escaping import visible_line
from microg.reading import reads

# Folders of a run that hold runs of its own (a sweep's trials) or no runs at all.
_CLOSED = frozenset({"trials", "checkpoints", "tables", "videos", "parts", "plots", "tensorboard", "observations"})
_DEPTH = 4
_COMMANDS_OF_STEPS = frozenset({"demo"})  # their run folders hold the runs of their steps


@dataclass(frozen=True)
class RunFolder:
    """One run folder; `manifest` is its `run.json`, `metrics` its `metrics.json` (empty while it is unfinished)."""

    root: str
    name: str
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    problem: str | None = None

    @property
    def command(self) -> str:
        """Return the command that made the run, such as `har score`."""
        return str(self.manifest.get("command", ""))

    @property
    def finished(self) -> bool:
        """Tell whether the run has come to its end at least once."""
        return bool(self.metrics)

    @property
    def config(self) -> dict[str, Any]:
        """Return the full configuration."""
        found = self.manifest.get("full_config")
        return found if isinstance(found, dict) else {}

    @property
    def row(self) -> str | None:
        """Return the name of the published row that the run is compared with, None where it has none."""
        section = self.config.get("score")
        found = (section if isinstance(section, dict) else self.config).get("row")
        return found if isinstance(found, str) else None

    def has(self, table: str) -> bool:
        """Tell whether the run has written a table."""
        return storage.exists(self._path(table)) or storage.exists(storage.join(self.root, "tables", table))

    def table(self, name: str) -> pa.Table:
        """Return a table of the run, without rows when it was not written. Raises `DatasetError` when it is damaged."""
        if storage.exists(self._path(name)):
            return schema.conform(name, storage.read_parquet(self._path(name)))
        parts = storage.join(self.root, "tables", name)
        return schema.conform(name, storage.read_parquet_folder(parts, schema.schema_of(name)))

    def _path(self, table: str) -> str:
        return storage.join(self.root, "tables", f"{table}.parquet")

    @cached_property
    def is_dataset(self) -> bool:
        """Tell whether the folder is a dataset too, as those of `microg curate` are."""
        return storage.exists(storage.join(self.root, "dataset.json"))


@reads(DatasetError)
def read_run(root: str, name: str | None = None) -> RunFolder:
    """Read one run folder. Raises `DatasetError` when `root` is none, or its `run.json` is damaged."""
    root = root.rstrip("/") or root
    path = storage.join(root, "run.json")
    if not storage.exists(path):
        what = "is not a run folder: it has no run.json" if storage.exists(root) else "is not there"
        raise DatasetError(f"{root} {what}", "give folders that microg commands wrote (their --run or --out)")
    manifest = storage.read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("command"), str):
        raise DatasetError(f"{path} does not describe a run", "was it cut off while it was written? Make the run again")
    metrics, problem = {}, None
    ended = storage.join(root, "metrics.json")
    if storage.exists(ended):
        try:
            found = storage.read_json(ended)
            metrics = found if isinstance(found, dict) else {}
        except DatasetError as error:
            problem = error.what
    return RunFolder(root, visible_line(name or PurePosixPath(root).name), manifest, metrics, problem)


def find_runs(paths: Iterable[str]) -> list[RunFolder]:
    """Read the run folders at these paths, or in them where a path is a folder of runs (or a demo's).

    Each run comes once, in the order given and then by path, with a name that tells it from the others. Raises
    `DatasetError` when a path is no run folder and holds none.
    """
    roots: dict[str, None] = {}
    for path in paths:
        path = storage.absolute(path)
        own = storage.exists(storage.join(path, "run.json"))
        inside = _inside(path) if not own or read_run(path).command in _COMMANDS_OF_STEPS else []
        if not own and not inside:
            read_run(path)  # raises, saying what it is instead
        roots |= dict.fromkeys([*([path] if own else []), *inside])
    names = _short_names(list(roots))
    return [read_run(root, names[root]) for root in roots]


def _inside(path: str) -> list[str]:
    """Return the run folders below a folder, sorted; what lies inside a run is its own."""
    fs, plain = storage.filesystem(path)
    if not fs.isdir(plain):
        return []
    found: list[str] = []
    level = [plain.rstrip("/")]
    for _ in range(_DEPTH):
        below: list[str] = []
        for folder in level:
            for entry in sorted(fs.ls(folder, detail=True), key=lambda entry: entry["name"]):
                name = entry["name"].rstrip("/")
                if entry["type"] != "directory" or PurePosixPath(name).name in _CLOSED:
                    continue
                if fs.exists(f"{name}/run.json"):
                    found.append(name)
                else:
                    below.append(name)
        level = below
    prefix = path.rstrip("/")[: -len(plain.rstrip("/"))] if path.rstrip("/").endswith(plain.rstrip("/")) else ""
    return [prefix + name for name in sorted(found)]


def _short_names(roots: list[str]) -> dict[str, str]:
    """Return the shortest end of each path that tells it from the others."""
    names = {}
    for root in roots:
        parts = [part for part in root.split("/") if part]
        for length in range(1, len(parts) + 1):
            name = "/".join(parts[-length:])
            if sum(f"/{other.strip('/')}".endswith(f"/{name}") for other in roots) == 1:
                break
        names[root] = name
    return names


# Schemes that a record may name.
_STORES = (*storage.OBJECT_STORES, "file://", "hf://")


def locate(run: RunFolder, path: str | None) -> str | None:
    """Return where a path that a run recorded is: as it stands, or from one of the folders above the run.

    None where nothing is there, for instance because the run was copied from another machine, and for what is neither a
    file nor at an object store.
    """
    if not path:
        return None
    if "://" in path and not path.startswith(_STORES):
        return None  # whoever wrote the record must not choose hosts that a report asks
    candidates = [path]
    if not path.startswith("/") and "://" not in path and ".." not in path.split("/"):
        folder = run.root
        while (above := str(PurePosixPath(folder).parent)) not in (folder, "."):
            folder = above
            candidates.append(storage.join(folder, path))
    return next((storage.absolute(found) for found in candidates if storage.exists(found)), None)


def vocabulary_of_run(run: RunFolder, name: str) -> Vocabulary | None:
    """Return the actions that a run calls by the name of a label space, None where it does not tell them."""
    try:
        return vocabulary_named(name, run.config.get("vocabulary"))
    except MicrogError:
        return None


def predictions_path(run: RunFolder) -> str | None:
    """Return where the predictions that a run scored are, None where they are not to be found."""
    path = run.config.get("predictions")
    return locate(run, path if isinstance(path, str) else None)


def predictions_run(run: RunFolder) -> RunFolder | None:
    """Return the run that made the predictions which a run scored, None where a bare file was scored."""
    path = predictions_path(run)
    if path is None:
        return None
    for folder in (path, str(PurePosixPath(path).parent.parent)):
        if storage.exists(storage.join(folder, "run.json")):
            try:
                return read_run(folder)
            except DatasetError:
                return None
    return None


def model_name(run: RunFolder) -> str | None:
    """Return the name of the model behind a scoring run, where its predictions' run tells it."""
    made = predictions_run(run)
    found = None if made is None else made.metrics.get("model") or made.config.get("model")
    if isinstance(found, dict):
        found = found.get("name") or found.get("id")
    return found if isinstance(found, str) else None


def dataset_of(run: RunFolder, given: Dataset | None = None) -> Dataset | None:
    """Return the dataset that a run was made on or scored against; `given` stands in where it is not to be found."""
    if run.is_dataset:
        return Dataset.open(run.root)
    names = ("groundtruth", "references", "dataset")
    recorded = [run.config.get(name) for name in names] + [run.metrics.get("dataset")]
    for path in recorded:
        found = locate(run, path if isinstance(path, str) else None)
        if found is not None and storage.exists(storage.join(found, "dataset.json")):
            return Dataset.open(found)
    return given


def datasets_of(runs: Iterable[RunFolder], given: Sequence[Dataset] = ()) -> list[Dataset]:
    """Return every dataset that the runs are about, each once, those given first."""
    found: dict[str, Dataset] = {storage.absolute(dataset.root): dataset for dataset in given}
    for run in runs:
        dataset = dataset_of(run)
        if dataset is not None:
            found.setdefault(storage.absolute(dataset.root), dataset)
    return list(found.values())


def group_by_truth(runs: Iterable[RunFolder], digest: str) -> list[list[RunFolder]]:
    """Return the runs in groups that scored the same truth; `digest` names the setting that holds its hash."""
    groups: dict[tuple[Any, Any], list[RunFolder]] = {}
    for run in runs:
        groups.setdefault((run.config.get(digest), run.config.get("label_space")), []).append(run)
    return list(groups.values())
