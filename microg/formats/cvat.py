"""CVAT for video 1.1: one XML file a clip, out as `annotations/{clip_id}.xml`, in from XML files or CVAT's zip files.

A person is a track labelled `person`; frames count from 0; coordinates are pixels, written as exact decimals (CVAT
itself exports two decimals). Actions are the select attributes `action_1` ... `action_5` (more when a person has
more), the person id and the box confidence are text attributes. Equal boxes on consecutive frames are written as the
two key frames at their ends, and a box with `outside="1"` follows the last frame of each visible stretch.
"""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from microg import storage
from microg.annotations.rows import Annotation, check_person
from microg.data import schema
from microg.data.vocabulary import MICROG_VOCABULARY, Vocabulary
from microg.errors import FormatError
from microg.escaping import markdown_text
from microg.formats import xmltree
from microg.formats.base import Annotations, FormatResult, actions_by_person, new_clips
from microg.formats.cvat_tasks import TaskReader, clip_of
from microg.formats.keyframes import (
    TrackBox,
    to_keyframes,
    tracks,
)
from microg.formats.known_clips import KnownClips
from microg.formats.labels import Labels
from microg.formats.video_files import copy_videos as copy_clips
from microg.reading import DAMAGED_ZIP, check_expansion, is_mac_leftover

TABLES = frozenset({"boxes", "actions"})
_MIN_SLOTS = 5  # the published limit of actions a person
_NO_ACTION = "none"


@dataclass(frozen=True)
class _Labelling:
    """What people may be labelled with, and how many actions a person may have."""

    vocabulary: Vocabulary
    slots: int


def write(annotations: Annotations, path: str, *, copy_videos: bool = False) -> list[str]:
    """Write `annotations/{clip_id}.xml` a clip, and `labels.json` for the raw label editor of a CVAT project.

    Where somebody said what actions mean, `guide.md` has it for the project's annotation guide.
    """
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
        root = _document(row, people, labels, _Labelling(annotations.vocabulary, slots))
        ET.indent(root)
        data = ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
        storage.write_bytes(storage.join(path, "annotations", f"{clip_id}.xml"), data)
    if unboxed:
        more.append(f"cvat labels tracks: the actions of {unboxed} persons without boxes were not written")
    spec = _label_spec(_Labelling(annotations.vocabulary, slots))
    storage.write_bytes(storage.join(path, "labels.json"), (json.dumps(spec, indent=1) + "\n").encode())
    if any(action.help for action in annotations.vocabulary.actions):
        storage.write_bytes(storage.join(path, "guide.md"), _guide(annotations.vocabulary).encode())
    return notes + more


def read(
    path: str,
    *,
    label: Sequence[str] = (),
    clip_id: str | None = None,
    annotator: str | None = None,
    known: KnownClips | None = None,
    vocabulary: Vocabulary = MICROG_VOCABULARY,
) -> FormatResult:
    """Read an XML file, a zip file that CVAT made, or a folder of these into `clips`, `boxes` and `actions`.

    The clip is named by `clip_id`, else the task's source video, else the task, else the file, its archive or folder;
    of several such names one of a `known` clip counts. Boxes between two key frames are interpolated linearly where the
    file does not state them; a track that never goes outside is held until the task's last frame; a new track without
    a person id is a `known` person where its boxes are theirs, else gets the next free one. `label` says what labels
    mean (`microg.formats.labels`). What an export says is the work of `annotator`, else of whom its task or job is
    assigned to, else of `cvat`. Raises `FormatError` for broken or hostile XML, for projects and image tasks, for a
    label that is not in the `vocabulary`, and for a task that has tracks of which none would be read.
    """
    labels, known = Labels.parse(label), known or KnownClips()
    rows: dict[str, list[dict]] = {"boxes": [], "actions": []}
    clips: dict[str, dict] = {}
    files: dict[str, str] = {}
    notes: list[str] = []
    said: list[Annotation] = []
    if annotator is not None:
        check_person(annotator)
    for data, where, names in _documents(path):
        if clip_id is not None and clips:
            raise FormatError(f"{path} holds several tasks, and --clip-id {clip_id} names one", "import each by itself")
        root = xmltree.parse(data, where)
        task = TaskReader(root, where, clip_id or clip_of(root, where, names, known), labels, known, vocabulary)
        if task.clip_id in clips:
            raise FormatError(
                f"{where}: clip {task.clip_id} was annotated in another file already: {files[task.clip_id]}"
            )
        clips[task.clip_id] = {"num_frames": task.num_frames, "width": task.width, "height": task.height}
        files[task.clip_id] = where
        found = task.rows(annotator)
        rows["boxes"] += found.boxes
        rows["actions"] += found.actions
        said += found.judgements
        notes += found.notes
    if not clips:
        raise FormatError(f"{path} holds no CVAT annotations", "give an XML file, a zip file or a folder with them")
    columns = {name: [clip[name] for clip in clips.values()] for name in ("num_frames", "width", "height")}
    tables = {name: schema.from_rows(name, found) for name, found in rows.items()}
    return FormatResult({"clips": new_clips(clips, **columns), **tables}, notes, files=files, annotations=said)


