"""What is judged in which mode, and what items are called on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from microg.annotations.rows import KINDS, Item, Kind
from microg.errors import MicrogError
from microg.review.material import Material, Numbered

Mode = Literal["screen", "actions", "boxes", "captions", "questions", "adjudicate"]
MODES: tuple[Mode, ...] = get_args(Mode)
ADJUDICATE: Mode = "adjudicate"
KIND_OF: dict[Mode, Kind] = {
    "screen": "screening",
    "actions": "action",
    "boxes": "box",
    "captions": "caption",
    "questions": "qa",
}
_MODES: dict[str, Mode] = {mode: mode for mode in MODES}
_KINDS: dict[str, Kind] = {kind: kind for kind in KINDS}
MODE_OF: dict[Kind, Mode] = {kind: mode for mode, kind in KIND_OF.items()}


class RefusedError(MicrogError):
    """A request cannot be done: `status` is the HTTP status that says why."""

    def __init__(self, what: str, fix: str | None = None, status: int = 409) -> None:
        self.status = status
        super().__init__(what, fix)


@dataclass(frozen=True)
class TaskName:
    """What somebody judges: an item, in a mode.

    In mode boxes the item is a clip, whose people are edited.
    """

    mode: Mode
    item: Item

    def __str__(self) -> str:
        number = self.item.index if self.item.kind == "qa" else self.item.person_id
        kind = (self.item.kind,) if self.mode == ADJUDICATE else ()
        parts = (self.mode, *kind, self.item.clip_id, *(() if number is None else (number,)))
        return ":".join(map(str, parts))

    @classmethod
    def parse(cls, text: str) -> TaskName:
        """Return the task that a text names.

        Raises:
            RefusedError: It names none; whether there is such an item is another matter.
        """
        unknown = RefusedError(f"there is no task {text[:100]!r}", "take one with /api/next", status=404)
        first, *parts = text.split(":")
        mode = _MODES.get(first)
        if mode == ADJUDICATE:
            named, *parts = parts or [""]
            kind = _KINDS.get(named)
        else:
            kind = KIND_OF.get(mode) if mode else None
        if mode is None or kind is None:
            raise unknown
        numbered = kind == "qa" or kind == "action" or (kind == "box" and mode == ADJUDICATE)
        if len(parts) != 1 + numbered or (numbered and not (parts[1].isdecimal() and len(parts[1]) < 11)):
            raise unknown
        number = int(parts[1]) if numbered else None
        item = Item(kind, parts[0], None if kind == "qa" else number, number if kind == "qa" else None)
        return cls(mode, item)


def items_of(material: Material, mode: Mode, proposed: np.ndarray | None = None) -> Numbered:
    """Return the items of a mode.

    Args:
        material: The dataset.
        mode: Any but adjudicate, whose items come and go.
        proposed: Numbers of clips with those of questions (n, 2) that a model proposes beside the dataset's.

    screen: all clips; the others those that are kept. actions: people with boxes or actions; boxes and captions: the
    clips; questions: those of the dataset, and proposed ones.
    """
    clips = material.clips
    everything = np.arange(len(clips))
    kept = everything[clips.kept]
    if mode == "screen":
        return Numbered(everything, np.full(len(everything), -1))
    if mode in ("boxes", "captions"):
        return Numbered(kept, np.full(len(kept), -1))
    if mode == "actions":
        clip = np.concatenate([material.boxes.clip, material.labels.clip])
        number = np.concatenate([material.boxes.person, material.labels.person])
    else:
        more = np.empty((0, 2), np.int32) if proposed is None else proposed
        clip = np.concatenate([material.questions.clip, more[:, 0]])
        number = np.concatenate([material.questions.number, more[:, 1]])
    usable = (clip >= 0) & np.append(clips.kept, False)[clip]
    return Numbered(clip[usable], number[usable])
