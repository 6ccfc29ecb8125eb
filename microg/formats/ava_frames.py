"""The `frames/` folder of an AVA dataset: every frame of a clip as a JPEG, named from 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from microg import storage
from microg.data.ids import check_id
from microg.errors import MicrogError, VideoError, describe
from microg.formats.base import Annotations
from microg.video import decode_frames, probe

_JPEG_QUALITY = 95
_PUBLISHED_FPS = 30.0


def relative_path(clip_id: str, frame: int) -> str:
    """Return where frame `frame` (from 1) lies below `frames/`.

    >>> relative_path("a_000", 7)
    'a_000/a_000_000007.jpg'
    """
    return f"{check_id(clip_id, 'clip id')}/{clip_id}_{frame:06d}.jpg"


def frame_size(root: str, clip_id: str) -> tuple[int, int] | None:
    """Return (width, height) of the first frame in `root/frames`, or None when it is not there."""
    uri = storage.join(root, "frames", relative_path(clip_id, 1))
    if not storage.exists(uri):
        return None
    info = probe(uri)
    return info.width, info.height


def export(annotations: Annotations, clip_ids: Iterable[str], root: str) -> tuple[list[str], list[str]]:
    """Write the frames of the given clips below `root/frames`, upright; return notes, and what failed by clip.

    A clip that has all its frames already is passed over. A clip whose video is missing, cannot be decoded, or has
    another number of frames than table `clips` says is a failure; the others are written.
    """
    rows = {row["clip_id"]: row for row in annotations.clips()}
    notes, failed, odd_rate = [], [], []
    for clip_id in clip_ids:
        row = rows[clip_id]
        try:
            if row["uri"] is None:
                raise VideoError("it has no video")
            if row["fps"] is not None and abs(row["fps"] - _PUBLISHED_FPS) > 0.01:
                odd_rate.append(clip_id)
            done = storage.join(root, "frames", relative_path(clip_id, row["num_frames"] or 1))
            written = row["num_frames"] if storage.exists(done) else _write_frames(annotations, row, root)
            if written != row["num_frames"]:
                raise VideoError(f"it has {written} frames and table 'clips' says {row['num_frames']}")
        except (MicrogError, OSError) as error:
            failed.append(f"{clip_id}: {describe(error)}")
    if odd_rate:
        notes.append(f"{len(odd_rate)} clips are not at 30 frames a second; their frames were written as they are")
    return notes, failed


def _write_frames(annotations: Annotations, row: dict[str, Any], root: str) -> int:
    import cv2

    number = 0
    for number, frame in enumerate(decode_frames(annotations.resolve(row["uri"])), 1):
        encoded, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not encoded:
            raise VideoError(f"frame {number} cannot be written as JPEG")
        storage.write_bytes(storage.join(root, "frames", relative_path(row["clip_id"], number)), jpeg.tobytes())
    return number
