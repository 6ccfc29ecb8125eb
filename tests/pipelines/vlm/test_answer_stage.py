"""Decoding and asking without Ray: one decode a clip, one row an item, engines that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microg import storage
from microg.errors import ConfigError
from microg.models.vlm import frames as frame_reader
from microg.models.vlm.base import Placement, Reply, Request, Sampling
from microg.models.vlm.cards import card
from microg.models.vlm.engines.vllm import VllmEngine
from microg.models.vlm.prompts import prompt
from microg.models.vlm.sampling import Uniform
from microg.pipelines.core.stage import ABORT
from microg.pipelines.vlm import answer_stage, answer_store
from microg.pipelines.vlm.answer_stage import GenerationContext, Generator
from microg.pipelines.vlm.clip_tables import decode_block, from_table
from microg.pipelines.vlm.generate import sized_pipeline
from microg.pipelines.vlm.questions import blocks_of, items_of, read_questions, sizes_of, without
from microg.pipelines.vlm.settings import GenerateSettings, resolve
from tests.support.attempts import local_attempts
from tests.support.helpers import make_dataset

Answer = Callable[[Request], Reply]


class FakeEngine:
    """Answers by a function; remembers what it was asked."""

    name = "fake"
    model = "fake"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[list[Request]] = []
        self.samplings: list[Sampling] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": "fake"}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Reply]:
        self.calls.append(list(requests))
        self.samplings.append(sampling)
        for request in reversed(requests):  # engines answer in any order
            yield self.answer(request)

    def close(self) -> None:
        pass


def say(request: Request) -> Reply:
    return Reply(request.key, f"about {request.key}", prompt_tokens=5, completion_tokens=2, cost=0.5)


@pytest.fixture
def settings(tmp_path: Path) -> GenerateSettings:
    make_dataset(tmp_path / "data")
    asked = GenerateSettings(model="gpt-4o", dataset=str(tmp_path / "data"), frames=Uniform(count=3))
    return resolve(asked)[0]


def asked_of(settings: GenerateSettings) -> pa.Table:
    return read_questions(settings).clips


def decoded(settings: GenerateSettings) -> pa.Table:
    return decode_block(asked_of(settings), policy=settings.policy())


def actor(monkeypatch: pytest.MonkeyPatch, root: Path, settings: GenerateSettings, answer: Answer, **prompts: str):
    """Return a generator with a fake engine, and that engine."""
    engine = FakeEngine(answer)
    monkeypatch.setattr(answer_stage, "open_card", lambda *_, **__: engine)
    chosen = {"caption": "caption-v1", "vqa": "vqa-v1", **prompts}
    found: Any = {task: prompt(name) for task, name in chosen.items()}
    samplings: Any = {task: settings.sampling.of(each) for task, each in found.items()}
    context = GenerationContext(root=str(root), card=card("gpt-4o"), prompts=found, samplings=samplings)
    return Generator(context, local_attempts()), engine


def rows_of(root: Path) -> dict[str, dict[str, Any]]:
    files = sorted((root / "parts").iterdir())
    rows = [row for file in files for row in storage.read_parquet(str(file)).to_pylist()]
    found = {row["key"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_clip_is_decoded_once_and_all_its_questions_share_the_frames(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = frame_reader.sample_frames
    monkeypatch.setattr(
        frame_reader, "sample_frames", lambda uri, *a, **k: opened.append(uri) or original(uri, *a, **k)
    )
    generate, engine = actor(monkeypatch, tmp_path / "run", settings, say)
    reports = generate(decoded(settings)).to_pylist()
    assert sorted(Path(uri).stem for uri in opened) == ["filmA_000", "filmA_001", "tourB_000", "walkC_000"]
    (requests,) = engine.calls  # one call for all, clip after clip
    assert len(requests) == 28
    for start in range(0, 28, 7):
        frames = {id(request.frames) for request in requests[start : start + 7]}
        assert len(frames) == 1
    first = requests[0].frames
    assert first is not None
    assert (first.pixels == original(opened[0], [settings.policy()])[0].pixels).all()
    assert [(row["rows"], row["failed"], row["cost"]) for row in reports] == [(7, 0, 3.5)] * 4
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 28
    assert all(row["text"] == f"about {key}" for key, row in rows.items())


def test_a_structured_prompt_has_its_own_call_and_a_reply_of_another_shape_is_an_error_row(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> Reply:
        text = '{"answerable": true, "answer": "A cup."}' if "filmA_000:0" in request.key else "no JSON"
        return Reply(request.key, text)

    generate, engine = actor(monkeypatch, tmp_path / "run", settings, answer, vqa="vqa-json-v1")
    generate(decoded(settings))
    assert [len(requests) for requests in engine.calls] == [4, 24]
    assert [sampling.json_schema is None for sampling in engine.samplings] == [True, False]
    rows = rows_of(tmp_path / "run")
    assert (rows["vqa:filmA_000:0"]["text"], rows["vqa:filmA_000:0"]["status"]) == ("A cup.", "ok")
    assert rows["vqa:filmA_000:1"]["status"] == "error"
    assert "not JSON" in rows["vqa:filmA_000:1"]["error"]
    assert rows["caption:filmA_000"]["text"] == "no JSON"


def test_failed_missing_and_broken_replies_are_error_rows_and_other_rows_are_kept(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> Reply:
        if request.key == "vqa:filmA_000:1":
            return Reply(request.key, status="error", error="HTTP 400: too long")
        if request.key == "vqa:filmA_000:2":
            return Reply("nobody asked this", "text")
        if "tourB_000" in request.key:
            raise RuntimeError("the engine broke")
        return say(request)

    generate, engine = actor(monkeypatch, tmp_path / "run", settings, answer)
    reports = {row["clip_id"]: row for row in generate(decoded(settings)).to_pylist()}
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 28
    assert rows["vqa:filmA_000:1"]["error"] == "HTTP 400: too long"
    assert rows["vqa:filmA_000:2"]["error"] == "the engine gave no reply"
    assert {row["error"] for row in rows.values() if row["clip_id"] == "tourB_000"} == {
        "RuntimeError: the engine broke"
    }
    assert sum(row["status"] == "ok" for row in rows.values()) == 28 - 7 - 2
    assert (reports["filmA_000"]["failed"], reports["tourB_000"]["failed"]) == (2, 7)
    assert len(engine.calls) == 1 + 4  # together, then each clip alone


def test_what_makes_all_requests_fail_aborts_and_keeps_what_came_before(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> Reply:
        if "tourB_000" in request.key:
            raise ConfigError("no such model", "name another")
        return say(request)

    generate, _ = actor(monkeypatch, tmp_path / "run", settings, answer)
    reports = generate(decoded(settings)).to_pylist()
    assert {(row["status"], row["error"], row["fix"]) for row in reports} == {(ABORT, "no such model", "name another")}
    rows = rows_of(tmp_path / "run")
    assert {row["clip_id"] for row in rows.values()} == {"walkC_000"}  # the fake engine answers from the end
    assert all(row["status"] == "ok" for row in rows.values())


def test_an_engine_that_never_recovers_or_a_server_that_is_gone_aborts(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(request: Request) -> Reply:
        raise RuntimeError("out of memory")

    generate, _ = actor(monkeypatch, tmp_path / "a", settings, broken)
    report = generate(decoded(settings)).to_pylist()[0]
    assert report["status"] == ABORT
    assert "failed on 3 clips in a row, the last: RuntimeError: out of memory" in report["error"]

    def gone(request: Request) -> Reply:
        if "filmA_000" in request.key:
            return Reply(request.key, status="error", error="gave up after 6 attempts: refused", attempts=6)
        return Reply(request.key, status="error", error="not sent: 7 requests in a row failed", attempts=0)

    generate, _ = actor(monkeypatch, tmp_path / "b", settings, gone)
    report = generate(decoded(settings)).to_pylist()[0]
    assert report["status"] == ABORT
    assert "answers nothing any more: gave up after 6 attempts: refused" in report["error"]


def test_an_engine_that_cannot_be_opened_or_is_another_than_began_the_run_aborts(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    answer_store.claim(str(root), {"engine": "other"})
    generate, engine = actor(monkeypatch, root, settings, say)
    report = generate(decoded(settings)).to_pylist()[0]
    assert report["status"] == ABORT
    assert "engine: 'other' there, 'fake' asked" in report["error"]
    assert not engine.calls


def test_a_clip_that_kills_its_worker_twice_is_an_error_row(
    settings: GenerateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def answer(request: Request) -> Reply:
        if "tourB_000" in request.key:
            raise Killed
        return say(request)

    block = decoded(settings)
    generate, _ = actor(monkeypatch, tmp_path / "run", settings, answer)
    for _ in range(3):  # as Ray does: the same block again, on a new actor
        with pytest.raises(Killed):
            generate(block)
    reports = {row["clip_id"]: row for row in generate(block).to_pylist()}
    assert reports["tourB_000"]["error"].startswith("WorkerCrashed")
    assert [reports[clip]["status"] for clip in ("filmA_000", "filmA_001", "walkC_000")] == ["ok"] * 3
    assert len(rows_of(tmp_path / "run")) == 28


def test_an_engine_is_asked_about_several_blocks_at_once(
    monkeypatch: pytest.MonkeyPatch, settings: GenerateSettings, tmp_path: Path
) -> None:
    together = threading.Barrier(2)

    def answer(request: Request) -> Reply:
        together.wait(timeout=60)  # breaks unless requests of two blocks are here
        return say(request)

    generator, _ = actor(monkeypatch, tmp_path / "run", settings, answer)
    clips = decoded(settings)
    shares = [clips.slice(0, 1), clips.slice(1, 1)]
    with ThreadPoolExecutor(2) as threads:
        reports = [row for table in threads.map(generator, shares) for row in table.to_pylist()]
    assert [report["status"] for report in reports] == ["ok"] * 2
    assert set(rows_of(tmp_path / "run")) == {item.qualified_id for item in items_of(asked_of(settings).slice(0, 2))}


def test_as_many_blocks_reach_an_actor_at_once_as_its_engine_takes(settings: GenerateSettings) -> None:
    places = {device: Placement(device=device) for device in ("cuda", "cpu")}
    calls = {name: sized_pipeline(settings, card("qwen2.5-vl-7b"), place).stages[-1] for name, place in places.items()}
    assert calls["cuda"].calls_at_once == VllmEngine.calls_at_once > calls["cpu"].calls_at_once > 1


def test_frames_travel_unchanged_and_errors_with_them(settings: GenerateSettings, tmp_path: Path) -> None:
    (tmp_path / "data/videos/tourB_000.mp4").write_bytes(b"no video")
    clips = {clip.clip_id: clip for clip in from_table(decoded(settings))}
    frames = frame_reader.sample_frames(str(tmp_path / "data/videos/filmA_001.mp4"), [settings.policy()])[0]
    came = clips["filmA_001"].frames
    assert came is not None
    assert (came.pixels == frames.pixels).all()
    assert (came.indices, came.fps, came.num_frames, came.sha256) == (
        frames.indices,
        frames.fps,
        frames.num_frames,
        frames.sha256,
    )
    assert clips["tourB_000"].frames is None
    assert clips["tourB_000"].error.startswith("VideoError")
    assert [question.text for question in clips["tourB_000"].questions][:2] == [None, "What floats?"]


def test_finished_items_are_left_out_and_blocks_keep_their_bounds(settings: GenerateSettings) -> None:
    clips = asked_of(settings)
    keys = [item.qualified_id for item in items_of(clips)]
    assert len(keys) == len(set(keys)) == 28
    left = without(clips, set(keys[:7]) | {"vqa:filmA_001:3"})
    assert [item.qualified_id for item in items_of(left)] == [key for key in keys[7:] if key != "vqa:filmA_001:3"]
    sizes = sizes_of(clips, settings.policy())
    assert [size.num_bytes for size in sizes] == [3 * 96 * 64 * 3] * 4
    assert [block.num_rows for block in blocks_of(clips, sizes, 3, 10**9)] == [3, 1]
    assert [block.num_rows for block in blocks_of(clips, sizes, 9, 2 * sizes[0].num_bytes)] == [2, 2]
    assert [block.num_rows for block in blocks_of(clips, sizes, 9, 1)] == [1, 1, 1, 1]
