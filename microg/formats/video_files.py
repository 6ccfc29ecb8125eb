"""Videos beside annotations: finding them, reading their metadata, taking them over safely."""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import av
import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.data.ids import VIDEO_EXTENSIONS, split_clip_id
from microg.data.places import external_allowed, external_reason
from microg.errors import FormatError, IdError, VideoError, describe
from microg.formats.base import Annotations, FoundVideo
from microg.reading import DAMAGED_ZIP, check_expansion, is_mac_leftover
from microg.video import decode_frames_at

_BLOCK_BYTES = 16 << 20


def video_columns(uri: str) -> dict[str, Any]:
    """Return what table `clips` says of a video: rate, frames, display size in pixels, seconds, checksum, status.

    Frames are counted in the container's packets, not taken from its header, which may be wrong. Raises `VideoError`
    when it has no decodable picture or no frame rate.
    """
    info, found = decode_frames_at(uri, [0], lambda frame: True, count=True)
    if not found or not info.has_rate:
        raise VideoError(f"{uri} has no frame rate" if found else f"{uri}: no frame can be decoded")
    columns = {name: getattr(info, name) for name in ("fps", "num_frames", "width", "height")}
    duration = info.num_frames / info.fps
    return {**columns, "duration_s": duration, "sha256": storage.sha256(uri), "status": "ok", "error": None}


def find_videos(root: str) -> dict[str, FoundVideo]:
    """Return the videos under `root` by clip id, as absolute paths or URIs; files with other names are passed over.

    Raises `FormatError` when two files have the same clip id.
    """
    found: dict[str, FoundVideo] = {}
    for path in _walk(root):
        clip_id = _clip_id(path)
        if clip_id is None:
            continue
        if clip_id in found:
            raise FormatError(f"clip {clip_id} has two videos: {found[clip_id].path} and {path}", "remove one of them")
        found[clip_id] = FoundVideo(path, origin_of(path))
    return found


def origin_of(path: str) -> str | None:
    """Return `movie` or `real` when a folder of that name is on the path (the published layout), else None."""
    return next((part for part in reversed(PurePosixPath(path).parts[:-1]) if part in schema.ORIGINS), None)


def with_metadata(
    clips: pa.Table,
    videos: Mapping[str, FoundVideo],
    *,
    dataset_root: str | None = None,
    copy: bool = False,
    read_video: Callable[[str], dict[str, Any]] = video_columns,
) -> tuple[pa.Table, list[str]]:
    """Return `clips` with uri, size, rate, length and checksum of each clip's video, and notes.

    A video outside `dataset_root` is taken into its `videos/`: as a hard link, which needs no space, or with `copy` as
    a copy. Where the user lets data point out of their folder, it stays where it is and its uri is absolute. An
    undecodable video makes a row with status `error`; the other rows are unaffected. A clip without a video keeps what
    it has.

    Raises `FormatError` when a video cannot be linked.
    """
    rows, broken, without = clips.to_pylist(), 0, 0
    inside = None if dataset_root is None else real_path(dataset_root).rstrip("/") + "/"
    for row in rows:
        video = videos.get(row["clip_id"])
        if video is None:
            without += row["uri"] is None
            continue
        row["origin"] = row["origin"] or video.origin
        row["uri"] = video.path
        try:
            row |= read_video(video.path)
        except (VideoError, OSError) as error:
            broken += 1
            row |= {"status": "error", "error": describe(error)}
            if inside is not None and not video.path.startswith(inside) and not external_allowed():
                row["uri"] = None  # it is not taken over, and what points out of the dataset is refused as a whole
            continue
        if inside is not None and not video.path.startswith(inside) and (copy or not external_allowed()):
            row["uri"] = storage.join(inside, "videos", f"{row['clip_id']}.mp4")
            if copy:
                storage.write_blocks(row["uri"], storage.read_blocks(video.path))
            else:
                _link(video.path, row["uri"])
        if inside is not None:
            row["uri"] = row["uri"].removeprefix(inside)
    notes = []
    if without:
        notes.append(f"{without} clips have no video: their size, rate and length are unknown unless annotated")
    if broken:
        notes.append(f"{broken} clips have a video that cannot be read: their status is 'error'")
    return schema.from_rows("clips", rows), notes


def _link(video: str, target: str) -> None:
    try:
        if not (storage.is_local(video) and storage.is_local(target)):
            raise OSError("one of them is at an object store")
        path = storage.local_path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.tmp")
        os.link(video, temporary)
        temporary.replace(path)
        temporary.unlink(missing_ok=True)  # which is still there where both were links of one file
    except OSError as error:
        raise FormatError(
            f"{video} cannot be linked into the dataset: {error}",
            "copy the videos with --copy-videos, or leave them where they are with --allow-external",
        ) from error


