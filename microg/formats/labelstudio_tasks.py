"""Reading what Label Studio exports of a task: its clip, people, actions and texts, whoever made the project."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from microg.data.ids import VIDEO_EXTENSIONS, clip_id_of, clip_name
from microg.data.vocabulary import Vocabulary
from microg.errors import FormatError
from microg.formats.keyframes import BoxCount, TrackBox, box_rows, free_person_ids, to_boxes, upright
from microg.formats.known_clips import KnownClips
from microg.formats.labelmap import parse_action
from microg.formats.labels import Labels

PERSON_ID, ACTIONS, CAPTION = "person_id", "actions", "caption"
_REGION = "videorectangle"
# Results that are no regions: what they say of a region or of the clip is read, or counted.
_VALUES = ("taxonomy", "choices", "number", "textarea", "labels", "rating", "pairwise", "datetime")
_NUMBERS = ("fps", "num_frames", "width", "height", "duration_s")
_DECIMALS = 6
_PERSON_REGION = re.compile(r"person-([0-9]{1,9})")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_SLOT = re.compile(r"(question|answer)_([0-9]{1,4})")
_SAME_RATE = 0.01  # 29.97 and 30, 23.976 and 24


def video_of(data: dict) -> str | None:
    """Return a task's video: what its data call `video`, else the first value that is named like one."""
    values = [data.get("video"), *(value for name, value in data.items() if name != "video")]
    for value in values:
        text = str(value.get("url") or "") if isinstance(value, dict) else value
        if isinstance(text, str) and text and (value is data.get("video") or text.lower().endswith(VIDEO_EXTENSIONS)):
            return text
    return None


