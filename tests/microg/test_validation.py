"""Each defect that validation promises to find is planted alone in a faultless dataset, and found."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from microg.data import schema
from microg.validation import check_tables, validate
from microg.validation.videos import near_duplicates, signature
from tests.support.helpers import make_dataset, moving_scene, tiny_rows, write_video

Rows = dict[str, list[dict[str, Any]]]


def _tables(rows: Rows) -> dict[str, pa.Table]:
    return {name: schema.from_rows(name, table_rows) for name, table_rows in rows.items()}


def _set(table: str, index: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table][index].update(values)


def _repeat(table: str, index: int = 0, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append({**rows[table][index], **values})


def _drop(table: str, **match: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[table] = [row for row in rows[table] if any(row[key] != value for key, value in match.items())]

    return change


def _seven_labels(rows: Rows) -> None:
    rows["actions"] += [
        {"clip_id": "walkC_000", "person_id": 1, "action_id": action_id} for action_id in (1, 3, 5, 6, 7)
    ]


def _nobody(rows: Rows) -> None:
    for name in ("boxes", "actions", "samples"):
        _drop(name, clip_id="walkC_000")(rows)


def _published_split(rows: Rows) -> None:
    sides = ("train", "val", "train", "test")
    rows["splits"] += [
        {"clip_id": row["clip_id"], "split": side, "scheme": "published"}
        for row, side in zip(rows["clips"], sides, strict=True)
    ]


DEFECTS: list[tuple[str, Callable[[Rows], object], set[tuple[str, str, str]]]] = [
    ("box left of the frame", _set("boxes", 0, x1=-3.0), {("error", "box_outside_frame", "boxes")}),
    ("box below the frame", _set("boxes", 0, y2=65.0), {("error", "box_outside_frame", "boxes")}),
    ("box right of the frame", _set("boxes", 0, x2=97.0), {("error", "box_outside_frame", "boxes")}),
    ("box of no width", _set("boxes", 0, x2=20.0, x1=20.0), {("error", "box_empty", "boxes")}),
    ("box upside down", _set("boxes", 0, y1=30.0, y2=20.0), {("error", "box_empty", "boxes")}),
    ("NaN coordinate", _set("boxes", 0, x1=float("nan")), {("error", "box_not_finite", "boxes")}),
    ("infinite coordinate", _set("boxes", 0, x2=float("inf")), {("error", "box_not_finite", "boxes")}),
    ("missing coordinate", _set("boxes", 0, y1=None), {("error", "box_not_finite", "boxes")}),
    ("frame 0", _set("boxes", 0, frame=0), {("error", "frame_range", "boxes")}),
    ("frame after the last", _set("boxes", 0, frame=13), {("error", "frame_range", "boxes")}),
    ("no frame", _set("boxes", 0, frame=None), {("error", "frame_range", "boxes")}),
    ("confidence above 1", _set("boxes", 0, confidence=1.5), {("error", "confidence_range", "boxes")}),
    (
        "negative person in boxes",
        _set("boxes", 0, person_id=-1),
        {("error", "invalid_person_id", "boxes"), ("warning", "person_without_labels", "boxes")},
    ),
    (
        "no person in actions",
        _repeat("actions", person_id=None),
        {("error", "invalid_person_id", "actions"), ("error", "person_without_boxes", "actions")},
    ),
    ("sample in pixels", _set("samples", 0, x2=48.0), {("error", "box_outside_frame", "samples")}),
    ("sample upside down", _set("samples", 0, y1=0.9), {("error", "box_empty", "samples")}),
    ("sample after the last frame", _set("samples", 0, frame=90), {("error", "frame_range", "samples")}),
    (
        "labelled person without boxes",
        _drop("boxes", clip_id="tourB_000", person_id=2),
        {("error", "person_without_boxes", "actions"), ("error", "unknown_person", "samples")},
    ),
    (
        "tracked person without labels",
        _drop("actions", clip_id="tourB_000", person_id=2),
        {("warning", "person_without_labels", "boxes")},
    ),
    ("clip without boxes", _nobody, {("warning", "clip_without_boxes", "clips")}),
    ("seven labels for a person", _seven_labels, {("error", "too_many_labels", "actions")}),
    ("unknown action", _set("actions", 0, action_id=2), {("error", "unknown_action", "actions")}),
    ("unknown action of a sample", _set("samples", 0, action_id=81), {("error", "unknown_action", "samples")}),
    (
        "unknown clip in captions",
        _set("captions", 0, clip_id="nowhere_000"),
        {("error", "unknown_clip", "captions"), ("warning", "question_count", "qa")},
    ),
    ("unknown clip in splits", _repeat("splits", clip_id="nowhere_000"), {("error", "unknown_clip", "splits")}),
    (
        "unknown clip in decisions",
        _set("decisions", 0, clip_id="nowhere_000"),
        {("error", "unknown_clip", "decisions")},
    ),
    ("unknown source", _drop("sources", source_id="walkC"), {("error", "unknown_source", "clips")}),
    (
        "id that climbs out",
        _repeat("captions", clip_id="../etc_000"),
        {
            ("error", "invalid_id", "captions"),
            ("error", "unknown_clip", "captions"),
            ("warning", "question_count", "qa"),
        },
    ),
    (
        "id without a sequence",
        _repeat("decisions", clip_id="film"),
        {("error", "invalid_id", "decisions"), ("error", "unknown_clip", "decisions")},
    ),
    ("source id with a dot", _repeat("sources", source_id="a.b"), {("error", "invalid_id", "sources")}),
    (
        "source contradicts the clip id",
        _set("clips", 0, source_id="tourB"),
        {("error", "clip_id_parts", "clips"), ("error", "source_leakage", "splits")},
    ),
    ("sequence contradicts the clip id", _set("clips", 0, sequence=7), {("error", "clip_id_parts", "clips")}),
    ("unknown origin", _set("clips", 0, origin="cartoon"), {("error", "unknown_value", "clips")}),
    ("unknown status", _set("clips", 0, status="fine"), {("error", "unknown_value", "clips")}),
    ("unknown split", _set("splits", 3, split="dev"), {("error", "unknown_value", "splits")}),
    ("kept clip without a size", _set("clips", 0, width=None), {("error", "clip_facts", "clips")}),
    ("empty caption", _set("captions", 0, caption=" \n"), {("error", "empty_caption", "captions")}),
    ("missing caption text", _set("captions", 0, caption=None), {("error", "empty_caption", "captions")}),
    ("empty question", _set("qa", 0, question=""), {("error", "empty_question", "qa")}),
    ("empty answer", _set("qa", 0, answer=None), {("error", "empty_answer", "qa")}),
    ("five questions", lambda rows: rows["qa"].pop(), {("warning", "question_count", "qa")}),
    ("caption without questions", _drop("qa", clip_id="walkC_000"), {("warning", "question_count", "qa")}),
    ("leak in the grouped scheme", _set("splits", 1, split="test"), {("error", "source_leakage", "splits")}),
    ("leak in the published scheme", _published_split, {("warning", "source_leakage", "splits")}),
    *[
        (f"repeated row in {name}", _repeat(name), {("error", "repeated_rows", name)})
        for name in ("clips", "sources", "decisions", "boxes", "actions", "captions", "samples", "splits")
    ],
    ("repeated question", _repeat("qa"), {("error", "repeated_rows", "qa"), ("warning", "question_count", "qa")}),
]


def test_a_faultless_dataset_has_no_findings(tmp_path: Path) -> None:
    report = validate(make_dataset(tmp_path))
    assert report.findings == ()
    assert report.skipped == ()
    assert report.rows["boxes"] == 72


@pytest.mark.parametrize(("change", "expected"), [pytest.param(c, e, id=name) for name, c, e in DEFECTS])
def test_a_planted_defect_is_found_and_nothing_else(
    change: Callable[[Rows], object], expected: set[tuple[str, str, str]]
) -> None:
    rows = tiny_rows()
    change(rows)
    found = check_tables(_tables(rows))
    assert {(item.severity, item.check, item.table) for item in found} == expected
    assert all(item.count >= 1 for item in found)


def test_findings_count_the_bad_rows_of_a_clip_and_show_the_first_three() -> None:
    rows = tiny_rows()
    for box in rows["boxes"]:
        if box["clip_id"] == "tourB_000":
            box["x1"] = -1.0
    rows["boxes"][0]["x1"] = -2.0
    found = {item.clip_id: item for item in check_tables(_tables(rows))}
    assert {clip_id: item.count for clip_id, item in found.items()} == {"filmA_000": 1, "tourB_000": 24}
    assert len(found["tourB_000"].examples) == 3
    assert found["tourB_000"].examples[0].startswith("frame 1, person_id 1, x1 -1, ")


def test_a_row_repeated_twice_counts_two_extra_rows() -> None:
    rows = tiny_rows()
    rows["actions"] += [dict(rows["actions"][0]), dict(rows["actions"][0])]
    (found,) = check_tables(_tables(rows))
    assert (found.count, found.clip_id) == (2, "filmA_000")
    assert found.examples == ("person_id 1, action_id 12, rows 3",)


def test_a_dataset_that_is_not_annotated_yet_is_not_wrong() -> None:
    rows = tiny_rows()
    for name in ("actions", "samples", "captions", "qa", "splits"):
        rows[name] = []
    assert check_tables(_tables(rows)) == []


def test_an_unreadable_table_is_a_finding_and_the_others_are_still_checked(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, _set("boxes", 0, x1=-3.0))
    Path(dataset.table_path("captions")).write_bytes(b"not parquet")
    checks = {(item.check, item.table) for item in validate(dataset, videos=False).findings}
    assert ("unreadable_table", "captions") in checks
    assert ("box_outside_frame", "boxes") in checks


def test_a_clip_without_its_video_and_a_video_without_clip_are_found(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    (tmp_path / "videos" / "walkC_000.mp4").rename(tmp_path / "videos" / "stray_000.mp4")
    found = {(item.severity, item.check): item for item in validate(dataset, videos=False).findings}
    assert set(found) == {("error", "clip_without_video"), ("warning", "video_without_clip")}
    assert found["error", "clip_without_video"].clip_id == "walkC_000"
    assert found["warning", "video_without_clip"].examples == ("stray_000.mp4",)


def test_a_rejected_clip_needs_no_video(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, _set("clips", 3, status="rejected"))
    (tmp_path / "videos" / "walkC_000.mp4").unlink()
    assert validate(dataset).findings == ()


def test_a_uri_that_leads_out_of_the_dataset_is_not_opened(tmp_path: Path) -> None:
    write_video(tmp_path / "outside.mp4", moving_scene(9))
    dataset = make_dataset(tmp_path / "data", _set("clips", 3, uri="videos/../../outside.mp4"))
    assert "external_uri" in {item.check for item in validate(dataset).findings}


def test_videos_that_are_unreadable_cut_short_or_of_another_size_are_found(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    videos = tmp_path / "videos"
    (videos / "filmA_000.mp4").write_bytes(b"")
    write_video(videos / "filmA_001.mp4", moving_scene(1, frames=8))
    write_video(videos / "tourB_000.mp4", moving_scene(2, width=128))
    write_video(videos / "walkC_000.mp4", moving_scene(3), fps=25)
    found = {(item.clip_id, item.check): item.message for item in validate(dataset).findings}
    assert set(found) == {
        ("filmA_000", "video_unreadable"),
        *(
            (clip_id, check)
            for clip_id in ("filmA_001", "tourB_000", "walkC_000")
            for check in ("video_mismatch", "video_changed")
        ),
    }
    assert found["filmA_001", "video_mismatch"] == "num_frames 8, the table says 12"
    assert found["tourB_000", "video_mismatch"] == "width 128, the table says 96"
    assert found["walkC_000", "video_mismatch"] == "fps 25, the table says 30"


def test_a_file_cut_off_in_the_middle_is_found(tmp_path: Path, videos: Path) -> None:
    dataset = make_dataset(tmp_path, _set("clips", 0, num_frames=180))
    shutil.copy(videos / "made_truncated_60pct.mp4", tmp_path / "videos" / "filmA_000.mp4")
    found = validate(dataset).findings
    assert any(item.clip_id == "filmA_000" and item.table == "videos" and item.severity == "error" for item in found)


def test_a_copy_is_found_after_re_encoding_and_scaling_and_other_scenes_are_not(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        for row in rows["clips"]:
            row["sha256"] = None
        rows["clips"][3].update(width=64, height=44)

    import cv2

    dataset = make_dataset(tmp_path, change, videos=False)
    for number, name in enumerate(("filmA_000", "filmA_001", "tourB_000")):
        write_video(tmp_path / "videos" / f"{name}.mp4", moving_scene(number, width=96, height=64))
    smaller = [cv2.resize(frame, (64, 44), interpolation=cv2.INTER_AREA) for frame in moving_scene(0)]
    write_video(tmp_path / "videos" / "walkC_000.mp4", smaller, crf=34)
    near = [item for item in validate(dataset).findings if item.check.startswith("near_duplicate")]
    assert [(item.clip_id, item.examples, item.check) for item in near] == [
        ("filmA_000", ("walkC_000",), "near_duplicate_across_splits")
    ]
    assert "in two splits (source: train and test)" in near[0].message


def test_the_near_duplicate_search_finds_what_comparing_all_pairs_finds() -> None:
    random = np.random.default_rng(5)
    scenes = [random.integers(0, 256, (3, 8, 8)).astype(np.uint8).repeat(8, 1).repeat(8, 2) for _ in range(120)]
    for original in range(0, 60, 3):
        noisy = scenes[original].astype(np.int16) + random.integers(-6, 7, scenes[original].shape)
        scenes.append(np.clip(noisy, 0, 255).astype(np.uint8))
    signatures = [signature(list(frames)) for frames in scenes]
    distances = {
        (i, j): int((signatures[i].bits != signatures[j].bits).sum())
        for i in range(len(scenes))
        for j in range(i + 1, len(scenes))
    }
    found = near_duplicates(signatures)
    assert {(i, j) for i, j, _ in found} == {(original, 120 + original // 3) for original in range(0, 60, 3)}
    assert all(distances[i, j] == distance <= 15 for i, j, distance in found)


def test_many_copies_of_one_clip_are_each_paired_with_the_first() -> None:
    frames = [np.full((64, 64), 7, np.uint8)] * 3
    assert near_duplicates([signature(frames) for _ in range(5)]) == [(0, other, 0) for other in range(1, 5)]


def test_black_and_white_clips_are_not_duplicates() -> None:
    black, white = ([np.full((64, 64), level, np.uint8)] * 3 for level in (0, 255))
    assert near_duplicates([signature(black), signature(white)]) == []


def cpu_seconds_of_checks(clips: int) -> float:
    frames = 82
    ids = [f"src{index % 48}_{index // 48:03d}" for index in range(clips)]
    rows = clips * frames
    table = pa.table(
        {
            "clip_id": pa.array(ids).take(pa.array(np.repeat(np.arange(clips), frames))),
            "frame": np.tile(np.arange(1, frames + 1), clips),
            "person_id": np.ones(rows, int),
            "x1": np.full(rows, -4.0),
            "y1": np.full(rows, 2.0),
            "x2": np.full(rows, 90.0),
            "y2": np.full(rows, 80.0),
        }
    )
    clip_table = pa.table(
        {
            "clip_id": ids,
            "width": [854] * clips,
            "height": [480] * clips,
            "status": ["ok"] * clips,
            "num_frames": [90] * clips,
            "fps": [30.0] * clips,
        }
    )
    start = time.process_time()
    found = check_tables({"clips": schema.conform("clips", clip_table), "boxes": schema.conform("boxes", table)})
    spent = time.process_time() - start
    assert sum(item.count for item in found if item.check == "box_outside_frame") == rows
    return spent


def test_time_of_checks_grows_as_the_number_of_rows() -> None:
    whole, part = (min(cpu_seconds_of_checks(clips) for _ in range(3)) for clips in (4759, 4759 // 8))
    assert whole < 4 * 8 * part  # were it as the square, it would be 64 times


def test_the_six_repeated_rows_of_the_published_test_truth_are_found(oracles: Path) -> None:
    truth = pd.read_csv(oracles / "har_scores" / "gt_test.csv.gz")
    samples = schema.conform(
        "samples", pa.Table.from_pandas(truth.rename(columns={"video_id": "clip_id"}), preserve_index=False)
    )
    ids = truth["video_id"].unique().tolist()
    clips = schema.from_rows("clips", [{"clip_id": clip_id, "num_frames": 90, "status": "rejected"} for clip_id in ids])
    found = check_tables({"clips": clips, "samples": samples})
    assert {item.check for item in found} == {"repeated_rows"}
    assert sum(item.count for item in found) == 6
