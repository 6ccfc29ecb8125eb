"""Label Studio video tasks: boxes with pre-annotations out, the finished export in.

A clip is a task, a person a `VideoRectangle` region whose sequence counts frames from 1, actions a per-region
taxonomy, the person id a per-region number, caption and questions text areas. Coordinates are percent of the frame
as full double precision; on reading they are multiplied back and rounded to a millionth of a pixel, so whole and
decimal pixel values come back exactly, and others within 5e-7 of a pixel. Equal boxes on consecutive frames are
written as the two key frames at their ends; `enabled: false` ends a visible stretch.
"""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import quoteattr

from microg import storage
from microg.data import schema, taxonomy
from microg.data.ids import VIDEO_EXTENSIONS, clip_id_of
from microg.data.places import external_allowed
from microg.errors import DatasetError, FormatError
from microg.formats import vqa_json
from microg.formats.base import (
    Annotations,
    FormatResult,
    actions_by_person,
    confidence_note,
    new_clips,
    to_json,
)
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

TABLES = frozenset({"boxes", "actions", "captions", "qa"})
_CLIP_COLUMNS = ("origin", "fps", "num_frames", "width", "height", "duration_s")
_DECIMALS = 6
_PERSON_REGION = re.compile(r"person-([0-9]{1,9})")


def write(
    annotations: Annotations, path: str, *, copy_videos: bool = False, video_prefix: str | None = None
) -> list[str]:
    """Write `tasks.json` (boxes, actions and texts as predictions) and `labeling_config.xml` under `path`.

    A task's video is `video_prefix` + `{clip_id}.mp4` when given, else where the clip's video lies. Raises
    `DatasetError` when the frame size of a clip with boxes is unknown.
    """
    notes = confidence_note(annotations.table("boxes"), "labelstudio")
    copied: dict[str, str] = {}
    if copy_videos:
        copied, more = copy_clips(annotations, storage.join(path, "videos"))
        notes += more
    actions, more = actions_by_person(annotations.table("actions"))
    entries, vqa_notes = vqa_json.items(annotations.table("captions"), annotations.table("qa"))
    texts = {entry["video_id"]: entry for entry in entries}
    boxes, repeated = tracks(annotations.table("boxes"))
    if repeated:
        notes.append(f"{repeated} boxes of a person that has another box on the same frame were not written")
    tasks, unboxed = [], 0
    for number, row in enumerate(annotations.clips(), 1):
        clip_id = row["clip_id"]
        people = boxes.get(clip_id, {})
        unboxed += sum(1 for person_id in actions.get(clip_id, {}) if person_id not in people)
        uri = copied.get(clip_id) or (annotations.resolve(row["uri"], clip_id) if row["uri"] else None)
        video = f"{video_prefix}{clip_id}.mp4" if video_prefix is not None else uri or f"{clip_id}.mp4"
        data = {"video": video, "clip_id": clip_id, **{c: row[c] for c in _CLIP_COLUMNS if row[c] is not None}}
        data.setdefault("fps", 30.0)  # the labeling config reads $fps for every task
        result: list[dict] = []
        for person_id, track in people.items():
            result += _region(row, person_id, track, actions.get(clip_id, {}).get(person_id, []))
        result += text_results(texts.get(clip_id, {}))
        tasks.append({"id": number, "data": data, "predictions": [{"model_version": "microg", "result": result}]})
    if unboxed:
        notes.append(f"labelstudio labels boxes: the actions of {unboxed} persons without boxes were not written")
    pairs = max((len(entry["qa_pairs"]) for entry in entries), default=0)
    storage.write_bytes(storage.join(path, "tasks.json"), to_json(tasks, storage.join(path, "tasks.json"), indent=1))
    storage.write_bytes(storage.join(path, "labeling_config.xml"), labeling_config(pairs).encode())
    return notes + more + vqa_notes


