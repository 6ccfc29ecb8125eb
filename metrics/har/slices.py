"""Parts of a test set that are scored on their own: by origin, people in the key frame, action group, class support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from microg.data.taxonomy import GROUP_NAMES, GROUPS
from microg.metrics.har.arrays import ScoringArrays

_SUPPORT = (("<5", 0, 4), ("5-50", 5, 50), (">50", 51, np.inf))


@dataclass(frozen=True)
class Slice:
    """A mask of key frames (k,) or of classes (c,); the other one is None."""

    keys: np.ndarray | None = None
    classes: np.ndarray | None = None


def make_slices(
    arrays: ScoringArrays, support: np.ndarray, origins: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Slice]:
    """Return slices by (kind, name); those without truth are left out.

    `support` (classes,) counts truth labels for the support slices; classes without truth belong to none. `origins`
    maps clip ids to movie or real; without it there are no origin slices. The number of persons is that of the true
    boxes of a key frame, so that a key frame without truth belongs to neither.
    """
    result: dict[tuple[str, str], Slice] = {}
    true_keys = np.bincount(arrays.truth.key, minlength=arrays.num_keys)
    of_clip = np.array([(origins or {}).get(clip, "") for clip in arrays.clips])
    for origin in ("movie", "real"):
        result["origin", origin] = Slice(keys=of_clip[arrays.key_clip] == origin)
    result["persons", "one"] = Slice(keys=true_keys == 1)
    result["persons", "several"] = Slice(keys=true_keys > 1)
    group = np.array([arrays.space.group(action_id) or "" for action_id in arrays.space.ids])
    for name in GROUPS:
        result["group", GROUP_NAMES[name]] = Slice(classes=group == name)
    for name, low, high in _SUPPORT:
        result["support", name] = Slice(classes=(support > 0) & (support >= low) & (support <= high))
    return {name: part for name, part in result.items() if _has_truth(part, true_keys, support)}


def _has_truth(part: Slice, true_keys: np.ndarray, support: np.ndarray) -> bool:
    if part.keys is not None:
        return bool(true_keys[part.keys].any())
    return bool(support[part.classes].any())
