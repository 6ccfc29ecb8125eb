"""One CVAT task (an `<annotations>` element) as rows of our tables."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter

from microg.data.ids import clip_id_of
from microg.errors import FormatError
from microg.formats.keyframes import TrackBox, box_rows, free_person_id, to_boxes, upright
from microg.formats.labelmap import parse_action
from microg.formats.xmltree import text

_ACTION_SLOT = re.compile(r"action(_[0-9]+)?")
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
        taken = set(known)
        boxes, actions = [], []
        for track, person_id in zip(tracks, stated, strict=True):
            person_id = free_person_id(taken) if person_id is None else person_id
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
                return clip_id_of(name, self._where, is_path=True)
            except FormatError:
                continue
        raise FormatError(
            f"{self._where}: none of {candidates} is a clip id", "name the task or its video like Apollo13_032"
        )

    def _number(self, place: str) -> int | None:
        value = text(self._root.find(place))
        if value is None:
            return None
        if not value.isdecimal():
            raise FormatError(f"{self._where}: {place} is {value!r}, not a number")
        return int(value)

    def _values(self, track: ET.Element, name: str) -> list[str]:
        return [text(a) or "" for a in track.iter("attribute") if a.get("name") == name]

    def _person_id(self, track: ET.Element) -> int | None:
        values = {value for value in self._values(track, "person_id") if value}
        if len(values) > 1 or not all(value.isdecimal() for value in values):
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
