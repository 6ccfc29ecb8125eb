"""Label Studio video tasks: boxes with pre-annotations out, the finished export in.

A clip is a task, a person a `VideoRectangle` region whose sequence counts frames from 1, actions a per-region
taxonomy, the person id a per-region number, caption and questions text areas. Coordinates are percent of the frame
as full double precision; on reading they are multiplied back and rounded to a millionth of a pixel, so whole and
decimal pixel values come back exactly, and others within 5e-7 of a pixel. Equal boxes on consecutive frames are
written as the two key frames at their ends; `enabled: false` ends a visible stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from microg import storage
from microg.data import schema
from microg.data.ids import VIDEO_EXTENSIONS
from microg.data.places import external_allowed
from microg.data.taxonomy import group_name
from microg.data.vocabulary import MICROG_VOCABULARY, OwnAction, Vocabulary
from microg.errors import DatasetError, FormatError
from microg.formats import vqa_json
from microg.formats.base import (
    Annotations,
    FormatResult,
    actions_by_person,
    confidence_note,
    named_entry,
    new_clips,
    to_json,
)
from microg.formats.keyframes import TrackBox, to_keyframes, tracks
from microg.formats.known_clips import KnownClips
from microg.formats.labels import PERSON, Labels
from microg.formats.labelstudio_answers import CAPTION, QUESTIONS, annotators_of
from microg.formats.labelstudio_tasks import ACTIONS, PERSON_ID, TaskReader, video_of
from microg.formats.video_files import copy_videos as copy_clips

TABLES = frozenset({"boxes", "actions", "captions", "qa"})
_CLIP_COLUMNS = ("origin", "fps", "num_frames", "width", "height", "duration_s")


def write(
    annotations: Annotations, path: str, *, copy_videos: bool = False, video_prefix: str | None = None
) -> list[str]:
    """Write `tasks.json` (boxes, actions and texts as predictions) and `labeling_config.xml` under `path`.

    A task's data have the indices of its questions. A task's video is `video_prefix` + `{clip_id}.mp4` when given, else
    where the clip's video lies. Raises `DatasetError` when the frame size of a clip with boxes is unknown.
    """
    notes = confidence_note(annotations.table("boxes"), "labelstudio")
    copied: dict[str, str] = {}
    if copy_videos:
        copied, more = copy_clips(annotations, storage.join(path, "videos"))
        notes += more
    actions, more = actions_by_person(annotations.table("actions"))
    entries, vqa_notes = vqa_json.items(annotations.table("captions"), annotations.table("qa"))
    texts = {entry["video_id"]: entry for entry in entries}
    indices: dict[str, list[int]] = {}
    for question in annotations.table("qa").sort_by("qa_index").to_pylist():
        indices.setdefault(question["clip_id"], []).append(question["qa_index"])
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
        if clip_id in indices:
            data[QUESTIONS] = indices[clip_id]
        data.setdefault("fps", 30.0)  # the labeling config reads $fps for every task
        result: list[dict] = []
        for person_id, track in people.items():
            labels = [annotations.vocabulary.action(each) for each in actions.get(clip_id, {}).get(person_id, [])]
            result += _region(row, person_id, track, labels)
        result += text_results(texts.get(clip_id, {}))
        tasks.append({"id": number, "data": data, "predictions": [{"model_version": "microg", "result": result}]})
    if unboxed:
        notes.append(f"labelstudio labels boxes: the actions of {unboxed} persons without boxes were not written")
    pairs = max((len(entry["qa_pairs"]) for entry in entries), default=0)
    storage.write_bytes(storage.join(path, "tasks.json"), to_json(tasks, storage.join(path, "tasks.json"), indent=1))
    config = labeling_config(pairs, annotations.vocabulary)
    storage.write_bytes(storage.join(path, "labeling_config.xml"), config.encode())
    return notes + more + vqa_notes


def read(
    path: str,
    *,
    predictions: bool = False,
    label: Sequence[str] = (),
    clip_id: str | None = None,
    known: KnownClips | None = None,
    vocabulary: Vocabulary = MICROG_VOCABULARY,
) -> FormatResult:
    """Read a Label Studio JSON export (a file, or a folder with `tasks.json`) into `clips`, `boxes`, `actions`,
    `captions` and `qa`.

    Each annotation that was not cancelled becomes judgements of who completed it; the tables hold what the newest of
    each task says. A task without one is left out, unless `predictions` asks for its pre-annotations, which become a
    model's. People without a number are those of the `known` clip, or of an older annotation, whose boxes they have.

    Frames between enabled key frames are interpolated linearly; a region that is never disabled is held until the last
    frame. Regions that are turned become the upright box around them. Frame rates and sizes of `known` clips count more
    than what tasks say; frames of a tool that counted at another rate are converted by time. `label` says what labels,
    and controls, mean (`microg.formats.labels`); `clip_id` names the clip of a single task.

    Raises `FormatError` for another kind of export, when the frame size cannot be known, and for a task that has
    regions of which none would be read.
    """
    file = path if path.endswith(".json") else storage.join(path, "tasks.json")
    if not storage.exists(file):
        raise FormatError(f"{file} is not there")
    tasks = storage.read_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise FormatError(f"{file} is not a Label Studio export", "export the project as JSON (not JSON-MIN or CSV)")
    if clip_id is not None and len(tasks) != 1:
        raise FormatError(f"{file} holds {len(tasks)} tasks, and --clip-id {clip_id} names one", "leave it out")
    with named_entry(file):
        annotators = annotators_of(tasks)
    reader = TaskReader(predictions, Labels.parse(label), known or KnownClips(), vocabulary, annotators)
    for number, task in enumerate(tasks, 1):
        where = f"{file}, task {task.get('id', number)}"
        with named_entry(where):
            reader.add(task, where, clip_id)
    columns = {name: [data.get(name) for data in reader.clips.values()] for name in _CLIP_COLUMNS}
    columns["uri"] = [_uri(data) if external_allowed() else None for data in reader.clips.values()]
    named = sum(bool(video_of(data)) for data in reader.clips.values())
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
    return FormatResult(tables, notes, files=reader.places, annotations=reader.judgements)


def _region(row: dict, person_id: int, track: list[TrackBox], actions: Sequence[OwnAction]) -> list[dict]:
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
    video = video_of(data) or ""
    if not video.lower().endswith(VIDEO_EXTENSIONS):  # an export must not make us copy any other file about
        return None
    if video.startswith(("s3://", "gs://")):
        return video
    local = storage.is_local(video) and video.startswith(("/", "file://"))
    return video if local and storage.local_path(video).is_file() else None


_BOX, _VIDEO = "box", "video"
_MIN_PAIRS = 6  # the published number of questions a clip


def labeling_config(pairs: int, vocabulary: Vocabulary) -> str:
    """Return the labeling config (XML) with a vocabulary's actions and room for `pairs` questions, at least six.

    What actions mean is shown where the mouse rests on them.
    """
    lines = [
        "<View>",
        f'  <Labels name="label" toName="{_VIDEO}"><Label value="{PERSON}" background="#1f77b4"/></Labels>',
        f'  <Video name="{_VIDEO}" value="$video" framerate="$fps" height="480"/>',
        f'  <VideoRectangle name="{_BOX}" toName="{_VIDEO}"/>',
        '  <View visibleWhen="region-selected">',
        '    <Header value="Person number" size="5"/>',
        f'    <Number name="{PERSON_ID}" toName="{_VIDEO}" perRegion="true" min="0" step="1"/>',
        '    <Header value="Actions of this person (all that apply)" size="5"/>',
        f'    <Taxonomy name="{ACTIONS}" toName="{_VIDEO}" perRegion="true" leafsOnly="true">',
    ]
    for group in vocabulary.groups:
        inside = [_choice(action) for action in vocabulary.actions if action.group == group]
        if group:
            title = quoteattr(group_name(group))
            inside = [f"<Choice value={title}>", *(f"  {line}" for line in inside), "</Choice>"]
        lines += [f"      {line}" for line in inside]
    lines += ["    </Taxonomy>", "  </View>", '  <Header value="Caption" size="5"/>']
    lines.append(f'  <TextArea name="{CAPTION}" toName="{_VIDEO}" rows="4" editable="true" maxSubmissions="1"/>')
    for number in range(1, max(pairs, _MIN_PAIRS) + 1):
        lines.append(f'  <Header value="Question and answer {number}" size="6"/>')
        for part in ("question", "answer"):
            lines.append(f'  <TextArea name="{part}_{number}" toName="{_VIDEO}" editable="true" maxSubmissions="1"/>')
    return "\n".join([*lines, "</View>", ""])


def _choice(action: OwnAction) -> str:
    hint = f" hint={quoteattr(action.help)}" if action.help else ""
    return f"<Choice value={quoteattr(action.label)}{hint}/>"


def region_results(person_id: int, value: dict[str, Any], actions: Sequence[OwnAction]) -> list[dict]:
    """Return the results of one person: the rectangle, its number and its actions, all with the region's id."""
    region = f"person-{person_id}"
    common = {"id": region, "to_name": _VIDEO, "origin": "prediction"}
    paths = [[*([action.group_name] if action.group else []), action.label] for action in actions]
    results = [
        {**common, "from_name": _BOX, "type": "videorectangle", "value": value},
        {**common, "from_name": PERSON_ID, "type": "number", "value": {"number": person_id}},
    ]
    if paths:
        results.append({**common, "from_name": ACTIONS, "type": "taxonomy", "value": {"taxonomy": paths}})
    return results


def text_results(entry: dict[str, Any]) -> list[dict]:
    """Return the text area results of {caption, qa_pairs: [{Q, A}]}."""
    named = [] if entry.get("caption") is None else [(CAPTION, entry["caption"])]
    for number, pair in enumerate(entry.get("qa_pairs", []), 1):
        named += [(f"question_{number}", pair["Q"]), (f"answer_{number}", pair["A"])]
    return [
        {"id": name, "from_name": name, "to_name": _VIDEO, "type": "textarea", "value": {"text": [text]}}
        for name, text in named
    ]
