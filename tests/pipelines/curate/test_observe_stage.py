"""Cutting and observing without Ray: rows in, rows out, one for whatever goes wrong; and the reference's numbers."""

from __future__ import annotations

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from microg.models.curation.box_rule import PUBLISHED, frame_interval
from microg.models.curation.clip_process import ClipProcess, ClipProcessDiedError
from microg.models.curation.motion import motion_level
from microg.models.curation.observe import observe
from microg.models.curation.tracking import TrackerSettings
from microg.models.detection.base import Backend, Detections, DetectorSettings
from microg.models.detection.export import export_onnx
from microg.models.video.trim import TrimSettings
from microg.pipelines.core.attempts import MAX_ATTEMPTS
from microg.pipelines.core.shared_files import SharedFile
from microg.pipelines.core.stage import ABORT, UNWRITABLE
from microg.pipelines.curate import observations
from microg.pipelines.curate.decide import FilterSettings, boxes_of, decide, decide_clip
from microg.pipelines.curate.find_footage import Footage, list_footage
from microg.pipelines.curate.observe_stage import Observer
from microg.pipelines.curate.pipeline import remaining
from microg.pipelines.curate.trim_stage import SOURCE, existing_clip, probe_source, probe_sources, trim_stretches
from tests.support.attempts import LocalAttempts, local_attempts
from tests.support.curation import HEIGHT, write_detections, write_footage

TRIM = TrimSettings(height=HEIGHT)


@pytest.fixture
def attempts() -> LocalAttempts:
    """The attempts of a run in this process."""
    return local_attempts()


def sources_of(folder: Path) -> list[dict[str, Any]]:
    return [
        {"source_id": f.source_id, "uri": f.uri, "origin": f.origin, "size": f.size, "fingerprint": f.fingerprint}
        for f in list_footage(str(folder))[0]
    ]


def sources_table(folder: Path) -> pa.Table:
    return pa.Table.from_pylist(sources_of(folder), schema=SOURCE)


def make_observer(root: Path, detections: Path, attempts: LocalAttempts) -> Observer:
    settings = {"tracker": TrackerSettings(), "detector": DetectorSettings(), "detections": str(detections)}
    return Observer(str(root), attempts, **settings)


def trimmed(work: pa.Table, folder: Path, attempts: LocalAttempts, *done: str) -> pa.Table:
    return trim_stretches(work, settings=TRIM, folder=str(folder), done=frozenset(done), attempts=attempts)


def test_long_footage_is_cut_in_stretches_of_ten_clips_each_done_once(tmp_path: Path, attempts: LocalAttempts):
    write_footage(tmp_path / "raw" / "long.mp4", seconds=33.5)
    work = probe_sources(sources_table(tmp_path / "raw"), settings=TRIM)
    assert work["key"].to_pylist() == ["long#0", "long#1"]
    cut = trimmed(work, tmp_path / "videos", attempts, "long_001", "long_010").to_pylist()
    assert [row["clip_id"] for row in cut if row["clip_id"]] == [f"long_{k:03d}" for k in (0, *range(2, 10))]
    assert [(row["stretch"], row["stretch_clips"]) for row in cut if row["sequence"] == 2] == [(0, 10)]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(
        f"{row['clip_id']}.mp4" for row in cut if row["clip_id"]
    )
    assert {row["stretch"] for row in cut} == {0}  # the second stretch's only clip is done