def _documents(path: str) -> Iterator[tuple[bytes, str, list[str]]]:
    """Yield the XML documents below `path`, where each is, and what it may be named after, in sorted order."""
    if not storage.exists(path):
        raise FormatError(f"{path} is not there")
    fs, root = storage.filesystem(path)
    files = sorted(fs.find(root)) if fs.isdir(root) else [root]
    for file in files:
        uri = file if storage.is_local(path) else fs.unstrip_protocol(file)
        folder, _, name = file.rpartition("/")
        stem, ending = name.rpartition(".")[::2]
        if is_mac_leftover(file.removeprefix(root)):
            continue
        if ending.lower() == "xml" and not file.endswith("labeling_config.xml"):
            yield storage.read_bytes(uri), uri, [stem, folder.rpartition("/")[2]]
        elif ending.lower() == "zip":
            yield from _zipped(storage.read_bytes(uri), uri, stem)


def _zipped(data: bytes, uri: str, stem: str) -> Iterator[tuple[bytes, str, list[str]]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            for member in bundle.infolist():
                folder, _, name = member.filename.rpartition("/")
                if name.lower().endswith(".xml") and not is_mac_leftover(member.filename):
                    check_expansion(member, uri)
                    yield bundle.read(member), f"{uri}:{member.filename}", [name[:-4], folder.rpartition("/")[2], stem]
    except (*DAMAGED_ZIP, RuntimeError, OSError) as error:
        raise FormatError(f"{uri} is not a sound zip file: {error}", "export it again") from error


def _document(
    row: dict, people: Mapping[int, list[TrackBox]], actions: Mapping[int, list[int]], labelling: _Labelling
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
    _labels_element(task, labelling)
    if row["width"] and row["height"]:
        size = ET.SubElement(task, "original_size")
        _child(size, "width", str(row["width"]))
        _child(size, "height", str(row["height"]))
    _child(task, "source", f"{row['clip_id']}.mp4")
    for number, (person_id, track) in enumerate(people.items()):
        element = ET.SubElement(root, "track", id=str(number), label="person", source="file")
        for box in to_keyframes(track):
            attributes = _attributes(person_id, actions.get(person_id, []), box.confidence, labelling)
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


def _attributes(person_id: int, actions: list[int], confidence: float | None, labelling: _Labelling) -> dict[str, str]:
    values = {"person_id": str(person_id), "confidence": "" if confidence is None else repr(confidence)}
    labels = [labelling.vocabulary.action(action_id).label for action_id in actions]
    slots = range(labelling.slots)
    return values | {f"action_{n + 1}": labels[n] if n < len(labels) else _NO_ACTION for n in slots}


def _guide(vocabulary: Vocabulary) -> str:
    """Return what the actions mean as Markdown, a line an action."""
    lines = [f"# Actions of {markdown_text(vocabulary.name)}", ""]
    for action in vocabulary.actions:
        meaning = f": {markdown_text(action.help)}" if action.help else ""
        lines.append(f"- **{markdown_text(action.label)}**{meaning}")
    return "\n".join([*lines, ""])


def _label_spec(labelling: _Labelling) -> list[dict]:
    options = [_NO_ACTION, *(action.label for action in labelling.vocabulary.actions)]
    attributes = [
        {"name": "person_id", "mutable": False, "input_type": "text", "default_value": "", "values": [""]},
        {"name": "confidence", "mutable": True, "input_type": "text", "default_value": "", "values": [""]},
    ]
    for slot in range(1, labelling.slots + 1):
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


def _labels_element(task: ET.Element, labelling: _Labelling) -> None:
    labels = ET.SubElement(task, "labels")
    for spec in _label_spec(labelling):
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
