"""One judgement: who said what of which clip, person or question, and when. It is never changed, only superseded.

Values by kind, as JSON:

- screening: `{"keep": true}` or `{"keep": false, "reason": "cartoon"}`.
- action: `{"actions": [12, 79]}`, or `{"actions": [], "cannot_tell": true}`; all actions of a person at once.
- caption: `{"verdict": "accept" | "edit" | "reject", "caption": "..."}`; the text that was judged or written.
- qa: `{"verdict": ..., "question": "...", "answer": "..."}`.
- box: an edit of a person's boxes: `{"op": "delete"}`, `{"op": "merge", "into": 1}`, `{"op": "split", "frame": 40,
  "new": 5}` (from that frame on it is person 5), or `{"op": "draw", "stretches": [[[frame, x1, y1, x2, y2],
  ...], ...]}` (key frames in pixels, linear between those of a stretch; a sixth number is the detector's confidence).
- any kind: `{"withdrawn": true}`, when somebody takes back what they said.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast, get_args

from microg.data.ids import check_id
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError, IdError

Kind = Literal["screening", "action", "caption", "qa", "box"]
Source = Literal["app", "cvat", "labelstudio", "model", "import"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SOURCES: tuple[Source, ...] = get_args(Source)
VERDICTS = ("accept", "edit", "reject")
# Of a person, as in the paper, where people label here and models propose; other tools allow more, and what people
# said there is kept as it is.
MAX_ACTIONS = 5
_WITHOUT_LIMIT = ("cvat", "labelstudio")
# Stands for what a dataset held before people judged it: no vote, but what counts until somebody says otherwise.
DATASET = "dataset"
MAX_NAME = 100  # characters of an annotator's name
_MAX_TEXT, _MAX_BOXES, _MAX_PERSON, _MAX_SIZE = 10_000, 100_000, 2**31 - 1, 1e6


class Item(NamedTuple):
    """What a judgement is about: a clip, a person of it, or a question of it."""

    kind: Kind
    clip_id: str
    person_id: int | None = None
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One judgement.

    Attributes:
        annotation_id: Its own name, by which it is saved once however often it is sent.
        clip_id: The clip that it is about.
        kind: What is judged.
        value: What was said, as the kind has it.
        annotator: Who said it; for a model the name of its run.
        source: Where it comes from.
        time: When, in UTC.
        person_id: The person, for kinds action and box.
        item: The question's index, for kind qa.
        round: Number of the round of annotation, from 1; 0 for what the dataset held before.
        adjudicated: Whether it settles what others said.
        supersedes: The annotation that it replaces, by the same annotator.
    """

    annotation_id: str
    clip_id: str
    kind: Kind
    value: Mapping[str, Any]
    annotator: str
    source: Source
    time: datetime
    person_id: int | None = None
    item: int | None = None
    round: int = 1
    adjudicated: bool = False
    supersedes: str | None = None

    @property
    def about(self) -> Item:
        """What it is about."""
        return Item(self.kind, self.clip_id, self.person_id, self.item)

    @property
    def withdrawn(self) -> bool:
        """Whether it takes back what it supersedes."""
        return bool(self.value.get("withdrawn"))

    def to_row(self) -> dict[str, Any]:
        """Return its row of the table `annotations`."""
        return {**vars(self), "value": value_json(self.value)}


def new_id() -> str:
    """Return a name for a judgement that nobody else will give."""
    return uuid.uuid4().hex


def now() -> datetime:
    """Return the time to write into a judgement."""
    return datetime.now(UTC)


