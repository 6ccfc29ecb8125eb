"""What a dataset holds after people judged it, by each rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from microg.annotations.accept import Acceptance, Rule, accept
from microg.annotations.apply import accept_into
from microg.annotations.rows import DATASET, Annotation, checked
from microg.annotations.table import add_annotations, current, read_annotations
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.vocabulary import MICROG_VOCABULARY
from microg.errors import AnnotationError

START = datetime(2026, 12, 1, tzinfo=UTC)


def judgement(kind, value, annotator="anna", at=0, **more) -> Annotation:
    defaults = {"person_id": 1 if kind in ("action", "box") else None, "item": 0 if kind == "qa" else None}
    name = more.pop("annotation_id", f"{kind}-{annotator}-{at}")
    clip = more.pop("clip_id", "a_000")
    made = Annotation(
        annotation_id=name,
        clip_id=clip,
        kind=kind,
        value=value,
        annotator=annotator,
        source=more.pop("source", "app"),
        time=START + timedelta(seconds=at),
        **{**defaults, **more},
    )
    return checked(made, MICROG_VOCABULARY)


def tables(**rows) -> dict:
    names = ("clips", "decisions", "boxes", "actions", "captions", "qa")
    given = {"clips": [{"clip_id": "a_000", "status": "ok"}], **rows}
    return {name: schema.from_rows(name, given.get(name, [])) for name in names}


def actions_after(said, rule: Rule = "majority", least=1, **rows) -> tuple[list, list]:
    made = accept(tables(**rows), said, MICROG_VOCABULARY, Acceptance(rule=rule, least=least))
    table = made.tables["actions"].to_pylist()
    return sorted(row["action_id"] for row in table if row["clip_id"] == "a_000"), made.open


def test_a_majority_decides_each_action_of_a_person_by_itself():
    said = [
        judgement("action", {"actions": [12, 79]}, "anna"),
        judgement("action", {"actions": [12, 80]}, "ben"),
        judgement("action", {"actions": [12, 79, 80]}, "cara"),
    ]
    assert actions_after(said) == ([12, 79, 80], [])
    agreed, still_open = actions_after(said[:2])
    assert agreed == [12]
    assert "half of the annotators said 79 talk to" in still_open[0].why
    assert still_open[0].said == {"anna": {"actions": [12, 79]}, "ben": {"actions": [12, 80]}}


def test_only_what_all_said_or_an_adjudicator_decided_counts_under_the_rule_adjudicated():
    said = [judgement("action", {"actions": [12]}, "anna"), judgement("action", {"actions": [11]}, "ben")]
    assert actions_after(said, "adjudicated")[0] == []
    decided = judgement("action", {"actions": [11, 80]}, "cara", at=5, adjudicated=True)
    assert actions_after([*said, decided], "adjudicated") == ([11, 80], [])
    assert actions_after([*said, decided], "majority") == ([11, 80], [])


def test_the_newest_judgement_counts_under_the_rule_single_and_an_annotators_newer_one_replaces_the_older():
    said = [judgement("action", {"actions": [12]}, "anna", at=1), judgement("action", {"actions": [11]}, "ben", at=0)]
    assert actions_after(said, "single")[0] == [12]
    assert actions_after([*said, judgement("action", {"actions": [80]}, "anna", at=9)])[1][0].said["anna"] == {
        "actions": [80]
    }


def test_an_annotator_who_cannot_tell_has_no_vote():
    said = [
        judgement("action", {"actions": [12]}, "anna"),
        judgement("action", {"actions": [], "cannot_tell": True}, "ben"),
    ]
    assert actions_after(said) == ([12], [])
    assert actions_after(said[1:])[1][0].why == "nobody could tell"


def test_fewer_annotators_than_asked_for_leave_an_item_open():
    agreed, still_open = actions_after([judgement("action", {"actions": [12]})], least=2)
    assert (agreed, still_open[0].why) == ([], "1 of at least 2 annotators")


def test_what_nobody_judged_stays_and_a_withdrawn_judgement_gives_back_what_was_there():
    held = [
        {"clip_id": "a_000", "person_id": 1, "action_id": 80},
        {"clip_id": "a_000", "person_id": 2, "action_id": 14},
    ]
    said = [judgement("action", {"actions": [12]})]
    made = accept(tables(actions=held), said, MICROG_VOCABULARY, Acceptance())
    assert [row["action_id"] for row in made.tables["actions"].to_pylist()] == [14, 12]
    assert [(each.annotator, each.value, each.round) for each in made.before] == [(DATASET, {"actions": [80]}, 0)]
    taken_back = judgement("action", {"withdrawn": True}, at=3, supersedes=said[0].annotation_id)
    later = accept(made.tables | tables(), [*said, *made.before, taken_back], MICROG_VOCABULARY, Acceptance())
    assert [row["action_id"] for row in later.tables["actions"].to_pylist()] == [80]


def test_a_models_proposal_counts_only_where_no_person_judged_and_only_when_it_may():
    proposal = judgement("caption", {"verdict": "accept", "caption": "A man floats."}, "run-1", source="model")
    how = Acceptance(unreviewed=True)
    assert accept(tables(), [proposal], MICROG_VOCABULARY, Acceptance()).tables == {}
    made = accept(tables(), [proposal], MICROG_VOCABULARY, how)
    assert made.tables["captions"].to_pylist() == [{"clip_id": "a_000", "caption": "A man floats."}]
    edited = judgement("caption", {"verdict": "edit", "caption": "A woman floats."}, at=4)
    made = accept(tables(), [proposal, edited], MICROG_VOCABULARY, how)
    assert made.tables["captions"]["caption"].to_pylist() == ["A woman floats."]


def test_a_rejected_question_leaves_the_dataset_and_different_texts_stay_open():
    pair = {"question": "Who?", "answer": "An astronaut."}
    held = [{"clip_id": "a_000", "qa_index": 0, **pair}, {"clip_id": "a_000", "qa_index": 1, **pair}]
    said = [judgement("qa", {"verdict": "reject", "question": "", "answer": ""})]
    made = accept(tables(qa=held), said, MICROG_VOCABULARY, Acceptance())
    assert made.tables["qa"]["qa_index"].to_pylist() == [1]
    other = judgement("qa", {"verdict": "edit", "question": "Who?", "answer": "A woman."}, "ben")
    made = accept(tables(qa=held), [*said, other], MICROG_VOCABULARY, Acceptance())
    assert made.tables["qa"]["qa_index"].to_pylist() == [0, 1]  # open: as it was
    assert made.open[0].why == "2 different judgements by 2 annotators"


def test_people_drop_a_clip_and_can_take_it_back_but_not_what_a_filter_rejected():
    clips = [
        {"clip_id": "a_000", "status": "ok"},
        {"clip_id": "a_001", "status": "rejected", "error": "persons: too few"},
    ]
    drop = judgement("screening", {"keep": False, "reason": "cartoon"})
    made = accept(tables(clips=clips), [drop], MICROG_VOCABULARY, Acceptance())
    assert made.tables["clips"].select(["status", "error"]).to_pylist() == [
        {"status": "rejected", "error": "people: cartoon"},
        {"status": "rejected", "error": "persons: too few"},
    ]
    decision = made.tables["decisions"].to_pylist()[0]
    assert (decision["stage"], decision["keep"], decision["reason"], decision["score"]) == (
        "people",
        False,
        "cartoon",
        0,
    )
    keep = judgement("screening", {"keep": True}, at=5)
    again = accept(tables() | made.tables, [drop, keep, *made.before], MICROG_VOCABULARY, Acceptance())
    assert again.tables["clips"]["status"].to_pylist() == ["ok", "rejected"]


def _box(frame: int, person: int, x: float = 0.0) -> dict:
    return {"clip_id": "a_000", "frame": frame, "person_id": person, "x1": x, "y1": 0, "x2": x + 4, "y2": 4}


def test_edits_of_boxes_delete_merge_split_and_draw_and_doing_them_again_changes_nothing():
    held = [_box(1, 1), _box(2, 1), _box(3, 2), _box(4, 2), _box(1, 3)]
    draw = {"op": "draw", "stretches": [[[1, 0, 0, 2, 2], [3, 4, 0, 6, 2]], [[5, 0, 0, 2, 2]]]}
    said = [
        judgement("box", {"op": "delete"}, person_id=3, at=0),
        judgement("box", {"op": "merge", "into": 1}, person_id=2, at=1),
        judgement("box", {"op": "split", "frame": 4, "new": 7}, person_id=1, at=2),
        judgement("box", draw, person_id=8, at=3),
    ]
    made = accept(tables(boxes=held), said, MICROG_VOCABULARY, Acceptance())
    rows = [(row["person_id"], row["frame"], row["x1"]) for row in made.tables["boxes"].to_pylist()]
    assert rows == [(1, 1, 0), (1, 2, 0), (1, 3, 0), (7, 4, 0), (8, 1, 0), (8, 2, 2), (8, 3, 4), (8, 5, 0)]
    again = accept(tables() | made.tables, [*said, *made.before], MICROG_VOCABULARY, Acceptance())
    assert again.tables["boxes"].equals(made.tables["boxes"])
    undone = judgement("box", {"withdrawn": True}, at=9, supersedes=said[0].annotation_id, person_id=3)
    back = accept(tables() | made.tables, [*said, *made.before, undone], MICROG_VOCABULARY, Acceptance())
    assert 3 in back.tables["boxes"]["person_id"].to_pylist()


@pytest.mark.parametrize(
    ("kind", "value", "more", "says"),
    [
        ("action", {"actions": [2]}, {}, "action id 2 is not in the vocabulary 'microg50'"),
        ("action", {"actions": [1, 3, 5, 6, 7, 8]}, {}, "6 actions of one person (at most 5"),
        ("action", {"actions": [12], "cannot_tell": True}, {}, "cannot_tell beside actions"),
        ("action", {"actions": "12"}, {}, "no list of ids"),
        ("action", {"actions": [12]}, {"clip_id": "../../etc/passwd"}, "is not allowed"),
        ("action", {"actions": [12]}, {"annotator": "a\nb"}, "no name of an annotator"),
        ("action", {"actions": [12]}, {"person_id": None}, "person id"),
        ("screening", {"keep": "yes"}, {}, "keep"),
        ("caption", {"verdict": "accept", "caption": " "}, {}, "an empty caption"),
        ("caption", {"verdict": "maybe", "caption": "x"}, {}, "'maybe' is no verdict"),
        ("caption", {"verdict": "edit", "caption": "x" * 10_001}, {}, "no text of at most"),
        ("qa", {"verdict": "edit", "question": "Who?", "answer": ""}, {}, "an empty question or answer"),
        ("box", {"op": "paint"}, {}, "no edit 'paint'"),
        ("box", {"op": "draw", "stretches": [[[1, 5, 0, 4, 4]]]}, {}, "a box"),
        ("box", {"op": "draw", "stretches": [[[2, 0, 0, 4, 4], [1, 0, 0, 4, 4]]]}, {}, "the order of frames"),
        ("box", {"op": "draw", "stretches": [[[1, 0, 0, float("nan"), 4]]]}, {}, "a box"),
    ],
)
def test_a_judgement_that_is_not_fit_to_be_saved_is_refused_by_name(kind, value, more, says):
    with pytest.raises(AnnotationError) as error:
        judgement(kind, value, **more)
    assert says in str(error.value)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create(str(tmp_path / "d"), "d")
    clip = {"clip_id": "a_000", "width": 64, "height": 48, "fps": 30.0, "num_frames": 5, "status": "ok"}
    made.write("clips", schema.from_rows("clips", [clip, {**clip, "clip_id": "a_001"}]))
    made.write("boxes", schema.from_rows("boxes", [_box(1, 1), {**_box(1, 1), "clip_id": "a_001"}]))
    made.write("samples", schema.empty("samples"))
    return made


def test_judgements_are_saved_once_and_accepted_into_tables_and_samples(dataset: Dataset):
    said = [judgement("action", {"actions": [12, 80]}), judgement("screening", {"keep": False}, clip_id="a_001")]
    assert add_annotations(dataset, said) == 2
    assert add_annotations(dataset, said) == 0
    before = dataset.fingerprint()
    accepted, _ = accept_into(dataset, Acceptance(rule="single"))
    assert accepted.counts == {"screening": {"judged": 1, "settled": 1}, "action": {"judged": 1, "settled": 1}}
    rows = dataset.table("samples").to_pylist()
    assert [(row["clip_id"], row["action_id"]) for row in rows] == [("a_000", 12), ("a_000", 80)]
    after = Dataset.open(dataset.root)
    assert after.info["acceptance"]["rule"] == "single"
    fingerprint = after.fingerprint()
    assert fingerprint != before
    add_annotations(after, [judgement("action", {"actions": [12, 80]}, "ben")])
    assert accept_into(after)[0].counts["action"]["settled"] == 1  # by the rule that is recorded
    assert Dataset.open(dataset.root).fingerprint() == fingerprint  # what people said is no part of it


def test_another_judgement_under_a_saved_ones_id_is_refused(dataset: Dataset):
    add_annotations(dataset, [judgement("action", {"actions": [12]})])
    with pytest.raises(AnnotationError, match="says something else"):
        add_annotations(dataset, [judgement("action", {"actions": [80]})])
    assert len(current(read_annotations(dataset))) == 1


def test_boxes_of_another_filter_count_as_what_was_there_before_people(dataset: Dataset):
    add_annotations(dataset, [judgement("box", {"op": "split", "frame": 2, "new": 5})])
    accept_into(dataset)
    dataset.write("boxes", schema.from_rows("boxes", [_box(1, 1), _box(2, 1, 8), _box(3, 1, 8), _box(1, 9)]))
    accept_into(Dataset.open(dataset.root), rebased=("box",))
    expected = [(1, 1), (5, 2), (5, 3), (9, 1)]
    assert [(row["person_id"], row["frame"]) for row in dataset.table("boxes").to_pylist()] == expected
    accept_into(Dataset.open(dataset.root))
    assert [(row["person_id"], row["frame"]) for row in dataset.table("boxes").to_pylist()] == expected
