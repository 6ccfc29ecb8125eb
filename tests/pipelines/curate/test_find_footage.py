"""Which files of a folder are footage, and under which name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from microg.data.ids import check_id
from microg.errors import DatasetError, IdError
from microg.pipelines.curate.find_footage import Footage, check_clip_ids, clip_identity, list_footage


def listed(folder: Path, **options) -> dict[str, Footage]:
    found, _ = list_footage(str(folder), **options)
    return {item.uri.removeprefix(f"{folder}/"): item for item in found}


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_videos_are_told_by_extension_in_any_case_and_other_files_are_named(tmp_path: Path):
    make(tmp_path, "a.mp4", "b.MKV", "notes.txt", "noextension", ".hidden.mp4", ".cache/c.mp4")
    found, ignored = list_footage(str(tmp_path))
    assert [item.source_id for item in found] == ["a", "b"]
    assert ignored == ["noextension", "notes.txt"]


def test_origin_is_told_by_the_nearest_rule_folders_else_the_default(tmp_path: Path):
    make(tmp_path, "movie/a.mp4", "Real/b.mp4", "x/movie/y/c.mp4", "other/d.mp4")
    origins = {name: item.origin for name, item in listed(tmp_path, default_origin="real").items()}
    assert origins == {"movie/a.mp4": "movie", "Real/b.mp4": "real", "x/movie/y/c.mp4": "movie", "other/d.mp4": "real"}


def test_odd_names_become_ids_that_may_become_paths(tmp_path: Path):
    names = ["two words.mp4", "übung.mp4", "..mp4.mp4", "日本.mp4", "a;rm -rf.mp4", "q'uote.mp4"]
    make(tmp_path, *names)
    found = listed(tmp_path)
    assert set(found) == {name for name in names if not name.startswith(".")}
    ids = [check_id(item.source_id) for item in found.values()]
    assert len(set(ids)) == len(ids)


def test_a_file_keeps_its_id_when_another_of_its_name_comes(tmp_path: Path):
    make(tmp_path, "a/x.mp4")
    first = listed(tmp_path)["a/x.mp4"]
    make(tmp_path, "b/x.mp4")
    found = listed(tmp_path, known={first.uri: first.source_id})
    assert found["a/x.mp4"].source_id == first.source_id == "x"
    assert found["b/x.mp4"].source_id not in ("x", listed(tmp_path)["a/x.mp4"].source_id)


def test_two_files_never_share_an_id_through_what_is_known(tmp_path: Path):
    make(tmp_path, "x.mp4", "y.mp4")
    with pytest.raises(IdError, match="would both be source"):
        listed(tmp_path, known={f"{tmp_path}/y.mp4": "X"})


def test_the_fingerprint_changes_with_the_file_also_behind_a_link(tmp_path: Path):
    make(tmp_path, "raw/a.mp4", "store/b.mp4")
    (tmp_path / "raw" / "b.mp4").symlink_to(tmp_path / "store" / "b.mp4")
    before = listed(tmp_path / "raw")
    for path in (tmp_path / "raw" / "a.mp4", tmp_path / "store" / "b.mp4"):
        path.write_bytes(b"y")
        os.utime(path, ns=(1, 10**18))
    after = listed(tmp_path / "raw")
    assert {name for name in before if before[name].fingerprint != after[name].fingerprint} == {"a.mp4", "b.mp4"}
    assert listed(tmp_path / "raw") == after


def test_a_link_to_nothing_is_footage_and_a_pipe_or_link_to_a_folder_is_none(tmp_path: Path):
    make(tmp_path, "a.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    found, ignored = list_footage(str(tmp_path))
    assert [item.source_id for item in found] == ["a", "gone"]
    assert ignored == ["elsewhere", "pipe.mp4"]


def test_the_dataset_may_lie_in_the_footage_folder_or_around_it(tmp_path: Path):
    make(tmp_path, "raw/a.mp4", "raw/out/videos/a_000.mp4", "raw/output.mp4", "set/raw/b.mp4", "set/videos/b_000.mp4")
    raw = str(tmp_path / "raw")
    assert [item.source_id for item in list_footage(raw, exclude=f"{raw}/out")[0]] == ["a", "output"]
    assert [item.source_id for item in list_footage(f"{tmp_path}/set/raw", exclude=f"{tmp_path}/set")[0]] == ["b"]
    with pytest.raises(DatasetError, match="cannot be both"):
        list_footage(raw, exclude=raw)
    with pytest.raises(DatasetError, match="keeps its own videos"):
        list_footage(f"{tmp_path}/set/videos", exclude=f"{tmp_path}/set")


def test_one_file_is_footage_too(tmp_path: Path):
    make(tmp_path, "movie/a.mp4", "movie/b.mp4")
    found, ignored = list_footage(str(tmp_path / "movie" / "b.mp4"))
    assert [(item.source_id, item.uri) for item in found] == [("b", f"{tmp_path}/movie/b.mp4")]
    assert ignored == []


def test_missing_empty_and_unlistable_folders_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError, match="is not there"):
        list_footage(str(tmp_path / "none"))
    with pytest.raises(DatasetError, match="holds no video"):
        list_footage(str(tmp_path))
    make(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"cannot be listed.*closed"):
        list_footage(str(tmp_path))


def test_clips_name_themselves_and_other_files_are_clip_zero():
    assert clip_identity("Apollo13_032") == ("Apollo13_032", "Apollo13", 32)
    assert clip_identity("Apollo13") == ("Apollo13_000", "Apollo13", 0)


def test_two_files_that_would_be_one_clip_are_refused(tmp_path: Path):
    make(tmp_path, "a.mp4", "a_001.mp4")
    check_clip_ids(list(listed(tmp_path).values()))
    make(tmp_path, "a_000.mp4")
    with pytest.raises(IdError, match="the same clip"):
        check_clip_ids(list(listed(tmp_path).values()))