def read(path: str, *, predictions: bool = False) -> FormatResult:
    """Read a Label Studio JSON export (a file, or a folder with `tasks.json`) into `clips`, `boxes`, `actions`,
    `captions` and `qa`.

    Of each task the newest annotation that was not cancelled counts; a task without one is left out, unless
    `predictions` asks for its pre-annotations. Frames between enabled key frames are interpolated linearly; a region
    that is never disabled is held until the last frame. Regions that are turned become the upright box around them.
    Raises `FormatError` for another kind of export, and when the frame size cannot be known.
    """
    file = path if path.endswith(".json") else storage.join(path, "tasks.json")
    if not storage.exists(file):
        raise FormatError(f"{file} is not there")
    tasks = storage.read_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise FormatError(f"{file} is not a Label Studio export", "export the project as JSON (not JSON-MIN or CSV)")
    reader = _Reader(file, predictions)
    for number, task in enumerate(tasks, 1):
        try:
            reader.add(task, f"{file}, task {task.get('id', number)}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{file}, task {task.get('id', number)}: {type(error).__name__}: {error}") from error
    columns = {name: [data.get(name) for data in reader.clips.values()] for name in _CLIP_COLUMNS}
    columns["uri"] = [_uri(data) if external_allowed() else None for data in reader.clips.values()]
    named = sum(bool(data.get("video")) for data in reader.clips.values())
    notes = reader.notes()
    if named and not external_allowed():
        notes.append(f"the paths of videos in {named} tasks were left out: give --videos, or --allow-external")
    captions, qa = vqa_json.tables(reader.entries, file)
    tables = {
        "clips": new_clips(reader.clips, **columns),
        "boxes": schema.from_rows("boxes", reader.boxes),
        "actions": schema.from_rows("actions", reader.actions),
        "captions": captions,
        "qa": qa,
    }
    return FormatResult(tables, notes)


class _Reader:
    """Gathers rows task by task."""

    def __init__(self, file: str, predictions: bool) -> None:
        self._predictions = predictions
        self.clips: dict[str, dict] = {}
        self.boxes: list[dict] = []
        self.actions: list[dict] = []
        self.entries: list[dict] = []
        self._counts = dict.fromkeys(("unfinished", "several", "turned", "other", "incomplete"), 0)

    def add(self, task: dict, where: str) -> None:
        data = task["data"]
        clip_id = clip_id_of(data.get("clip_id") or data["video"], where)
        if clip_id in self.clips:
            raise FormatError(f"{where}: clip {clip_id} has another task already")
        result = self._chosen(task)
        if result is None:
            self._counts["unfinished"] += 1
            return
        self.clips[clip_id] = data
        regions = [item for item in result if item["type"] == "videorectangle"]
        people = self._person_ids(regions, result)
        count, labels_of = BoxCount(where), region_labels(result)
        for region in regions:
            if not set(region["value"].get("labels") or [PERSON]) & {PERSON}:
                self._counts["other"] += 1
                continue
            person_id = people[region["id"]]
            self.boxes += box_rows(clip_id, person_id, self._track(region["value"], data, where, count))
            labels = dict.fromkeys(parse_action(name, where) for name in labels_of.get(region["id"], ()))
            self.actions += [{"clip_id": clip_id, "person_id": person_id, "action_id": label} for label in labels]
        entry, incomplete = read_texts(result)
        self._counts["incomplete"] += incomplete
        self.entries.append({"video_id": clip_id, **entry})

    def notes(self) -> list[str]:
        texts = {
            "unfinished": "tasks have no annotation and were left out (--predictions takes their pre-annotations)",
            "several": "tasks have several annotations: the newest of each was taken",
            "turned": "turned key frames were read as the upright box around them",
            "other": "regions with another label than 'person' were left out",
            "incomplete": "question slots lack the question or the answer and were left out",
        }
        return [f"{count} {texts[name]}" for name, count in self._counts.items() if count]

    def _chosen(self, task: dict) -> list[dict] | None:
        finished = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
        if finished:
            self._counts["several"] += len(finished) > 1
            return max(enumerate(finished), key=lambda pair: (str(pair[1].get("updated_at") or ""), pair[0]))[1][
                "result"
            ]
        stored = task.get("predictions") or []
        return stored[-1]["result"] if self._predictions and stored else None

    def _person_ids(self, regions: list[dict], result: list[dict]) -> dict[str, int]:
        stated = {item["id"]: int(item["value"]["number"]) for item in result if item["from_name"] == PERSON_ID}
        for region in regions:
            named = _PERSON_REGION.fullmatch(region["id"])
            if named and region["id"] not in stated:
                stated[region["id"]] = int(named[1])
        free = free_person_ids(set(stated.values()))
        return {r["id"]: stated[r["id"]] if r["id"] in stated else next(free) for r in regions}

    def _track(self, value: dict, data: dict, where: str, count: BoxCount) -> list[TrackBox]:
        width, height = data.get("width"), data.get("height")
        if not width or not height:
            raise FormatError(f"{where}: the frame size is unknown", "the task's data must hold width and height")
        keyframes = []
        for item in sorted(value["sequence"], key=lambda item: item["frame"]):
            x, y = item["x"] / 100 * width, item["y"] / 100 * height
            corners = (x, y, (item["x"] + item["width"]) / 100 * width, (item["y"] + item["height"]) / 100 * height)
            self._counts["turned"] += bool(item.get("rotation"))
            # Label Studio turns a rectangle about its top left corner.
            corners = upright(corners, item.get("rotation") or 0, (x, y))
            rounded = (round(corner, _DECIMALS) for corner in corners)
            keyframes.append(TrackBox(int(item["frame"]), *rounded, ends=not item.get("enabled", True)))
        last_frame = int(data.get("num_frames") or value.get("framesCount") or 0) or None
        count.add(keyframes, last_frame)
        return to_boxes(keyframes, last_frame)