class TaskReader:
    """Gathers rows task by task.

    clips: each clip's data, by id. places: where its task stands. boxes, actions: rows of the tables. entries: texts.
    """

    def __init__(self, predictions: bool, labels: Labels, known: KnownClips, vocabulary: Vocabulary) -> None:
        self._predictions, self._labels, self._known, self._vocabulary = predictions, labels, known, vocabulary
        self.clips: dict[str, dict] = {}
        self.places: dict[str, str] = {}
        self.boxes: list[dict] = []
        self.actions: list[dict] = []
        self.entries: list[dict] = []
        self._counts: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def add(self, task: dict, where: str, named: str | None = None) -> None:
        """Read a task, whose clip the user may have `named`. Raises `FormatError` and what `named_entry` catches."""
        data = dict(task["data"])
        clip_id = self._clip_id(named or data.get("clip_id") or video_of(data), where)
        if clip_id in self.clips:
            raise FormatError(f"{where}: clip {clip_id} has another task already")
        result = self._chosen(task)
        if result is None:
            self._counts["tasks have no annotation and were left out (--predictions takes their pre-annotations)"] += 1
            return
        data |= {name: _number(data[name], f"{where}, {name}") for name in _NUMBERS if data.get(name)}
        self.clips[clip_id], self.places[clip_id] = data, where
        people = self._people(result, where)
        facts = data | self._known.about(clip_id)
        count = BoxCount(where)
        for region, person_id in people.values():
            self.boxes += box_rows(clip_id, person_id, self._track(region["value"], facts, where, count))
        labels = self._actions(result, people, where)
        self.actions += [{"clip_id": clip_id, "person_id": p, "action_id": a} for p, a in labels]
        entry, incomplete = read_texts(result)
        self._counts["question slots lack the question or the answer and were left out"] += incomplete
        self.entries.append({"video_id": clip_id, **entry})

    def notes(self) -> list[str]:
        """Return what was assumed or left out."""
        return [
            *(f"{count} {text}" for text, count in self._counts.items() if count),
            *(f"{count} values of the control {name!r} were left out" for name, count in self._unread.items()),
        ]

    def _clip_id(self, name: Any, where: str) -> str:
        if not name:
            raise FormatError(f"{where}: its data name no video and no clip", "name the clip with --clip-id")
        url = urlsplit(str(name))
        served = parse_qs(url.query).get("d")  # Label Studio's local files
        stem = clip_name(served[0] if served else url.path if url.scheme and url.netloc else str(name))
        uploaded = _UPLOADED.fullmatch(stem)
        if uploaded and stem not in self._known and (uploaded[1] in self._known or "/upload/" in str(name)):
            self._counts["clips were named without the prefix that Label Studio gives to uploaded files"] += 1
            stem = uploaded[1]
        return clip_id_of(stem, where)

    def _chosen(self, task: dict) -> list[dict] | None:
        finished = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
        if finished:
            self._counts["tasks have several annotations: the newest of each was taken"] += len(finished) > 1
            dated = enumerate(finished)
            return max(dated, key=lambda pair: (str(pair[1].get("updated_at") or ""), pair[0]))[1]["result"]
        stored = task.get("predictions") or []
        return stored[-1]["result"] if self._predictions and stored else None

    def _people(self, result: list[dict], where: str) -> dict[str, tuple[dict, int]]:
        """Return the regions of people with their person ids, by the region's id."""
        names: dict[str, list[str]] = {}
        others: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for item in result:
            if item["type"] == "labels":
                names.setdefault(item["id"], []).extend(item["value"].get("labels") or [])
            elif item["type"] == "relation":
                self._counts["relations between regions were passed over"] += 1
            elif item["type"] != _REGION and item["type"] not in _VALUES:
                kinds[item["type"]] += 1
        people = {}
        for item in result:
            if item["type"] != _REGION:
                continue
            labels = [*(item["value"].get("labels") or []), *names.get(item["id"], [])]
            if not labels or any(self._labels.is_person(label) for label in labels):
                people[item["id"]] = item
            else:
                others[str(labels[0])] += 1
        self._counts["regions with another label than 'person' were left out"] += others.total()
        self._counts["regions of other kinds than boxes in videos were left out"] += kinds.total()
        self._labels.refuse_loss(where, len(people), others + kinds)
        ids = self._person_ids(people, result)
        return {region: (item, ids[region]) for region, item in people.items()}

    def _person_ids(self, people: dict[str, dict], result: list[dict]) -> dict[str, int]:
        stated = {}
        for item in result:
            if item["type"] == "number" and item["from_name"] == PERSON_ID:
                stated[item["id"]] = int(item["value"]["number"])
            elif item["type"] in ("number", "rating", "pairwise", "datetime") or _is_other_text(item):
                self._unread[item["from_name"]] += 1
        for region in people:
            named = _PERSON_REGION.fullmatch(region)
            if named and region not in stated:
                stated[region] = int(named[1])
        free = free_person_ids(set(stated.values()))
        return {region: stated[region] if region in stated else next(free) for region in people}

    def _actions(self, result: list[dict], people: dict[str, tuple[dict, int]], where: str) -> list[tuple[int, int]]:
        """Return (person, action) of taxonomies, by the last name of each path, and of choices, each once."""
        found: dict[tuple[int, int], None] = {}
        regions = {item["id"] for item in result if item["type"] == _REGION}
        for item in result:
            if item["type"] == "taxonomy":
                names = [path[-1] for path in item["value"]["taxonomy"]]
            elif item["type"] == "choices":
                names = item["value"]["choices"]
            else:
                continue
            control = item["from_name"]
            if self._labels.is_other(control) or (item["id"] in regions and item["id"] not in people):
                self._unread[control] += 1
                continue
            actions = [self._action(name, control, where) for name in names]
            if item["id"] not in regions and len(people) != 1:
                raise FormatError(
                    f"{where}: control {control!r} says {', '.join(map(str, names))} of the whole clip, which has "
                    f"{len(people)} people",
                    f"make it perRegion, or leave it out with --label '{control}=other'",
                )
            region = item["id"] if item["id"] in regions else next(iter(people))
            found |= {(people[region][1], action): None for action in actions}
        return list(found)

    def _action(self, name: Any, control: str, where: str) -> int:
        try:
            return parse_action(str(name), f"{where}, control {control!r}", self._vocabulary)
        except FormatError as error:
            fix = f"{error.fix}; or leave the control out with --label '{control}=other'"
            raise FormatError(error.what, fix) from None

    def _track(self, value: dict, facts: dict, where: str, count: BoxCount) -> list[TrackBox]:
        width, height = facts.get("width"), facts.get("height")
        if not width or not height:
            raise FormatError(
                f"{where}: the frame size is unknown", "give --videos; or the task's data must hold width and height"
            )
        keyframes: dict[int, TrackBox] = {}
        ratio = self._ratio(value, facts)
        shown = int(value.get("framesCount") or 0)
        last_frame = int(facts.get("num_frames") or _converted(shown, ratio) or 0) or None
        for item in sorted(value["sequence"], key=lambda item: item["frame"]):
            x, y = item["x"] / 100 * width, item["y"] / 100 * height
            corners = (x, y, (item["x"] + item["width"]) / 100 * width, (item["y"] + item["height"]) / 100 * height)
            self._counts["turned key frames were read as the upright box around them"] += bool(item.get("rotation"))
            # Label Studio turns a rectangle about its top left corner.
            corners = upright(corners, item.get("rotation") or 0, (x, y))
            rounded = (round(corner, _DECIMALS) for corner in corners)
            frame = _converted(int(item["frame"]), ratio)
            if ratio != 1 and last_frame and item["frame"] <= shown:
                frame = min(frame, last_frame)
            keyframes[frame] = TrackBox(frame, *rounded, ends=not item.get("enabled", True))
        track = list(keyframes.values())
        count.add(track, last_frame)
        return to_boxes(track, last_frame)

    def _ratio(self, value: dict, facts: dict) -> float:
        """Return how many frames the clip has for each that the tool counted."""
        frames, seconds = value.get("framesCount"), value.get("duration")
        if frames and frames == facts.get("num_frames"):
            return 1.0
        stated = [(item["frame"], item["time"]) for item in value["sequence"] if item.get("time")]
        tool = frames / seconds if frames and seconds else max(stated)[0] / max(stated)[1] if stated else None
        length, duration = facts.get("num_frames"), facts.get("duration_s")
        rate = facts.get("fps") or (length / duration if length and duration else None)
        if rate is None or tool is None:
            unknown = "regions are of clips of unknown frame rate: their frames were taken as they are (give --videos)"
            self._counts[unknown] += tool is not None
            return 1.0
        if abs(tool / rate - 1) <= max(_SAME_RATE, 1 / (frames or 100)):
            return 1.0
        said = f"regions were counted at {tool:.5g} frames a second, not the clip's {rate:.5g}: converted by time"
        self._counts[said] += 1
        return rate / tool


