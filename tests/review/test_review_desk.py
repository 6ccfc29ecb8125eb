"""Who gets which task, what counts as judged, and what happens when leases end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microg.annotations.apply import accept_into
from microg.annotations.rows import Annotation, now
from microg.annotations.table import add_annotations
from microg.data.dataset import Dataset
from microg.errors import AnnotationError
from microg.review.desk import Desk
from microg.review.items import Mode, RefusedError
from microg.review.rules import Annotator, Rules
from microg.review.store import Store
from microg.review.sync import sync
from tests.support.reviews import ANNA, BEN, CARA, Clock, desk_of, new_id, small_dataset

FLOAT, HOLD = {"actions": [12]}, {"actions": [17]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "ds")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store(tmp_path / "review.sqlite", clock)
    yield opened
    opened.close()


Opened = Callable[..., Desk]


@pytest.fixture
def desk(dataset: Dataset, store: Store) -> Opened:
    return lambda **rules: desk_of(dataset, store, Rules(**rules))


def names(desk: Desk, who: Annotator, mode: Mode = "actions", count: int = 1, **more: object) -> list[str]:
    return [str(task.name) for task in desk.next(who, mode, count, **more)[0]]  # pyright: ignore[reportArgumentType]


def judge(desk: Desk, who: Annotator, count: int, value: dict = FLOAT, mode: Mode = "actions") -> list[str]:
    """Judge so many tasks and return them."""
    done = []
    for task in desk.next(who, mode, count)[0]:
        desk.save(who, str(task.name), new_id(), value, 2.0)
        done.append(str(task.name))
    return done


def said(annotator: str, clip: str, value: dict, **more: object) -> Annotation:
    about = {"person_id": 1, "kind": "action", "source": "cvat", "time": now(), **more}
    return Annotation(annotation_id=new_id(), clip_id=clip, value=value, annotator=annotator, **about)  # pyright: ignore


def test_two_annotators_never_hold_the_same_item(desk: Opened):
    review = desk()
    first, second = names(review, ANNA, count=5), names(review, BEN, count=7)
    assert len(first) == 5
    assert len(second) == 7
    assert not set(first) & set(second)
    assert names(review, ANNA) == []  # twelve people, all held


def test_what_was_judged_is_offered_to_nobody_again(desk: Opened):
    review = desk()
    done = judge(review, ANNA, 3)
    rest = names(review, BEN, count=24) + names(review, ANNA, count=24)
    assert len(rest) == 9
    assert not set(done) & set(rest)


def test_an_item_goes_to_others_when_its_lease_ends(desk: Opened, clock: Clock):
    review = desk(lease_s=60)
    held = names(review, ANNA, count=12)
    clock.move(59)
    assert names(review, BEN) == []
    clock.move(1)
    assert names(review, BEN, count=12) == held


def test_nothing_is_saved_on_an_ended_lease_until_it_is_renewed(desk: Opened, store: Store, clock: Clock):
    review = desk(lease_s=60)
    (task,) = names(review, ANNA)
    clock.move(61)
    with pytest.raises(RefusedError, match="lease is over"):
        review.save(ANNA, task, new_id(), FLOAT)
    assert store.count() == 0
    assert review.renew(ANNA, [task])[1:] == ([task], [])
    review.save(ANNA, task, new_id(), FLOAT)
    assert store.count() == 1


def test_a_lease_that_ended_is_not_renewed_once_somebody_else_has_the_item(desk: Opened, clock: Clock):
    review = desk(lease_s=60)
    (task,) = names(review, ANNA)
    clock.move(61)
    assert names(review, BEN) == [task]
    assert review.renew(ANNA, [task])[1:] == ([], [task])
    with pytest.raises(RefusedError, match="somebody else"):
        review.save(ANNA, task, new_id(), FLOAT)


def test_a_sign_of_life_keeps_a_lease(desk: Opened, clock: Clock):
    review = desk(lease_s=60)
    (task,) = names(review, ANNA)
    for _ in range(5):
        clock.move(50)
        assert review.renew(ANNA, [task])[1] == [task]
    assert task not in names(review, BEN, count=12)


def test_nobody_saves_a_task_of_somebody_else(desk: Opened):
    review = desk()
    (task,) = names(review, ANNA)
    with pytest.raises(RefusedError, match="somebody else"):
        review.save(BEN, task, new_id(), FLOAT)


def test_leases_hold_over_a_restart_of_the_server(desk: Opened):
    held = names(desk(), ANNA, count=2)
    again = desk()
    assert not set(names(again, BEN, count=12)) & set(held)
    again.save(ANNA, held[0], new_id(), FLOAT)


def test_a_browser_that_was_closed_gets_its_tasks_back_first(desk: Opened):
    review = desk()
    held = names(review, ANNA, count=2)
    assert names(review, ANNA, count=3, have=[])[:2] == held
    assert not set(names(review, ANNA, count=3, have=held)) & set(held)
    assert not set(names(review, ANNA, count=3)) & set(held)


def test_what_is_given_back_goes_to_others_first_and_to_its_annotator_last(desk: Opened):
    review = desk()
    (task,) = names(review, ANNA)
    review.release(ANNA, task)
    assert names(review, BEN) == [task]
    review.release(BEN, task)
    rest = names(review, BEN, count=12)
    assert rest[-1] == task
    assert len(rest) == 12


def test_the_same_judgement_sent_twice_is_saved_once(desk: Opened, store: Store, clock: Clock):
    review = desk(lease_s=60)
    (task,) = names(review, ANNA)
    name = new_id()
    first = review.save(ANNA, task, name, FLOAT)
    clock.move(3600)
    assert review.save(ANNA, task, name, FLOAT) == first
    assert store.count() == 1
    with pytest.raises(RefusedError, match="says something else"):
        review.save(ANNA, task, name, HOLD)
    with pytest.raises(RefusedError, match="says something else"):
        review.save(BEN, task, name, FLOAT)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_stated_share_of_items_is_judged_twice_the_same_after_a_restart(desk: Opened, share: float):
    review = desk(second=share)
    judge(review, ANNA, 12)
    second = names(review, BEN, count=12)
    again = desk(second=share)
    assert names(again, BEN, count=12, have=[]) == second
    expected = {0.0: (0, 0), 1.0: (12, 12)}.get(share, (1, 8))
    assert expected[0] <= len(second) <= expected[1]


def test_the_second_annotator_sees_nothing_of_what_the_first_said(desk: Opened, dataset: Dataset, store: Store):
    review = desk(second=1.0)
    for task in review.next(ANNA, "actions", 12)[0]:
        review.note(ANNA, str(task.name), "he only seems to hold it")
        review.save(ANNA, str(task.name), new_id(), FLOAT)
    sync(dataset, store)
    accept_into(dataset)  # now the dataset's own table says what Anna said
    tasks = desk(second=1.0).next(BEN, "actions", 12)[0]
    assert len(tasks) == 12
    assert all(
        (task.held, task.mine, list(task.said), list(task.notes)) == ({"actions": []}, None, [], []) for task in tasks
    )


def test_judgements_that_the_dataset_holds_already_count(dataset: Dataset, desk: Opened):
    add_annotations(dataset, [said("nina", "tour_000", FLOAT), said("cvat-model", "tour_001", FLOAT, source="model")])
    offered = names(desk(), ANNA, count=12)
    assert "actions:tour_000:1" not in offered
    assert "actions:tour_001:1" in offered  # a model is nobody


def test_a_new_round_asks_everything_again_and_shows_what_one_said(desk: Opened):
    judge(desk(), ANNA, 12)
    tasks = desk(round=2).next(ANNA, "actions", 12)[0]
    assert len(tasks) == 12
    assert all(task.mine is not None and task.mine.value == FLOAT for task in tasks)


def test_what_one_judged_comes_again_only_when_wanted_and_supersedes(desk: Opened, store: Store):
    review = desk()
    done = judge(review, ANNA, 12)
    assert names(review, ANNA) == []
    (task,) = review.next(ANNA, "actions", 1, again=True)[0]
    assert str(task.name) == done[0]
    assert task.mine is not None
    changed = review.save(ANNA, done[0], new_id(), HOLD)
    assert changed.supersedes == task.mine.annotation_id
    assert [str(each.name) for each in review.next(ANNA, "actions", 1, again=True)[0]] == [done[1]]


def test_undo_takes_a_judgement_back_and_gives_its_task_again(desk: Opened, dataset: Dataset, store: Store):
    review = desk()
    (task,) = names(review, ANNA)
    name = new_id()
    review.save(ANNA, task, name, FLOAT)
    with pytest.raises(RefusedError, match="no judgement"):
        review.undo(BEN, name)
    assert str(review.undo(ANNA, name).name) == task
    assert str(review.undo(ANNA, name).name) == task  # sent twice
    assert review.progress(ANNA)[1] == {"mode": "actions", "total": 12, "done": 0, "mine": 0, "open": 12}
    assert task not in names(review, BEN, count=12)
    review.save(ANNA, task, new_id(), HOLD)
    sync(dataset, store)
    accept_into(dataset)
    assert dataset.table("actions")["action_id"].to_pylist() == [17]


def test_only_what_stands_can_be_undone(desk: Opened):
    review = desk()
    (task,) = names(review, ANNA)
    first = new_id()
    review.save(ANNA, task, first, FLOAT)
    review.next(ANNA, "actions", 1, again=True)
    review.save(ANNA, task, new_id(), HOLD)
    with pytest.raises(RefusedError, match="something else"):
        review.undo(ANNA, first)


def test_what_annotators_differ_in_waits_for_an_adjudicator(desk: Opened, dataset: Dataset, store: Store):
    review = desk(each=2)
    judge(review, ANNA, 12)
    tasks = review.next(BEN, "actions", 12)[0]
    for number, task in enumerate(tasks):
        review.save(BEN, str(task.name), new_id(), HOLD if number < 3 else FLOAT)
    with pytest.raises(RefusedError, match="no adjudicator"):
        review.next(BEN, "adjudicate")
    disputes, left = review.next(CARA, "adjudicate", 24)
    assert [str(each.name) for each in disputes] == [f"adjudicate:action:{str(each.name)[8:]}" for each in tasks[:3]]
    assert left == 3
    assert [(each.annotator, each.value) for each in disputes[0].said] == [("anna", FLOAT), ("ben", HOLD)]
    for each in disputes[:2]:
        review.save(CARA, str(each.name), new_id(), HOLD)
    assert desk(each=2).progress(CARA)[-1] == {"mode": "adjudicate", "total": 3, "done": 2, "mine": 2, "open": 1}
    sync(dataset, store)
    accept_into(dataset)
    settled = [str(each.name).split(":")[2:] for each in disputes[:2]]
    rows = {(row["clip_id"], str(row["person_id"])): row["action_id"] for row in dataset.table("actions").to_pylist()}
    assert [rows[clip, person] for clip, person in settled] == [17, 17]


def test_a_dispute_ends_when_an_annotator_changes_their_mind(desk: Opened):
    review = desk(each=2)
    (task,) = judge(review, ANNA, 1)
    assert judge(review, BEN, 1, HOLD) == [task]
    assert review.progress(CARA)[-1]["open"] == 1
    review.next(BEN, "actions", 1, again=True)
    review.save(BEN, task, new_id(), FLOAT)
    assert review.progress(CARA)[-1]["open"] == 0


def test_a_decision_that_is_undone_is_open_again(desk: Opened):
    review = desk(each=2)
    judge(review, ANNA, 1)
    judge(review, BEN, 1, HOLD)
    (dispute,) = review.next(CARA, "adjudicate")[0]
    name = new_id()
    review.save(CARA, str(dispute.name), name, HOLD)
    assert review.next(CARA, "adjudicate")[0] == []
    assert review.undo(CARA, name).name == dispute.name
    assert review.progress(CARA)[-1]["open"] == 1


def test_edits_of_boxes_show_at_once_and_only_to_who_made_them(desk: Opened, dataset: Dataset, store: Store):
    review = desk(each=2)
    (task,) = names(review, ANNA, "boxes")
    assert names(review, BEN, "boxes") == [task]
    review.save(ANNA, task, new_id(), {"op": "merge", "into": 1}, person_id=2)
    split = new_id()
    review.save(ANNA, task, split, {"op": "split", "frame": 20, "new": 7}, person_id=1)
    assert {person: len(track) for person, track in review.tracks(ANNA, "tour_000").items()} == {1: 19, 7: 11}
    assert list(review.tracks(BEN, "tour_000")) == [1, 2]
    review.done(ANNA, task, 9.0)
    review.done(ANNA, task, 9.0)  # sent twice
    assert desk(each=2).progress(ANNA)[2]["mine"] == 1
    review.undo(ANNA, split)
    assert review.progress(ANNA)[2]["mine"] == 0
    assert list(review.tracks(ANNA, "tour_000")) == [1]
    sync(dataset, store)
    accept_into(dataset)
    assert set(dataset.table("boxes").to_pandas().query("clip_id == 'tour_000'")["person_id"]) == {1}


@pytest.mark.parametrize(
    ("person", "value"),
    [
        (9, {"op": "delete"}),
        (1, {"op": "merge", "into": 1}),
        (1, {"op": "merge", "into": 9}),
        (1, {"op": "split", "frame": 3, "new": 2}),
        (3, {"op": "draw", "stretches": [[[1, 0, 0, 5, 5], [31, 0, 0, 5, 5]]]}),
        (None, {"op": "delete"}),
    ],
)
def test_an_edit_of_what_is_not_there_is_refused(desk: Opened, store: Store, person: int | None, value: dict):
    review = desk()
    (task,) = names(review, ANNA, "boxes")
    with pytest.raises(AnnotationError):
        review.save(ANNA, task, new_id(), value, person_id=person)
    assert store.count() == 0


def test_boxes_that_were_accepted_before_are_shown_as_they_were_before_anybody(
    desk: Opened, dataset: Dataset, store: Store
):
    review = desk()
    (task,) = names(review, ANNA, "boxes")
    review.save(ANNA, task, new_id(), {"op": "delete"}, person_id=2)
    sync(dataset, store)
    accept_into(dataset)
    again = desk()
    assert list(again.tracks(BEN, "tour_000")) == [1, 2]
    assert list(again.tracks(ANNA, "tour_000")) == [1]


def test_texts_come_with_what_the_dataset_holds(desk: Opened):
    review = desk()
    captions = {task.name.item.clip_id: task.held for task in review.next(ANNA, "captions", 6)[0]}
    assert captions["tour_000"] == {"verdict": "accept", "caption": "She floats."}
    assert captions["tour_001"] is None
    (question,) = review.next(ANNA, "questions")[0]
    assert question.held == {"verdict": "accept", "question": "Question 0?", "answer": "Yes."}


def test_clips_that_people_dropped_are_screened_but_not_labelled(desk: Opened, dataset: Dataset, store: Store):
    review = desk()
    (task,) = names(review, ANNA, "screen")
    review.save(ANNA, task, new_id(), {"keep": False, "reason": "cartoon"})
    sync(dataset, store)
    accept_into(dataset)
    again = desk(each=2)
    assert names(again, BEN, "screen") == [task]
    assert not any("tour_000" in name for name in names(again, BEN, "actions", 12))


def test_progress_tells_what_is_open_to_each(desk: Opened):
    review = desk(each=2)
    judge(review, ANNA, 5)
    judge(review, BEN, 2)
    assert review.progress(ANNA)[1] == {"mode": "actions", "total": 12, "done": 2, "mine": 5, "open": 7}
    assert review.progress(BEN)[1] == {"mode": "actions", "total": 12, "done": 2, "mine": 2, "open": 10}


def test_time_of_judgements_never_runs_backwards(desk: Opened, store: Store, clock: Clock):
    review = desk()
    judge(review, ANNA, 1)
    clock.move(-3600)
    judge(review, ANNA, 2)
    times = [annotation.time for _, annotation in store.judgements()]
    assert times == sorted(set(times))
