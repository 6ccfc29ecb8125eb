"""Datasets that people judged, for tests of what is made of their judgements."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from microg.annotations.rows import Annotation, Kind
from microg.annotations.table import add_annotations
from microg.data.dataset import Dataset
from tests.support.helpers import make_dataset

_NUMBERS = count()
_START = datetime(2026, 1, 1, tzinfo=UTC)
# People of `make_dataset`.
PEOPLE = (("filmA_000", 1), ("filmA_001", 1), ("filmA_001", 2), ("tourB_000", 1), ("tourB_000", 2), ("walkC_000", 1))


def judgement(kind: Kind, value: dict[str, Any], annotator: str, clip: str, **more: Any) -> Annotation:
    """Return a judgement, later than all before it."""
    number = next(_NUMBERS)
    return Annotation(
        annotation_id=f"j-{number}",
        clip_id=clip,
        kind=kind,
        value=value,
        annotator=annotator,
        source=more.pop("source", "app"),
        time=_START + timedelta(seconds=number),
        **more,
    )


def judged_dataset(root: Path, more: Iterable[Annotation] = (), videos: bool = False) -> Dataset:
    """Make a dataset whose six people and four clips anna and ben judged, with three people labelled differently."""
    dataset = make_dataset(root, videos=videos)
    rows = list(more)
    for number, (clip, person) in enumerate(PEOPLE):
        rows.append(judgement("action", {"actions": [12, 17]}, "anna", clip, person_id=person))
        other = [12, 17] if number % 2 else [12, 80]
        rows.append(judgement("action", {"actions": other}, "ben", clip, person_id=person))
    for clip in sorted({clip for clip, _ in PEOPLE}):
        rows.append(judgement("screening", {"keep": True}, "anna", clip))
        drop = clip == "walkC_000"
        value: dict[str, Any] = {"keep": False, "reason": "a title"} if drop else {"keep": True}
        rows.append(judgement("screening", value, "ben", clip))
        caption = f"An astronaut floats through module {clip[-1]}."
        rows.append(judgement("caption", {"verdict": "accept", "caption": caption}, "anna", clip))
        rows.append(judgement("caption", {"verdict": "edit", "caption": "A woman floats."}, "ben", clip))
        for name, person in (("anna", 8), ("ben", 9)):
            x = 0 if name == "anna" else 2
            draw = {"op": "draw", "stretches": [[[1, x, 0, x + 20, 20], [6, x, 0, x + 20, 20]]]}
            rows.append(judgement("box", draw, name, clip, person_id=person))
    add_annotations(dataset, rows)
    return dataset
