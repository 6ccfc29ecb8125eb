"""Videos and frames of clips for a browser: local files as they are, all else through a bounded cache on this disk."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from microg import storage
from microg.data.dataset import Dataset
from microg.errors import MicrogError, VideoError
from microg.review.material import Clip
from microg.storage_faults import writing
from microg.video import open_video

FRAMES_TO_SHOW = 8
THUMB_WIDTH, FRAME_WIDTH, MAX_WIDTH = 320, 640, 1920
_QUALITY, _LOCKS = 80, 64
# What browsers play, by the container's and the codec's name as FFmpeg has them.
_CONTAINERS = frozenset({"mp4", "mov", "webm"})
_CODECS = frozenset({"h264", "vp8", "vp9", "av1"})
_PIXELS = frozenset({"yuv420p", "yuvj420p"})


def frames_to_show(clip: Clip) -> list[int]:
    """Return frames of a clip, counted from 1, that show what happens: the middles of equal stretches.

    >>> clip = Clip("a_000", "a", 0, "", "", 30.0, 90, 640, 480, 3.0)
    >>> frames_to_show(clip)
    [6, 17, 29, 40, 51, 62, 74, 85]
    """
    count = max(clip.num_frames, 1)
    return sorted({int((number + 0.5) * count / FRAMES_TO_SHOW) + 1 for number in range(FRAMES_TO_SHOW)})


class DiskCache:
    """Files made once and kept up to a number of bytes; those not used for longest go first.

    Args:
        folder: Where they are kept; files that are there already count.
        limit: Bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        # so that nothing is made twice at once; keys that share a lock wait for each other, too
        self._making = [threading.Lock() for _ in range(_LOCKS)]
        self._sizes: OrderedDict[str, int] = OrderedDict()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in folder.iterdir():
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)  # of a process that was killed
            elif path.is_file():
                found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        self._sizes.update((name, size) for _, name, size in sorted(found))
        self._total = sum(self._sizes.values())

    def get(self, key: str, ending: str, make: Callable[[Path], None]) -> Path:
        """Return the file of a key, which `make` writes to the path that it is given when it is not there yet."""
        name, path = self._place(key, ending)
        with self._making[int(name[:8], 16) % _LOCKS]:
            if not self._used(name, path):
                temporary = storage.join_local(self._folder, f"{uuid.uuid4().hex}.tmp")
                with storage.removed_after(temporary), writing(self._folder):
                    make(temporary)
                    temporary.replace(path)
                self._added(name, path.stat().st_size)
        return path

    def has(self, key: str, ending: str) -> bool:
        """Tell whether a key's file is there."""
        return self._place(key, ending)[1].exists()

    def _place(self, key: str, ending: str) -> tuple[str, Path]:
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:40]}{ending}"
        return name, storage.join_local(self._folder, name)

    def _used(self, name: str, path: Path) -> bool:
        with self._lock:
            if name not in self._sizes or not path.exists():
                return False
            self._sizes.move_to_end(name)
        with suppress(FileNotFoundError):
            os.utime(path)
        return True

    def _added(self, name: str, size: int) -> None:
        with self._lock:
            self._total += size - self._sizes.pop(name, 0)
            self._sizes[name] = size
            while self._total > self._limit and len(self._sizes) > 1:
                old, freed = self._sizes.popitem(last=False)
                self._total -= freed
                storage.join_local(self._folder, old).unlink(missing_ok=True)