def test_what_cannot_be_read_is_one_terminal_row_with_its_reason(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "raw" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    rows = [row for source in sources_of(tmp_path / "raw") for row in probe_source(source, 3.0)]
    assert [(row["key"], row["status"], row["error"].split(":")[0]) for row in rows] == [
        ("broken#0", "error", "VideoError"),
        ("gone#0", "error", "VideoAccessError"),
    ]
    clips = [existing_clip(source) for source in sources_of(tmp_path / "raw")]
    assert [(row["key"], row["clip_id"], row["status"]) for row in clips] == [
        ("broken_000", "broken_000", "error"),
        ("gone_000", "gone_000", "error"),
    ]


def test_footage_that_kills_its_worker_again_and_again_becomes_an_error_row(tmp_path: Path, attempts: LocalAttempts):
    write_footage(tmp_path / "raw" / "a.mp4")
    work = probe_sources(sources_table(tmp_path / "raw"), settings=TRIM)
    for _ in range(MAX_ATTEMPTS):
        attempts.start("a#0")  # began, and never ended
    (row,) = trimmed(work, tmp_path / "videos", attempts).to_pylist()
    assert (row["status"], row["error"]) == ("error", "WorkerCrashed: trimming this footage kills its worker")
    assert not (tmp_path / "videos").exists()
    assert trimmed(work, tmp_path / "videos", local_attempts())["status"].to_pylist() == ["observe"]  # a new run


def test_an_observed_clip_is_committed_before_the_next_and_reported_without_its_boxes(
    tmp_path: Path, attempts: LocalAttempts
):
    write_footage(tmp_path / "raw" / "a.mp4", seconds=6.2)
    write_detections(tmp_path / "dets", "a_000")
    work = probe_sources(sources_table(tmp_path / "raw"), settings=TRIM)
    work = trimmed(work, tmp_path / "set" / "videos", attempts)
    observer = make_observer(tmp_path / "set", tmp_path / "dets", attempts)
    reports = [observer(work.slice(k, 1)).to_pylist()[0] for k in range(2)]
    assert [(row["key"], row["rows"], row["status"]) for row in reports] == [("a_000", 1, "ok"), ("a_001", 1, "error")]
    assert reports[1]["error"].startswith("FormatError: there are no stored detections for clip a_001")
    assert reports[0]["decode_s"] > 0
    seen = observations.read(str(tmp_path / "set"))
    assert seen["status"].to_pylist() == ["ok", "error"]
    assert len(list((tmp_path / "set" / "observations").iterdir())) == 2
    assert attempts.start("a_000") == 1


def test_a_detector_that_cannot_be_loaded_is_told_by_the_first_call(tmp_path: Path):
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    weights = SharedFile(name="bad.pt", digest="", source=str(tmp_path / "bad.pt"))
    settings = {"tracker": TrackerSettings(), "detector": DetectorSettings(), "weights": weights}
    observer = Observer(str(tmp_path), local_attempts(), **settings)
    work = pa.Table.from_pylist([{"key": "a_000", "status": "observe"}])
    (report,) = observer(work).to_pylist()
    assert report["status"] == ABORT
    assert report["error"].startswith("bad.pt ")
    assert not (tmp_path / "observations").exists()


def test_a_folder_that_cannot_be_written_ends_the_run(tmp_path: Path, attempts: LocalAttempts):
    (tmp_path / "observations").write_text("in the way")
    observer = make_observer(tmp_path, tmp_path, attempts)
    (report,) = observer(pa.Table.from_pylist([{"key": "a#0", "status": "empty"}])).to_pylist()
    assert report["status"] == UNWRITABLE
    assert "observations cannot be written: a part of its path is a file" in report["error"]
    assert report["fix"]


def test_a_disk_that_is_full_where_clips_are_cut_ends_the_run_and_is_no_row(tmp_path: Path, attempts: LocalAttempts):
    full = {"key": "a#0", "status": UNWRITABLE, "error": "x cannot be written: no room is left", "fix": "make room"}
    observer = make_observer(tmp_path, tmp_path, attempts)
    (report,) = observer(pa.Table.from_pylist([full])).to_pylist()
    assert {name: report[name] for name in full} == full
    assert not (tmp_path / "observations").exists()


def done_after(root: Path, *rows: dict[str, Any], fingerprint: str = "1") -> tuple[list[str], list[str]]:
    base = {"stretch": 0, "stretches": 1, "stretch_clips": 1, "error": "", "status": "ok", "source_fingerprint": "1"}
    for number, row in enumerate(rows):
        key = row["clip_id"] or "a#0"
        observations.commit(str(root), [base | {"key": key, "source_id": "a", "written": number} | row])
    left, done = remaining([Footage("a", "/raw/a.mp4", "real", 1, fingerprint)], str(root))
    return [item.source_id for item in left], done


def test_footage_is_done_when_all_its_clips_are(tmp_path: Path):
    two = {"stretch_clips": 2}
    assert done_after(tmp_path, {"clip_id": "a_000"} | two) == (["a"], ["a_000"])
    assert done_after(tmp_path, {"clip_id": "a_001"} | two) == ([], ["a_000", "a_001"])


def test_a_file_that_changed_is_done_again_whole(tmp_path: Path):
    assert done_after(tmp_path, {"clip_id": "a_000"}, fingerprint="2") == (["a"], [])


@pytest.mark.parametrize(
    ("error", "again"),
    [
        ("VideoError: no moov", False),
        ("VideoAccessError: Permission denied", True),
        ("WorkerCrashed: it does", True),
        ("OSError: No space left on device", True),
    ],
)
def test_what_failed_is_tried_again_unless_the_video_itself_is_at_fault(tmp_path: Path, error: str, again: bool):
    failed = {"clip_id": None, "status": "error", "error": error, "stretch_clips": 0}
    assert done_after(tmp_path, failed) == (["a"] if again else [], [])


def test_footage_with_a_stretch_that_was_never_cut_is_not_done(tmp_path: Path):
    assert done_after(tmp_path, {"clip_id": "a_000", "stretches": 2}) == (["a"], ["a_000"])
    assert done_after(tmp_path, {"clip_id": "a_010", "stretches": 2, "stretch": 1})[0] == []


def work_of(folder: Path, *names: str) -> list[pa.Table]:
    """Return the work of files that are clips already, one table each."""
    rows = [existing_clip(source) for source in sources_of(folder) if source["source_id"] in names]
    return [pa.Table.from_pylist([row], schema=observations.WORK) for row in rows]


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_clips_observed_at_once_with_one_detector_are_what_they_are_one_by_one(
    oracles: Path, videos: Path, tmp_path: Path, backend: Backend
):
    work = work_of(oracles / "curation" / "clips", "carphone_000", "ucf_makeup_001", "raw25_000")
    weights = SharedFile("yolo11n_dq.pt", "", str(videos / "weights" / "yolo11n_dq.pt"))
    detector = DetectorSettings(backend=backend, device="cpu", image_size=160, batch_size=4)
    seen = {}
    for clips_at_once in (1, 4):
        root = str(tmp_path / str(clips_at_once))
        observer = Observer(
            root,
            local_attempts(),
            tracker=TrackerSettings(),
            detector=detector,
            weights=weights,
            clips_at_once=clips_at_once,
        )
        with ThreadPoolExecutor(clips_at_once) as threads:
            reports = [table.to_pylist()[0] for table in threads.map(observer, work)]
        assert [report["status"] for report in reports] == ["ok"] * 3
        seen[clips_at_once] = observations.read(root).to_pylist()
    assert sum(len(row["detection_class"]) for row in seen[1]) > 50
    for alone, beside in zip(seen[1], seen[4], strict=True):
        for name, value in alone.items():
            if name == "written" or name.endswith("_s"):
                continue
            if backend == "torch" and name.endswith(("_box", "_confidence")):
                assert np.allclose(value, beside[name], atol=1e-3), (alone["key"], name)
            else:
                assert value == beside[name], (alone["key"], name)


def test_a_clip_that_kills_its_process_twice_is_an_error_row_and_its_neighbours_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("bad", "good", "fine"):
        write_footage(tmp_path / "raw" / f"{name}_000.mp4", seconds=1)
    killed = []

    class Process(ClipProcess):
        """Dies of one clip."""

        def start(self) -> None: ...

        def observe(self, uri: str, num_frames: int, engine: Any) -> Any:
            if "bad" in uri:
                killed.append(uri)
                raise ClipProcessDiedError(uri)
            return observe(uri, None, num_frames=num_frames, stored=[Detections.from_array(np.empty(0))] * num_frames)

    monkeypatch.setattr("microg.models.curation.clip_process.ClipProcess", Process)
    monkeypatch.setattr("microg.models.detection.load.make_engine", lambda *_, **__: None)
    settings = {"tracker": TrackerSettings(), "detector": DetectorSettings(), "clips_at_once": 2}
    weights = SharedFile("none.pt", "", str(tmp_path / "none.pt"))
    observer = Observer(str(tmp_path / "set"), local_attempts(), weights=weights, **settings)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(observer, work_of(tmp_path / "raw", "bad_000", "good_000", "fine_000")))
    rows = observations.read(str(tmp_path / "set"), ["key", "status", "error"]).to_pylist()
    assert [(row["key"], row["status"]) for row in rows] == [
        ("bad_000", "error"),
        ("fine_000", "ok"),
        ("good_000", "ok"),
    ]
    assert rows[0]["error"] == "WorkerCrashed: observing this clip kills its worker"
    assert len(killed) == MAX_ATTEMPTS


