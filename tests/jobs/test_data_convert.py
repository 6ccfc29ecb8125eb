"""`microg data import`, `export` and `split`, as a user runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from microg import formats
from microg.data.dataset import Dataset
from microg.formats import FORMATS
from microg.jobs import cli, common
from tests.support.annotations import rows
from tests.support.helpers import make_dataset


def microg(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the command in this process, check its exit code and return what it printed."""
    before = sys.argv
    sys.argv = ["microg", "data", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            common.run(cli.app)
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, out + err
    return out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    return json.loads(microg(capsys, *arguments, "--json", code=code)[0])


def test_the_command_knows_exactly_the_registered_formats(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = microg(capsys, "import", "cvta", tmp_path, tmp_path / "data", code=2)[1]
    assert "there is no dataset format 'cvta', did you mean 'cvat'?" in error
    assert f"dataset formats are {', '.join(FORMATS)}; or module:object" in error
    help_text = " ".join(microg(capsys, "export", "--help")[0].split())
    for name in FORMATS:
        assert f"{name}: " in help_text
        assert formats.load(name).TABLES


def test_the_published_layout_is_imported_split_and_exported_for_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = make_dataset(tmp_path / "data")
    microg(capsys, "export", "microg4m", tmp_path / "data", tmp_path / "published", "--copy-videos")
    report = as_json(capsys, "import", "microg4m", tmp_path / "published", tmp_path / "mine", "--copy-videos")
    assert report["rows"] == {"clips": 4, "boxes": 72, "actions": 12, "captions": 4, "qa": 24}
    mine = Dataset.open(str(tmp_path / "mine"))
    assert mine.info["imported_from"] == "microg4m"
    for name in ("actions", "captions", "qa"):
        assert rows(mine.table(name)) == rows(original.table(name))
    assert rows(mine.table("boxes"), drop=("confidence",)) == rows(original.table("boxes"), drop=("confidence",))
    kept = ["clip_id", "source_id", "sequence", "uri", "origin", "fps", "num_frames", "width", "height", "sha256"]
    assert rows(mine.table("clips").select(kept)) == rows(original.table("clips").select(kept))

    report = as_json(capsys, "split", tmp_path / "mine")
    assert report["samples"] == 12
    assert set(report["splits"]) == {"published", "source"}
    assert report["splits"]["source"]["leaking_sources"] == 0
    microg(capsys, "export", "ava", tmp_path / "mine", tmp_path / "ava", "--split", "source", "--frames")
    written = sorted(path.name for path in (tmp_path / "ava").iterdir())
    assert written == ["annotations", "frame_lists", "frames"]
    assert len(list((tmp_path / "ava/frames").rglob("*.jpg"))) == 4 * 12


@pytest.mark.parametrize("name", ["coco", "labelstudio", "cvat"])
def test_work_of_annotators_comes_back_into_the_dataset_it_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    original = make_dataset(tmp_path / "data")
    microg(capsys, "export", name, tmp_path / "data", tmp_path / "out")
    extra = ["--predictions"] if name == "labelstudio" else []
    report = as_json(capsys, "import", name, tmp_path / "out", tmp_path / "data", "--merge", *extra)
    # what annotators judge is accepted, and samples are made anew of it
    stale = "samples and splits were made before this import" in "\n".join(report["notes"])
    assert stale == (name != "cvat")
    again = Dataset.open(str(tmp_path / "data"))
    assert rows(again.table("clips")) == rows(original.table("clips"))
    drop = ("confidence",) if name == "labelstudio" else ()
    assert rows(again.table("boxes"), drop=drop) == rows(original.table("boxes"), drop=drop)
    for table in ("actions", "captions", "qa"):
        assert rows(again.table(table)) == rows(original.table(table)), table


def test_a_merge_replaces_the_imported_clips_and_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path / "data", videos=False)
    microg(capsys, "export", "labelstudio", tmp_path / "data", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    edited, new = tasks[0], tasks[1]
    edited["predictions"][0]["result"] = edited["predictions"][0]["result"][:2]  # the actions and texts are gone
    new["data"] |= {"clip_id": "another_004", "video": "another_004.mp4"}
    (tmp_path / "out/tasks.json").write_text(json.dumps([edited, new]))
    merge = ["import", "labelstudio", tmp_path / "out", tmp_path / "data", "--merge", "--predictions"]
    error = microg(capsys, *merge, code=2)[1]
    assert "no rows in place of rows that are there: 2 of 1 clip (e.g. filmA_000) in 'actions', " in error
    assert "take the other tables with --tables boxes; if these rows are to go" in error
    error = microg(capsys, *merge, "--tables", "boxes,actions,poems", code=2)[1]
    assert "labelstudio holds no table 'poems'" in error
    microg(capsys, *merge, "--tables", "boxes,actions")
    data = Dataset.open(str(tmp_path / "data"))
    assert data.table("clips")["clip_id"].to_pylist() == [
        "filmA_000",
        "filmA_001",
        "tourB_000",
        "walkC_000",
        "another_004",
    ]
    actions = data.table("actions")["clip_id"].to_pylist()
    assert [actions.count(c) for c in ("filmA_000", "filmA_001", "tourB_000", "another_004")] == [0, 4, 4, 4]
    captions = set(data.table("captions")["clip_id"].to_pylist())
    assert captions == {"filmA_000", "filmA_001", "tourB_000", "walkC_000"}  # this table was not taken
    assert data.table("boxes")["clip_id"].to_pylist().count("filmA_000") == 12


def test_a_video_that_cannot_be_read_is_exit_code_1_and_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "data")
    microg(capsys, "export", "cvat", tmp_path / "data", tmp_path / "out", "--copy-videos")
    (tmp_path / "out/videos/walkC_000.mp4").write_bytes(b"broken")
    out, _ = microg(
        capsys, "import", "cvat", tmp_path / "out", tmp_path / "mine", "--videos", tmp_path / "out/videos", code=1
    )
    assert "1 clips failed" in out
    clips = {row["clip_id"]: row for row in Dataset.open(str(tmp_path / "mine")).table("clips").to_pylist()}
    assert clips["walkC_000"]["status"] == "error"
    assert clips["filmA_000"]["uri"] == "videos/filmA_000.mp4"
    assert clips["walkC_000"]["uri"] is None  # else every command would refuse the dataset
    assert (tmp_path / "mine/videos/filmA_000.mp4").samefile(tmp_path / "out/videos/filmA_000.mp4")
    monkeypatch.setenv("MICROG_ALLOW_EXTERNAL", "0")  # so that what the option sets ends with this test
    videos = ["--videos", tmp_path / "out/videos", "--allow-external"]
    microg(capsys, "import", "cvat", tmp_path / "out", tmp_path / "theirs", *videos, code=1)
    clips = {row["clip_id"]: row for row in Dataset.open(str(tmp_path / "theirs")).table("clips").to_pylist()}
    assert clips["filmA_000"]["uri"] == str((tmp_path / "out/videos/filmA_000.mp4").resolve())


def test_refusals_are_one_clean_line_with_a_fix_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path / "data", videos=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    cases = [
        (["import", "coco", tmp_path / "nowhere.json", tmp_path / "new"], "is not there"),
        (["import", "coco", tmp_path / "full", tmp_path / "data"], "--merge"),
        (["import", "coco", tmp_path / "full", tmp_path / "new", "--merge"], "nothing to merge into"),
        (["import", "coco", tmp_path / "full", tmp_path / "new", "--predictions"], "--predictions does nothing"),
        (["export", "coco", tmp_path / "data", tmp_path / "full"], "is not empty"),
        (["export", "coco", tmp_path / "data", tmp_path / "out", "--frames"], "--frames does nothing"),
        (["export", "ava", tmp_path / "data", tmp_path / "out"], "no split of scheme 'published'"),
        (["export", "ava", tmp_path / "full", tmp_path / "out"], "is not a dataset"),
        (["split", tmp_path / "full"], "is not a dataset"),
    ]
    for arguments, message in cases:
        out, err = microg(capsys, *arguments, code=2)
        assert message in err
        assert "  fix: " in err or "is not there" in err
        assert "Traceback" not in out + err
    assert not (tmp_path / "new/dataset.json").exists()


def test_an_export_may_overwrite_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path / "data", videos=False)
    for extra in ([], ["--overwrite"]):
        microg(capsys, "export", "coco", tmp_path / "data", tmp_path / "out", *extra)


