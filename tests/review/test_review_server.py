"""What the server answers: the page's requests, and all that it refuses, logs and does not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from microg.data.dataset import Dataset
from microg.review.guard import COOKIE, MAX_BODY_BYTES, Hosts
from microg.review.rules import Rules
from microg.review.store import Store
from tests.support.reviews import HOST, Clock, client_of, desk_of, new_id, save, small_dataset, take

FLOAT = {"actions": [12]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "ds")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store(tmp_path / "review.sqlite", clock)
    yield opened
    opened.close()


@pytest.fixture
def client(dataset: Dataset, store: Store) -> TestClient:
    """One annotator who needs no token."""
    return client_of(desk_of(dataset, store), store, Path(dataset.root))


@pytest.fixture
def team(dataset: Dataset, store: Store) -> dict[str, TestClient]:
    """Clients of Anna, Ben and the adjudicator Cara, who are logged in, and of a stranger."""
    tokens = store.grant(["anna", "ben"], ["cara"], anew=False)
    desk = desk_of(dataset, store, Rules(second=1.0))
    clients = {name: client_of(desk, store, Path(dataset.root), tokens=True) for name in (*tokens, "stranger")}
    for name, token in tokens.items():
        assert clients[name].post("/api/login", json={"token": token}).json() == {"annotator": name}
    return clients


def refusals(store: Store) -> list[tuple[str, int]]:
    return [(each["path"], each["status"]) for each in store.refusals()]


def test_the_session_tells_the_page_all_that_it_needs(client: TestClient):
    session = client.get("/api/session").json()
    assert session["annotator"] == "anna"
    assert session["dataset"]["name"] == "small"
    assert len(session["vocabulary"]["actions"]) == 50
    assert {"id": 12, "name": "stand", "group": "PERSON_MOVEMENT", "definition": "", "note": ""}.items() <= session[
        "vocabulary"
    ]["actions"][9].items()
    assert [(each["mode"], each["total"]) for each in session["modes"]] == [
        ("screen", 6),
        ("actions", 12),
        ("boxes", 6),
        ("captions", 6),
        ("questions", 12),
        ("adjudicate", 0),
    ]


def test_a_task_is_of_the_form_that_the_page_reads(client: TestClient):
    (task,) = take(client, "actions")
    assert task["task_id"] == "actions:tour_000:1"
    assert (task["mode"], task["kind"], task["person_id"], task["item"]) == ("actions", "action", 1, None)
    assert task["until"] == "2026-05-04T09:05:00.000+00:00"
    assert task["clip"]["video"] == "/video/tour_000"
    assert task["clip"]["num_frames"] == 30
    assert [person["person_id"] for person in task["people"]] == [1, 2]
    assert task["people"][0]["boxes"][0] == [1, 20.0, 4.0, 35.0, 40.0]
    assert task["people"][0]["key_frame"] == 16
    assert (task["mine"], task["proposal"], task["previous"], task["said"], task["notes"]) == (None, None, None, [], [])


def test_many_clips_are_screened_at_once(client: TestClient):
    tasks = take(client, "screen", count=24)
    assert [task["task_id"] for task in tasks] == [f"screen:tour_{number:03d}" for number in range(6)]
    for task in tasks:
        assert save(client, task, {"keep": True}).status_code == 200
    assert client.post("/api/next", json={"mode": "screen", "count": 24}).json() == {"tasks": [], "left": 0}


def test_a_save_tells_how_far_everything_is(client: TestClient, store: Store):
    (task,) = take(client, "actions")
    name = new_id()
    answer = save(client, task, FLOAT, name)
    assert answer.json()["annotation_id"] == name
    assert answer.json()["progress"]["modes"][1] == {"mode": "actions", "total": 12, "done": 1, "mine": 1, "open": 11}
    assert save(client, task, FLOAT, name).json() == answer.json()
    assert store.count() == 1
    (pace,) = client.get("/api/progress").json()["annotators"]
    assert pace == {"annotator": "anna", "judged": 1, "today": 1, "median_seconds": 1.5}


def test_what_was_said_of_the_person_before_is_offered_for_the_next_clip(client: TestClient):
    tasks = take(client, "actions", count=3)
    assert save(client, tasks[1], {"actions": [17]}).status_code == 200
    save(client, tasks[0], FLOAT)
    (fourth,) = take(client, "actions")
    assert fourth["task_id"] == "actions:tour_001:2"
    assert fourth["previous"] == {"actions": [17]}


def test_undo_renew_release_and_notes(client: TestClient):
    (task,) = take(client, "actions")
    name = new_id()
    save(client, task, FLOAT, name)
    assert client.post("/api/undo", json={"annotation_id": name}).json()["task"]["task_id"] == task["task_id"]
    note = client.post("/api/note", json={"task_id": task["task_id"], "text": "is she asleep?"})
    assert note.status_code == 200
    answer = client.post("/api/renew", json={"task_ids": [task["task_id"]]}).json()
    assert answer == {"until": task["until"], "held": [task["task_id"]], "lost": []}
    assert client.post("/api/release", json={"task_id": task["task_id"]}).status_code == 200
    again = take(client, "actions", count=24)[-1]
    assert again["task_id"] == task["task_id"]
    assert [each["text"] for each in again["notes"]] == ["is she asleep?"]


def test_edits_of_boxes_and_their_clip(client: TestClient):
    (task,) = take(client, "boxes")
    body = {"task_id": task["task_id"], "annotation_id": new_id(), "value": {"op": "delete"}, "person_id": 2}
    assert client.post("/api/save", json=body).status_code == 200
    clip = client.get("/api/clip/tour_000").json()
    assert [person["person_id"] for person in clip["people"]] == [1]
    assert client.post("/api/done", json={"task_id": task["task_id"], "seconds": 3}).status_code == 200
    assert take(client, "boxes")[0]["task_id"] == "boxes:tour_001"


def test_annotators_label_blind_and_the_adjudicator_sees_both(team: dict[str, TestClient]):
    anna, ben, cara = team["anna"], team["ben"], team["cara"]
    (task,) = take(anna, "actions")
    anna.post("/api/note", json={"task_id": task["task_id"], "text": "clearly standing"})
    save(anna, task, FLOAT)
    seen = ben.post("/api/next", json={"mode": "actions"})
    assert seen.json()["tasks"][0]["task_id"] == task["task_id"]
    assert "anna" not in seen.text
    assert "clearly" not in seen.text
    save(ben, task, {"actions": [17]})
    (dispute,) = take(cara, "adjudicate")
    assert [(each["annotator"], each["value"]) for each in dispute["said"]] == [
        ("anna", FLOAT),
        ("ben", {"actions": [17]}),
    ]
    assert [each["text"] for each in dispute["notes"]] == ["clearly standing"]
    assert save(cara, dispute, {"actions": [12, 17]}).status_code == 200
    assert take(cara, "adjudicate") == []


def test_only_adjudicators_adjudicate(team: dict[str, TestClient], store: Store):
    assert team["ben"].post("/api/next", json={"mode": "adjudicate"}).status_code == 403
    assert [each["mode"] for each in team["ben"].get("/api/session").json()["modes"]][-1] == "questions"
    assert store.refusals()[-1]["annotator"] == "ben"


def test_a_wrong_token_opens_nothing(team: dict[str, TestClient], store: Store):
    stranger = team["stranger"]
    assert stranger.post("/api/login", json={"token": "guessed"}).status_code == 401
    for method, path in [
        *[("GET", path) for path in ("/api/session", "/api/progress", "/api/clip/tour_000", "/video/tour_000")],
        *[("GET", path) for path in ("/thumb/tour_000.jpg", "/frame/tour_000/1.jpg")],
    ]:
        assert stranger.request(method, path).status_code == 401, path
    assert stranger.post("/api/next", json={"mode": "screen"}).status_code == 401
    stranger.cookies.set(COOKIE, "invented")
    assert stranger.get("/api/session").status_code == 401
    assert len(store.refusals()) == 9


def test_cookies_are_kept_from_scripts_and_other_sites(dataset: Dataset, store: Store):
    token = store.grant(["anna"], [], anew=False)["anna"]
    client = client_of(desk_of(dataset, store), store, Path(dataset.root), tokens=True)
    plain = client.post("/api/login", json={"token": token}).headers["set-cookie"]
    assert "HttpOnly" in plain
    assert "SameSite=strict" in plain
    assert "Secure" not in plain
    behind = client.post("/api/login", json={"token": token}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.headers["set-cookie"]


def test_tokens_outlive_a_restart_and_end_when_they_are_replaced(dataset: Dataset, store: Store):
    token = store.grant(["anna", "ben"], [], anew=False)["anna"]
    assert store.grant(["anna", "ben"], [], anew=False) == {}
    client = client_of(desk_of(dataset, store), store, Path(dataset.root), tokens=True)
    assert client.post("/api/login", json={"token": token}).status_code == 200
    assert client.get("/api/session").status_code == 200
    other = store.grant(["anna"], [], anew=True)["anna"]
    assert other != token
    assert client.get("/api/session").status_code == 401
    assert client.post("/api/login", json={"token": token}).status_code == 401
    assert list(store.people()) == ["anna"]


def test_tokens_and_sessions_are_stored_as_hashes_only(team: dict[str, TestClient], store: Store, tmp_path: Path):
    token = store.grant(["dora"], ["cara"], anew=False)["dora"]
    team["stranger"].post("/api/login", json={"token": token})
    secret = team["stranger"].cookies[COOKIE]
    team["stranger"].get(f"/?token={token}")
    team["stranger"].get(f"/api/nothing?token={token}")
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("review.sqlite*"))
    assert token.encode() not in stored
    assert secret.encode() not in stored
    assert b"/api/nothing" in stored


BAD_SAVES = {
    "label not in the vocabulary": ({"actions": [999]}, 422),
    "sixth label": ({"actions": [1, 3, 4, 5, 6, 7]}, 422),
    "label of another kind": ({"actions": ["12"]}, 422),
    "no actions": ({"keep": True}, 422),
    "taken back by saving": ({"withdrawn": True}, 422),
}


@pytest.mark.parametrize("why", BAD_SAVES)
def test_what_is_not_fit_is_refused_logged_and_not_saved(client: TestClient, store: Store, why: str):
    value, status = BAD_SAVES[why]
    (task,) = take(client, "actions")
    answer = save(client, task, value)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert store.count() == 0
    assert refusals(store) == [("/api/save", status)]
    assert save(client, task, FLOAT).status_code == 200


def test_a_lease_that_ended_is_refused_and_logged(client: TestClient, store: Store, clock: Clock):
    (task,) = take(client, "actions")
    clock.move(301)
    assert save(client, task, FLOAT).status_code == 409
    assert store.count() == 0
    assert refusals(store) == [("/api/save", 409)]


@pytest.mark.parametrize(
    "task_id",
    [
        "actions:../../etc/passwd:1",
        "actions:tour_000:9",
        "actions:tour_000:-1",
        "actions:tour_000:1:1",
        "actions:nowhere_000:1",
        "screen:/etc/passwd",
        "adjudicate:box:tour_000:1",
        "adjudicate:",
        "nothing:tour_000",
        "",
    ],
)
def test_tasks_that_are_none_are_refused_everywhere(client: TestClient, store: Store, task_id: str):
    assert save(client, {"task_id": task_id}, FLOAT).status_code in (404, 409, 422)
    for path in ("/api/release", "/api/done", "/api/note"):
        body = {"task_id": task_id, **({"text": "x"} if path == "/api/note" else {})}
        assert client.post(path, json=body).status_code in (404, 422), path
    assert client.post("/api/renew", json={"task_ids": [task_id]}).status_code == 404
    assert store.count() == 0
    assert len(store.refusals()) == 5


@pytest.mark.parametrize(
    "path",
    [
        "/video/..%2F..%2Fdataset.json",
        "/video/%2Fetc%2Fpasswd",
        "/video/tour_000%00",
        "/video/%2E%2E",
        "/thumb/..%2F..%2Fx.jpg",
        "/frame/..%2Ftour_000/1.jpg",
        "/frame/tour_000/0.jpg",
        "/frame/tour_000/31.jpg",
        "/api/clip/..%2F..%2Fx",
        "/page/..%2Fserver.py",
        "/page/server.py",
        "/page/%2Fetc%2Fpasswd",
        "/openapi.json",
        "/docs",
    ],
)
def test_paths_lead_nowhere_but_to_clips_and_the_page(client: TestClient, store: Store, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()
    assert len(store.refusals()) == 1


def test_clips_that_lead_out_of_the_dataset_are_not_served(dataset: Dataset, store: Store, tmp_path: Path):
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    clips = dataset.table("clips")
    uris = ["../secret.mp4", str(tmp_path / "secret.mp4"), "file:///etc/passwd", "http://127.0.0.1:1/x.mp4", "", "."]
    dataset.write("clips", clips.set_column(clips.schema.get_field_index("uri"), "uri", [uris]))
    client = client_of(desk_of(dataset, store), store, Path(dataset.root))
    for clip_id in clips["clip_id"].to_pylist():
        answer = client.get(f"/video/{clip_id}")
        assert answer.status_code == 404, answer.text
        assert b"secret" not in answer.content
        assert str(tmp_path) not in answer.text
    assert "points out of" in store.refusals()[0]["what"]


FOREIGN = {
    "another host": {"Host": "evil.example:8765"},
    "another port": {"Host": "127.0.0.1:80"},
    "no host": {"Host": ""},
    "another page": {"Origin": "http://evil.example"},
    "a page of another port": {"Origin": "http://127.0.0.1:9999"},
    "a sandboxed page": {"Origin": "null"},
    "no own header": {"X-Microg": "other"},
    "another site, says the browser": {"Sec-Fetch-Site": "cross-site"},
    "the same site, another port": {"Sec-Fetch-Site": "same-site"},
}


@pytest.mark.parametrize("why", FOREIGN)
def test_requests_of_other_sites_are_refused_logged_and_change_nothing(client: TestClient, store: Store, why: str):
    (task,) = take(client, "actions")
    body = {"task_id": task["task_id"], "annotation_id": new_id(), "value": FLOAT}
    answer = client.post("/api/save", json=body, headers=FOREIGN[why])
    assert answer.status_code == 403
    assert store.count() == 0
    assert refusals(store) == [("/api/save", 403)]
    assert client.post("/api/save", json=body).status_code == 200


def test_pages_of_others_read_nothing(client: TestClient):
    for path in ("/", "/api/session", "/video/tour_000"):
        assert client.get(path, headers={"Host": "evil.example:8765"}).status_code == 403
    assert client.get("/api/session", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/api/session", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code != 403  # a link in a mail


def test_requests_that_are_too_large_are_refused(client: TestClient, store: Store):
    (task,) = take(client, "captions")
    long = {"verdict": "edit", "caption": "x" * MAX_BODY_BYTES}
    assert save(client, task, long).status_code == 413
    pieces = (b"x" * 1024 for _ in range(MAX_BODY_BYTES // 1024 + 1))
    assert client.post("/api/save", content=pieces).status_code == 413  # without a stated length
    assert store.count() == 0
    assert refusals(store) == [("/api/save", 413)] * 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/next", {"mode": "everything"}),
        ("/api/next", {"mode": "screen", "count": 25}),
        ("/api/next", {"mode": "screen", "count": 0}),
        ("/api/next", {"mode": "screen", "as": "ben"}),
        ("/api/save", {"task_id": "actions:tour_000:1", "annotation_id": "../x", "value": FLOAT}),
        ("/api/save", {"task_id": "actions:tour_000:1", "annotation_id": "0" * 32, "value": [12]}),
        ("/api/save", {"task_id": "actions:tour_000:1", "annotation_id": "0" * 32, "value": FLOAT, "seconds": -1}),
        ("/api/undo", {"annotation_id": 5}),
        ("/api/note", {"task_id": "actions:tour_000:1", "text": "x" * 3000}),
    ],
)
def test_bodies_of_another_form_are_refused_and_logged(client: TestClient, store: Store, path: str, body: dict):
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "fix"}
    assert refusals(store) == [(path, 422)]


def test_other_methods_and_no_json_are_refused(client: TestClient):
    assert client.delete("/api/save").status_code == 405
    assert client.put("/api/save", json={}).status_code == 405
    assert client.post("/api/save", content=b"{").status_code == 422
    assert client.post("/api/session", json={}).status_code == 405


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient):
    for path in ("/api/session", "/nothing", "/video/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/api/session").headers["cache-control"] == "no-store"
    refused = client.get("/", headers={"Host": "evil.example"})
    assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("review.example.org", True),
        ("REVIEW.example.org", True),
        ("192.168.1.5:8765", True),
        ("[fe80::1]:8765", True),
        ("192.168.1.5", False),
        ("192.168.1.5:80", False),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example:8765", False),
        ("review.example.org:8765", False),
    ],
)
def test_which_hosts_are_the_servers(host: str, allowed: bool):
    hosts = Hosts(["127.0.0.1", "mybox"], 8765, public="review.example.org", any_address=True)
    assert hosts.allows(host) is allowed
    assert not Hosts(["127.0.0.1"], 8765).allows("192.168.1.5:8765")


def test_an_error_of_ours_shows_no_inside(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Store, "paces", lambda self: 1 / 0)
    quiet = TestClient(client.app, base_url=f"http://{HOST}", raise_server_exceptions=False)
    answer = quiet.get("/api/progress")
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