def _region(row: dict, person_id: int, track: list[TrackBox], actions: list[int]) -> list[dict]:
    width, height, fps = row["width"], row["height"], row["fps"]
    if not width or not height:
        raise DatasetError(
            f"the frame size of {row['clip_id']} is unknown: Label Studio wants percent of it",
            "import the dataset with its videos, or fill in width and height in table 'clips'",
        )
    sequence = []
    for box in to_keyframes(track):
        x, y = 100 * box.x1 / width, 100 * box.y1 / height
        item: dict[str, Any] = {"frame": box.frame, "enabled": not box.ends, "rotation": 0, "x": x, "y": y}
        item |= {"width": 100 * box.x2 / width - x, "height": 100 * box.y2 / height - y}
        sequence.append(item | ({"time": box.frame / fps} if fps else {}))
    value: dict[str, Any] = {"sequence": sequence, "labels": [PERSON]}
    if row["num_frames"]:
        value["framesCount"] = row["num_frames"]
    if row["duration_s"]:
        value["duration"] = row["duration_s"]
    return region_results(person_id, value, actions)


def _uri(data: dict) -> str | None:
    """Return the task's video where it can be opened from here: an existing file, or an object store."""
    video = str(data.get("video") or "")
    if not video.lower().endswith(VIDEO_EXTENSIONS):  # an export must not make us copy any other file about
        return None
    if video.startswith(("s3://", "gs://")):
        return video
    local = storage.is_local(video) and video.startswith(("/", "file://"))
    return video if local and storage.local_path(video).is_file() else None


PERSON = "person"
PERSON_ID = "person_id"
_ACTIONS, _CAPTION, _BOX, _VIDEO = "actions", "caption", "box", "video"
_SLOT = re.compile(r"(question|answer)_([0-9]{1,4})")
_MIN_PAIRS = 6  # the published number of questions a clip


