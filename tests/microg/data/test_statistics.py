"""The dataset tables: published rules on hand-made data, and the published numbers where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from microg.data import schema, statistics
from microg.data.statistics import Tables
from microg.data.taxonomy import BY_ID
from tests.support.helpers import tiny_rows

_PLAIN = (
    statistics.overview,
    statistics.label_groups,
    statistics.labels_per_action,
    statistics.people_per_clip,
    statistics.labels_per_person,
    statistics.sources,
    statistics.decisions,
    statistics.split_sizes,
    statistics.text_lengths,
    statistics.question_types,
)


def _tables(rows: dict[str, list[dict[str, Any]]]) -> Tables:
    return Tables.of({name: schema.from_rows(name, table_rows) for name, table_rows in rows.items()})


def _column(frame: pd.DataFrame, key: str, value: str) -> dict[Any, Any]:
    return dict(zip(frame[key].tolist(), frame[value].tolist(), strict=True))


def test_the_overview_counts_by_origin() -> None:
    frame = statistics.overview(_tables(tiny_rows()))
    assert _column(frame, "statistic", "all") == {
        "clips": 4,
        "minutes": 0.03,
        "sources": 3,
        "clips with labels": 4,
        "people": 6,
        "boxes": 72,
        "action labels": 12,
        "actions used": 3,
        "captions": 4,
        "question-answer pairs": 24,
    }
    assert _column(frame, "statistic", "movie")["sources"] == 1
    assert _column(frame, "statistic", "real")["people"] == 3


def test_rejected_clips_do_not_count_but_are_listed_with_their_reason() -> None:
    rows = tiny_rows()
    rows["clips"][3]["status"] = "rejected"
    rows["decisions"][3].update(keep=False, reason="too few person frames", score=20.0)
    tables = _tables(rows)
    assert _column(statistics.overview(tables), "statistic", "all")["boxes"] == 60
    assert _column(statistics.sources(tables), "source_id", "rejected") == {"filmA": 0, "tourB": 0, "walkC": 1}
    (row,) = statistics.decisions(tables).to_dict("records")
    assert row == {
        "stage": "person",
        "clips": 1,
        "threshold": 60.0,
        "lowest_score": 20.0,
        "highest_score": 20.0,
        "example": "too few person frames",
    }


def test_people_are_counted_by_the_published_rule_among_labels_or_else_among_boxes() -> None:
    rows = tiny_rows()
    rows["actions"] = [row for row in rows["actions"] if row["clip_id"] != "walkC_000"]
    assert _column(statistics.people_per_clip(_tables(rows)), "people", "all") == {1: 1, 2: 2}
    rows["actions"] = []
    rows["boxes"] = [row for row in rows["boxes"] if row["clip_id"] != "walkC_000"]
    assert _column(statistics.people_per_clip(_tables(rows)), "people", "all") == {0: 1, 1: 1, 2: 2}


def test_labels_of_a_person_are_counted_once_each() -> None:
    rows = tiny_rows()
    rows["actions"] += [
        {"clip_id": "walkC_000", "person_id": 1, "action_id": 12},
        {"clip_id": "walkC_000", "person_id": 1, "action_id": 79},
    ]
    frame = statistics.labels_per_person(_tables(rows))
    assert _column(frame, "labels", "all") == {2: 5, 3: 1}
    assert _column(frame, "labels", "all_percent") == {2: 83.33, 3: 16.67}


def test_every_action_has_a_row_most_frequent_first() -> None:
    frame = statistics.labels_per_action(_tables(tiny_rows()))
    assert len(frame) == 50
    assert frame["action_id"].tolist()[:4] == [12, 17, 80, 1]
    assert frame["all"].tolist()[:4] == [6, 4, 2, 0]
    assert frame["movie"].tolist()[:4] == [3, 2, 1, 0]


def test_split_sizes_count_clips_sources_and_labels() -> None:
    frame = statistics.split_sizes(_tables(tiny_rows()))
    assert frame.values.tolist() == [
        ["source", "train", 2, 1, 6, 3],
        ["source", "val", 1, 1, 4, 3],
        ["source", "test", 1, 1, 2, 2],
    ]


def test_text_lengths_count_words_sentences_and_vocabulary() -> None:
    rows = tiny_rows()
    rows["captions"] = [
        {"clip_id": "filmA_000", "caption": "One two. Two three!"},
        {"clip_id": "filmA_001", "caption": "one's in a 3-D box"},
        {"clip_id": "tourB_000", "caption": None},
    ]
    row = statistics.text_lengths(_tables(rows)).iloc[0].to_dict()
    assert row == {
        "text": "caption",
        "number": 2,
        "different": 2,
        "words_mean": 4.5,
        "words_sd": 0.71,
        "words_min": 4.0,
        "words_median": 4.5,
        "words_max": 5.0,
        "characters_mean": 18.5,
        "sentences_mean": 1.5,
        "vocabulary": 8,
        "once": 7,
    }


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is he holding?", "what"),
        ("What's that?", "what"),
        ("How many bags?", "how"),
        ("WHO is it?", "who"),
        ("To whom does she talk?", "who"),
        ("Whose bag is it?", "whose"),
        ("In which module?", "which"),
        ("At what time?", "what"),
        ("Are the lights on?", "is/are"),
        ("Is what he holds red?", "is/are"),
        ("Does it float?", "does/do"),
        ("Can you see who it is?", "does/do"),
        ("Name the crew.", "other"),
        ("", "other"),
        (None, "other"),
    ],
)
def test_a_question_is_typed_by_its_question_word(question: str | None, expected: str) -> None:
    assert statistics.question_type(question) == expected


def test_question_types_count_unanswerable_questions() -> None:
    frame = statistics.question_types(_tables(tiny_rows()))
    assert _column(frame, "type", "questions")["why"] == 4
    assert _column(frame, "type", "unanswerable")["why"] == 4
    assert _column(frame, "type", "unanswerable")["who"] == 0
    assert sum(frame["questions"].tolist()) == 24


def test_frequent_words_leave_out_stop_words_and_break_ties_by_alphabet() -> None:
    frame = statistics.frequent_words(["The bag drifts", "a bag, the arm"], {"the"})
    assert frame.values.tolist() == [["bag", 2], ["arm", 1], ["drifts", 1]]


@pytest.mark.parametrize("function", _PLAIN, ids=lambda function: function.__name__)
def test_an_empty_dataset_gives_the_same_columns(function: Any) -> None:
    empty, full = function(Tables.of({})), function(_tables(tiny_rows()))
    assert list(empty.columns) == list(full.columns)


def test_the_published_totals_of_the_action_groups_come_out(oracles: Path) -> None:
    """Published statistics: 4,986 manipulation (37.6%), 4,288 interaction, 3,987 movement, 13,261 in all."""
    classes = pd.read_csv(oracles / "har_scores" / "classes.csv")
    rows = {
        "clips": [{"clip_id": "all_000", "source_id": "all", "origin": "real", "status": "ok"}],
        "actions": [
            {"clip_id": "all_000", "person_id": person, "action_id": action_id}
            for action_id, count in _column(classes, "action_id", "n_all_published").items()
            for person in range(count)
        ],
    }
    tables = _tables(rows)
    groups = statistics.label_groups(tables)
    assert _column(groups, "group", "all") == {
        "person movement": 3987,
        "object manipulation": 4986,
        "person interaction": 4288,
    }
    assert groups["all_percent"].tolist() == [30.07, 37.6, 32.34]
    per_action = statistics.labels_per_action(tables)
    published = _column(classes, "action_id", "n_all_published")
    assert _column(per_action, "action_id", "all") == published
    assert per_action["all"].tolist() == sorted(per_action["all"].tolist(), reverse=True)
    assert set(per_action["action_id"]) == set(BY_ID)


def test_the_label_counts_of_the_published_test_split_come_out(oracles: Path) -> None:
    classes = pd.read_csv(oracles / "har_scores" / "classes.csv")
    truth = pd.read_csv(oracles / "har_scores" / "gt_test.csv.gz")
    clip_ids = sorted(truth["video_id"].unique())
    rows = {
        "clips": [{"clip_id": clip_id, "source_id": clip_id.rsplit("_", 1)[0], "status": "ok"} for clip_id in clip_ids],
        "actions": [
            {"clip_id": clip_id, "person_id": person_id, "action_id": action_id}
            for clip_id, person_id, action_id in truth[["video_id", "person_id", "action_id"]].values.tolist()
        ],
    }
    tables = _tables(rows)
    assert _column(statistics.labels_per_action(tables), "action_id", "all") == _column(
        classes, "action_id", "n_test_rows"
    )
    overview = _column(statistics.overview(tables), "statistic", "all")
    assert (overview["clips"], overview["sources"], overview["action labels"]) == (953, 47, 2656)
