"""`microg curate` as a user runs it: every file accounted for, resumed, extended, refiltered; bad usage refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microg import storage
from microg.data.dataset import Dataset
from microg.data.ids import split_clip_id
from microg.pipelines.core import session
from microg.pipelines.curate import observations
from microg.pipelines.curate.find_footage import list_footage
from tests.support import processes
from tests.support.curation import write_audio_only, write_detections, write_footage, write_variable_rate

SMALL = ("--set", "trim.height=48", "--set", "resources.max_actors=1")


def microg(*arguments: object) -> int:
    """Run the command in this process and return its exit code."""
    return processes.microg("curate", *arguments)


@pytest.fixture
def curate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command and gives exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = microg(*arguments)
        printed, err = capsys.readouterr()
        return code, printed, err

    return call


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(session, "connect", refuse)


def make_zoo(raw: Path) -> None:
    """Write good, odd and broken videos."""
    write_footage(raw / "real" / "good.mp4", seed=1)
    write_footage(raw / "movie" / "good.mp4", seed=2)
    write_footage(raw / "two words é.mp4", seed=3)
    write_footage(raw / "up..and..down.mp4", seed=4)
    write_footage(raw / "fast60.mp4", fps=60)
    write_variable_rate(raw / "vfr.mp4")
    write_footage(raw / "oneframe.mp4", seconds=1 / 30)
    write_footage(raw / "short.mp4", seconds=2.9)
    (raw / "corrupt.mp4").write_bytes(bytes(range(256)) * 20)
    whole = write_footage(raw / "truncated.mp4", seconds=6.5)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    torn = write_footage(raw / "torn.mkv", seconds=6.5)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size * 8 // 10])
    (raw / "empty.mp4").write_bytes(b"")
    write_audio_only(raw / "audio.mp4")
    (raw / "gone.mp4").symlink_to(raw / "nowhere.mp4")
    closed = write_footage(raw / "closed.mp4")
    closed.chmod(0)
    (raw / "notes.txt").write_text("no video")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, Path, Path, int]:
    """The zoo, its stored detections, the dataset made of it, and the exit code."""
    folder = tmp_path_factory.mktemp("zoo")
    raw, detections, out = folder / "raw", folder / "dets", folder / "set"
    make_zoo(raw)
    for item in list_footage(str(raw))[0]:
        write_detections(detections, f"{item.source_id}_000", person_frames=10 if item.origin == "movie" else 90)
    code = microg(raw, out, "--detections", detections, *SMALL)
    return raw, detections, out, code


def by_name(out: Path, raw: Path) -> dict[str, dict[str, Any]]:
    return {row["uri"].removeprefix(f"{raw}/"): row for row in Dataset.open(str(out)).table("sources").to_pylist()}


def states(out: Path) -> dict[str, str]:
    return {row["clip_id"]: row["status"] for row in Dataset.open(str(out)).table("clips").to_pylist()}


def boxes_of(out: Path, clip_id: str) -> list[dict[str, Any]]:
    return [row for row in Dataset.open(str(out)).table("boxes").to_pylist() if row["clip_id"] == clip_id]


def modified(out: Path) -> dict[str, int]:
    files = [path for name in ("videos", "observations") for path in (out / name).iterdir()]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_every_file_ends_as_a_row_with_status_and_reason(made: tuple[Path, Path, Path, int]):
    raw, _, out, code = made
    rows = by_name(out, raw)
    reasons = {name: f"{row['status']}: {row['error']}" for name, row in rows.items()}
    good = ["real/good.mp4", "movie/good.mp4", "two words é.mp4", "up..and..down.mp4", "fast60.mp4", "vfr.mp4"]
    if os.geteuid() == 0:
        good.append("closed.mp4")
    for name in good:
        assert (reasons[name], rows[name]["clips"]) == ("ok: ", 1), name
    assert reasons["short.mp4"] == "rejected: shorter than one clip: 2.90 s"
    assert reasons["oneframe.mp4"] == "rejected: shorter than one clip: 0.03 s"
    for name in ("corrupt.mp4", "truncated.mp4", "empty.mp4"):
        assert reasons[name].startswith("error: VideoError: "), reasons[name]
    assert reasons["audio.mp4"].startswith("rejected: ")
    assert reasons["audio.mp4"].endswith("audio.mp4 has no video stream")
    assert reasons["gone.mp4"].startswith("error: VideoAccessError: ")
    assert "No such file" in reasons["gone.mp4"]
    if os.geteuid() != 0:
        assert "Permission denied" in reasons["closed.mp4"]
    assert rows["torn.mkv"]["clips"] == 1  # what is there of it is used
    assert "notes.txt" not in rows
    assert len(rows) == 15
    assert code == 1


def test_clips_are_three_seconds_at_30_fps_of_the_wanted_height(made: tuple[Path, Path, Path, int]):
    clips = Dataset.open(str(made[2])).table("clips").to_pylist()
    assert {(row["fps"], row["num_frames"], row["height"], row["width"] % 2) for row in clips} == {(30.0, 90, 48, 0)}
    for row in clips:
        assert split_clip_id(row["clip_id"]) == (row["source_id"], row["sequence"])
        assert (made[2] / row["uri"]).is_file()
    assert sorted(path.stem for path in (made[2] / "videos").iterdir()) == sorted(row["clip_id"] for row in clips)


def test_a_clip_without_enough_people_is_rejected_and_keeps_its_row(made: tuple[Path, Path, Path, int]):
    rejected = [clip_id for clip_id, status in states(made[2]).items() if status == "rejected"]
    clips = {row["clip_id"]: row for row in Dataset.open(str(made[2])).table("clips").to_pylist()}
    assert [clips[clip_id]["origin"] for clip_id in rejected] == ["movie"]
    assert clips[rejected[0]]["error"] == "persons: a person above confidence 0.6 in 11.1% of frames"
    boxes = Dataset.open(str(made[2])).table("boxes")
    assert rejected[0] not in boxes["clip_id"].to_pylist()
    assert boxes.num_rows > 0


def test_a_second_run_does_nothing_and_starts_no_ray(made, curate, no_ray):
    raw, detections, out, _ = made
    (raw / "gone.mp4").rename(raw / "gone.moved")  # what cannot be reached is tried again; the rest is done
    try:
        before = modified(out)
        code, _, err = curate(raw, out, "--detections", detections, *SMALL)
    finally:
        (raw / "gone.moved").rename(raw / "gone.mp4")
    assert (code, err) == (1, "")
    assert modified(out) == before


def test_json_is_one_document_with_counts(made, curate, no_ray):
    raw, detections, out, _ = made
    code, printed, _ = curate(raw / "real", out, "--detections", detections, *SMALL, "--json")
    report = json.loads(printed)
    assert code == 1
    assert (report["files"], report["files_done"], report["clips_done_before"]) == (1, 1, 1)
    assert report["counts"]["sources"] == 15
    assert report["counts"]["clips_kept"] == sum(status == "ok" for status in states(out).values())
    assert json.loads((out / "metrics.json").read_text())["counts"] == report["counts"]


def test_a_dry_run_tells_the_plan_and_writes_nothing(made, curate, no_ray, tmp_path):
    raw, detections, _, _ = made
    out = tmp_path / "set"
    code, printed, _ = curate(raw, out, "--detections", detections, *SMALL, "--dry-run", "--json")
    plan = json.loads(printed)["plan"]
    assert (code, plan["files_to_do"], plan["files_unreadable"]) == (0, 15, 5 if os.geteuid() == 0 else 6)
    assert plan["clips_expected"] >= 7
    assert [stage["stage"] for stage in plan["stages"]] == ["probe", "trim", "observe"]
    assert not out.exists()
    code, printed, _ = curate(raw, out, "--detections", detections, *SMALL, "--dry-run")
    assert code == 0
    assert "nothing is written" in printed
    assert "observe: 1 actor of 1 CPU" in printed


def test_other_settings_are_refused_and_named(made, curate, no_ray):
    raw, detections, out, _ = made
    before = modified(out)
    code, _, err = curate(raw, out, "--detections", detections, "--set", "trim.height=50")
    assert code == 2
    assert "trim.height: 48 there, 50 asked" in err
    code, _, err = curate(raw, out, "--detections", detections, *SMALL, "--rule", "corrected")
    assert code == 2
    assert "rule.area_floor" in err
    assert modified(out) == before


def test_refilter_changes_decisions_without_touching_what_was_observed(made, curate, no_ray):
    out = made[2]
    before, old = modified(out), states(out)
    boxes = Dataset.open(str(out)).table("boxes").num_rows
    code, printed, _ = curate(out, "--refilter", "--set", "filter.min_person_percentage=10", "--dry-run", "--json")
    assert code == 0
    planned = json.loads(printed)["counts"]
    assert states(out) == old
    looser = ("--set", "filter.min_person_percentage=10", "--rule", "corrected")
    code, printed, _ = curate(out, "--refilter", *looser, "--compare-rules", "--json")
    report = json.loads(printed)
    assert code == 1  # the files that failed still do
    assert report["counts"]["clips_kept"] == planned["clips_kept"] == sum(s != "error" for s in old.values())
    assert "rejected" not in states(out).values()
    assert Dataset.open(str(out)).table("boxes").num_rows > boxes
    assert {row["rule"] for row in report["rules"]} >= {"published", "corrected"}
    assert json.loads((out / "run.json").read_text())["full_config"]["filter"]["min_person_percentage"] == 10
    published = ("--set", "filter.min_person_percentage=60", "--rule", "published")
    assert curate(out, "--refilter", *published)[0] == 1
    assert states(out) == old
    assert Dataset.open(str(out)).table("boxes").num_rows == boxes
    assert modified(out) == before


def test_refilter_refuses_what_needs_decoding_and_what_is_no_curation(made, curate, no_ray, tmp_path):
    code, _, err = curate(made[2], "--refilter", "--set", "trim.height=50")
    assert code == 2
    assert "trim.height" in err
    code, _, err = curate(tmp_path, "--refilter")
    assert code == 2
    assert "holds no curation" in err


def test_a_profile_beside_stored_detections_is_refused(made, curate, no_ray):
    raw, detections, out, _ = made
    code, _, err = curate(raw, out, "--detections", detections, *SMALL, "--detector-profile", "fast")
    assert code == 2
    assert "--detector-profile says how to detect" in err


def test_a_dataset_that_is_being_written_is_refused(made, curate, no_ray):
    from microg.locks import exclusive

    raw, detections, out, _ = made
    with exclusive(str(out)):
        code, _, err = curate(raw / "real", out, "--detections", detections, *SMALL)
    assert code == 2
    assert "another process is writing" in err


@pytest.mark.slow
def test_new_and_changed_files_are_done_and_no_other(made, curate, tmp_path):
    source, detections, _, _ = made
    raw, out = tmp_path / "raw", tmp_path / "set"
    for name in ("real/good.mp4", "fast60.mp4", "vfr.mp4"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, raw / name)
    dets = shutil.copytree(detections, tmp_path / "dets")
    for clip_id in ("good_000", "fast60_001"):
        write_detections(dets, clip_id)
    assert curate(raw, out, "--detections", dets, *SMALL)[0] == 0
    before, clips = modified(out), states(out)
    assert set(clips) == {"good_000", "fast60_000", "vfr_000"}
    # A second file of one's name must not rename the first; the changed one is longer now.
    shutil.copy(source / "movie" / "good.mp4", raw / "good.mp4")
    write_footage(raw / "fast60.mp4", seconds=6.2, seed=9)
    stray = out / "videos" / ".tmp-killed.mp4"
    stray.write_bytes(b"half")
    added = next(item.source_id for item in list_footage(str(raw))[0] if item.uri == f"{raw}/good.mp4")
    write_detections(dets, f"{added}_000")
    code, printed, _ = curate(raw, out, "--detections", dets, *SMALL, "--previews", "--json")
    report = json.loads(printed)
    assert code == 0
    assert (report["files_done"], report["throughput"]["rows"]) == (2, 3)
    assert set(states(out)) == {*clips, "fast60_001", f"{added}_000"}
    changed = {path for path, when in modified(out).items() if before.get(path) != when and "/videos/" in path}
    assert {Path(path).stem for path in changed} == {"fast60_000", "fast60_001", f"{added}_000"}
    assert not stray.exists()
    kept = {clip_id for clip_id, status in states(out).items() if status == "ok"}
    assert {path.stem for path in (out / "previews").iterdir()} == kept
    # With previews there, another rule drops them, and they can be made again.
    assert curate(out, "--refilter", "--rule", "corrected")[0] == 0
    assert list((out / "previews").iterdir()) == []


@pytest.mark.slow
def test_clips_that_are_cut_already_are_taken_as_they_are(made, curate, tmp_path):
    _, detections, out, _ = made
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("fast60_000", "vfr_000"):
        shutil.copy(out / "videos" / f"{name}.mp4", raw / f"{name}.mp4")
    (raw / "vfr_001.mp4").write_bytes(b"broken")
    code, printed, _ = curate(
        raw, tmp_path / "set", "--pretrimmed", "--detections", detections, *SMALL, "--limit", 1, "--json"
    )
    assert code == 0
    assert json.loads(printed)["files"] == 1
    assert set(states(tmp_path / "set")) == {"fast60_000"}
    assert curate(raw, tmp_path / "set", "--pretrimmed", "--detections", detections, *SMALL)[0] == 1
    clips = {row["clip_id"]: row for row in Dataset.open(str(tmp_path / "set")).table("clips").to_pylist()}
    assert {clip_id: (row["status"], row["source_id"]) for clip_id, row in clips.items()} == {
        "fast60_000": ("ok", "fast60"),
        "vfr_000": ("ok", "vfr"),
        "vfr_001": ("error", "vfr"),
    }
    assert clips["fast60_000"]["uri"] == f"{raw}/fast60_000.mp4"
    assert not list((tmp_path / "set" / "videos").iterdir())
    assert boxes_of(tmp_path / "set", "vfr_000") == boxes_of(out, "vfr_000") != []


@pytest.mark.usefixtures("no_ray")
def test_bad_usage_is_one_line_and_exit_code_2(curate, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROG_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_footage(tmp_path / "raw" / "a.mp4", seconds=0.2)
    write_footage(tmp_path / "twice" / "a_000.mp4", seconds=0.1)
    write_footage(tmp_path / "twice" / "a.mp4", seconds=0.1)
    (tmp_path / "bare").mkdir()
    cases = {
        ("raw",): "where to write is missing",
        ("missing", "out"): "is not there",
        ("bare", "out"): "holds no video",
        ("raw", "raw"): "cannot be both footage and dataset",
        ("raw", "out"): "put it into ./weights",
        ("raw", "out", "--weights", "nothing.pt"): "nothing.pt",
        ("raw", "out", "--set", "trim.heigth=3"): "did you mean 'height'",
        ("twice", "out", "--pretrimmed", "--detections", "bare"): "the same clip",
    }
    for arguments, message in cases.items():
        code, printed, err = curate(*arguments)
        assert (code, printed) == (2, ""), arguments
        assert err.startswith("error: "), err
        assert message in err
        assert len(err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_an_option_wins_over_the_recipe(curate, no_ray, tmp_path):
    from microg.jobs.commands.curate import curate_settings

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rule: {area_floor: true}\nfilter: {max_cuts: 3}\n")
    settings = curate_settings(str(recipe), "corrected", None, ["filter.max_cuts=2"], {})
    assert settings.rule.name == "corrected"
    assert settings.filter.max_cuts == 2


def test_weights_that_cannot_be_loaded_end_the_run_with_a_reason(made, curate, tmp_path):
    weights = tmp_path / "bad.pt"
    weights.write_bytes(b"no weights at all")
    code, printed, err = curate(made[0] / "real", tmp_path / "set", "--weights", weights, *SMALL)
    assert (code, printed) == (2, "")
    last = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert "no clip can be observed: bad.pt is not a usable" in last[0]


def test_more_than_ray_has_is_refused_at_once(made, curate, tmp_path):
    raw, detections, _, _ = made
    code, _, err = curate(raw, tmp_path / "set", "--detections", detections, "--set", "resources.gpus=99")
    assert code == 2
    assert "99 GPUs" in err


def test_real_footage_with_a_real_detector(videos: Path, ray_session, curate, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(videos / "carphone.mp4", raw)
    weights = videos / "weights" / "yolo11n_dq.pt"
    code, printed, _ = curate(raw, tmp_path / "set", "--weights", weights, "--json", "--set", "resources.max_actors=1")
    report = json.loads(printed)
    assert code == 0
    assert report["counts"]["clips_kept"] == report["counts"]["clips"] == report["throughput"]["rows"]
    frames = [row["frame"] for row in boxes_of(tmp_path / "set", "carphone_000")]
    assert frames == list(range(15, 91))  # as the reference
    assert max(report["throughput"]["stages"].items(), key=lambda stage: stage[1])[0] == "detect"


def test_boxes_of_several_backends_mix_only_when_told_to(ray_session, curate, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "set"
    for number, name in enumerate(("first", "second")):
        write_detections(tmp_path / "dets", f"{name}_000", person_frames=90)
        write_footage(raw / f"{name}.mp4", seconds=3.2, seed=number)
        words = (raw, out, "--detections", tmp_path / "dets", "--set", "resources.max_actors=1")
        if name == "first":
            assert curate(*words)[0] == 0
    manifest = storage.read_json(out / "run.json")
    assert [(entry["backend"], entry["device"]) for entry in manifest["devices"]] == [("stored detections", "cpu")]
    manifest["devices"][0] |= {"backend": "torch", "device": "cuda"}
    storage.write_json(out / "run.json", manifest)
    code, _, err = curate(*words)
    assert code == 2
    assert "holds boxes made by torch on cuda; this run would add some made by stored detections on cpu" in err
    assert curate(*words, "--set", "detector.mixed=true")[0] == 0
    assert Dataset.open(str(out)).table("clips").num_rows == 2


def test_an_observer_of_several_clips_at_once_gives_the_same_rows(videos: Path, ray_session, curate, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(videos / "carphone.mp4", raw)
    write_footage(raw / "made.mp4", seconds=6.2)
    (raw / "broken.mp4").write_bytes(b"no video at all")
    words = ["--weights", videos / "weights" / "yolo11n_dq.pt", "--set", "detector.image_size=160"]
    words += ["--set", "resources.max_actors=1"]
    seen = []
    for clips in (1, 2):
        assert curate(raw, tmp_path / str(clips), *words, "--set", f"clips_at_once={clips}")[0] == 1  # broken.mp4
        rows = observations.read(str(tmp_path / str(clips))).to_pylist()
        changing = {"written", "uri", *observations.CLOCKS.names}
        seen.append([{name: value for name, value in row.items() if name not in changing} for row in rows])
    assert [row["status"] for row in seen[0]].count("ok") > 2
    assert seen[0] == seen[1]
