"""COCO-style video boxes in one JSON file.

`videos` (with caption and qa_pairs), `images` (one per frame that has boxes; `frame_id` from 0 as in COCO-VID),
`tracks` (one per person of a clip, with its actions) and `annotations` (`bbox` = [x, y, width, height] in pixels as
float64, `instance_id` = `track_id`, `attributes`). When x + width does not give back the right edge to the last bit,
the exact corners stand in `corners`; boxes, person ids and actions survive a round trip bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microg import storage
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary
from microg.errors import FormatError
from microg.formats import vqa_json
from microg.formats.ava import relative_path
from microg.formats.base import Annotations, FormatResult, actions_by_person, named_entry, to_json
from microg.formats.coco_document import PERSON, VIDEO_COLUMNS, Document
from microg.formats.known_clips import KnownClips
from microg.formats.labels import Labels
from microg.formats.video_files import copy_videos as copy_clips

TABLES = frozenset({"boxes", "actions", "captions", "qa"})
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
        video |= {name: row[name] for name in VIDEO_COLUMNS if row[name] is not None}
        video |= {key: value for key, value in texts.get(row["clip_id"], {}).items() if key != "video_id"}
        videos.append(video)
    tracks = _Tracks(numbers, actions)
    images, boxes = _images_and_boxes(annotations, numbers, tracks)
    for clip_id, people in actions.items():
        for person_id in people:
            tracks.id_of(clip_id, person_id)
    document = {
        "info": {"description": "persons in microgravity; frame_id counts from 0, bbox is x, y, width, height"},
        "categories": [PERSON],
        "videos": videos,
        "images": images,
        "tracks": tracks.rows,
        "annotations": boxes,
    }
    storage.write_bytes(file, to_json(document, file))
    return notes + more + vqa_notes


def read(
    path: str,
    *,
    label: Sequence[str] = (),
    first_frame: int | None = None,
    known: KnownClips | None = None,
    vocabulary: Vocabulary = MICROG_VOCABULARY,
) -> FormatResult:
    """Read a COCO video file into `clips`, `boxes`, `actions`, `captions` and `qa`.

    The person id is `attributes.person_id` or the track's `person_id`, else the rank of the instance in its clip, from
    1. Other categories than `person` are left out; `label` says what categories mean (`microg.formats.labels`). The
    `frame_id` of a clip's first frame is `first_frame`, else what `coco_document.first_frame_id` finds. Raises
    `FormatError` for a missing key, a dangling id, frames of which it cannot be told how they are numbered, and when no
    box would be read.
    """
    file = _file(path)
    if not storage.exists(file):
        raise FormatError(f"{file} is not there")
    document = storage.read_json(file)
    if not isinstance(document, dict) or not {"videos", "images", "annotations"} <= set(document):
        raise FormatError(f"{file} is not COCO video JSON", "it needs the lists videos, images and annotations")
    with named_entry(file):
        found = Document(document, file, Labels.parse(label), first_frame, known or KnownClips(), vocabulary)
        return found.tables()


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
                    "category_id": PERSON["id"],
                    "person_id": person_id,
                    "action_ids": self.actions(clip_id, person_id),
                }
            )
        return self._ids[key]

    def actions(self, clip_id: str, person_id: int) -> list[int]:
        return self._actions.get(clip_id, {}).get(person_id, [])


def _images_and_boxes(
    annotations: Annotations, numbers: Mapping[str, int], tracks: _Tracks
) -> tuple[list[dict], list[dict]]:
    boxes, clips = annotations.table("boxes"), annotations.clips()
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
        names = [annotations.vocabulary.action(each).label for each in tracks.actions(clip_id, person_id)]
        row = {
            "id": number,
            "image_id": image["id"],
            "video_id": numbers[clip_id],
            "category_id": PERSON["id"],
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


def _file(path: str) -> str:
    return path if path.endswith(".json") else storage.join(path, _FILE)
