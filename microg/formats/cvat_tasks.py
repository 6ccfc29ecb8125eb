"""Reading what CVAT exports of a task, or of a job of one: its clip, tracks and actions, whoever made the project."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from microg.annotations.imports import annotator_name, judgement, time_of
from microg.annotations.rows import Annotation, Item
from microg.data.ids import clip_id_of
from microg.data.vocabulary import Vocabulary
from microg.errors import FormatError
from microg.formats.keyframes import BoxCount, Track, TrackBox, box_rows, drawing, upright
from microg.formats.known_clips import KnownClips
from microg.formats.labelmap import parse_action
from microg.formats.labels import Labels
from microg.formats.same_people import name_people
from microg.formats.xmltree import text

_ACTION_SLOT = re.compile(r"action(_[0-9]+)?", re.IGNORECASE)
_KNOWN_ATTRIBUTES = ("person_id", "confidence")
_WHOLE = re.compile(r"[0-9]{1,9}")
_EMPTY = ("", "none", "__undefined__")
_OTHER_SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")


def _said(root: ET.Element, name: str) -> str | None:
    """Return what an export says of its task: of a job CVAT says it in another place."""
    places = (f"meta/task/{name}", f"meta/job/{name}", f"meta/{name}")
    return next((found for place in places if (found := text(root.find(place)))), None)


def clip_of(root: ET.Element, where: str, names: Sequence[str], known: KnownClips) -> str:
    """Return the clip that an export is of: named by its video, its task, or else by `names`."""
    if root.tag != "annotations":
        raise FormatError(f"{where} is not CVAT XML: its root is <{root.tag}>", "export 'CVAT for video 1.1'")
    candidates = [name for name in (_said(root, "source"), _said(root, "name"), *names) if name]
    ids = []
    for name in candidates:
        with suppress(FormatError):
            ids.append(clip_id_of(name, where))
    if ids:
        return next((clip_id for clip_id in ids if clip_id in known), ids[0])
    raise FormatError(
        f"{where}: none of {candidates} is a clip id",
        "name the clip with --clip-id Apollo13_032; or so the task, its video, the archive or the folder",
    )


@dataclass(frozen=True)
class TaskRows:
    """What an export says: rows of the tables `boxes` and `actions`, the same as judgements, and notes."""

    boxes: list[dict]
    actions: list[dict]
    judgements: list[Annotation]
    notes: list[str]


class TaskReader:
    """Reads the export of a task or of a job. Frames of the file count from 0, ours from 1.

    Raises `FormatError` saying where.
    """

    def __init__(
        self,
        root: ET.Element,
        where: str,
        clip_id: str,
        labels: Labels,
        known: KnownClips,
        vocabulary: Vocabulary,
    ) -> None:
        self._vocabulary = vocabulary
        self._root, self._where, self._labels, self.clip_id = root, where, labels, clip_id_of(clip_id, where)
        if root.find("image") is not None:
            raise FormatError(f"{where} is 'CVAT for images'", "export the task as 'CVAT for video 1.1'")
        if root.find("meta/project") is not None:
            raise FormatError(f"{where} is the export of a whole project", "export each task by itself")
        size, stop = self._number("size"), self._number("stop_frame")
        self.num_frames = size if stop is None else stop + 1
        self.width = self._number("original_size/width")
        self.height = self._number("original_size/height")
        self._content = known.content
        length = known.about(self.clip_id).get("num_frames")
        self._last = min((n for n in (self.num_frames, length) if n is not None), default=None)
        self._counts: Counter[str] = Counter()
        self._boxes_of_clip = BoxCount(where)

    def rows(self, annotator: str | None = None) -> TaskRows:
        """Return what the export says, as the work of `annotator`, else of whom the task or job is assigned to."""
        tracks = []
        left_out: Counter[str] = Counter()
        for track in self._root.iter("track"):
            label = track.get("label") or ""
            shapes = {shape: len(track.findall(shape)) for shape in _OTHER_SHAPES}
            self._counts["shapes other than boxes"] += sum(shapes.values())
            if not self._labels.is_person(label):
                self._counts[f"tracks with the label {label!r}"] += 1
                left_out[label] += 1
            elif track.find("box") is not None:
                tracks.append(track)
            else:
                left_out.update({f"{label} drawn as {shape}": count for shape, count in shapes.items() if count})
        self._labels.refuse_loss(self._where, len(tracks), left_out)
        stated = [self._person_id(track) for track in tracks]
        known = [person_id for person_id in stated if person_id is not None]
        if len(known) != len(set(known)):
            twice = next(person_id for person_id, count in Counter(known).items() if count > 1)
            raise FormatError(f"{self._where}: two tracks are person {twice}", "give each its own person_id")
        drawn = [Track(self._keyframes(track), self._last) for track in tracks]
        named = {number: person_id for number, person_id in enumerate(stated) if person_id is not None}
        assigned = _said(self._root, "assignee/username") or _said(self._root, "assignee")
        who = annotator or annotator_name(assigned, "cvat")
        before = self._content.drawn.get((self.clip_id, who), {})
        others = self._content.people.get(self.clip_id, {})
        ids, recognised = name_people({n: track.boxes() for n, track in enumerate(drawn)}, named, before, others)
        boxes, actions, said = [], [], []
        how: dict[str, Any] = {
            "annotator": who,
            "source": "cvat",
            "time": time_of(_said(self._root, "updated")),
            "task": self.clip_id,
        }
        for number, track in enumerate(tracks):
            person_id, labels = ids[number], self._actions(track)
            boxes += box_rows(self.clip_id, person_id, drawn[number].boxes())
            actions += [{"clip_id": self.clip_id, "person_id": person_id, "action_id": each} for each in labels]
            said.append(judgement(Item("box", self.clip_id, person_id), drawing([drawn[number]]), **how))
            said.append(judgement(Item("action", self.clip_id, person_id), {"actions": sorted(labels)}, **how))
        notes = [f"{self.clip_id}: {count} {what} were left out" for what, count in self._counts.items() if count]
        if recognised:
            notes.append(f"{self.clip_id}: {recognised} people without a person_id were recognised by their boxes")
        turned = sum(1 for box in self._root.iter("box") if float(box.get("rotation") or 0))
        if turned:
            notes.append(f"{self.clip_id}: {turned} turned boxes were read as the upright box around them")
        attributes = {a.get("name") or "" for track in tracks for a in track.iter("attribute") if text(a)}
        if other := sorted(a for a in attributes - {*_KNOWN_ATTRIBUTES} if not _ACTION_SLOT.fullmatch(a)):
            notes.append(f"{self.clip_id}: attributes of other names were left out: {', '.join(other)}")
        return TaskRows(boxes, actions, said, notes)

    def _number(self, name: str) -> int | None:
        value = _said(self._root, name)
        if value is None:
            return None
        if not _WHOLE.fullmatch(value):
            raise FormatError(f"{self._where}: {name} is {value[:40]!r}, not a number")
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
        return list(dict.fromkeys(parse_action(name, where, self._vocabulary) for name in names))

    def _keyframes(self, track: ET.Element) -> list[TrackBox]:
        """Return the key frames of a track while it is visible."""
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
        self._boxes_of_clip.add(keyframes, self._last)
        return keyframes

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
