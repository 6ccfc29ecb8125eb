"""CVAT for video 1.1: one XML file a clip, out as `annotations/{clip_id}.xml`, in from XML files or CVAT's zip files.

A person is a track labelled `person`; frames count from 0; coordinates are pixels, written as exact decimals (CVAT
itself exports two decimals). Actions are the select attributes `action_1` ... `action_5` (more when a person has
more), the person id and the box confidence are text attributes. Equal boxes on consecutive frames are written as the
two key frames at their ends, and a box with `outside="1"` follows the last frame of each visible stretch.
"""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping

from microg import storage
from microg.data import schema, taxonomy
from microg.data.ids import clip_id_of
from microg.errors import FormatError
from microg.formats import xmltree
from microg.formats.base import Annotations, FormatResult, actions_by_person, new_clips
from microg.formats.keyframes import (
    BoxCount,
    TrackBox,
    box_rows,
    free_person_ids,
    to_boxes,
    to_keyframes,
    tracks,
    upright,
)
from microg.formats.labelmap import action_label, parse_action
from microg.formats.video_files import copy_videos as copy_clips
from microg.formats.xmltree import text
from microg.reading import DAMAGED_ZIP, check_expansion

TABLES = frozenset({"boxes", "actions"})
_MIN_SLOTS = 5  # the published limit of actions a person
_NO_ACTION = "none"


def write(annotations: Annotations, path: str, *, copy_videos: bool = False) -> list[str]:
    """Write `annotations/{clip_id}.xml` a clip, and `labels.json` for the raw label editor of a CVAT project."""
    notes = copy_clips(annotations, storage.join(path, "videos"))[1] if copy_videos else []
    actions, more = actions_by_person(annotations.table("actions"))
    boxes, repeated = tracks(annotations.table("boxes"))
    if repeated:
        notes.append(f"{repeated} boxes of a person that has another box on the same frame were not written")
    slots = max([_MIN_SLOTS, *(len(labels) for people in actions.values() for labels in people.values())])
    unboxed = 0
    for row in annotations.clips():
        clip_id = row["clip_id"]
        people, labels = boxes.get(clip_id, {}), actions.get(clip_id, {})
        unboxed += sum(1 for person_id in labels if person_id not in people)
        root = _document(row, people, labels, slots)
        ET.indent(root)
        data = ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
        storage.write_bytes(storage.join(path, "annotations", f"{clip_id}.xml"), data)
    if unboxed:
        more.append(f"cvat labels tracks: the actions of {unboxed} persons without boxes were not written")
    storage.write_bytes(storage.join(path, "labels.json"), (json.dumps(_label_spec(slots), indent=1) + "\n").encode())
    return notes + more


def read(path: str) -> FormatResult:
    """Read an XML file, a zip file that CVAT made, or a folder of these into `clips`, `boxes` and `actions`.

    The clip is named by the task's source video, else the task, else the file. Boxes between two key frames are
    interpolated linearly where the file does not state them; a track that never goes outside is held until the
    task's last frame; a new track without a person id gets the next free one. Raises `FormatError` for broken or
    hostile XML, for projects and image tasks, and for a label that is not one of the 50 actions.
    """
    rows: dict[str, list[dict]] = {"boxes": [], "actions": []}
    clips: dict[str, dict] = {}
    notes: list[str] = []
    for data, where in _documents(path):
        task = TaskReader(xmltree.parse(data, where), where)
        if task.clip_id in clips:
            raise FormatError(f"{where}: clip {task.clip_id} was annotated in another file already")
        clips[task.clip_id] = {"num_frames": task.num_frames, "width": task.width, "height": task.height}
        boxes, labels, more = task.rows()
        rows["boxes"] += boxes
        rows["actions"] += labels
        notes += more
    if not clips:
        raise FormatError(f"{path} holds no CVAT annotations", "give an XML file, a zip file or a folder with them")
    columns = {name: [clip[name] for clip in clips.values()] for name in ("num_frames", "width", "height")}
    tables = {name: schema.from_rows(name, found) for name, found in rows.items()}
    return FormatResult({"clips": new_clips(clips, **columns), **tables}, notes)


def _documents(path: str) -> Iterator[tuple[bytes, str]]:
    """Yield the XML documents below `path`, with their names, in sorted order."""
    if not storage.exists(path):
        raise FormatError(f"{path} is not there")
    fs, root = storage.filesystem(path)
    files = sorted(fs.find(root)) if fs.isdir(root) else [root]
    for file in files:
        uri = file if storage.is_local(path) else fs.unstrip_protocol(file)
        if file.lower().endswith(".xml") and not file.endswith("labeling_config.xml"):
            yield storage.read_bytes(uri), uri
        elif file.lower().endswith(".zip"):
            yield from _zipped(storage.read_bytes(uri), uri)


