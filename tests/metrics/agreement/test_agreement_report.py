"""Agreement of a dataset's judgements, kind by kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from microg.annotations.boxes import Tracks
from microg.annotations.rows import Annotation, Kind, checked
from microg.data.vocabulary import MICROG_VOCABULARY, read_vocabulary
from microg.metrics.agreement.report import Choice, KindAgreement, agreement

_NUMBERS = count()
START = datetime(2026, 12, 1, tzinfo=UTC)


def said(kind: Kind, value: dict, annotator: str, clip: str = "a_000", **more) -> Annotation:
    number = next(_NUMBERS)
    default = {"person_id": 1 if kind in ("action", "box") else None, "item": 0 if kind == "qa" else None}
    made = Annotation(
        annotation_id=f"n-{number}",
        clip_id=clip,
        kind=kind,
        value=value,
        annotator=annotator,
        source=more.pop("source", "app"),
        time=START + timedelta(seconds=number),
        **{**default, **more},
    )
    return checked(made, MICROG_VOCABULARY)


def actions(annotator: str, *ids: int, clip: str = "a_000", **more) -> Annotation:
    return said("action", {"actions": list(ids)}, annotator, clip, **more)


def found(rows: list[Annotation], kind: Kind, held: dict | None = None, **choice) -> KindAgreement:
    return agreement(rows, MICROG_VOCABULARY, held or {}, Choice(resamples=0, **choice))[kind]


def value(report: KindAgreement, metric: str, slice_name: str = "all", annotator=None, other=None, slice_kind=None):
    for score in report.scores:
        if (score.metric, score.slice, score.annotator, score.other) == (metric, slice_name, annotator, other) and (
            slice_kind in (None, score.slice_kind)
        ):
            return score.value
    raise AssertionError(f"no {metric} of {slice_name}")


def test_three_of_twelve_people_labelled_differently_give_the_numbers_of_a_hand_computation():
    rows = []
    for number in range(12):
        clip = f"a_{number:03d}"
        rows += [actions("anna", 12, clip=clip), actions("ben", 12 if number > 2 else 11, clip=clip)]
    report = found(rows, "action")
    assert (report.units, len(report.differing)) == (12, 3)
    assert value(report, "observed") == 0.75
    # of 24 values 21 are {12} and 3 {11}: 1 - 23 x 6 / (2 x 21 x 3)
    assert value(report, "alpha_masi") == pytest.approx(1 - 138 / 126)
    assert value(report, "alpha", "12") == pytest.approx(1 - 138 / 126)
    assert value(report, "kappa", "12", "anna", "ben") == 0  # anna always said it
    # 24 cells of two actions: both yes 9, both no 9, 6 differ; chance 1/2
    assert value(report, "kappa", "all", "anna", "ben") == pytest.approx((18 / 24 - 0.5) / 0.5)
    (confused,) = report.confusions
    assert (confused.first, confused.second, confused.count) == (11, 12, 3)
    assert confused.examples[0].clip_id == "a_000"


def test_somebody_who_cannot_tell_and_what_the_dataset_held_are_no_votes():
    rows = [
        actions("anna", 12),
        actions("ben", 12),
        said("action", {"actions": [], "cannot_tell": True}, "cara"),
        actions("dataset", 80, source="import", round=0),
        actions("a-model", 80, source="model"),
    ]
    report = found(rows, "action")
    assert report.annotators == {"anna": 1, "ben": 1, "cara": 1}
    assert value(report, "observed") == 1
    assert "could not tell" in report.notes[0]
    assert found(rows, "action", models=True).annotators == {"a-model": 1, "anna": 1, "ben": 1, "cara": 1}
    assert found(rows, "action", annotators=("anna", "dataset")).annotators == {"anna": 1, "dataset": 1}


def test_labels_given_before_a_merge_count_as_what_they_mean_now():
    names = [{"id": number, "name": name} for number, name in enumerate(("float", "hover", "wave"), 1)]
    vocabulary = read_vocabulary({"name": "mine", "actions": names}, "here").merged([2], 1, "now")
    rows = [actions("anna", 1), actions("ben", 1)]
    old = Annotation(**{**vars(rows[1]), "value": {"actions": [2]}})
    report = agreement([rows[0], old], vocabulary, {}, Choice(resamples=0))["action"]
    assert value(report, "observed") == 1
    split = vocabulary.split(3, ["greet", "signal"], "later")
    unclear = Annotation(**{**vars(rows[1]), "value": {"actions": [3]}})
    report = agreement([rows[0], unclear], split, {}, Choice(resamples=0))["action"]
    assert report.units == 0
    assert "was split since" in report.notes[0]


def test_an_adjudicator_has_no_vote_and_is_what_annotators_are_compared_with():
    rows = [
        actions("anna", 12, 80),
        actions("ben", 12),
        actions("cara", 12, 80, adjudicated=True),
        actions("anna", 12, clip="a_001"),
        actions("ben", 12, clip="a_001"),
    ]
    report = found(rows, "action")
    assert set(report.annotators) == {"anna", "ben"}
    assert value(report, "observed", "decided", "anna", slice_kind="decided") == 1
    assert value(report, "jaccard", "decided", "ben", slice_kind="decided") == 0.5


def test_a_models_screening_is_told_from_what_people_decided_with_both_kinds_of_error():
    rows = []
    for number, (people, model) in enumerate(
        [(True, True), (True, False), (False, True), (False, False), (False, True)]
    ):
        clip = f"a_{number:03d}"
        rows += [said("screening", {"keep": people}, name, clip) for name in ("anna", "ben")]
        rows.append(said("screening", {"keep": model}, "vlm", clip, source="model"))
    # people are split on this one
    rows += [said("screening", {"keep": name == "anna"}, name, "a_009") for name in ("anna", "ben")]
    rows.append(said("screening", {"keep": True}, "vlm", "a_009", source="model"))
    report = found(rows, "screening", models=True)
    assert value(report, "false_keep", annotator="vlm") == pytest.approx(2 / 3)
    assert value(report, "false_drop", annotator="vlm") == pytest.approx(1 / 2)
    assert value(report, "right", annotator="vlm") == pytest.approx(2 / 5)


def test_texts_are_compared_where_both_kept_them_and_verdicts_everywhere():
    rows = [
        said("caption", {"verdict": "accept", "caption": "A man floats."}, "anna"),
        said("caption", {"verdict": "edit", "caption": "The man floats"}, "ben"),
        said("caption", {"verdict": "accept", "caption": "He waves."}, "anna", "a_001"),
        said("caption", {"verdict": "reject", "caption": ""}, "ben", "a_001"),
    ]
    report = found(rows, "caption")
    assert value(report, "observed") == 0
    assert value(report, "exact", "caption", slice_kind="text") == 1  # but for article and full stop
    assert value(report, "rouge_l", "caption", slice_kind="text") == 1
    assert len(report.differing) == 2


def test_boxes_are_compared_after_each_annotators_edits():
    held: dict[str, Tracks] = {"a_000": {1: dict.fromkeys((1, 2, 3, 4), (0.0, 0.0, 10.0, 10.0, None))}}
    draw = {"op": "draw", "stretches": [[[1, 50, 0, 60, 10], [4, 50, 0, 60, 10]]]}
    rows = [
        said("box", {"op": "split", "frame": 3, "new": 5}, "anna"),
        said("box", draw, "ben", person_id=9),
        said("box", {"op": "delete"}, "anna", "a_001"),
    ]
    report = found(rows, "box", held)
    assert (report.units, report.alone) == (1, 1)
    assert value(report, "iou") == 1  # ben's person 1 and one half of anna's
    assert value(report, "only_first") == 1
    assert value(report, "only_second") == 1
    assert value(report, "idf1") == pytest.approx(2 * 2 / 12)
