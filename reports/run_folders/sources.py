"""Where a run's predictions and dataset lie: what tables alone do not hold, such as pictures, is looked up there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import DatasetError
from microg.reports.run_folders.runs import RunFolder, read_run


def locate(run: RunFolder, path: str | None) -> str | None:
    """Return where a path that a run recorded is: as it stands, or from one of the folders above the run.

    None where nothing is there, for instance because the run was copied from another machine.
    """
    if not path:
        return None
    candidates = [path]
    if not path.startswith("/") and "://" not in path:
        folder = run.root
        while (above := str(PurePosixPath(folder).parent)) not in (folder, "."):
            folder = above
            candidates.append(storage.join(folder, path))
    return next((storage.absolute(found) for found in candidates if storage.exists(found)), None)


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