def test_int8_weights_come_with_the_job_to_a_node_that_has_none(
    ray_session: None, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import ray

    path = videos / "weights" / "yolo11n_dq.pt"
    content = export_onnx(path).read_bytes()  # what runs it does not ask for how its numbers were made
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    elsewhere = str(tmp_path / "driver" / "detector-int8.onnx")
    digest = hashlib.sha256(content).hexdigest()
    detector = DetectorSettings(precision="int8", backend="onnxruntime", device="cpu", calibration=elsewhere)
    settings = {"tracker": TrackerSettings(), "detector": detector, "weights": SharedFile(path.name, "", str(path))}
    shipped = SharedFile("detector-int8.onnx", digest, elsewhere, (ray.put(content[:1000]), ray.put(content[1000:])))
    for calibration, error in ((None, "INT8 weights"), (shipped, "VideoError")):
        observer = Observer(str(tmp_path / error), local_attempts(), calibration=calibration, **settings)
        row = {"key": "a_000", "clip_id": "a_000", "status": "observe", "uri": __file__, "num_frames": 1}
        (report,) = observer(pa.Table.from_pylist([row])).to_pylist()
        assert report["error"].startswith(error)


def test_a_decoder_that_is_not_there_ends_the_run_and_no_other_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    observer = Observer(
        str(tmp_path), local_attempts(), tracker=TrackerSettings(), detector=DetectorSettings(), decoder="nvdec"
    )
    (report,) = observer(pa.Table.from_pylist([{"key": "a_000", "status": "observe"}])).to_pylist()
    assert report["status"] == ABORT
    assert report["error"].startswith("there is no nvdec here")
    assert not (tmp_path / "observations").exists()


# --- the reference's numbers -----------------------------------------------------------------------------------------

FAST = [
    "bbb_noperson_000",
    "bikes_cuts_001",
    "carphone_000",
    "kin_armwrestle_000",
    "nasa_13013_001",
    "ntu_one_000",
    "raw25_000",
    "ucf_makeup_001",
]


def check_against_reference(oracles: Path, root: Path, clip_ids: list[str]) -> None:
    folder = oracles / "curation"
    wanted = {row["clip"]: row for row in csv.DictReader((folder / "clips.csv").open())}
    published: dict[str, list[tuple[str, ...]]] = {clip_id: [] for clip_id in clip_ids}
    for row in csv.DictReader((folder / "bounding_box.csv").open()):
        if row["video_id"].removesuffix(".mp4") in published:
            published[row["video_id"].removesuffix(".mp4")].append(tuple(row.values())[1:])
    observer = make_observer(root, folder / "dets", local_attempts())
    for source in sources_of(folder / "clips"):
        if source["source_id"] in published:
            observer(pa.Table.from_pylist([existing_clip(source)], schema=observations.WORK))
    seen = observations.read(str(root))
    clips = {row["clip_id"]: row for row in decide(seen, FilterSettings(), PUBLISHED, str(root))["clips"].to_pylist()}
    assert sorted(clips) == sorted(clip_ids)
    for row in seen.to_pylist():
        expected = wanted[row["clip_id"]]
        assert str(clips[row["clip_id"]]["status"] == "ok") == expected["keep"], row["clip_id"]
        assert row["num_frames"] == int(expected["frames"])
        assert row["motion_published"] == pytest.approx(float(expected["motion_value"]), abs=1e-3)
        level = motion_level(row["motion_published"])
        assert (level, frame_interval(row["fps"], level)) == (expected["motion_level"], int(expected["frame_interval"]))
        boxes = boxes_of(row, PUBLISHED)
        mine = [
            (str(frame), str(person), *(str(value) for value in box))
            for frame, person, box in zip(boxes.frame, boxes.person_id, boxes.boxes, strict=True)
        ]
        assert sorted(mine) == sorted(published[row["clip_id"]]), row["clip_id"]
        scores = {item["stage"]: item["score"] for item in decide_clip(row, FilterSettings())}
        assert scores["persons"] == pytest.approx(float(expected["person_pct_predict"]), abs=1e-3)
        assert scores["scenes"] == int(expected["scene_changes"])


def test_the_references_decisions_motion_and_boxes(oracles: Path, tmp_path: Path):
    check_against_reference(oracles, tmp_path, FAST)


@pytest.mark.slow
def test_the_references_decisions_motion_and_boxes_on_all_clips(oracles: Path, tmp_path: Path):
    clip_ids = [row["clip"] for row in csv.DictReader((oracles / "curation" / "clips.csv").open())]
    assert len(clip_ids) == 21
    check_against_reference(oracles, tmp_path, clip_ids)
