"""What comes first, and what models propose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.annotations.rows import Annotation, now
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.label_space import AVA_80_SPACE, MICROG_50
from microg.errors import ConfigError, DatasetError
from microg.review.items import Mode
from microg.review.material import read_material
from microg.review.order import Order
from microg.review.proposals import Proposals, read_proposals
from microg.review.rules import Rules
from microg.review.store import Store
from tests.support.reviews import ANNA, desk_of, new_id, small_dataset

CLIP = "tour_000"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "ds")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "review.sqlite")
    yield opened
    opened.close()


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def har_run(root: Path, rows: list[dict[str, Any]], space: str = MICROG_50.name, kind: str = "logit") -> str:
    """Write a run of har predict: each row has a clip, a person, perhaps a frame, and probabilities by action id."""
    ids = (AVA_80_SPACE if space == "ava80" else MICROG_50).ids
    table = []
    for number, row in enumerate(rows):
        p = [row["p"].get(action, 0.01) for action in ids]
        box = {"x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5, "frame": row.get("frame", 15)}
        about = {"sample_id": f"s{number}", "clip_id": row["clip_id"], "person_id": row["person_id"], "model": "tiny"}
        scores = [logit(each) for each in p] if kind == "logit" else p
        status = {"status": row.get("status", "ok"), "score_kind": kind, "label_space": space}
        table.append({**box, **about, **status, "scores": scores})
    path = storage.join(str(root), "tables", "har_predictions.parquet")
    storage.write_parquet(path, schema.from_rows("har_predictions", table))
    return str(root)


def generations(root: Path, rows: list[dict[str, Any]]) -> str:
    table = [{"prompt_id": f"{row['task']}-1", "model": "m", "status": "ok", "written": now(), **row} for row in rows]
    storage.write_parquet(
        storage.join(str(root), "tables", "generations.parquet"), schema.from_rows("generations", table)
    )
    return str(root)


def offered(
    dataset: Dataset,
    store: Store,
    order: Order,
    *,
    mode: Mode = "actions",
    runs: tuple[str, ...] = (),
    rows: tuple[Annotation, ...] = (),
    seed: int = 0,
) -> list[tuple[str, str]]:
    """Return the tasks of a mode in the order in which one annotator gets them, with why."""
    material = read_material(dataset)
    proposals = read_proposals(material, runs, rows)
    desk = desk_of(dataset, store, Rules(order=order, seed=seed, each=2), proposals, rows)
    tasks = desk.next(ANNA, mode, 100)[0]
    return [(str(task.name).split(":", 1)[1], task.why) for task in tasks]


def said(annotator: str, clip: str, value: dict, **more: Any) -> Annotation:
    about = {"person_id": 1, "kind": "action", "source": "cvat", "time": now(), **more}
    return Annotation(annotation_id=new_id(), clip_id=clip, value=value, annotator=annotator, **about)


def test_actions_above_the_threshold_are_proposed_five_at_most(dataset: Dataset, tmp_path: Path):
    sure = {12: 0.9, 17: 0.7, 80: 0.6, 14: 0.8, 59: 0.95, 79: 0.85}
    rows = [
        {"clip_id": CLIP, "person_id": 1, "frame": 10, "p": {12: 0.9, 17: 0.2}},
        {"clip_id": CLIP, "person_id": 1, "frame": 20, "p": {12: 0.3, 17: 0.2}},
        {"clip_id": CLIP, "person_id": 2, "p": sure},
        {"clip_id": "tour_001", "person_id": 1, "p": {12: 0.9}, "status": "error"},
        {"clip_id": "elsewhere_000", "person_id": 1, "p": {12: 0.9}},
    ]
    found = read_proposals(read_material(dataset), [har_run(tmp_path / "i3d", rows)])
    values = {(item.clip_id, item.person_id): said[0].value["actions"] for item, said in found.values.items()}
    assert values == {(CLIP, 1): [12], (CLIP, 2): [12, 14, 17, 59, 79]}  # the mean of both frames; the five highest
    assert {each.by for said in found.values.values() for each in said} == {"i3d"}
    higher = read_proposals(read_material(dataset), [har_run(tmp_path / "i3d", rows)], threshold=0.65)
    assert higher.values[next(iter(found.values))][0].value == {"actions": []}


def test_scores_of_another_label_space_are_read_by_counterparts(dataset: Dataset, tmp_path: Path):
    rows = [{"clip_id": CLIP, "person_id": 1, "p": {12: 0.9}}]
    run = har_run(tmp_path / "ava", rows, "ava80", "probability")
    (said,) = read_proposals(read_material(dataset), [run]).values.values()
    assert said[0].value == {"actions": [12]}


def test_runs_that_do_not_fit_are_refused_by_name(dataset: Dataset, tmp_path: Path):
    material = read_material(dataset)
    row = [{"clip_id": CLIP, "person_id": 1, "p": {}}]
    with pytest.raises(ConfigError, match="label space 'other'"):
        read_proposals(material, [har_run(tmp_path / "a", row, "other")])
    with pytest.raises(DatasetError, match="has none of the tables"):
        read_proposals(material, [str(tmp_path)])
    two = [{"clip_id": CLIP, "task": "caption", "text": "x", "prompt_id": name} for name in ("one", "two")]
    with pytest.raises(DatasetError, match="several caption prompts: one, two"):
        read_proposals(material, [generations(tmp_path / "b", two)])


def test_what_a_model_is_unsure_of_comes_first(dataset: Dataset, store: Store, tmp_path: Path):
    rows = [
        {"clip_id": CLIP, "person_id": 1, "p": {12: 0.99}},
        {"clip_id": "tour_003", "person_id": 2, "p": {12: 0.5, 17: 0.5, 80: 0.5, 14: 0.5, 59: 0.5}},
        {"clip_id": "tour_001", "person_id": 1, "p": {12: 0.6, 17: 0.4}},
    ]
    order = offered(dataset, store, "uncertain", runs=(har_run(tmp_path / "i3d", rows),))
    assert [name for name, _ in order[:4]] == ["tour_003:2", "tour_001:1", "tour_000:1", "tour_000:2"]
    assert order[0][1] == "a model is unsure of it (1.00 of 1)"
    assert order[3][1] == "in the dataset's order"  # nobody knows how unsure: as the dataset has them


def test_an_order_that_nothing_tells_is_refused(dataset: Dataset, store: Store):
    with pytest.raises(ConfigError, match="how unsure"):
        offered(dataset, store, "uncertain")
    with pytest.raises(ConfigError, match="differently"):
        offered(dataset, store, "disagreed")


def test_what_people_differ_in_comes_first_and_needs_one_more_then_what_models_differ_in(
    dataset: Dataset, store: Store, tmp_path: Path
):
    rows = (
        said("nina", "tour_004", {"actions": [12]}),
        said("omar", "tour_004", {"actions": [17]}),
        said("nina", "tour_005", {"actions": [12]}),
        said("omar", "tour_005", {"actions": [12]}),
    )
    one = har_run(tmp_path / "one", [{"clip_id": c, "person_id": 1, "p": {12: 0.9}} for c in (CLIP, "tour_002")])
    two = har_run(
        tmp_path / "two",
        [
            {"clip_id": CLIP, "person_id": 1, "p": {12: 0.9, 17: 0.9}},
            {"clip_id": "tour_002", "person_id": 1, "p": {17: 0.9}},
        ],
    )
    order = offered(dataset, store, "disagreed", runs=(one, two), rows=rows)
    assert [name for name, _ in order[:3]] == ["tour_004:1", "tour_002:1", "tour_000:1"]
    assert [why for _, why in order[:3]] == [
        "people said different things",
        "models differ (1.00 of 1)",
        "models differ (0.50 of 1)",
    ]
    assert "tour_005:1" not in [name for name, _ in order]  # two agreed on it


def test_the_rarest_actions_come_first(tmp_path: Path, store: Store):
    labels = [("tour_000", 1, 12), ("tour_001", 1, 12), ("tour_002", 1, 12), ("tour_003", 2, 80), ("tour_003", 2, 12)]
    dataset = small_dataset(tmp_path / "labelled", actions=labels)
    run = har_run(tmp_path / "i3d", [{"clip_id": "tour_005", "person_id": 1, "p": {14: 0.9}}])
    order = offered(dataset, store, "rarest", runs=(run,))
    assert [name for name, _ in order[:3]] == ["tour_005:1", "tour_003:2", "tour_000:1"]
    assert order[1][1].endswith("is rare: 1 labels")
    assert [name for name, _ in offered(dataset, store, "rarest", mode="screen", runs=(run,))[:2]] == [
        "tour_005",
        "tour_003",
    ]


def test_a_random_order_is_the_same_for_a_seed_and_another_for_another(tmp_path: Path, store: Store):
    dataset = small_dataset(tmp_path / "large", 40)
    first = [name for name, _ in offered(dataset, store, "random", mode="screen")]
    again = [name for name, _ in offered(dataset, Store(tmp_path / "again.sqlite"), "random", mode="screen")]
    other = [name for name, _ in offered(dataset, Store(tmp_path / "other.sqlite"), "random", mode="screen", seed=1)]
    assert sorted(first) == sorted(other)
    assert first == again
    assert first != other
    assert first != sorted(first)


def test_a_random_sample_is_unbiased(tmp_path: Path):
    """Of many seeds each item is among the first as often as any other."""
    dataset = small_dataset(tmp_path / "ds", 10, people=1)
    firsts = {}
    for seed in range(300):
        store = Store(tmp_path / f"{seed}.sqlite")
        desk = desk_of(dataset, store, Rules(order="random", seed=seed, modes=("screen",)))
        name = str(desk.next(ANNA, "screen")[0][0].name)
        firsts[name] = firsts.get(name, 0) + 1
        store.close()
    chi_square = sum((count - 30) ** 2 / 30 for count in firsts.values())
    assert len(firsts) == 10
    assert chi_square < 27.9  # 99.9 per cent of samples, 9 degrees of freedom


def test_doubts_of_the_consistency_check_come_first_in_any_order(dataset: Dataset, store: Store, tmp_path: Path):
    rows = [
        {"clip_id": "tour_002", "question": "Who?", "answer": "Her.", "chosen": 0, "review": "inconsistent"},
        {"clip_id": "tour_001", "question": "Why?", "answer": "So.", "chosen": 1, "review": None},
        {"clip_id": "tour_001", "question": "Not?", "answer": "No.", "chosen": None, "review": "inconsistent"},
    ]
    table = schema.from_rows("qa_candidates", [{**row, "number": 0, "status": "ok"} for row in rows])
    run = str(tmp_path / "qa")
    storage.write_parquet(f"{run}/qa_candidates.parquet", table)
    with pytest.raises(DatasetError, match=f"have no places in the dataset yet.*microg data accept {run}"):
        read_proposals(read_material(dataset), [run])
    # after the questions that the clips have, as `microg data accept` places them
    accepted = tuple(
        said("qa", row["clip_id"], value, kind="qa", person_id=None, item=place, source="model")
        for row, place in ((rows[0], 2), (rows[1], 7))
        if (value := {"verdict": "accept", "question": row["question"], "answer": row["answer"]})
    )
    order = offered(dataset, store, "dataset", mode="questions", runs=(run,), rows=accepted)
    assert order[0] == ("tour_002:2", "the consistency check has doubts: inconsistent")
    assert [name for name, _ in order[1:3]] == ["tour_000:0", "tour_000:1"]
    assert "tour_001:7" in [name for name, _ in order]  # a new question
    order = offered(dataset, store, "dataset", mode="captions", runs=(run,), rows=accepted)
    assert order[0][0] == "tour_002"


def test_texts_of_a_vlm_run_are_proposed(dataset: Dataset, store: Store, tmp_path: Path):
    rows = [
        {"clip_id": CLIP, "task": "caption", "text": "An old text."},
        {"clip_id": CLIP, "task": "caption", "text": "Somebody floats."},
        {"clip_id": "tour_001", "task": "caption", "text": None, "status": "error"},
        {"clip_id": CLIP, "task": "vqa", "qa_index": 1, "question": "Question 1?", "text": "No."},
    ]
    run = generations(tmp_path / "qwen", rows)
    desk = desk_of(dataset, store, proposals=read_proposals(read_material(dataset), [run]))
    captions = [task.proposal for task in desk.next(ANNA, "captions", 2)[0]]
    assert captions[0] is not None
    assert (captions[0].value, captions[0].by) == ({"verdict": "accept", "caption": "Somebody floats."}, "qwen")
    assert captions[1] is None
    proposal = desk.next(ANNA, "questions", 2)[0][1].proposal
    assert proposal is not None
    assert proposal.value == {"verdict": "accept", "question": "Question 1?", "answer": "No."}


def test_screenings_of_a_vlm_run_are_proposed_and_unclear_ones_looked_at_first(
    dataset: Dataset, store: Store, tmp_path: Path
):
    said = [f'{{"weightless": "{word}", "reason": "a title"}}' for word in ("no", "yes", "unclear")]
    rows = [
        {"clip_id": f"tour_{number:03d}", "task": "screening", "text": text}
        for number, text in enumerate([*said, "Well, perhaps."])
    ]
    run = generations(tmp_path / "qwen", rows)
    desk = desk_of(dataset, store, proposals=read_proposals(read_material(dataset), [run]))
    found = [task.proposal and task.proposal.value for task in desk.next(ANNA, "screen", 4)[0]]
    assert found == [{"keep": False, "reason": "a title"}, {"keep": True}, None, None]
    again = Store(tmp_path / "again.sqlite")
    assert offered(dataset, again, "uncertain", mode="screen", runs=(run,))[0][0] == "tour_002"


def test_rows_of_models_in_the_dataset_are_proposals_and_no_judgements(dataset: Dataset, store: Store):
    row = said("qwen", CLIP, {"keep": False, "reason": "cartoon"}, kind="screening", source="model", person_id=None)
    proposals: Proposals = read_proposals(read_material(dataset), [], [row])
    (task,) = desk_of(dataset, store, proposals=proposals, more=[row]).next(ANNA, "screen")[0]
    assert task.proposal is not None
    assert (task.proposal.value, task.proposal.by) == (row.value, "qwen")
