"""From observations to decisions, boxes and sources: thresholds, reasons, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest

from microg.models.curation.box_rule import CORRECTED, PUBLISHED, rule_ladder
from microg.pipelines.curate.decide import (
    FilterSettings,
    boxes_of,
    compare_rules,
    decide,
    decide_clip,
    person_percentage,
    sources,
)
from tests.support.curation import PERSON_BOX, observed_row, source_row, table_of

DEFAULT = FilterSettings()


def decisions_of(row: dict[str, Any], filters: FilterSettings = DEFAULT) -> dict[str, tuple[bool, float | None]]:
    return {item["stage"]: (item["keep"], item["score"]) for item in decide_clip(row, filters)}


def test_the_person_percentage_is_of_frames_not_of_boxes():
    row = observed_row(person_frames=45)
    row["detection_frame"] = [0] * 45  # 45 people in one frame
    assert person_percentage(row, 0.6) == pytest.approx(100 / 90)


def test_a_person_counts_above_the_confidence_and_not_at_it():
    assert person_percentage(observed_row(confidence=0.6), 0.6) == 0.0
    assert person_percentage(observed_row(confidence=0.601), 0.6) == 100.0


def test_other_classes_are_no_persons():
    row = observed_row()
    row["detection_class"] = [62] * 90
    assert person_percentage(row, 0.6) == 0.0


@pytest.mark.parametrize(("person_frames", "keep"), [(0, False), (53, False), (54, True), (90, True)])
def test_a_clip_needs_a_person_in_60_percent_of_its_frames(person_frames: int, keep: bool):
    assert decisions_of(observed_row(person_frames=person_frames))["persons"] == (
        keep,
        pytest.approx(100 * person_frames / 90),
    )


def test_one_scene_cut_rejects_and_the_reason_names_its_frame():
    made = decide_clip(observed_row(cuts=(40,)), DEFAULT)
    scenes = next(item for item in made if item["stage"] == "scenes")
    assert not scenes["keep"]
    assert (scenes["score"], scenes["threshold"]) == (1, 0)
    assert scenes["reason"] == "1 scene cuts at content score 40 at frame 41"
    assert all(
        item["keep"] for item in decide_clip(observed_row(cuts=(40,)), FilterSettings.model_validate({"max_cuts": 1}))
    )
    assert all(
        item["keep"]
        for item in decide_clip(observed_row(cuts=(40,)), FilterSettings.model_validate({"scene_threshold": 81}))
    )


def test_every_stage_is_decided_even_after_a_rejection():
    stages = decisions_of(observed_row(person_frames=10, cuts=(40,)))
    assert {stage: keep for stage, (keep, _) in stages.items()} == {"decode": True, "persons": False, "scenes": False}


def test_a_rejected_clip_keeps_its_row_without_boxes():
    rows = [
        observed_row("a_000"),
        observed_row("a_001", person_frames=10),
        observed_row("a_002", cuts=(40,)),
        observed_row("a_003", damaged="a packet is lost"),
        source_row("a", clip_id="a_004", status="error", error="VideoError: no"),
    ]
    tables = decide(table_of(*rows), DEFAULT, PUBLISHED, "/out")
    clips = {row["clip_id"]: (row["status"], row["error"]) for row in tables["clips"].to_pylist()}
    assert clips == {
        "a_000": ("ok", ""),
        "a_001": ("rejected", "persons: a person above confidence 0.6 in 11.1% of frames"),
        "a_002": ("rejected", "scenes: 1 scene cuts at content score 40 at frame 41"),
        "a_003": ("error", "decode: the source is damaged here: a packet is lost"),
        "a_004": ("error", "decode: VideoError: no"),
    }
    assert set(tables["boxes"]["clip_id"].to_pylist()) == {"a_000"}
    stages: dict[str, list[str]] = {}
    for row in tables["decisions"].to_pylist():
        stages.setdefault(row["clip_id"], []).append(row["stage"])
    assert stages == {
        "a_000": ["decode", "persons", "scenes", "track"],
        **{clip_id: ["decode", "persons", "scenes"] for clip_id in ("a_001", "a_002", "a_003")},
        "a_004": ["decode"],
    }


def test_boxes_are_whole_pixels_of_the_person_from_the_third_processed_frame_on():
    boxes = decide(table_of(observed_row()), DEFAULT, PUBLISHED, "/out")["boxes"].to_pylist()
    assert [row["frame"] for row in boxes] == list(range(15, 91))  # every 5th frame, 3 detections needed
    assert {(row["person_id"], row["x1"], row["y1"], row["x2"], row["y2"]) for row in boxes} == {(1, *PERSON_BOX)}


def test_a_clip_inside_the_dataset_is_named_relative_to_it_and_another_absolutely():
    rows = [observed_row("a_000"), observed_row("b_000", uri="/clips/b_000.mp4")]
    clips = decide(table_of(*rows), DEFAULT, PUBLISHED, "/out/")["clips"]
    assert clips["uri"].to_pylist() == ["videos/a_000.mp4", "/clips/b_000.mp4"]


def test_clips_that_came_as_files_belong_to_the_source_that_their_id_names():
    rows = [observed_row(f"tour_{k:03d}") | {"source_id": f"tour_{k:03d}", "source_uri": f"/c/{k}"} for k in (0, 7)]
    tables = decide(table_of(*rows), DEFAULT, PUBLISHED, "/out")
    assert tables["clips"]["source_id"].to_pylist() == ["tour", "tour"]
    (source,) = tables["sources"].to_pylist()
    assert (source["source_id"], source["clips"], source["size_bytes"], source["duration_s"]) == ("tour", 2, 2000, 7.0)


def source_of(*rows: dict[str, Any]) -> dict[str, Any]:
    (row,) = sources(table_of(*rows)).to_pylist()
    return row


def test_a_source_says_what_became_of_it():
    good = source_of(observed_row("a_000"), observed_row("a_001"))
    assert (good["status"], good["error"], good["clips"], good["tail_s"]) == ("ok", "", 2, 0.5)
    short = source_of(source_row(tail_s=2.97))
    assert (short["status"], short["error"], short["clips"]) == ("rejected", "shorter than one clip: 2.97 s", 0)
    damaged = source_of(observed_row("a_000", decode_errors=["Invalid data", "no"]))
    assert damaged["status"] == "error"
    assert damaged["error"] == "VideoError: 2 parts cannot be decoded: Invalid data"
    assert damaged["decode_errors"] == 2
    unreadable = source_of(source_row(status="error", error="VideoError: moov is missing", source_fps=None))
    assert (unreadable["status"], unreadable["error"]) == ("error", "VideoError: moov is missing")
    assert unreadable["fps"] is None


def test_a_source_with_one_failed_stretch_fails_and_keeps_the_clips_of_the_others():
    failed = source_row(key="a#1", stretch=1, stretches=2, status="error", error="WorkerCrashed: it does")
    row = source_of(observed_row("a_000", stretches=2), failed)
    assert (row["status"], row["error"], row["clips"]) == ("error", "WorkerCrashed: it does", 1)


def test_the_tail_is_that_of_the_last_stretch_and_errors_are_counted_once_a_stretch():
    first = {"stretches": 2, "tail_s": 0.0, "decode_errors": ["x"]}
    last = {"stretches": 2, "stretch": 1, "tail_s": 1.25}
    rows = [observed_row("a_000", **first), observed_row("a_001", **first), observed_row("a_010", **last)]
    row = source_of(*rows)
    assert (row["tail_s"], row["decode_errors"]) == (1.25, 1)


def test_the_corrected_rule_publishes_every_frame_and_small_people():
    small = observed_row(box=(4.0, 4.0, 12.0, 14.0))
    assert len(boxes_of(small, PUBLISHED)) == 0
    assert boxes_of(small, CORRECTED).frame.tolist() == list(range(1, 91))


def test_rules_are_compared_on_kept_clips_only():
    rows = [observed_row("a_000"), observed_row("a_001", person_frames=5), observed_row("a_002", motion_published=96.0)]
    compared = {row["rule"]: row for row in compare_rules(table_of(*rows), DEFAULT, rule_ladder())}
    # Low motion: frames 15 to 90. High motion: every third frame, two detections, and a floor of 20%: 6 to 90.
    assert compared["published"] == {
        "rule": "published",
        "kept_clips": 2,
        "high_motion_clips": 1,
        "boxes": 76 + 85,
        "persons": 2,
        "clips_without_boxes": 0,
    }
    assert compared["without manhattan_motion"]["high_motion_clips"] == 0
    assert compared["corrected"]["boxes"] == 180