def unpack_zip(archive: str, folder: str) -> dict[str, FoundVideo]:
    """Extract the videos of a zip file into `folder`, flat, and return them by clip id.

    The name of each extracted file is the validated clip id, so no member can escape. Refuses, with `FormatError`, an
    archive with absolute or climbing names, links, encrypted members, members that would grow out of proportion, two
    videos of one clip, or more bytes than the disk has, before anything is written. A member that is there already with
    its size and checksum is passed over.
    """
    fs, name = storage.filesystem(archive)
    try:
        with fs.open(name, "rb") as file, zipfile.ZipFile(file) as bundle:
            members = list(_members(archive, bundle))
            _check_space(archive, folder, sum(member.file_size for _, member in members))
            found = {}
            for clip_id, member in members:
                path = storage.join(real_path(folder), f"{clip_id}.mp4")
                if not _is_there(path, member):
                    with bundle.open(member) as stored:
                        storage.write_blocks(path, iter(partial(stored.read, _BLOCK_BYTES), b""))
                found[clip_id] = FoundVideo(path, origin_of(member.filename))
            return found
    except DAMAGED_ZIP as error:
        storage.refuse_pointer_at(archive)
        raise FormatError(f"{archive} is not a sound zip file: {error}", "download it again") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise FormatError(f"{archive} is not a sound zip file: it names places before its start") from error


def copy_videos(
    annotations: Annotations, folder: str, *, published_layout: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Copy the clips' videos into `folder` and return the new paths by clip id, and notes on those that are missing.

    Names are `{clip_id}.mp4`; with `published_layout` they lie in `{origin}/{source_id}/`.
    """
    copied: dict[str, str] = {}
    missing = []
    for row in annotations.clips():
        clip_id, uri = row["clip_id"], row["uri"]
        video = annotations.resolve(uri, clip_id) if uri else None
        if video is None or not storage.exists(video):
            missing.append(clip_id)
            continue
        parts = [row["origin"] or "real", split_clip_id(clip_id)[0]] if published_layout else []
        path = storage.join(folder, *parts, f"{clip_id}.mp4")
        storage.write_blocks(path, storage.read_blocks(video))
        copied[clip_id] = path
    notes = [f"{len(missing)} clips have no video to copy (e.g. {missing[0]})"] if missing else []
    return copied, notes


def _members(archive: str, bundle: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    seen: dict[str, str] = {}
    for member in bundle.infolist():
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
            raise FormatError(f"{archive}: member {name!r} points outside the archive", "do not trust this file")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise FormatError(f"{archive}: member {name!r} is a link", "do not trust this file")
        if member.flag_bits & 1:
            raise FormatError(f"{archive}: member {name!r} is encrypted", "extract it yourself and import the folder")
        clip_id = None if not name or member.is_dir() or is_mac_leftover(name) else _clip_id(name)
        if clip_id is None:
            continue
        check_expansion(member, archive)
        if clip_id in seen:
            raise FormatError(f"{archive}: clip {clip_id} is there twice: {seen[clip_id]} and {name}")
        seen[clip_id] = name
        yield clip_id, member


def _is_there(path: str, member: zipfile.ZipInfo) -> bool:
    fs, name = storage.filesystem(path)
    if not fs.exists(name) or fs.size(name) != member.file_size:
        return False
    found = 0
    for block in storage.read_blocks(path):
        found = zlib.crc32(block, found)
    return found == member.CRC


def real_path(path: str) -> str:
    """Return a local path with its links resolved, a URI as it is."""
    return str(storage.local_path(path).resolve()) if storage.is_local(path) else path


def _check_space(archive: str, target: str, needed: int) -> None:
    if not storage.is_local(target):
        return
    storage.make_dirs(target)
    status = os.statvfs(storage.local_path(target))
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise FormatError(f"{archive} needs {needed / 1e9:.1f} GB and {target} has {free / 1e9:.1f} GB free")


def _walk(root: str) -> Iterator[str]:
    fs, path = storage.filesystem(root)
    for name in sorted(fs.find(path)):
        if name.lower().endswith(VIDEO_EXTENSIONS):
            if not storage.is_local(root):
                yield fs.unstrip_protocol(name)
                continue
            refuse_link(root, name)
            yield str(storage.local_path(name).resolve())


def refuse_link(root: str, name: str) -> None:
    """Raise `FormatError` where a file in the folder `root` is a link out of it, and the user does not allow that."""
    if not external_allowed() and (reason := external_reason(root, storage.absolute(name))):
        raise FormatError(
            f"{name} is a link out of {root}: {reason}",
            "put the file itself there; or, where you trust the folder, give --allow-external",
        )


def pack_pictures(pictures: Sequence[str], target: str, *, fps: int) -> str:
    """Write PNG files as the frames of one video (MP4), byte for byte, and return its absolute path.

    Raises `FormatError` for a file that is no PNG, or of another size than the first.
    """
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "packed.mp4"
        with av.open(str(temporary), "w", format="mp4") as container:
            stream, first = None, (0, 0)
            for number, picture in enumerate(pictures):
                data = storage.read_bytes(picture)
                if not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 24:
                    raise FormatError(f"{picture} is no PNG picture", "it may be damaged: fetch it again")
                size = struct.unpack(">II", data[16:24])
                if stream is None:
                    first = size
                    stream = container.add_mux_stream("png", rate=fps, width=size[0], height=size[1])
                if size != first:
                    raise FormatError(f"{picture} has {size[0]} x {size[1]} pixels, {pictures[0]} others")
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, fps)
                packet.pts = packet.dts = number
                packet.is_keyframe = True
                container.mux(packet)
        path = real_path(target)
        storage.write_blocks(path, storage.read_blocks(temporary))
    return path


def _clip_id(path: str) -> str | None:
    stem, extension = os.path.splitext(path.replace("\\", "/").rsplit("/", 1)[-1])  # noqa: PTH122
    try:
        split_clip_id(stem)
    except IdError:
        return None
    return stem if extension.lower() in VIDEO_EXTENSIONS else None
