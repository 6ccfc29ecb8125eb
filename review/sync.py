"""From the SQLite file into the dataset's table `annotations`."""

from __future__ import annotations

from microg.annotations.table import add_annotations
from microg.data.dataset import Dataset
from microg.locks import exclusive
from microg.review.store import Store

_SYNCED = "synced"


def unsynced(store: Store) -> int:
    """Return how many judgements are not yet in the dataset's table."""
    return store.count() - (store.fact(_SYNCED) or 0)


def sync(dataset: Dataset, store: Store) -> int:
    """Add judgements that are new to the dataset's table `annotations`, and return how many.

    Doing it again adds nothing; a crash on the way loses nothing.

    Raises:
        RunConflictError: Another process is writing to the dataset: what is new waits for the next time.
    """
    rows = store.judgements(after=store.fact(_SYNCED) or 0)
    if not rows:
        return 0
    with exclusive(dataset.root):
        added = add_annotations(dataset, [annotation for _, annotation in rows])
    store.remember(_SYNCED, rows[-1][0])
    return added
