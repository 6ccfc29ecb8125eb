"""COCO-style video boxes in one JSON file.

`videos` (with caption and qa_pairs), `images` (one per frame that has boxes; `frame_id` from 0 as in COCO-VID),
`tracks` (one per person of a clip, with its actions) and `annotations` (`bbox` = [x, y, width, height] in pixels as
float64, `instance_id` = `track_id`, `attributes`). When x + width does not give back the right edge to the last bit,
the exact corners stand in `corners`; boxes, person ids and actions survive a round trip bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from microg import storage
from microg.data import schema
from microg.data.ids import clip_id_of
from microg.errors import FormatError
from microg.formats import vqa_json
from microg.formats.ava import relative_path
from microg.formats.base import Annotations, FormatResult, actions_by_person, new_clips, to_json
from microg.formats.labelmap import action_label, parse_action
from microg.formats.video_files import copy_videos as copy_clips

TABLES = frozenset({"boxes", "actions", "captions", "qa"})
_PERSON = {"id": 1, "name": "person", "supercategory": "person"}
_VIDEO_COLUMNS = ("origin", "fps", "num_frames", "width", "height", "duration_s")
_FILE = "annotations.json"


def write(annotations: Annotations, path: str, *, copy_videos: bool = False) -> list[str]:
    """Write `annotations.json` under the folder `path` (or `path` itself when it ends in `.json`)."""
    notes = []
    file = _file(path)
    if copy_videos:
        notes += copy_clips(annotations, storage.join(file.rsplit("/", 1)[0], "videos"))[1]
    actions, more = actions_by_person(annotations.table("actions"))
    entries, vqa_notes = vqa_json.items(annotations.table("captions"), annotations.table("qa"))
    texts = {entry["video_id"]: entry for entry in entries}
    videos, numbers = [], {}
    for number, row in enumerate(annotations.clips(), 1):
        numbers[row["clip_id"]] = number
        video: dict[str, Any] = {"id": number, "name": row["clip_id"], "file_name": f"{row['clip_id']}.mp4"}
        video |= {name: row[name] for name in _VIDEO_COLUMNS if row[name] is not None}
        video |= {key: value for key, value in texts.get(row["clip_id"], {}).items() if key != "video_id"}
        videos.append(video)
    tracks = _Tracks(numbers, actions)
    images, boxes = _images_and_boxes(annotations.table("boxes"), annotations.clips(), numbers, tracks)
    for clip_id, people in actions.items():
        for person_id in people:
            tracks.id_of(clip_id, person_id)
    document = {
        "info": {"description": "persons in microgravity; frame_id counts from 0, bbox is x, y, width, height"},
        "categories": [_PERSON],
        "videos": videos,
        "images": images,
        "tracks": tracks.rows,
        "annotations": boxes,
    }
    storage.write_bytes(file, to_json(document, file))
    return notes + more + vqa_notes


def read(path: str) -> FormatResult:
    """Read a COCO video file into `clips`, `boxes`, `actions`, `captions` and `qa`.

    The person id is `attributes.person_id` or the track's `person_id`, else the rank of the instance in its clip, from
    1. Other categories than `person` are left out. Raises `FormatError` for a missing key or a dangling id.
    """
    file = _file(path)
    if not storage.exists(file):
        raise FormatError(f"{file} is not there")
    document = storage.read_json(file)
    if not isinstance(document, dict) or not {"videos", "images", "annotations"} <= set(document):
        raise FormatError(f"{file} is not COCO video JSON", "it needs the lists videos, images and annotations")
    try:
        return _tables(document, file)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{file} has a malformed entry: {type(error).__name__}: {error}") from error


class _Tracks:
    """Numbers the (clip, person) pairs in the order they are met."""

    def __init__(self, videos: Mapping[str, int], actions: Mapping[str, Mapping[int, list[int]]]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._videos, self._actions = videos, actions
        self._ids: dict[tuple[str, int], int] = {}

    def id_of(self, clip_id: str, person_id: int) -> int:
        key = (clip_id, person_id)
        if key not in self._ids:
            self._ids[key] = len(self._ids) + 1
            self.rows.append(
                {
                    "id": self._ids[key],
                    "video_id": self._videos[clip_id],
                    "category_id": _PERSON["id"],
                    "person_id": person_id,
                    "action_ids": self.actions(clip_id, person_id),
                }
            )
        return self._ids[key]

    def actions(self, clip_id: str, person_id: int) -> list[int]:
        return self._actions.get(clip_id, {}).get(person_id, [])


def _images_and_boxes(
    boxes: pa.Table, clips: list[dict], numbers: Mapping[str, int], tracks: _Tracks
) -> tuple[list[dict], list[dict]]:
    sizes = {row["clip_id"]: {key: row[key] for key in ("width", "height") if row[key] is not None} for row in clips}
    images: dict[tuple[str, int], dict[str, Any]] = {}
    rows = []
    columns = [boxes[name].to_pylist() for name in boxes.column_names]
    for number, (clip_id, frame, person_id, x1, y1, x2, y2, confidence) in enumerate(zip(*columns, strict=True), 1):
        image = images.get((clip_id, frame))
        if image is None:
            image = images[(clip_id, frame)] = {
                "id": len(images) + 1,
                "video_id": numbers[clip_id],
                "frame_id": frame - 1,
                "file_name": relative_path(clip_id, frame),
                **sizes[clip_id],
            }
        track = tracks.id_of(clip_id, person_id)
        width, height = x2 - x1, y2 - y1
        names = [action_label(action_id) for action_id in tracks.actions(clip_id, person_id)]
        row = {
            "id": number,
            "image_id": image["id"],
            "video_id": numbers[clip_id],
            "category_id": _PERSON["id"],
            "instance_id": track,
            "track_id": track,
            "bbox": [x1, y1, width, height],
            "area": width * height,
            "iscrowd": 0,
            "attributes": {"person_id": person_id, "actions": names},
        }
        if (x1 + width, y1 + height) != (x2, y2):
            row["corners"] = [x1, y1, x2, y2]
        if confidence is not None:
            row["score"] = confidence
        rows.append(row)
    return list(images.values()), rows


def _tables(document: dict, file: str) -> FormatResult:
    clip_ids = {
        v["id"]: clip_id_of(v.get("name") or v["file_name"], f"{file}, video {v['id']}") for v in document["videos"]
    }
    images = {image["id"]: (clip_ids[image["video_id"]], int(image["frame_id"]) + 1) for image in document["images"]}
    categories = {category["id"]: category.get("name") for category in document.get("categories", [_PERSON])}
    tracks = {track["id"]: track for track in document.get("tracks", [])}
    people = _Persons(tracks, clip_ids)
    boxes, notes, others, crowds = [], [], 0, 0
    labels: dict[tuple[str, int, int], None] = {}
    for row in document["annotations"]:
        if categories.get(row["category_id"]) != _PERSON["name"]:
            others += 1
            continue
        crowds += bool(row.get("iscrowd"))
        if row.get("iscrowd"):
            continue
        clip_id, frame = images[row["image_id"]]
        attributes = row.get("attributes") or {}
        instance = row.get("instance_id", row.get("track_id"))
        person_id = people.id_of(clip_id, instance, attributes.get("person_id"))
        corners = dict(zip(("x1", "y1", "x2", "y2"), _corners(row), strict=True))
        about = {"clip_id": clip_id, "frame": frame, "person_id": person_id, "confidence": row.get("score")}
        boxes.append(about | corners)
        if instance not in tracks or "action_ids" not in tracks[instance]:
            for name in attributes.get("actions", []):
                labels[clip_id, person_id, parse_action(str(name), f"{file}, annotation {row['id']}")] = None
    for track in tracks.values():
        for action_id in track.get("action_ids", []):
            clip_id = clip_ids[track["video_id"]]
            person_id = people.id_of(clip_id, track["id"], None)
            labels[clip_id, person_id, parse_action(str(action_id), f"{file}, track {track['id']}")] = None
    if others:
        notes.append(f"{others} annotations of other categories than 'person' were left out")
    if crowds:
        notes.append(f"{crowds} crowd annotations were left out: they are no single person")
    entries = [
        {"video_id": clip_ids[v["id"]], "caption": v.get("caption"), "qa_pairs": v.get("qa_pairs")}
        for v in document["videos"]
    ]
    captions, qa = vqa_json.tables(entries, file)
    columns = {name: [video.get(name) for video in document["videos"]] for name in _VIDEO_COLUMNS}
    actions = [{"clip_id": c, "person_id": person_id, "action_id": a} for c, person_id, a in labels]
    tables = {
        "clips": new_clips(clip_ids.values(), **columns),
        "boxes": schema.from_rows("boxes", boxes),
        "actions": schema.from_rows("actions", actions),
        "captions": captions,
        "qa": qa,
    }
    return FormatResult(tables, notes)


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


def _file(path: str) -> str:
    return path if path.endswith(".json") else storage.join(path, _FILE)
