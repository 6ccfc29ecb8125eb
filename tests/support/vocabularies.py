"""Small vocabularies and datasets with actions of their own, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from microg.annotations.rows import Annotation, new_id, now
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary, read_vocabulary
from tests.support.helpers import make_dataset

# Ids that mean something else in MicroG-4M: 1 bend, 2 none, 7 jump.
CREW: dict[str, Any] = {
    "name": "crew",
    "actions": [
        {
            "id": 1,
            "name": 'float {free} "slowly"',
            "group": "moving about",
            "definition": "no contact with anything",
            "counterparts": {"microg50": 12, "ava80": 12},
        },
        {"id": 2, "name": "hold a rail", "counterparts": {"microg50": 17, "ava80": 17}},
        {"id": 7, "name": "tumble", "group": "moving about", "note": "not float"},
    ],
}
# What the people of `helpers.tiny_rows` do, in the crew's words.
_IN_CREWS = {12: 1, 17: 2, 80: 7}


def crew() -> Vocabulary:
    """Return the crew's actions."""
    return read_vocabulary(CREW, "crew.yaml")


def crew_file(path: Path) -> Path:
    """Write the crew's actions as people do."""
    path.write_text(yaml.safe_dump(CREW))
    return path


def with_crews_actions(dataset: Dataset) -> Dataset:
    """Let a dataset whose people do 12, 17 and 80 have the crew's actions instead."""
    for name in ("actions", "samples"):
        table = dataset.table(name)
        ids = [_IN_CREWS[each] for each in table["action_id"].to_pylist()]
        place = table.schema.get_field_index("action_id")
        dataset.write(name, table.set_column(place, "action_id", [ids]))
    return dataset.describe(vocabulary=crew().to_dict())


def crew_dataset(root: Path, videos: bool = False) -> Dataset:
    """Write the small dataset of `helpers` with the crew's actions."""
    return with_crews_actions(make_dataset(root, videos=videos))


def said_actions(actions: list[int], clip_id: str, person_id: int, annotator: str = "ann") -> Annotation:
    """Return what somebody says that a person does."""
    return Annotation(
        annotation_id=new_id(),
        clip_id=clip_id,
        person_id=person_id,
        kind="action",
        value={"actions": actions},
        annotator=annotator,
        source="app",
        time=now(),
    )
