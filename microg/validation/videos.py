"""Checks of video files: there, readable, as the clips table describes them, and not twice the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from microg import storage
from microg.data.dataset import Dataset
from microg.data.places import external_allowed, external_reason
from microg.errors import MicrogError, VideoError
from microg.validation.findings import Finding, where
from microg.validation.tables import split_of
from microg.video import VideoInfo, decode_frames_at

_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
_GREY = 64


def check_files(dataset: Dataset, clips: pa.Table) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Find kept clips whose file is not there and video files that belong to no clip; decodes nothing.

    Returns the findings and the rows of the kept clips whose file is there.
    """
    fs, folder = storage.filesystem(storage.join(dataset.root, "videos"))
    stored = {path for path in fs.find(folder) if path.lower().endswith(_SUFFIXES)} if fs.exists(folder) else set()
    findings, present = [], []
    claimed: set[str] = set()
    for row in clips.select(["clip_id", "uri", "status", "fps", "num_frames", "width", "height", "sha256"]).to_pylist():
        uri = row["uri"]
        if uri and (reason := external_reason(dataset.root, uri)):
            level = "warning" if external_allowed() else "error"
            message = f"uri {uri!r} leads out of the dataset: {reason}; only --allow-external opens it"
            findings.append(Finding(level, "external_uri", "clips", row["clip_id"], message))
            if level == "error":
                continue
        resolved = dataset.resolve(uri, row["clip_id"]) if uri else None
        path = storage.filesystem(resolved)[1] if resolved else None
        if path is not None:
            claimed.add(path)
        if row["status"] != "ok":
            continue
        if resolved is None or not (path in stored or storage.exists(resolved)):
            message = f"its video {uri!r} is not there" if uri else "it has no video uri"
            findings.append(Finding("error", "clip_without_video", "clips", row["clip_id"], message))
        else:
            present.append({**row, "resolved": resolved})
    findings += [
        Finding("warning", "video_without_clip", "videos", None, "a video file belongs to no clip", 1, (name,))
        for name in sorted(path.removeprefix(folder).lstrip("/") for path in stored - claimed)
    ]
    return findings, present


@dataclass(frozen=True)
class _Inspected:
    info: VideoInfo | None
    signature: Signature | None
    problem: str | None
    sha256: str | None


def check_videos(
    present: list[dict[str, Any]],
    splits: pa.Table,
    *,
    workers: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Decode the first half of each video of `present` (see `check_files`) and compare.

    Finds: unreadable videos; size, frame rate or number of frames other than in the clips table; bytes other than
    `sha256` (local files); near-duplicate clips, and whether they lie on two sides of a split. `workers` threads
    (default: one per core) each decode one video at a time; `progress` is called after each.
    """
    findings: list[Finding] = []
    signed: list[tuple[str, Signature]] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for row, seen in zip(present, pool.map(_inspect, present), strict=True):
            progress()
            findings += _judge(row, seen)
            if seen.signature is not None:
                signed.append((row["clip_id"], seen.signature))
    return findings + _near_duplicate_findings(signed, splits)


def _inspect(row: dict[str, Any]) -> _Inspected:
    wanted = sorted({int(index) for index in np.linspace(0, max((row["num_frames"] or 1) - 1, 0) // 2, FRAMES)})
    digest = None
    try:
        info, found = decode_frames_at(row["resolved"], wanted, _grey, count=True)
        if row["sha256"] and storage.is_local(row["resolved"]):
            digest = storage.sha256(storage.local_path(row["resolved"]))
    except (MicrogError, OSError) as error:
        what = error.what if isinstance(error, VideoError) else str(error)
        return _Inspected(None, None, what, None)
    if not found:
        return _Inspected(info, None, "no frame can be decoded", digest)
    # A clip of fewer frames than wanted stands for itself by its last one.
    frames = [found.get(index, found[max(found)]) for index in wanted]
    frames += [frames[-1]] * (FRAMES - len(frames))
    return _Inspected(info, signature(frames), None, digest)


def _grey(frame: Any) -> np.ndarray:
    return frame.reformat(width=_GREY, height=_GREY, format="gray", interpolation="AREA").to_ndarray()


def _judge(row: dict[str, Any], seen: _Inspected) -> list[Finding]:
    clip_id = row["clip_id"]
    if seen.problem is not None or seen.info is None:
        return [Finding("error", "video_unreadable", "videos", clip_id, seen.problem or "unreadable")]
    findings = []
    different = [
        f"{name} {getattr(seen.info, name):g}, the table says {row[name]:g}"
        for name, tolerance in (("width", 0), ("height", 0), ("num_frames", 0), ("fps", 0.01))
        if row[name] is not None and abs(getattr(seen.info, name) - row[name]) > tolerance
    ]
    if different:
        findings.append(Finding("error", "video_mismatch", "videos", clip_id, "; ".join(different)))
    if seen.sha256 is not None and seen.sha256 != row["sha256"]:
        findings.append(Finding("error", "video_changed", "videos", clip_id, "its bytes do not match sha256"))
    return findings


def _near_duplicate_findings(signed: list[tuple[str, Signature]], splits: pa.Table) -> list[Finding]:
    placed = split_of(where(splits, splits["clip_id"].is_valid()))
    findings = []
    for i, j, distance in near_duplicates([item for _, item in signed]):
        one, other = signed[i][0], signed[j][0]
        apart = [
            f"{scheme}: {sides[one]} and {sides[other]}"
            for scheme, sides in placed.items()
            if one in sides and other in sides and sides[one] != sides[other]
        ]
        message = f"looks the same as {other} ({distance} of {64 * FRAMES} hash bits differ)"
        if apart:
            message += f"; in two splits ({'; '.join(apart)})"
        check = "near_duplicate_across_splits" if apart else "near_duplicate"
        findings.append(Finding("warning", check, "videos", one, message, 1, (other,)))
    return findings


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
