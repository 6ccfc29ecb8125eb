"""`microg data push` and `microg data pull`, against annotation servers of the tests' own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microg import formats
from microg.data.dataset import Dataset
from microg.jobs import cli, common
from microg.system.annotation_servers import SERVERS, base, cvat
from tests.support.annotation_servers import FakeCvat, FakeLabelStudio, FakeServer, Fault, serve
from tests.support.annotations import rows
from tests.support.helpers import make_dataset

KINDS = [
    pytest.param(
        "cvat", marks=pytest.mark.skipif(find_spec("cvat_sdk") is None, reason="cvat-sdk is not installed: extra cvat")
    ),
    "labelstudio",
]
MAKES_TASK = {"cvat": "POST /api/tasks", "labelstudio": "POST /api/tasks/"}
MAKES_PROJECT = {"cvat": "POST /api/projects", "labelstudio": "POST /api/projects/"}
SECRETS = (FakeLabelStudio.key, FakeCvat.token, FakeCvat.password)


@pytest.fixture(autouse=True)
def _keys_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_BACKOFF_S", 0.0)
    monkeypatch.setattr(cvat, "_WAIT_S", 0.01)
    for name in ("CVAT_USERNAME", "CVAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CVAT_TOKEN", FakeCvat.token)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", FakeLabelStudio.key)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four clips with boxes, actions and texts."""
    return make_dataset(tmp_path_factory.mktemp("made") / "data").root


