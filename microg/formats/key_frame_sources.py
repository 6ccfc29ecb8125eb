"""Key frames from where a user keeps them: a dataset folder, or a train-ready AVA folder."""

from __future__ import annotations

from microg import storage
from microg.data.dataset import Dataset
from microg.data.key_frames import KeyFrames, group_samples, key_frame_rows
from microg.errors import DatasetError
from microg.formats.ava import read_samples
from microg.reading import reads


@reads()
def read_key_frames(path: str, split: str, scheme: str = "published", *, labelled: bool = False) -> KeyFrames:
    """Read the key frames of a split from a dataset folder, or from a train-ready AVA folder with its `frames/`.

    Raises `DatasetError` when `path` is neither, and as `key_frame_rows`; `FormatError` for a broken AVA file.
    """
    if storage.exists(storage.join(path, "dataset.json")):
        dataset = Dataset.open(path)
        return KeyFrames(key_frame_rows(dataset, split, scheme, labelled=labelled), dataset.fingerprint())
    if storage.exists(storage.join(path, "annotations")):
        samples, lengths, fingerprint = read_samples(path, split)
        uris = {clip_id: storage.join(path, "frames", clip_id) + "/" for clip_id in lengths}
        where = f"the {split} samples of {path}"
        return KeyFrames(group_samples(samples, uris, lengths, labelled=labelled, where=where), fingerprint)
    raise DatasetError(
        f"{path} is neither a dataset (dataset.json) nor a train-ready AVA folder (annotations/, frames/)",
        "make a dataset with 'microg curate', 'microg data synth' or 'microg data import'",
    )
