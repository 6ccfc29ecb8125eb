"""AVA-style samples from tracked boxes (one key frame a person, one row an action), and train / val / test splits.

Samples are pure functions on Arrow tables, without a Python loop over rows. Splits are the published one by clip, and
one that keeps each source video in a single split.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from microg.arrow import pc
from microg.data import schema
from microg.data.ids import split_clip_id
from microg.errors import DatasetError

SCHEMES = ("published", "source")
RATIOS = (0.7, 0.1, 0.2)
_RESTARTS = 64
# How much one action absent from val or test weighs against clips in the wrong split, both as shares of the whole.
_ABSENCE_WEIGHT = 0.25

K = TypeVar("K", bound=Hashable)


def make_split(scheme: str, samples: pa.Table, clips: pa.Table, *, seed: int = 42) -> pa.Table:
    """Return the rows of table `splits` for one of `SCHEMES`; see `published_split` and `source_split`."""
    if scheme == "published":
        return published_split(samples, seed=seed)
    if scheme == "source":
        return source_split(samples, clips, seed=seed)
    raise DatasetError(f"there is no split scheme {scheme!r}", f"schemes are {', '.join(SCHEMES)}")


def published_split(samples: pa.Table, *, seed: int = 42, ratios: tuple[float, float, float] = RATIOS) -> pa.Table:
    """Return the published split by clip, as rows of table `splits` with scheme `published`.

    Clips with a labelled sample, sorted by id: those that cover all actions go to train (largest gain first, the
    first id on a tie), the rest are shuffled with numpy's legacy generator and fill train to `int(ratio * clips)`,
    then val; test takes the remainder. Clips of one source may fall into several splits: that is the published
    design. When nothing is labelled, all clips with samples are shuffled. Raises `DatasetError` without samples.
    """
    labels = labels_by_clip(samples)
    clip_ids = list(labels)
    cover = greedy_cover(labels)
    remaining = [clip_id for clip_id in clip_ids if clip_id not in cover]
    np.random.RandomState(seed).shuffle(remaining)
    more = max(int(ratios[0] * len(clip_ids)) - len(cover), 0)
    val = int(ratios[1] * len(clip_ids))
    assigned = dict.fromkeys(cover, "train")
    assigned |= dict.fromkeys(remaining[:more], "train")
    assigned |= dict.fromkeys(remaining[more : more + val], "val")
    assigned |= dict.fromkeys(remaining[more + val :], "test")
    return _splits_table(assigned, "published")


def source_split(
    samples: pa.Table, clips: pa.Table, *, seed: int = 42, ratios: tuple[float, float, float] = RATIOS
) -> pa.Table:
    """Return a split without leakage, as rows of table `splits` with scheme `source`.

    All clips of a source video go to the same split. A smallest-effort cover of all actions goes to train; the other
    sources are dealt out, largest first, to whichever split lacks most clips, in 64 seeded orders, of which the one
    is taken whose sizes lie closest to `ratios` and whose val and test lack the fewest actions. With three sources or
    more no split is empty, even if train then lacks an action. Sources come from `clips`, or from the clip id where
    `clips` lacks the clip. Raises `DatasetError` without samples.
    """
    labels = labels_by_clip(samples)
    known = dict(zip(clips["clip_id"].to_pylist(), clips["source_id"].to_pylist(), strict=True))
    members: dict[str, list[str]] = {}
    for clip_id in labels:
        members.setdefault(known.get(clip_id) or split_clip_id(clip_id)[0], []).append(clip_id)
    members = dict(sorted(members.items()))
    source_labels = {source: frozenset().union(*(labels[c] for c in ids)) for source, ids in members.items()}
    sizes = {source: len(ids) for source, ids in members.items()}
    cover = _pruned(greedy_cover(source_labels, sizes), source_labels)
    while len(members) >= 3 and len(members) - len(cover) < 2:
        # Few sources: an action that only one of them shows cannot be in train and leave val and test with clips.
        cover.remove(min(cover, key=lambda source: (len(_only_in(source, cover, source_labels)), sizes[source])))
    free = [source for source in members if source not in cover]
    targets = np.array(ratios) * len(labels)
    generator = np.random.RandomState(seed)
    best: tuple[float, dict[str, str]] | None = None
    for _ in range(_RESTARTS):
        order = [free[index] for index in generator.permutation(len(free))]
        dealt = dict.fromkeys(cover, "train") | _deal(order, sizes, targets, sum(sizes[s] for s in cover))
        cost = _cost(dealt, sizes, source_labels, targets)
        if best is None or cost < best[0]:
            best = (cost, dealt)
    assert best is not None
    return _splits_table({c: best[1][source] for source, ids in members.items() for c in ids}, "source")


def labels_by_clip(samples: pa.Table) -> dict[str, frozenset[int]]:
    """Return the actions of each clip, sorted by clip id: only labelled clips, or all of them when none is."""
    found: dict[str, set[int]] = {}
    pairs = samples.select(["clip_id", "action_id"]).group_by(["clip_id", "action_id"]).aggregate([])
    for clip_id, action_id in zip(pairs["clip_id"].to_pylist(), pairs["action_id"].to_pylist(), strict=True):
        actions = found.setdefault(clip_id, set())
        if action_id is not None:
            actions.add(action_id)
    if not found:
        raise DatasetError("there is nothing to split: no clip has a sample", "are there boxes and actions?")
    anything = any(found.values())
    return {clip_id: frozenset(found[clip_id]) for clip_id in sorted(found) if found[clip_id] or not anything}


def greedy_cover(labels: Mapping[K, Iterable[int]], sizes: Mapping[K, int] | None = None) -> list[K]:
    """Choose keys until all labels are covered: largest gain first, then smallest size, then first in order.

    >>> greedy_cover({"a": [1], "b": [1, 2], "c": [3]})
    ['b', 'c']
    """
    sets = {key: frozenset(values) for key, values in labels.items()}
    missing = set().union(*sets.values())
    chosen: list[K] = []
    while missing:
        best = max(sets, key=lambda key: (len(sets[key] & missing), -sizes[key] if sizes else 0))
        chosen.append(best)
        missing -= sets[best]
    return chosen


def describe_split(splits: pa.Table, samples: pa.Table, clips: pa.Table) -> dict[str, Any]:
    """Return what a split of one scheme looks like.

    Keys: `clips`, `share`, `samples` and `absent_actions` per split, and `leaking_sources`, the number of sources
    with clips in more than one split.
    """
    labels = labels_by_clip(samples)
    known = dict(zip(clips["clip_id"].to_pylist(), clips["source_id"].to_pylist(), strict=True))
    everything = frozenset().union(*labels.values())
    assigned = dict(zip(splits["clip_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    homes: dict[str, set[str]] = {}
    for clip_id, split in assigned.items():
        homes.setdefault(known.get(clip_id) or split_clip_id(clip_id)[0], set()).add(split)
    rows = dict.fromkeys(schema.SPLITS, 0)
    for clip_id in samples["clip_id"].to_pylist():
        if clip_id in assigned:
            rows[assigned[clip_id]] += 1
    count = {split: sum(1 for value in assigned.values() if value == split) for split in schema.SPLITS}
    covered = {
        split: frozenset().union(*(labels.get(c, frozenset()) for c, value in assigned.items() if value == split))
        for split in schema.SPLITS
    }
    return {
        "clips": count,
        "share": {split: round(count[split] / max(len(assigned), 1), 4) for split in schema.SPLITS},
        "samples": rows,
        "absent_actions": {split: sorted(everything - covered[split]) for split in schema.SPLITS},
        "sources": len(homes),
        "leaking_sources": sum(1 for splits_of_source in homes.values() if len(splits_of_source) > 1),
    }


def _pruned(cover: list[str], labels: Mapping[str, frozenset[int]]) -> list[str]:
    """Drop members that later choices made redundant, so that train is not larger than it has to be."""
    kept = list(cover)
    for candidate in cover:
        others = frozenset().union(*(labels[source] for source in kept if source != candidate))
        if labels[candidate] <= others:
            kept.remove(candidate)
    return kept


def _only_in(source: str, cover: list[str], labels: Mapping[str, frozenset[int]]) -> frozenset[int]:
    """Return the actions of `source` that no other source of the cover shows."""
    return labels[source] - frozenset().union(*(labels[other] for other in cover if other != source))


def _deal(order: list[str], sizes: Mapping[str, int], targets: np.ndarray, in_train: int) -> dict[str, str]:
    lacking = targets - np.array([in_train, 0, 0])
    dealt: dict[str, str] = {}
    for source in sorted(order, key=lambda source: -sizes[source]):  # stable: equal sizes keep the seeded order
        split = int(np.argmax(lacking))
        empty = [index for index in (2, 1) if schema.SPLITS[index] not in dealt.values()]
        if len(order) >= 2 and len(order) - len(dealt) <= len(empty):
            split = empty[0]
        dealt[source] = schema.SPLITS[split]
        lacking[split] -= sizes[source]
    return dealt


def _cost(
    dealt: Mapping[str, str], sizes: Mapping[str, int], labels: Mapping[str, frozenset[int]], targets: np.ndarray
) -> float:
    actions = frozenset().union(*labels.values())
    total = deviation = absent = 0.0
    for split, target in zip(schema.SPLITS, targets, strict=True):
        sources = [source for source, home in dealt.items() if home == split]
        size = sum(sizes[source] for source in sources)
        total += size
        deviation += abs(size - float(target))
        if split != "train":
            absent += len(actions - frozenset().union(*(labels[source] for source in sources)))
    return deviation / total + _ABSENCE_WEIGHT * absent / max(2 * len(actions), 1)


def _splits_table(assigned: Mapping[str, str], scheme: str) -> pa.Table:
    clip_ids = sorted(assigned)
    return pa.table(
        [clip_ids, [assigned[clip_id] for clip_id in clip_ids], [scheme] * len(clip_ids)],
        schema=schema.TABLES["splits"],
    )


_DECIMALS = 3
_BOX = ("x1", "y1", "x2", "y2")


def key_boxes(boxes: pa.Table) -> pa.Table:
    """Return the rows of `boxes` that lie on each (clip, person)'s key frame, in their order.

    The key frame is the frame of that person closest to the median of all its frames, the first in the table's order
    on a tie. A frame stated twice for a person yields both rows, as in the reference conversion.
    """
    if boxes.num_rows == 0:
        return boxes
    order, starts = _groups(boxes)
    frame = boxes["frame"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.diff(np.append(starts, len(order)))
    group = np.repeat(np.arange(len(starts)), counts)

    # Within each group sorted by frame, the median is the mean of the two middle values.
    by_frame = frame[order][np.lexsort((frame[order], group))]
    low = by_frame[starts + (counts - 1) // 2]
    high = by_frame[starts + counts // 2]
    twice_distance = np.abs(2 * frame[order] - (low + high)[group])  # doubled: stays in integers

    # `order` keeps the table's order inside a group, so a stable sort by distance puts the winner first.
    nearest = np.lexsort((np.arange(len(order)), twice_distance, group))[starts]
    key_frame = frame[order][nearest]
    keep = np.zeros(len(order), dtype=bool)
    keep[order] = frame[order] == key_frame[group]
    return boxes.filter(pa.array(keep))


def make_samples(boxes: pa.Table, clips: pa.Table, actions: pa.Table, *, keep_unlabelled: bool = False) -> pa.Table:
    """Return the `samples` table: key boxes divided by the frame size, joined with each person's actions.

    `boxes`, `clips` and `actions` have the schemas of the tables of these names. Coordinates are rounded to three
    decimals. Rows follow the order of `boxes`, the actions of one person the order of `actions`. A person without
    actions is left out, or kept with a null action when `keep_unlabelled`. Raises `DatasetError` when the frame size
    of a clip is unknown. Matches the reference conversion (`ava_with_head.csv`) byte for byte.
    """
    keys = key_boxes(boxes)
    keys = keys.append_column("row", pa.array(np.arange(keys.num_rows)))
    sizes = clips.select(["clip_id", "width", "height"])
    if len(pc.unique(sizes["clip_id"])) != sizes.num_rows:
        raise DatasetError("table 'clips' has a clip twice", "run 'microg data validate' and remove the duplicates")
    keys = keys.join(sizes, "clip_id", join_type="left outer").sort_by("row")
    unknown = keys.filter(
        pc.invert(pc.fill_null(pc.and_(pc.greater(keys["width"], 0), pc.greater(keys["height"], 0)), False))
    )
    if unknown.num_rows:
        some = pc.unique(unknown["clip_id"]).to_pylist()
        raise DatasetError(
            f"the frame size of {len(some)} clips is unknown (e.g. {', '.join(some[:3])}): boxes cannot be normalised",
            "import the dataset with its videos, or fill in width and height in table 'clips'",
        )
    for column in _BOX:
        size = keys["width" if column[0] == "x" else "height"].to_numpy().astype(np.float64)
        normalised = np.round(keys[column].to_numpy() / size, _DECIMALS)
        keys = keys.set_column(keys.schema.get_field_index(column), column, pa.array(normalised))
    labels = actions.append_column("label", pa.array(np.arange(actions.num_rows)))
    how = "left outer" if keep_unlabelled else "inner"
    joined = keys.join(labels, ["clip_id", "person_id"], join_type=how)
    joined = joined.sort_by([("row", "ascending"), ("label", "ascending")])
    return schema.conform("samples", joined.select(schema.TABLES["samples"].names))


def _groups(boxes: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers sorted by (clip, person), stable, and where each group starts in them."""
    clip = pc.dictionary_encode(boxes["clip_id"].combine_chunks())
    if isinstance(clip, pa.ChunkedArray):
        clip = clip.combine_chunks()
    codes = clip.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    person = boxes["person_id"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((person, codes))
    changed = (np.diff(codes[order]) != 0) | (np.diff(person[order]) != 0)
    return order, np.flatnonzero(np.append(True, changed))