def _zipped(data: bytes, uri: str) -> Iterator[tuple[bytes, str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            for member in bundle.infolist():
                if member.filename.lower().endswith(".xml"):
                    check_expansion(member, uri)
                    yield bundle.read(member), f"{uri}:{member.filename}"
    except (*DAMAGED_ZIP, RuntimeError, OSError) as error:
        raise FormatError(f"{uri} is not a sound zip file: {error}", "export it again") from error


def _document(
    row: dict, people: Mapping[int, list[TrackBox]], actions: Mapping[int, list[int]], slots: int
) -> ET.Element:
    root = ET.Element("annotations")
    _child(root, "version", "1.1")
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    _child(task, "name", row["clip_id"])
    _child(task, "mode", "interpolation")
    if row["num_frames"]:
        _child(task, "size", str(row["num_frames"]))
        _child(task, "start_frame", "0")
        _child(task, "stop_frame", str(row["num_frames"] - 1))
    _labels_element(task, slots)
    if row["width"] and row["height"]:
        size = ET.SubElement(task, "original_size")
        _child(size, "width", str(row["width"]))
        _child(size, "height", str(row["height"]))
    _child(task, "source", f"{row['clip_id']}.mp4")
    for number, (person_id, track) in enumerate(people.items()):
        element = ET.SubElement(root, "track", id=str(number), label="person", source="file")
        for box in to_keyframes(track):
            attributes = _attributes(person_id, actions.get(person_id, []), box.confidence, slots)
            _box(element, box, box.frame - 1, attributes)
            if box.ends and box.frame != row["num_frames"]:
                _box(element, box, box.frame, attributes, outside=True)
    return root


def _box(track: ET.Element, box: TrackBox, frame: int, attributes: Mapping[str, str], outside: bool = False) -> None:
    corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (repr(float(value)) for value in box.corners), strict=True))
    flags = {"frame": str(frame), "keyframe": "1", "outside": str(int(outside)), "occluded": "0"}
    element = ET.SubElement(track, "box", {**flags, **corners, "z_order": "0"})
    for name, value in attributes.items():
        ET.SubElement(element, "attribute", name=name).text = value


def _attributes(person_id: int, actions: list[int], confidence: float | None, slots: int) -> dict[str, str]:
    values = {"person_id": str(person_id), "confidence": "" if confidence is None else repr(confidence)}
    labels = [action_label(action_id) for action_id in actions]
    return values | {f"action_{n + 1}": labels[n] if n < len(labels) else _NO_ACTION for n in range(slots)}


def _label_spec(slots: int) -> list[dict]:
    options = [_NO_ACTION, *(action_label(action.id) for action in taxonomy.ACTIONS)]
    attributes = [
        {"name": "person_id", "mutable": False, "input_type": "text", "default_value": "", "values": [""]},
        {"name": "confidence", "mutable": True, "input_type": "text", "default_value": "", "values": [""]},
    ]
    for slot in range(1, slots + 1):
        attributes.append(
            {
                "name": f"action_{slot}",
                "mutable": False,
                "input_type": "select",
                "default_value": _NO_ACTION,
                "values": options,
            }
        )
    return [{"name": "person", "color": "#1f77b4", "type": "rectangle", "attributes": attributes}]


def _labels_element(task: ET.Element, slots: int) -> None:
    labels = ET.SubElement(task, "labels")
    for spec in _label_spec(slots):
        label = ET.SubElement(labels, "label")
        for name in ("name", "color", "type"):
            _child(label, name, spec[name])
        attributes = ET.SubElement(label, "attributes")
        for attribute in spec["attributes"]:
            element = ET.SubElement(attributes, "attribute")
            for name in ("name", "mutable", "input_type", "default_value"):
                _child(element, name, str(attribute[name]))
            _child(element, "values", "\n".join(attribute["values"]))


