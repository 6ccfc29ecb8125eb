"""Reviews for tests: a small dataset, a desk with a clock that stands, and clients that send what the page sends."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from microg.annotations.rows import Annotation
from microg.annotations.table import read_annotations
from microg.data import schema
from microg.data.dataset import Dataset
from microg.formats.base import new_clips
from microg.review.desk import Desk
from microg.review.guard import Hosts
from microg.review.material import read_material
from microg.review.media import Media
from microg.review.proposals import Proposals
from microg.review.rules import Annotator, Rules
from microg.review.server import Doors, make_app
from microg.review.store import Store

ANNA, BEN, CARA = Annotator("anna"), Annotator("ben"), Annotator("cara", adjudicator=True)
HOST = "127.0.0.1:8765"
FRAMES = 30


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    at: datetime = field(default_factory=lambda: datetime(2026, 5, 4, 9, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        """Move it on."""
        self.at += timedelta(seconds=seconds)


def small_dataset(
    root: Path, clips: int = 6, *, people: int = 2, actions: Sequence[tuple[str, int, int]] = ()
) -> Dataset:
    """Make a dataset of clips of one source without videos: two people each, a caption, two questions."""
    dataset = Dataset.create(str(root), "small")
    ids = [f"tour_{number:03d}" for number in range(clips)]
    sizes = {"fps": [30.0] * clips, "num_frames": [FRAMES] * clips, "width": [64] * clips, "height": [48] * clips}
    table = new_clips(ids, duration_s=[1.0] * clips, **sizes)
    dataset.write("clips", table)
    boxes = [
        {"clip_id": clip, "frame": frame, "person_id": person, "confidence": 0.9}
        | {"x1": 20.0 * person, "y1": 4.0, "x2": 20.0 * person + 15, "y2": 40.0}
        for clip in ids
        for person in range(1, people + 1)
        for frame in range(1, FRAMES + 1)
    ]
    dataset.write("boxes", schema.from_rows("boxes", boxes))
    rows = [{"clip_id": clip, "person_id": person, "action_id": action} for clip, person, action in actions]
    dataset.write("actions", schema.from_rows("actions", rows))
    dataset.write("captions", schema.from_rows("captions", [{"clip_id": ids[0], "caption": "She floats."}]))
    qa = [
        {"clip_id": clip, "qa_index": index, "question": f"Question {index}?", "answer": "Yes."}
        for clip in ids
        for index in range(2)
    ]
    dataset.write("qa", schema.from_rows("qa", qa))
    return dataset


def desk_of(
    dataset: Dataset,
    store: Store,
    rules: Rules | None = None,
    proposals: Proposals | None = None,
    more: Iterable[Annotation] = (),
) -> Desk:
    """Return the desk of a dataset."""
    before = [*read_annotations(dataset), *more]
    return Desk(read_material(dataset), before, store, rules or Rules(), proposals)


def new_id() -> str:
    """Return an id as the page makes them."""
    return uuid.uuid4().hex


def client_of(desk: Desk, store: Store, folder: Path, *, tokens: bool = False) -> TestClient:
    """Return a client that sends what the page sends; with `tokens` it has to log in first."""
    doors = Doors(tokens=tokens, annotator="anna", hosts=Hosts(["127.0.0.1", "localhost"], 8765))
    media = Media(Dataset.open(str(folder)), folder / "review" / "cache", 10**9)
    app = make_app(desk, store, media, doors)
    headers = {"X-Microg": "review", "Origin": f"http://{HOST}"}
    return TestClient(app, base_url=f"http://{HOST}", headers=headers)


def take(client: TestClient, mode: str, **more: Any) -> list[dict[str, Any]]:
    """Return the tasks that /api/next gives."""
    answer = client.post("/api/next", json={"mode": mode, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["tasks"]


def save(client: TestClient, task: dict[str, Any], value: dict[str, Any], annotation_id: str | None = None) -> Any:
    """Send a judgement and return the answer."""
    body = {"task_id": task["task_id"], "annotation_id": annotation_id or new_id(), "value": value, "seconds": 1.5}
    return client.post("/api/save", json=body)