def value_json(value: Mapping[str, Any]) -> str:
    """Return a value as it is stored: the same text for the same value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_row(row: Mapping[str, Any]) -> Annotation:
    """Read a row of the table `annotations`.

    Raises:
        AnnotationError: Its value is no JSON object.
    """
    try:
        value = json.loads(row["value"])
        if not isinstance(value, dict):
            raise TypeError("no object")
        return Annotation(
            **{**row, "value": value, "round": row["round"] or 0, "adjudicated": bool(row["adjudicated"])}
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise AnnotationError(f"annotation {row.get('annotation_id')!r} cannot be read: {error}") from error


def checked(annotation: Annotation, vocabulary: Vocabulary) -> Annotation:
    """Return a judgement in its normal form when it may be saved.

    Args:
        annotation: The judgement.
        vocabulary: The actions of its dataset.

    Raises:
        AnnotationError: A label is not in the vocabulary, a person has more than five and no other tool gave them, an
            id is no id, a text is too long, or a value is not of its kind.
    """
    where = f"annotation of {annotation.clip_id!r} by {annotation.annotator!r}"
    check_annotator(annotation.annotator)
    try:
        check_id(annotation.clip_id, "clip id")
        check_id(annotation.annotation_id, "annotation id")
    except IdError as error:
        raise AnnotationError(f"{where}: {error.what}", error.fix) from error
    if annotation.kind not in KINDS:
        raise AnnotationError(f"{where}: there is no kind {annotation.kind!r}", f"kinds are {', '.join(KINDS)}")
    if annotation.source not in SOURCES:
        raise AnnotationError(f"{where}: there is no source {annotation.source!r}", f"sources are {', '.join(SOURCES)}")
    of_person = annotation.kind in ("action", "box")
    _require((annotation.person_id is not None) == of_person, where, f"kind {annotation.kind}: person id")
    _require(annotation.person_id is None or 0 <= annotation.person_id <= _MAX_PERSON, where, "person id")
    _require((annotation.item is not None) == (annotation.kind == "qa"), where, f"kind {annotation.kind}: item")
    _require(annotation.time.tzinfo is not None, where, "time has no time zone")
    if annotation.withdrawn:
        value: dict[str, Any] = {"withdrawn": True}
    else:
        reader = _held if annotation.annotator == DATASET and annotation.kind == "action" else _VALUES[annotation.kind]
        value = reader(annotation.value, where, vocabulary)
        if annotation.kind == "action" and annotation.annotator != DATASET and annotation.source not in _WITHOUT_LIMIT:
            _few(value["actions"], where)
    return Annotation(**{**vars(annotation), "value": value})


def check_annotator(name: Any) -> str:
    """Return an annotator's name when it is one: a short line of printable characters.

    Raises:
        AnnotationError: It is not.
    """
    plain = isinstance(name, str) and bool(name.strip()) and name == name.strip() and name.isprintable()
    if not plain or len(name) > MAX_NAME:
        raise AnnotationError(f"{name!r} is no name of an annotator", f"at most {MAX_NAME} printable characters")
    return name


def check_person(name: Any) -> str:
    """Return an annotator's name when a person may have it: one that does not stand for the dataset.

    Raises:
        AnnotationError: It is none, or the dataset's.
    """
    if check_annotator(name) == DATASET:
        raise AnnotationError(f"{DATASET!r} stands for what a dataset held before", "choose another name")
    return name


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise AnnotationError(f"{where}: {what} is not as it has to be", "microg/annotations/rows.py says how")


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise AnnotationError(f"{where}: {what} is no text of at most {_MAX_TEXT} characters")
    return value.strip()


def _screening(value: Mapping[str, Any], where: str, _vocabulary: Vocabulary) -> dict[str, Any]:
    _require(isinstance(value.get("keep"), bool), where, "keep")
    reason = _text(value.get("reason") or "", where, "the reason")
    return {"keep": value["keep"], **({"reason": reason} if reason else {})}


def _held(value: Mapping[str, Any], where: str, _vocabulary: Vocabulary) -> dict[str, Any]:
    """Take the actions that a dataset holds, however many and whatever they are."""
    actions = value.get("actions")
    if not isinstance(actions, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) for each in actions
    ):
        raise AnnotationError(f"{where}: its actions are no list of ids")
    return {"actions": sorted(set(actions))}


def _action(value: Mapping[str, Any], where: str, vocabulary: Vocabulary) -> dict[str, Any]:
    distinct = _held(value, where, vocabulary)["actions"]
    unknown = [each for each in distinct if each not in vocabulary.by_id]
    if unknown:
        raise AnnotationError(
            f"{where}: action id {unknown[0]} is not in the vocabulary {vocabulary.name!r}",
            "'microg data vocabulary show' lists it",
        )
    if value.get("cannot_tell"):
        _require(not distinct, where, "cannot_tell beside actions")
        return {"actions": [], "cannot_tell": True}
    return {"actions": distinct}


def _few(actions: Sequence[int], where: str) -> None:
    if len(actions) > MAX_ACTIONS:
        raise AnnotationError(f"{where}: {len(actions)} actions of one person", f"at most {MAX_ACTIONS} are possible")


def _verdict(value: Mapping[str, Any], where: str) -> str:
    if value.get("verdict") not in VERDICTS:
        raise AnnotationError(f"{where}: {value.get('verdict')!r} is no verdict", f"verdicts are {', '.join(VERDICTS)}")
    return value["verdict"]


def _caption(value: Mapping[str, Any], where: str, _vocabulary: Vocabulary) -> dict[str, Any]:
    verdict, caption = _verdict(value, where), _text(value.get("caption", ""), where, "the caption")
    _require(verdict == "reject" or bool(caption), where, "an empty caption")
    return {"verdict": verdict, "caption": caption}


def _qa(value: Mapping[str, Any], where: str, _vocabulary: Vocabulary) -> dict[str, Any]:
    verdict = _verdict(value, where)
    texts = {name: _text(value.get(name, ""), where, f"the {name}") for name in ("question", "answer")}
    _require(verdict == "reject" or all(texts.values()), where, "an empty question or answer")
    return {"verdict": verdict, **texts}


def _box(value: Mapping[str, Any], where: str, _vocabulary: Vocabulary) -> dict[str, Any]:
    numbers = {"delete": (), "merge": ("into",), "split": ("frame", "new"), "draw": ()}
    op = value.get("op")
    if op not in numbers:
        raise AnnotationError(f"{where}: there is no edit {op!r} of boxes", f"edits are {', '.join(numbers)}")
    for name in numbers[cast(str, op)]:
        number = value.get(name)
        good = isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MAX_PERSON
        _require(good, where, f"{op}: {name}")
    if op != "draw":
        return {"op": op, **{name: value[name] for name in numbers[cast(str, op)]}}
    stretches = value.get("stretches")
    _require(isinstance(stretches, list) and all(isinstance(each, list) for each in stretches), where, "stretches")
    boxes = [box for stretch in cast(list, stretches) for box in stretch]
    _require(len(boxes) <= _MAX_BOXES and all(map(_is_box, boxes)), where, "a box")
    frames = [int(box[0]) for box in boxes]
    _require(frames == sorted(set(frames)), where, "the order of frames")
    return {
        "op": "draw",
        "stretches": [[[int(box[0]), *map(float, box[1:])] for box in each] for each in stretches or []],
    }


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) not in (5, 6):
        return False
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) for each in box):
        return False
    frame, x1, y1, x2, y2 = box[:5]
    return (
        frame == int(frame) and 1 <= frame <= _MAX_PERSON and x1 < x2 and y1 < y2 and max(map(abs, box[1:])) < _MAX_SIZE
    )


_VALUES = {"screening": _screening, "action": _action, "caption": _caption, "qa": _qa, "box": _box}