@pytest.fixture
def dataset(made: str, tmp_path: Path) -> Dataset:
    """A copy of the four clips."""
    shutil.copytree(made, tmp_path / "data")
    return Dataset.open(str(tmp_path / "data"))


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The name of a kind of server, and one of that kind."""
    fake: FakeServer = FakeCvat() if request.param == "cvat" else FakeLabelStudio()
    with serve(fake):
        yield request.param, fake


def microg(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Run `microg data` in this process; return what is on standard output. No key may be in what it prints."""
    before = sys.argv
    sys.argv = ["microg", "data", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            common.run(cli.app)
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, out + err
    assert not any(secret in out + err for secret in SECRETS)
    return out


def push(
    capsys: pytest.CaptureFixture[str], server: tuple[str, Any], data: Dataset, *more: object, code: int = 0
) -> Any:
    kind, fake = server
    return json.loads(microg(capsys, "push", kind, data.root, "--url", fake.url, *more, "--json", code=code))


def pull(capsys: pytest.CaptureFixture[str], server: tuple[str, Any], data: Dataset, *more: object) -> Any:
    kind, fake = server
    return json.loads(microg(capsys, "pull", kind, data.root, "--url", fake.url, *more, "--json"))


def error_of(
    capsys: pytest.CaptureFixture[str],
    server: tuple[str, Any],
    data: Dataset,
    command: str = "push",
    *more: str,
) -> str:
    """Return the one line (and the fix) in which a command ends. No key may be in it."""
    kind, fake = server
    before = sys.argv
    sys.argv = ["microg", "data", command, kind, data.root, "--url", fake.url, *more]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    lines = [line for line in err.splitlines() if not line.startswith("push: ")]  # progress
    assert lines[0].startswith("error: ")
    assert all(line.startswith("  fix: ") for line in lines[1:])
    assert len(lines) <= 2
    assert not any(secret in err for secret in SECRETS)
    return err


def clips_of(fake: FakeServer) -> list[str]:
    """Return the clips that a server has tasks of."""
    return sorted(task.get("name") or task["data"]["clip_id"] for task in fake.tasks.values())


def remembered(data: Dataset) -> dict[str, Any]:
    text = (Path(data.root) / "annotation_tasks.json").read_text()
    assert not any(secret in text for secret in SECRETS)
    return json.loads(text)


def finish(server: tuple[str, Any], data: Dataset, tmp_path: Path, *clips: str) -> None:
    """Finish tasks as people do who see what the dataset says, and of whom each says one action less."""
    kind, fake = server
    left = data.table("actions").to_pylist()
    for clip_id in clips:
        left.remove(next(row for row in left if row["clip_id"] == clip_id))
    tables = {name: data.table(name) for name in ("clips", "boxes", "captions", "qa")}
    schema = data.table("actions").schema
    target = tmp_path / "people"
    formats.write(kind, {**tables, "actions": pa.Table.from_pylist(left, schema)}, str(target))
    for clip_id in clips:
        if kind == "cvat":
            fake.annotate(clip_id, (target / f"annotations/{clip_id}.xml").read_bytes())
        else:
            tasks = json.loads((target / "tasks.json").read_text())
            task = next(task for task in tasks if task["data"]["clip_id"] == clip_id)
            fake.annotate(clip_id, task["predictions"][0]["result"])


def test_a_push_makes_one_task_a_clip_with_its_video_and_the_labels_of_an_export(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fake = server
    report = push(capsys, server, dataset, "--project", "crew")
    clips = sorted(dataset.table("clips")["clip_id"].to_pylist())
    assert (report["pushed"], report["there"], report["failed"]) == (4, 0, {})
    assert report["project"] == {"id": 1, "name": "crew"}
    assert clips_of(fake) == clips
    formats.write(kind, dataset, str(tmp_path / "out"))
    sent = fake.videos.values() if kind == "cvat" else fake.files.values()
    videos = {name: (Path(dataset.root) / "videos" / name).read_bytes() for name in (f"{clip}.mp4" for clip in clips)}
    assert {Path(name).name: data for name, data in sent} == videos
    if kind == "cvat":
        assert fake.projects[1]["spec"] == json.loads((tmp_path / "out/labels.json").read_text())
        assert fake.annotations == {}
    else:
        assert fake.projects[1]["label_config"] == (tmp_path / "out/labeling_config.xml").read_text()
        assert fake.predictions == []
        assert {task["data"]["video"] for task in fake.tasks.values()} == {
            f"/data/upload/1/0123abcd-{clip}.mp4" for clip in clips
        }
    stored = remembered(dataset)["projects"][0]
    assert (stored["server"], stored["url"], stored["id"]) == (kind, fake.url, 1)
    assert sorted(stored["tasks"]) == clips


def test_pre_annotations_are_what_an_export_holds(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fake = server
    push(capsys, server, dataset, "--with-annotations")
    formats.write(kind, dataset, str(tmp_path / "out"), **({"video_prefix": ""} if kind == "labelstudio" else {}))
    if kind == "cvat":
        sent = {fake.tasks[number]["name"]: xml for number, xml in fake.annotations.items()}
        assert sent == {path.stem: path.read_bytes() for path in (tmp_path / "out/annotations").iterdir()}
    else:
        results = {fake.tasks[each["task"]]["data"]["clip_id"]: each["result"] for each in fake.predictions}
        tasks = json.loads((tmp_path / "out/tasks.json").read_text())
        assert results == {task["data"]["clip_id"]: task["predictions"][0]["result"] for task in tasks}


def test_a_second_push_adds_only_new_clips(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    first = push(capsys, server, dataset, "--limit", 3, "--with-annotations")
    assert (first["pushed"], first["left"]) == (3, 1)
    second = push(capsys, server, dataset, "--with-annotations")
    assert (second["there"], second["pushed"], second["left"]) == (3, 1, 0)
    before = dict(fake.tasks)
    third = push(capsys, server, dataset, "--with-annotations")
    assert (third["there"], third["pushed"]) == (4, 0)
    assert fake.tasks == before
    assert len(fake.projects) == 1
    if isinstance(fake, FakeLabelStudio):
        assert len(fake.predictions) == 4


def test_a_push_that_the_server_ended_goes_on_where_it_stopped(
    server: tuple[str, Any],
    dataset: Dataset,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, fake = server
    fake.faults = [Fault(MAKES_TASK[kind], 500, after=3, times=99)]
    said = error_of(capsys, server, dataset)
    assert "HTTP 500" in said
    assert "3 of 4 clips were pushed before" in said
    assert len(fake.tasks) == 3
    assert len(remembered(dataset)["projects"][0]["tasks"]) == 3
    fake.faults = []
    assert push(capsys, server, dataset)["pushed"] == 1
    assert clips_of(fake) == sorted(dataset.table("clips")["clip_id"].to_pylist())


def test_a_task_that_was_made_and_not_remembered_is_found_by_its_clip(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    push(capsys, server, dataset, "--limit", 2)
    (Path(dataset.root) / "annotation_tasks.json").unlink()
    report = push(capsys, server, dataset)
    assert (report["there"], report["pushed"]) == (2, 2)
    assert clips_of(fake) == sorted(dataset.table("clips")["clip_id"].to_pylist())
    assert len(fake.projects) == 1


def test_what_a_server_did_before_it_failed_is_not_done_twice(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fake = server
    fake.faults = [
        Fault(MAKES_PROJECT[kind], 500, late=True),
        Fault(MAKES_TASK[kind], 500, after=1, late=True),
        Fault("POST /api/predictions/", 503, late=True),
        Fault(r"POST /api/tasks/\d+/data", 500, after=2, late=True),
    ]
    report = push(capsys, server, dataset, "--with-annotations")
    assert report["pushed"] == 4
    assert clips_of(fake) == sorted(dataset.table("clips")["clip_id"].to_pylist())
    assert len(fake.projects) == 1
    if isinstance(fake, FakeLabelStudio):
        assert len(fake.predictions) == 4


def test_pre_annotations_never_replace_what_people_did(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fake = server
    push(capsys, server, dataset)
    clip_id = dataset.table("clips")["clip_id"][0].as_py()
    finish(server, dataset, tmp_path, clip_id)
    before = dict(fake.annotations) if kind == "cvat" else {}
    push(capsys, server, dataset, "--with-annotations")
    if kind == "cvat":
        assert fake.annotations | before == fake.annotations
        assert len(fake.annotations) == 4
    else:
        told = {fake.tasks[each["task"]]["data"]["clip_id"] for each in fake.predictions}
        assert len(told) == 3
        assert clip_id not in told


def test_videos_that_the_server_finds_itself_are_not_sent(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fake = server
    push(capsys, server, dataset, "--video-prefix", "https://videos.example.org/crew/")
    wanted = {f"https://videos.example.org/crew/{clip}.mp4" for clip in dataset.table("clips")["clip_id"].to_pylist()}
    if kind == "cvat":
        assert {each["remote_files"][0] for each in fake.sources.values()} == wanted
        assert fake.videos == {}
    else:
        assert {task["data"]["video"] for task in fake.tasks.values()} == wanted
        assert fake.files == {}


def test_a_dry_run_tells_what_would_be_pushed_and_writes_nothing(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    report = push(capsys, server, dataset, "--dry-run", "--limit", 3)
    assert (report["to_push"], report["left"], report["written"]) == (3, 1, False)
    assert fake.projects == {}
    assert not (Path(dataset.root) / "annotation_tasks.json").exists()
    assert fake.count("(POST|PATCH) .*") == 0


def test_a_clip_without_its_video_fails_and_the_others_are_pushed(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    clip_id = dataset.table("clips")["clip_id"][1].as_py()
    (Path(dataset.root) / f"videos/{clip_id}.mp4").unlink()
    report = push(capsys, server, dataset, code=1)
    assert report["pushed"] == 3
    assert list(report["failed"]) == [clip_id]
    assert clip_id not in clips_of(fake)


def test_finished_tasks_come_back_into_the_dataset_and_once_only(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(capsys, server, dataset)
    clips = dataset.table("clips")["clip_id"].to_pylist()
    before = rows(dataset.table("actions"))
    finish(server, dataset, tmp_path, *clips[:2])
    report = pull(capsys, server, dataset)
    assert (report["taken"], report["unfinished"], report["others"]) == (2, 2, 0)
    after = rows(dataset.table("actions"))
    assert len(after) == len(before) - 2
    assert [row for row in after if row["clip_id"] in clips[2:]] == [
        row for row in before if row["clip_id"] in clips[2:]
    ]
    uris = dataset.table("clips")["uri"].to_pylist()
    assert uris == [f"videos/{clip}.mp4" for clip in clips]
    state = Dataset.open(dataset.root).fingerprint()
    pull(capsys, server, dataset)
    assert Dataset.open(dataset.root).fingerprint() == state


def test_a_pull_of_everything_takes_unfinished_tasks_that_have_annotations(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    push(capsys, server, dataset)
    clip_id = dataset.table("clips")["clip_id"][0].as_py()
    finish(server, dataset, tmp_path, clip_id)
    for task in fake.tasks.values():
        task["is_labeled"] = False
    if isinstance(fake, FakeCvat):
        fake.finished.clear()
    assert pull(capsys, server, dataset)["taken"] == 0
    report = pull(capsys, server, dataset, "--all", "--dry-run")
    assert (report["taken"], report["unfinished"], report["written"]) == (1, 4, False)
    assert pull(capsys, server, dataset, "--all")["written"]


def test_tasks_of_clips_that_the_dataset_has_not_are_left_alone(
    server: tuple[str, Any], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fake = server
    push(capsys, server, dataset)
    clip_id = dataset.table("clips")["clip_id"][0].as_py()
    finish(server, dataset, tmp_path, clip_id)
    for task in fake.tasks.values():
        if clip_id == (task.get("name") or task["data"]["clip_id"]):
            task.update({"name": "Other_001"} if "name" in task else {"data": {"clip_id": "Other_001"}})
    report = pull(capsys, server, dataset)
    assert (report["taken"], report["others"]) == (0, 1)


def test_a_wrong_key_is_one_line_that_names_the_variable_and_not_the_key(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, fake = server
    variable = "CVAT_TOKEN" if kind == "cvat" else "LABEL_STUDIO_API_KEY"
    monkeypatch.setenv(variable, "wrong-key-987654321")
    for command in ("push", "pull"):
        said = error_of(capsys, server, dataset, command)
        assert variable in said
        assert "HTTP 401" in said
        assert "wrong-key" not in said
    assert fake.tasks == {}


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_a_key_that_the_server_repeats_is_not_shown(
    server: tuple[str, Any],
    dataset: Dataset,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    kind, fake = server
    fake.faults = [Fault(MAKES_PROJECT[kind], status, times=99)]
    said = error_of(capsys, server, dataset)
    assert f"HTTP {status}" in said
    assert ("as the test wants; your key is" in said) == (status != 403)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_fails_for_a_moment_is_tried_again(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    kind, fake = server
    fake.faults = [Fault(MAKES_TASK[kind], status, times=2), Fault(r"GET /api/tasks/?", status, times=2)]
    assert push(capsys, server, dataset)["pushed"] == 4
    assert len(fake.tasks) == 4


def test_no_server_is_one_line(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _ = server
    nobody = type(server[1])(url="http://127.0.0.1:1")
    said = error_of(capsys, (kind, nobody), dataset)
    assert f"no {SERVERS[kind].title} answers at http://127.0.0.1:1" in said


def test_a_project_that_is_gone_is_one_line(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fake = server
    assert "project 77 (HTTP 404)" in error_of(capsys, server, dataset, "push", "--project-id", "77")
    assert "has no project called" in error_of(capsys, server, dataset, "pull")
    push(capsys, server, dataset)
    fake.projects.clear()
    for command in ("push", "pull"):
        said = error_of(capsys, server, dataset, command)
        assert "project 1 (HTTP 404)" in said
        assert "--project" in said


def test_two_projects_of_a_name_are_told_apart_by_number(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fake = server
    push(capsys, server, dataset, "--project", "crew", "--limit", 1)
    (Path(dataset.root) / "annotation_tasks.json").unlink()
    fake.projects[2] = {**fake.projects[1], "id": 2}
    assert "--project-id" in error_of(capsys, server, dataset, "push", "--project", "crew")
    report = push(capsys, server, dataset, "--project-id", 2)
    assert (report["project"]["id"], report["pushed"]) == (2, 4)


def test_a_missing_key_names_the_variable(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, variable in (("labelstudio", "LABEL_STUDIO_API_KEY"), ("cvat", "CVAT_TOKEN")):
        monkeypatch.delenv(variable)
        monkeypatch.setattr(cvat, "find_spec", lambda name: name)
        address = type("Nobody", (), {"url": "http://127.0.0.1:1"})()
        assert variable in error_of(capsys, (kind, address), dataset)


def test_a_missing_package_names_its_extra(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cvat, "find_spec", lambda name: None)
    address = type("Nobody", (), {"url": "http://127.0.0.1:1"})()
    assert "pip install 'microg-bench[cvat]'" in error_of(capsys, ("cvat", address), dataset)


@pytest.mark.parametrize("url", ["http://anna:pw-123@127.0.0.1:1", "http://127.0.0.1:1/?token=pw-123", "ftp://x", "x"])
def test_addresses_with_secrets_or_of_no_server_are_refused(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    address = type("Nobody", (), {"url": url})()
    assert "pw-123" not in error_of(capsys, ("labelstudio", address), dataset)


def test_what_a_dataset_remembers_is_refused_when_it_is_damaged(
    server: tuple[str, Any], dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(dataset.root) / "annotation_tasks.json").write_text('{"format": "microg-annotation-tasks/1", "projects": 3}')
    assert "annotation_tasks.json" in error_of(capsys, server, dataset)


@pytest.mark.skipif(find_spec("cvat_sdk") is None, reason="cvat-sdk is not installed: extra cvat")
def test_cvat_opens_with_a_user_and_a_password_too(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CVAT_TOKEN")
    monkeypatch.setenv("CVAT_USERNAME", FakeCvat.user)
    monkeypatch.setenv("CVAT_PASSWORD", FakeCvat.password)
    with serve(FakeCvat()) as fake:
        assert push(capsys, ("cvat", fake), dataset)["pushed"] == 4
        monkeypatch.setenv("CVAT_PASSWORD", "wrong-password-1")
        said = error_of(capsys, ("cvat", fake), dataset)
        assert "CVAT_PASSWORD (HTTP 401)" in said
        assert "wrong-password" not in said


@pytest.mark.skipif(find_spec("cvat_sdk") is None, reason="cvat-sdk is not installed: extra cvat")
def test_a_video_that_cvat_cannot_read_fails_its_clip_only(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(FakeCvat(unreadable=True)) as fake:
        report = push(capsys, ("cvat", fake), dataset, code=1)
        assert len(report["failed"]) == 4
        assert all("moov atom not found" in reason for reason in report["failed"].values())


def test_personal_access_tokens_of_label_studio_are_renewed(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.c2ln"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    fake = FakeLabelStudio(refresh=token)
    fake.faults = [Fault("POST /api/tasks/", 401, after=1)]
    with serve(fake):
        assert push(capsys, ("labelstudio", fake), dataset)["pushed"] == 4
    assert fake.access_tokens == 2
    assert len(fake.tasks) == 4


def test_label_studio_enterprise_is_pulled_by_a_snapshot(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from microg.system.annotation_servers import label_studio

    monkeypatch.setattr(label_studio, "_WAIT_S", 0.0)
    with serve(FakeLabelStudio(enterprise=True)) as fake:
        push(capsys, ("labelstudio", fake), dataset)
        finish(("labelstudio", fake), dataset, tmp_path, dataset.table("clips")["clip_id"][0].as_py())
        assert pull(capsys, ("labelstudio", fake), dataset)["taken"] == 1