def _child(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = text


_ACTION_SLOT = re.compile(r"action(_[0-9]+)?")
_WHOLE = re.compile(r"[0-9]{1,9}")
_EMPTY = ("", "none", "__undefined__")
_OTHER_SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")


class TaskReader:
    """Reads one task. Frames of the file count from 0, ours from 1. Raises `FormatError` saying where."""

    def __init__(self, root: ET.Element, where: str) -> None:
        self._root, self._where = root, where
        if root.tag != "annotations":
            raise FormatError(f"{where} is not CVAT XML: its root is <{root.tag}>", "export 'CVAT for video 1.1'")
        if root.find("image") is not None:
            raise FormatError(f"{where} is 'CVAT for images'", "export the task as 'CVAT for video 1.1'")
        if root.find("meta/project") is not None:
            raise FormatError(f"{where} is the export of a whole project", "export each task by itself")
        self.clip_id = self._clip_id()
        size, stop = self._number("meta/task/size"), self._number("meta/task/stop_frame")
        self.num_frames = size if stop is None else stop + 1
        self.width = self._number("meta/task/original_size/width")
        self.height = self._number("meta/task/original_size/height")
        self._counts: Counter[str] = Counter()
        self._boxes_of_clip = BoxCount(where)

    def rows(self) -> tuple[list[dict], list[dict], list[str]]:
        """Return rows of `boxes` and `actions`, and notes."""
        tracks = []
        for track in self._root.iter("track"):
            self._counts["shapes other than boxes"] += sum(len(track.findall(shape)) for shape in _OTHER_SHAPES)
            if track.get("label") != "person":
                self._counts["tracks with another label than 'person'"] += 1
            elif track.find("box") is not None:
                tracks.append(track)
        stated = [self._person_id(track) for track in tracks]
        known = [person_id for person_id in stated if person_id is not None]
        if len(known) != len(set(known)):
            twice = next(person_id for person_id, count in Counter(known).items() if count > 1)
            raise FormatError(f"{self._where}: two tracks are person {twice}", "give each its own person_id")
        free = free_person_ids(set(known))
        boxes, actions = [], []
        for track, person_id in zip(tracks, stated, strict=True):
            person_id = next(free) if person_id is None else person_id
            boxes += box_rows(self.clip_id, person_id, self._boxes(track))
            actions += [{"clip_id": self.clip_id, "person_id": person_id, "action_id": a} for a in self._actions(track)]
        notes = [f"{self.clip_id}: {count} {what} were left out" for what, count in self._counts.items() if count]
        turned = sum(1 for box in self._root.iter("box") if float(box.get("rotation") or 0))
        if turned:
            notes.append(f"{self.clip_id}: {turned} turned boxes were read as the upright box around them")
        return boxes, actions, notes

    def _clip_id(self) -> str:
        stem = self._where.rsplit("/", 1)[-1].removesuffix(".xml")
        names = [text(self._root.find(place)) for place in ("meta/task/source", "meta/source", "meta/task/name")]
        candidates = [name for name in [*names, stem] if name]
        for name in candidates:
            try:
                return clip_id_of(name, self._where)
            except FormatError:
                continue
        raise FormatError(
            f"{self._where}: none of {candidates} is a clip id", "name the task or its video like Apollo13_032"
        )

    def _number(self, place: str) -> int | None:
        value = text(self._root.find(place))
        if value is None:
            return None
        if not _WHOLE.fullmatch(value):
            raise FormatError(f"{self._where}: {place} is {value[:40]!r}, not a number")
        return int(value)

    def _values(self, track: ET.Element, name: str) -> list[str]:
        return [text(a) or "" for a in track.iter("attribute") if a.get("name") == name]

    def _person_id(self, track: ET.Element) -> int | None:
        values = {value for value in self._values(track, "person_id") if value}
        if len(values) > 1 or not all(_WHOLE.fullmatch(value) for value in values):
            raise FormatError(f"{self._where}: track {track.get('id')} has the person_id {sorted(values)}")
        return int(values.pop()) if values else None

    def _actions(self, track: ET.Element) -> list[int]:
        names = dict.fromkeys(
            value
            for attribute in track.iter("attribute")
            if _ACTION_SLOT.fullmatch(attribute.get("name") or "")
            and (value := text(attribute) or "").lower() not in _EMPTY
        )
        where = f"{self._where}, track {track.get('id')}"
        return list(dict.fromkeys(parse_action(name, where) for name in names))

    def _boxes(self, track: ET.Element) -> list[TrackBox]:
        """Return the visible boxes: those stated, and those between key frames."""
        elements = sorted(track.findall("box"), key=lambda box: int(self._attribute(box, "frame")))
        keyframes: list[TrackBox] = []
        for index, element in enumerate(elements):
            if element.get("outside") == "1":
                continue
            box = self._box(element)
            after = elements[index + 1] if index + 1 < len(elements) else None
            if after is None or after.get("outside") != "1":
                keyframes.append(box)
                continue
            # Until it goes outside a box stays where it is: CVAT does not move a box towards its outside position.
            last = int(self._attribute(after, "frame"))
            keyframes.append(TrackBox(box.frame, *box.corners, confidence=box.confidence, ends=last <= box.frame))
            if last > box.frame:
                keyframes.append(TrackBox(last, *box.corners, confidence=box.confidence, ends=True))
        self._boxes_of_clip.add(keyframes, self.num_frames)
        return to_boxes(keyframes, self.num_frames)

    def _box(self, element: ET.Element) -> TrackBox:
        try:
            x1, y1, x2, y2 = (float(self._attribute(element, name)) for name in ("xtl", "ytl", "xbr", "ybr"))
            degrees = float(element.get("rotation") or 0)
            corners = upright((x1, y1, x2, y2), degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
            stated = [text(a) for a in element.iter("attribute") if a.get("name") == "confidence"]
            confidence = float(stated[0]) if stated and stated[0] else None
            return TrackBox(int(self._attribute(element, "frame")) + 1, *corners, confidence=confidence)
        except ValueError as error:
            raise FormatError(f"{self._where}: a box has a bad number: {error}") from error

    def _attribute(self, element: ET.Element, name: str) -> str:
        value = element.get(name)
        if value is None:
            raise FormatError(f"{self._where}: a box has no {name!r}")
        return value
