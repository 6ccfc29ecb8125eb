"""Near-duplicate clips: perceptual hashes of a few frames, and a search that does not compare all pairs.

The hash of a frame is the sign of its 64 lowest spatial frequencies about their median ("pHash"): scaling and
re-encoding flip few bits. Clips whose hashes are close are confirmed on tiny grey pictures, which tells a copy from
the next clip of the same fixed camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FRAMES = 3
HASH_BITS = 64 * FRAMES
# 16 bands of 12 bits: two signatures that differ in at most 15 bits agree in at least one band.
_BANDS = 16
_MAX_BITS = _BANDS - 1
# Grey levels out of 255 on 16x16 pictures. Real clips at half the size and CRF 38 differ by at most 1.9 on average and
# 10 in any cell; the next clip of a fixed camera differs by more.
_MAX_MEAN_DIFFERENCE = 3.5
_MAX_CELL_DIFFERENCE = 20
_THUMB = 16


@dataclass(frozen=True)
class Signature:
    """What a clip looks like: `bits` (192 booleans) and `thumbs` (3, 16, 16) uint8 grey."""

    bits: np.ndarray
    thumbs: np.ndarray


def signature(frames: list[np.ndarray]) -> Signature:
    """Return the signature of a clip from `FRAMES` grey pictures of (64, 64) uint8."""
    if len(frames) != FRAMES:
        raise ValueError(f"a signature takes {FRAMES} frames, not {len(frames)}")
    bits = np.concatenate([_frame_bits(frame) for frame in frames])
    thumbs = [cv2.resize(frame, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA) for frame in frames]
    return Signature(bits, np.stack(thumbs))


def _frame_bits(grey: np.ndarray) -> np.ndarray:
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 1.0:
        return np.zeros(64, dtype=bool)  # the frequencies of a plain frame are noise
    low = cv2.dct(small)[:8, :8].ravel()
    return low > np.median(low[1:])


def near_duplicates(signatures: list[Signature]) -> list[tuple[int, int, int]]:
    """Return pairs (i, j, differing bits) with i < j of clips that look the same, in order.

    Signatures meet only in buckets of an equal 12-bit band, so the work grows with the number of look-alikes, not
    with the square of the number of clips. Of many copies of one clip each is paired with the first.
    """
    if not signatures:
        return []
    bits = np.stack([item.bits for item in signatures])
    thumbs = np.stack([item.thumbs for item in signatures]).reshape(len(signatures), -1).astype(np.int16)
    packed = np.packbits(bits, axis=1)
    pairs: list[tuple[int, int, int]] = []
    first: dict[bytes, list[int]] = {}
    leaders: list[int] = []
    for index, row in enumerate(packed):
        same = first.setdefault(row.tobytes(), [])
        copy_of = next((leader for leader in same if _look_alike(thumbs[leader], thumbs[index])), None)
        if copy_of is None:
            same.append(index)
            leaders.append(index)
        else:
            pairs.append((copy_of, index, 0))
    for i, j in _candidates(bits, np.array(leaders)):
        distance = int(np.count_nonzero(bits[i] != bits[j]))
        if distance <= _MAX_BITS and _look_alike(thumbs[i], thumbs[j]):
            pairs.append((i, j, distance))
    return sorted(pairs)


def _candidates(bits: np.ndarray, leaders: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of leaders that share a band and are within the bit distance, vectorised by bucket."""
    weights = 1 << np.arange(HASH_BITS // _BANDS)
    keys = (bits[leaders].reshape(len(leaders), _BANDS, -1) * weights).sum(axis=2)
    words = np.packbits(bits[leaders], axis=1).view(np.uint64)
    found: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        edges = np.flatnonzero(np.diff(keys[order, band])) + 1
        for bucket in np.split(order, edges):
            for position in range(len(bucket) - 1):
                rest = bucket[position + 1 :]
                distance = np.bitwise_count(words[bucket[position]] ^ words[rest]).sum(axis=1)
                for other in rest[distance <= _MAX_BITS]:
                    pair = sorted((int(leaders[bucket[position]]), int(leaders[other])))
                    found.add((pair[0], pair[1]))
    return sorted(found)


def _look_alike(one: np.ndarray, other: np.ndarray) -> bool:
    difference = np.abs(one - other)
    return bool(difference.mean() <= _MAX_MEAN_DIFFERENCE and difference.max() <= _MAX_CELL_DIFFERENCE)
