"""Reading a COCO video document: how frames are numbered, who is who, and what is wrong with which entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from microg.data import schema
from microg.data.ids import clip_id_of
from microg.data.vocabulary import Vocabulary
from microg.errors import FormatError
from microg.formats import vqa_json
from microg.formats.base import FormatResult, named_entry, new_clips
from microg.formats.known_clips import KnownClips
from microg.formats.labelmap import parse_action
from microg.formats.labels import Labels

PERSON = {"id": 1, "name": "person", "supercategory": "person"}
VIDEO_COLUMNS = ("origin", "fps", "num_frames", "width", "height", "duration_s")


def first_frame_id(
    images: Mapping[str, Sequence[tuple[int, str]]], lengths: Mapping[str, int | None], file: str
) -> tuple[int, str | None]:
    """Return which `frame_id` is a clip's first frame, and a note where that had to be found out.

    A 0 anywhere: 0. A clip whose last frame_id is its number of frames: 1. File names that are numbered one higher
    than frame_ids, as we write them: 0. Else 0, as COCO-VID has it, unless every clip begins with 1.

    Args:
        images: (frame_id, file name) of each clip's images.
        lengths: Number of frames of clips, where known.
        file: Where this is from.

    Raises:
        FormatError: Every clip begins with 1, and nothing tells whether that is the first frame or the second.
    """
    lowest = {clip_id: min(frame for frame, _ in found) for clip_id, found in images.items()}
    if not lowest or 0 in lowest.values():
        return 0, None
    for clip_id, found in images.items():
        if lengths.get(clip_id) == max(frame for frame, _ in found):
            return 1, f"frame_ids count from 1: none is 0, and {clip_id} has one that is its number of frames"
    offsets = {_trailing(name) - frame for found in images.values() for frame, name in found if name}
    if offsets == {1}:
        return 0, None
    if set(lowest.values()) == {1}:
        raise FormatError(
            f"{file}: every clip begins with frame_id 1: that may be its first frame or its second",
            "say which with --first-frame 1 or --first-frame 0",
        )
    return 0, "no frame_id is 0: they were read as counting from 0, as COCO-VID has it (--first-frame 1 if not)"


def _trailing(name: str) -> int:
    numbers = re.findall(r"[0-9]{1,9}", name.rsplit("/", 1)[-1])
    return int(numbers[-1]) if numbers else -1


class Document:
    """Reads a document entry by entry, so that errors name the entry."""

    def __init__(
        self,
        document: dict,
        file: str,
        labels: Labels,
        first_frame: int | None,
        known: KnownClips,
        vocabulary: Vocabulary,
    ) -> None:
        self._file, self._labels, self._document, self._vocabulary = file, labels, document, vocabulary
        self._clip_ids: dict[Any, str] = {}
        for where, video in self._entries("videos", "video"):
            with named_entry(where):
                self._clip_ids[video["id"]] = clip_id_of(video.get("name") or video["file_name"], where)
        self._images: dict[Any, tuple[str, int]] = {}
        found: dict[str, list[tuple[int, str]]] = {}
        for where, image in self._entries("images", "image"):
            with named_entry(where):
                clip_id, frame = self._clip_of(image["video_id"], where), int(image["frame_id"])
                self._images[image["id"]] = (clip_id, frame)
                found.setdefault(clip_id, []).append((frame, str(image.get("file_name") or "")))
        self.notes: list[str] = []
        if first_frame is None:
            stated = {self._clip_ids[video["id"]]: video.get("num_frames") for video in document["videos"]}
            lengths = {clip_id: known.about(clip_id).get("num_frames") or stated[clip_id] for clip_id in found}
            first_frame, note = first_frame_id(found, lengths, file)
            self.notes += [note] if note else []
        self._shift = 1 - first_frame

    def tables(self) -> FormatResult:
        """Return the tables and the notes."""
        videos = self._document["videos"]
        tracks: dict[Any, tuple[str, dict]] = {}
        for where, track in self._entries("tracks", "track"):
            with named_entry(where):
                tracks[track["id"]] = (where, track)
                self._clip_of(track["video_id"], where)
        people = _Persons({number: track for number, (_, track) in tracks.items()}, self._clip_ids)
        boxes: list[dict] = []
        labels: dict[tuple[str, int, int], None] = {}
        for where, row in self._people():
            with named_entry(where):
                if row["image_id"] not in self._images:
                    raise FormatError(f"{where}: there is no image {row['image_id']!r}")
                clip_id, frame = self._images[row["image_id"]]
                attributes = row.get("attributes") or {}
                instance = row.get("instance_id", row.get("track_id"))
                person_id = people.id_of(clip_id, instance, attributes.get("person_id"))
                corners = dict(zip(("x1", "y1", "x2", "y2"), _corners(row), strict=True))
                about = {"clip_id": clip_id, "frame": frame + self._shift, "person_id": person_id}
                boxes.append(about | {"confidence": row.get("score")} | corners)
                if instance not in tracks or "action_ids" not in tracks[instance][1]:
                    for name in attributes.get("actions", []):
                        labels[clip_id, person_id, parse_action(str(name), where, self._vocabulary)] = None
        for where, track in tracks.values():
            with named_entry(where):
                for action_id in track.get("action_ids", []):
                    clip_id = self._clip_ids[track["video_id"]]
                    person_id = people.id_of(clip_id, track["id"], None)
                    labels[clip_id, person_id, parse_action(str(action_id), where, self._vocabulary)] = None
        entries = [
            {"video_id": self._clip_ids[v["id"]], "caption": v.get("caption"), "qa_pairs": v.get("qa_pairs")}
            for v in videos
        ]
        captions, qa = vqa_json.tables(entries, self._file)
        columns = {name: [video.get(name) for video in videos] for name in VIDEO_COLUMNS}
        actions = [{"clip_id": c, "person_id": person_id, "action_id": a} for c, person_id, a in labels]
        tables = {
            "clips": new_clips(self._clip_ids.values(), **columns),
            "boxes": schema.from_rows("boxes", boxes),
            "actions": schema.from_rows("actions", actions),
            "captions": captions,
            "qa": qa,
        }
        return FormatResult(tables, self.notes)

    def _people(self) -> list[tuple[str, dict]]:
        """Return the annotations of single people, and where each stands."""
        categories = {}
        for where, category in self._entries("categories", "category"):
            with named_entry(where):
                categories[category["id"]] = category.get("name")
        categories = categories or {PERSON["id"]: PERSON["name"]}
        people, crowds = [], 0
        left_out: Counter[str] = Counter()
        for where, row in self._entries("annotations", "annotation"):
            with named_entry(where):
                name = categories.get(row["category_id"])
                if not self._labels.is_person(name):
                    left_out[str(row["category_id"] if name is None else name)] += 1
                elif row.get("iscrowd"):
                    crowds += 1
                else:
                    people.append((where, row))
        self._labels.refuse_loss(self._file, len(people) + crowds, left_out)
        if left_out:
            self.notes.append(f"{left_out.total()} annotations of other categories than 'person' were left out")
        if crowds:
            self.notes.append(f"{crowds} crowd annotations were left out: they are no single person")
        return people

    def _clip_of(self, video_id: Any, where: str) -> str:
        if video_id not in self._clip_ids:
            raise FormatError(f"{where}: there is no video {video_id!r}")
        return self._clip_ids[video_id]

    def _entries(self, name: str, noun: str) -> Iterator[tuple[str, dict]]:
        for number, entry in enumerate(self._document.get(name) or [], 1):
            if not isinstance(entry, dict):
                raise FormatError(f"{self._file}: {noun} {number} of its list is {str(entry)[:40]!r}, no object")
            yield f"{self._file}, {noun} {entry.get('id', f'{number} of its list')}", entry


class _Persons:
    """Person ids of instances: stated ones first, else the rank of the instance among those met in its clip."""

    def __init__(self, tracks: Mapping[Any, dict], clip_ids: Mapping[Any, str]) -> None:
        self._ids: dict[tuple[str, Any], int] = {}
        self._highest: dict[str, int] = {}
        for track in tracks.values():
            if track.get("person_id") is not None:
                self._take(clip_ids[track["video_id"]], track["id"], int(track["person_id"]))

    def id_of(self, clip_id: str, instance: Any, stated: Any) -> int:
        if stated is not None:
            return self._take(clip_id, instance, int(stated))
        if instance is None:
            raise ValueError("an annotation has no instance_id, no track_id and no attributes.person_id")
        if (clip_id, instance) not in self._ids:
            self._take(clip_id, instance, self._highest.get(clip_id, 0) + 1)
        return self._ids[clip_id, instance]

    def _take(self, clip_id: str, instance: Any, person_id: int) -> int:
        self._ids[clip_id, instance] = person_id
        self._highest[clip_id] = max(self._highest.get(clip_id, 0), person_id)
        return person_id


def _corners(row: dict) -> tuple[float, float, float, float]:
    """Return the corners: exact ones count only while they agree with `bbox`, which another tool may have edited."""
    x, y, width, height = (float(value) for value in row["bbox"])
    corners = (x, y, x + width, y + height)
    exact = row.get("corners")
    if exact is not None and all(abs(a - b) <= 1e-9 * max(1.0, abs(a)) for a, b in zip(corners, exact, strict=True)):
        return tuple(float(value) for value in exact)  # type: ignore[return-value]
    return corners
