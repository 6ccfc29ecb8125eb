"""Checks of video files: there, readable, as the clips table describes them, and not twice the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import MicrogError, VideoError
from microg.validation.findings import Finding, where
from microg.validation.near_duplicates import FRAMES, Signature, near_duplicates, signature
from microg.validation.partitions import split_of
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
        if uri and ".." in uri.split("/"):
            message = f"uri {uri!r} leads out of the dataset"
            findings.append(Finding("error", "invalid_uri", "clips", row["clip_id"], message))
            continue
        resolved = dataset.resolve(uri) if uri else None
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