class Media:
    """Gives the bytes of clips' videos and single frames.

    Args:
        dataset: The dataset; where a clip's video lies is for it to say.
        folder: For what has to be fetched or made.
        limit: Bytes that whole videos may take there; pictures may take a tenth of that.
    """

    def __init__(self, dataset: Dataset, folder: Path, limit: int) -> None:
        self._dataset = dataset
        self._videos = DiskCache(folder / "videos", limit)
        self._pictures = DiskCache(folder / "pictures", limit // 10)
        self._plays: dict[str, bool] = {}

    def video(self, clip: Clip) -> Path:
        """Return a file with a clip's video that a browser plays, frame for frame the clip's.

        Raises:
            VideoError: It cannot be read.
            DatasetError: It lies outside the dataset.
        """
        uri = self._dataset.resolve(clip.uri, clip.clip_id)
        local = self._local(uri, clip)
        if local is not None and self._plays_in_browsers(str(local)):
            return local

        def make(path: Path) -> None:
            from microg.models.video.encode import write_preview

            fps = clip.fps or 30.0
            if local is not None:
                write_preview(str(local), {}, str(path), fps)
            else:
                _from_pictures(uri, clip, path, fps)

        return self._videos.get(f"preview {_version(uri)}", ".mp4", make)

    def picture(self, clip: Clip, frame: int, width: int) -> bytes:
        """Return a frame of a clip, counted from 1, as a JPEG at most so many pixels wide.

        Raises:
            VideoError: There is no such frame.
        """
        uri = self._dataset.resolve(clip.uri, clip.clip_id)
        version = _version(uri)

        def key(number: int) -> str:
            return f"{version} frame {number} width {width}"

        if not self._pictures.has(key(frame), ".jpg"):
            # one pass over the video gives all that are likely to be wanted of it
            likely = [each for each in frames_to_show(clip) if not self._pictures.has(key(each), ".jpg")]
            wanted = sorted({frame, *likely}) if frame in likely else [frame]
            for number, data in self._jpegs(uri, clip, wanted, width).items():
                self._pictures.get(key(number), ".jpg", lambda path, data=data: _write(path, data))
        path = self._pictures.get(
            key(frame), ".jpg", lambda path: _write(path, self._jpegs(uri, clip, [frame], width)[frame])
        )
        try:
            return path.read_bytes()
        except FileNotFoundError:  # it had to go for others meanwhile
            return self._jpegs(uri, clip, [frame], width)[frame]

    def _jpegs(self, uri: str, clip: Clip, frames: list[int], width: int) -> dict[int, bytes]:
        from microg.models.video.clip_frames import read_clip_frames

        local = self._local(uri, clip)
        source = uri if local is None else str(local)
        found = read_clip_frames(source, [frame - 1 for frame in frames], "pyav")
        return {number + 1: _jpeg(picture, width) for number, picture in found.items()}

    def _local(self, uri: str, clip: Clip) -> Path | None:
        """Return a video as a local file, fetched once where it is elsewhere; None for a folder of pictures."""
        if uri.endswith("/"):
            return None
        if storage.is_local(uri):
            path = storage.local_path(uri)
            if not path.is_file():
                raise VideoError(f"the video of clip {clip.clip_id} is not there")
            return path

        def fetch(path: Path) -> None:
            try:
                with path.open("wb") as file:
                    for block in storage.read_blocks(uri):
                        file.write(block)
            except FileNotFoundError as error:
                raise VideoError(f"the video of clip {clip.clip_id} is not there") from error

        return self._videos.get(_version(uri), Path(uri).suffix[:8] or ".mp4", fetch)

    def _plays_in_browsers(self, path: str) -> bool:
        known = self._plays.get(path)
        if known is None:
            with open_video(path) as (container, stream):
                context = stream.codec_context
                plain = context.pix_fmt in _PIXELS and context.name in _CODECS
                known = plain and not _CONTAINERS.isdisjoint(container.format.name.split(","))
            self._plays[path] = known
        return known


def _version(uri: str) -> str:
    """Return a file's name with what changes when its content does."""
    if uri.endswith("/"):
        return uri
    fs, path = storage.filesystem(uri)
    try:
        about = fs.info(path)
    except FileNotFoundError:
        return uri
    marks = [about.get(name) for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "size")]
    return f"{uri} {marks}"


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _jpeg(picture: np.ndarray, width: int) -> bytes:
    import cv2

    if picture.shape[1] > width:
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    good, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not good:
        raise MicrogError("a frame cannot be made a JPEG")
    return data.tobytes()


def _from_pictures(uri: str, clip: Clip, target: Path, fps: float) -> None:
    """Write a video of a clip that is a folder of JPEGs."""
    import av

    from microg.models.video.clip_frames import count_clip_frames, read_clip_frames
    from microg.models.video.encode import Mp4Writer

    rate = Fraction(fps).limit_denominator(1001)
    count = clip.num_frames or count_clip_frames(uri)
    height, width = (each // 2 * 2 for each in read_clip_frames(uri, [0])[0].shape[:2])
    with Mp4Writer(str(target), (width, height), rate, crf=26, preset="veryfast", key_interval=30) as writer:
        for number in range(count):
            picture = np.ascontiguousarray(read_clip_frames(uri, [number])[number][:height, :width])
            writer.write(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
        writer.finish()