def labeling_config(pairs: int) -> str:
    """Return the labeling config (XML) with room for `pairs` questions, at least six."""
    lines = [
        "<View>",
        f'  <Labels name="label" toName="{_VIDEO}"><Label value="{PERSON}" background="#1f77b4"/></Labels>',
        f'  <Video name="{_VIDEO}" value="$video" framerate="$fps" height="480"/>',
        f'  <VideoRectangle name="{_BOX}" toName="{_VIDEO}"/>',
        '  <View visibleWhen="region-selected">',
        '    <Header value="Person number" size="5"/>',
        f'    <Number name="{PERSON_ID}" toName="{_VIDEO}" perRegion="true" min="0" step="1"/>',
        '    <Header value="Actions of this person (all that apply)" size="5"/>',
        f'    <Taxonomy name="{_ACTIONS}" toName="{_VIDEO}" perRegion="true" leafsOnly="true">',
    ]
    for group in taxonomy.GROUPS:
        lines.append(f"      <Choice value={quoteattr(taxonomy.GROUP_NAMES[group])}>")
        for action in taxonomy.ACTIONS:
            if action.group == group:
                lines.append(f"        <Choice value={quoteattr(action_label(action.id))}/>")
        lines.append("      </Choice>")
    lines += ["    </Taxonomy>", "  </View>", '  <Header value="Caption" size="5"/>']
    lines.append(f'  <TextArea name="{_CAPTION}" toName="{_VIDEO}" rows="4" editable="true" maxSubmissions="1"/>')
    for number in range(1, max(pairs, _MIN_PAIRS) + 1):
        lines.append(f'  <Header value="Question and answer {number}" size="6"/>')
        for part in ("question", "answer"):
            lines.append(f'  <TextArea name="{part}_{number}" toName="{_VIDEO}" editable="true" maxSubmissions="1"/>')
    return "\n".join([*lines, "</View>", ""])


def region_results(person_id: int, value: dict[str, Any], actions: list[int]) -> list[dict]:
    """Return the results of one person: the rectangle, its number and its actions, all with the region's id."""
    region = f"person-{person_id}"
    common = {"id": region, "to_name": _VIDEO, "origin": "prediction"}
    paths = [[taxonomy.GROUP_NAMES[taxonomy.action(a).group], action_label(a)] for a in actions]
    results = [
        {**common, "from_name": _BOX, "type": "videorectangle", "value": value},
        {**common, "from_name": PERSON_ID, "type": "number", "value": {"number": person_id}},
    ]
    if paths:
        results.append({**common, "from_name": _ACTIONS, "type": "taxonomy", "value": {"taxonomy": paths}})
    return results


def text_results(entry: dict[str, Any]) -> list[dict]:
    """Return the text area results of {caption, qa_pairs: [{Q, A}]}."""
    named = [] if entry.get("caption") is None else [(_CAPTION, entry["caption"])]
    for number, pair in enumerate(entry.get("qa_pairs", []), 1):
        named += [(f"question_{number}", pair["Q"]), (f"answer_{number}", pair["A"])]
    return [
        {"id": name, "from_name": name, "to_name": _VIDEO, "type": "textarea", "value": {"text": [text]}}
        for name, text in named
    ]


def region_labels(result: list[dict]) -> dict[str, list[str]]:
    """Return the action labels by region, from a taxonomy (the last name of each path) or from choices."""
    labels: dict[str, list[str]] = {}
    for item in result:
        if item["type"] == "taxonomy":
            labels.setdefault(item["id"], []).extend(path[-1] for path in item["value"]["taxonomy"])
        elif item["type"] == "choices":
            labels.setdefault(item["id"], []).extend(item["value"]["choices"])
    return labels


def read_texts(result: list[dict]) -> tuple[dict[str, Any], int]:
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
    return {"caption": texts.get(_CAPTION), "qa_pairs": pairs}, len(slots) - len(complete)