def test_dry_runs_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "data")
    microg(capsys, "export", "microg4m", tmp_path / "data", tmp_path / "out", "--copy-videos")
    report = as_json(capsys, "import", "microg4m", tmp_path / "out", tmp_path / "new", "--copy-videos", "--dry-run")
    assert report["rows"]["boxes"] == 72
    assert not (tmp_path / "new").exists()
    before = dataset.fingerprint()
    microg(capsys, "split", tmp_path / "data", "--dry-run")
    assert dataset.fingerprint() == before


def test_splitting_again_changes_only_the_scheme_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "data", videos=False)
    microg(capsys, "split", tmp_path / "data", "--scheme", "published")
    schemes = dataset.table("splits")["scheme"].to_pylist()
    assert (schemes.count("source"), schemes.count("published")) == (4, 4)
    before = rows(dataset.table("splits"))
    microg(capsys, "split", tmp_path / "data", "--scheme", "published")
    assert rows(dataset.table("splits")) == before


def test_splitting_reports_people_and_boxes_that_were_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        tables["clips"][0]["status"] = "rejected"
        tables["actions"] = [row for row in tables["actions"] if row["person_id"] == 1]

    make_dataset(tmp_path / "data", change, videos=False)
    out, _ = microg(capsys, "split", tmp_path / "data")
    assert "12 boxes of rejected" in out
    assert "2 of 5 persons have no action and were left out" in out
    report = as_json(capsys, "split", tmp_path / "data", "--keep-unlabelled")
    assert report["samples"] == 8


def test_samples_of_an_imported_ava_folder_survive_a_new_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = make_dataset(tmp_path / "data", videos=False)
    microg(capsys, "export", "ava", tmp_path / "data", tmp_path / "ava", "--split", "source")
    microg(capsys, "import", "ava", tmp_path / "ava", tmp_path / "mine")
    out, _ = microg(capsys, "split", tmp_path / "mine", "--scheme", "source")
    assert "its samples were kept" in out
    assert rows(Dataset.open(str(tmp_path / "mine")).table("samples")) == rows(original.table("samples"))
