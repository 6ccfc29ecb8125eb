"""Reading what Label Studio exports of a task: its clip, people, actions and texts, whoever made the project."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from microg.annotations.imports import annotator_name
from microg.annotations.rows import Annotation
from microg.data.ids import VIDEO_EXTENSIONS, clip_id_of, clip_name
from microg.data.vocabulary import Vocabulary
from microg.errors import FormatError
from microg.formats.keyframes import BoxCount, Track, TrackBox, box_rows, upright
from microg.formats.known_clips import KnownClips
from microg.formats.labelmap import parse_action
from microg.formats.labels import Labels
from microg.formats.labelstudio_answers import (
    CAPTION,
    QUESTIONS,
    SLOT,
    Answer,
    Content,
    dated,
    judgements_of,
    person_key,
    question_indices,
    questions_in,
    read_slots,
)
from microg.formats.same_people import People, frames_of, name_people

PERSON_ID, ACTIONS = "person_id", "actions"
_REGION = "videorectangle"
# Results that are no regions: what they say of a region or of the clip is read, or counted.
_VALUES = ("taxonomy", "choices", "number", "textarea", "labels", "rating", "pairwise", "datetime")
_NUMBERS = ("fps", "num_frames", "width", "height", "duration_s")
_DECIMALS = 6
_PERSON_REGION = re.compile(r"person-([0-9]{1,9})")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
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
    judgements: what all annotators said. The others are what the newest annotation of each task says.
    """

    def __init__(
        self,
        predictions: bool,
        labels: Labels,
        known: KnownClips,
        vocabulary: Vocabulary,
        annotators: Mapping[str, str],
    ) -> None:
        self._predictions, self._labels, self._known, self._vocabulary = predictions, labels, known, vocabulary
        self._annotators = annotators
        self.clips: dict[str, dict] = {}
        self.places: dict[str, str] = {}
        self.boxes: list[dict] = []
        self.actions: list[dict] = []
        self.entries: list[dict] = []
        self.judgements: list[Annotation] = []
        self._counts: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()

    def add(self, task: dict, where: str, named: str | None = None) -> None:
        """Read a task, whose clip the user may have `named`. Raises `FormatError` and what `named_entry` catches."""
        data = dict(task["data"])
        clip_id = self._clip_id(named or data.get("clip_id") or video_of(data), where)
        if clip_id in self.clips:
            raise FormatError(f"{where}: clip {clip_id} has another task already")
        answers = self._answers(task)
        if not answers:
            self._counts["tasks have no annotation and were left out (--predictions takes their pre-annotations)"] += 1
            return
        data |= {name: _number(data[name], f"{where}, {name}") for name in _NUMBERS if data.get(name)}
        self.clips[clip_id], self.places[clip_id] = data, where
        facts = data | self._known.about(clip_id)
        known = dict(self._known.content.people.get(clip_id, {}))
        contents = [self._content(clip_id, answer, facts, known, where) for answer in answers]
        indices = question_indices(
            questions_in(contents), data.get(QUESTIONS), self._known.content.questions.get(clip_id, {})
        )
        for answer, content in zip(answers, contents, strict=True):
            self.judgements += judgements_of(clip_id, answer, content, indices)
        newest = contents[-1]
        for region, person_id in newest.people.items():
            self.boxes += box_rows(clip_id, person_id, newest.tracks[region].boxes())
        self.actions += [{"clip_id": clip_id, "person_id": p, "action_id": a} for p, a in newest.actions]
        complete = [newest.slots[number] for number in sorted(newest.slots) if len(newest.slots[number]) == 2]
        self._counts["question slots lack the question or the answer and were left out"] += len(newest.slots) - len(
            complete
        )
        pairs = [{"Q": slot["question"], "A": slot["answer"]} for slot in complete]
        self.entries.append({"video_id": clip_id, "caption": newest.caption, "qa_pairs": pairs})

    def _content(self, clip_id: str, answer: Answer, facts: dict, known: People, where: str) -> Content:
        """Read an answer; people that are new in it become `known` for the next."""
        result, before = answer.result, self._known.content.drawn.get((clip_id, answer.annotator), {})
        people, count = self._people(result, where), BoxCount(where)
        tracks = {region: self._track(item["value"], facts, where, count) for region, item in people.items()}
        boxes = {region: track.boxes() for region, track in tracks.items()}
        ids, recognised = name_people(boxes, self._stated(people, result), before, known)
        self._counts["people without a number were recognised by their boxes"] += recognised
        for region, person_id in ids.items():
            known.setdefault(person_id, frames_of(boxes[region]))
        return Content(ids, tracks, self._actions(result, ids, where), *read_slots(result))

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

    def _answers(self, task: dict) -> list[Answer]:
        """Return what each annotator made of a task, the newest last: of one annotator the newest that counts."""
        finished = [each for each in task.get("annotations") or [] if not each.get("was_cancelled")]
        found: dict[str, Answer] = {}
        for each in finished:
            who = self._annotators[person_key(each)]
            made = Answer(who, "labelstudio", dated(each), each["result"])
            if who in found:
                self._counts["annotations are older ones of the same annotator and were passed over"] += 1
            if who not in found or made.time >= found[who].time:
                found.pop(who, None)  # of equally old ones the last in the file is the newest
                found[who] = made
        if found:
            several = "tasks have several annotations: the tables hold what the newest says"
            self._counts[several] += len(finished) > 1
            return sorted(found.values(), key=lambda answer: answer.time)
        stored = task.get("predictions") or []
        if not self._predictions or not stored:
            return []
        model = annotator_name(stored[-1].get("model_version"), "labelstudio-model")
        return [Answer(model, "model", dated(stored[-1]), stored[-1]["result"])]

    def _people(self, result: list[dict], where: str) -> dict[str, dict]:
        """Return the regions of people by the region's id."""
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
        return people

    def _stated(self, people: dict[str, dict], result: list[dict]) -> dict[str, int]:
        """Return the person ids that are stated, by the region's id."""
        stated: dict[str, int] = {}
        for item in result:
            if item["type"] == "number" and item["from_name"] == PERSON_ID:
                stated[item["id"]] = int(item["value"]["number"])
            elif item["type"] in ("number", "rating", "pairwise", "datetime") or _is_other_text(item):
                self._unread[item["from_name"]] += 1
        for region in people:
            named = _PERSON_REGION.fullmatch(region)
            if named and region not in stated:
                stated[region] = int(named[1])
        return {region: person_id for region, person_id in stated.items() if region in people}

    def _actions(self, result: list[dict], people: dict[str, int], where: str) -> list[tuple[int, int]]:
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
            found |= {(people[region], action): None for action in actions}
        return list(found)

    def _action(self, name: Any, control: str, where: str) -> int:
        try:
            return parse_action(str(name), f"{where}, control {control!r}", self._vocabulary)
        except FormatError as error:
            fix = f"{error.fix}; or leave the control out with --label '{control}=other'"
            raise FormatError(error.what, fix) from None

    def _track(self, value: dict, facts: dict, where: str, count: BoxCount) -> Track:
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
        return Track(track, last_frame)

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
    return item["type"] == "textarea" and item["from_name"] != CAPTION and not SLOT.fullmatch(item["from_name"])


def _converted(frame: int, ratio: float) -> int:
    """Return the clip's frame that is shown in the middle of the tool's; both count from 1."""
    return frame if ratio == 1 or frame < 1 else int((frame - 0.5) * ratio) + 1


def _number(value: Any, where: str) -> float | int:
    """Return a number of a task's data, which is text where tasks came from a table."""
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise FormatError(f"{where} is {value!r}, not a number")
    return int(number) if number.is_integer() and not isinstance(value, float) else number