def _is_other_text(item: dict) -> bool:
    return item["type"] == "textarea" and item["from_name"] != CAPTION and not _SLOT.fullmatch(item["from_name"])


def _converted(frame: int, ratio: float) -> int:
    """Return the clip's frame that is shown in the middle of the tool's; both count from 1."""
    return frame if ratio == 1 or frame < 1 else int((frame - 0.5) * ratio) + 1


def _number(value: Any, where: str) -> float | int:
    """Return a number of a task's data, which is text where tasks came from a table."""
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise FormatError(f"{where} is {value!r}, not a number")
    return int(number) if number.is_integer() and not isinstance(value, float) else number


def read_texts(result: Sequence[dict]) -> tuple[dict[str, Any], int]:
    """Return {caption, qa_pairs} of a task's results, and how many question slots lack one of their halves."""
    texts: dict[str, str] = {}
    for item in result:
        if item["type"] == "textarea":
            text = item["value"]["text"]
            texts[item["from_name"]] = "\n".join(text) if isinstance(text, list) else str(text)
    slots: dict[int, dict[str, str]] = {}
    for name, text in texts.items():
        match = _SLOT.fullmatch(name)
        if match:
            slots.setdefault(int(match[2]), {})[match[1]] = text
    complete = [slots[number] for number in sorted(slots) if len(slots[number]) == 2]
    pairs = [{"Q": slot["question"], "A": slot["answer"]} for slot in complete]
    return {"caption": texts.get(CAPTION), "qa_pairs": pairs}, len(slots) - len(complete)
