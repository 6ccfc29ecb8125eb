"""Synthetic datasets: the same bytes from the same seed, resume, tables and language."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microg import storage
from microg.data.dataset import Dataset
from microg.demo.synthetic import actions, language
from microg.demo.synthetic.dataset import DURATION_S, FRAMES, Settings, generate_dataset, make_clip_shot, render_clip
from microg.errors import ConfigError, DatasetError

SMALL: dict[str, Any] = {"width": 128, "height": 96}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return generate_dataset(str(tmp_path_factory.mktemp("synthetic") / "set"), 7, seed=2, **SMALL)


def contents(root: str) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in Path(root).rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_also_from_two_processes(made: Dataset, tmp_path: Path):
    again = contents(generate_dataset(str(tmp_path / "again"), 2, seed=2, workers=2, **SMALL).root)
    clips = [name for name in again if name.startswith(("videos", "parts"))]
    assert len(clips) == 4
    assert {name: again[name] for name in clips} == {name: contents(made.root)[name] for name in clips}


def test_another_seed_gives_other_clips(made: Dataset, tmp_path: Path):
    other = generate_dataset(str(tmp_path / "other"), 1, seed=3, **SMALL)
    assert not set(other.table("clips")["sha256"].to_pylist()) & set(made.table("clips")["sha256"].to_pylist())


def test_a_second_run_keeps_finished_clips_and_makes_only_broken_and_missing_ones(tmp_path: Path):
    root = tmp_path / "set"
    dataset = generate_dataset(str(root), 3, seed=2, **SMALL)
    before = contents(str(root))
    first, second, third = (Path(dataset.video_uri(c)) for c in dataset.table("clips")["clip_id"].to_pylist())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    untouched = third.stat().st_mtime_ns
    done: list[int] = []
    generate_dataset(str(root), 3, seed=2, progress=done.append, **SMALL)
    assert contents(str(root)) == before
    assert third.stat().st_mtime_ns == untouched
    assert done == [1, 1, 1]  # one kept, two made


def test_a_dataset_can_be_extended(made: Dataset, tmp_path: Path):
    root = str(tmp_path / "set")
    generate_dataset(root, 2, seed=2, **SMALL)
    generate_dataset(root, 7, seed=2, **SMALL)
    assert contents(root) == contents(made.root)


def test_a_dataset_of_other_settings_is_refused(made: Dataset):
    with pytest.raises(DatasetError, match="other settings"):
        generate_dataset(made.root, 2, seed=9, **SMALL)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 127},
        {"height": 10_000},
        {"clips": 0},
        {"seed": -1},
        {"upright": 2.0},
        {"zoom": 0.1},
        {"origin": "cartoon"},
    ],
)
def test_bad_values_are_refused(tmp_path: Path, bad: dict):
    with pytest.raises(ConfigError):
        generate_dataset(str(tmp_path / "set"), **{"clips": 1, **SMALL, **bad})


def test_clips_decode_to_ninety_frames_that_look_like_the_rendered_ones(made: Dataset):
    import av

    clip = made.table("clips").to_pylist()[0]
    path = made.resolve(clip["uri"])
    assert storage.sha256(path) == clip["sha256"]
    with av.open(path) as container:
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(decoded) == FRAMES == clip["num_frames"]
    rendered = list(render_clip(Settings(2, 128, 96, 0.4, "mix"), 0))
    for number in (0, 45, 89):
        # brightness: the codec halves the resolution of colour, which shows in pictures as small as these
        seen, drawn = decoded[number].mean(axis=2), rendered[number].image.mean(axis=2)
        assert np.abs(seen - drawn).mean() < 6
        assert np.corrcoef(seen.ravel(), drawn.ravel())[0, 1] > 0.97


def test_boxes_are_those_of_the_rendered_masks_and_inside_the_frame(made: Dataset):
    rows = [row for row in made.table("boxes").to_pylist() if row["clip_id"] == "synthetic-2-0001_000"]
    rendered = list(render_clip(Settings(2, 128, 96, 0.4, "mix"), 5))
    stored = {(r["frame"], r["person_id"]): (r["x1"], r["y1"], r["x2"], r["y2"]) for r in rows}
    expected = {
        (number, person): box
        for number, frame in enumerate(rendered, start=1)
        for person, box in enumerate(frame.boxes, start=1)
        if box is not None
    }
    assert stored == expected
    assert all(0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 96 for x1, y1, x2, y2 in stored.values())
    assert {row["confidence"] for row in rows} == {1.0}


def test_sources_of_five_clips_share_module_crew_and_origin(made: Dataset):
    clips = made.table("clips").to_pylist()
    assert [c["source_id"] for c in clips] == ["synthetic-2-0000"] * 5 + ["synthetic-2-0001"] * 2
    assert [c["origin"] for c in clips] == ["movie"] * 5 + ["real"] * 2
    assert {c["status"] for c in clips} == {"ok"}
    settings = Settings(2, 128, 96, 0.4, "mix")
    assert len({make_clip_shot(settings, index).module for index in range(5)}) == 1
    assert len({p.look for index in range(5) for p in make_clip_shot(settings, index).people}) <= 3


def test_every_person_has_boxes_and_labels_and_every_clip_six_questions(made: Dataset):
    people = {(r["clip_id"], r["person_id"]) for r in made.table("actions").to_pylist()}
    boxes = Counter((r["clip_id"], r["person_id"]) for r in made.table("boxes").to_pylist())
    assert people == set(boxes)
    assert min(boxes.values()) >= FRAMES / 2
    assert set(Counter(made.table("qa")["clip_id"].to_pylist()).values()) == {6}
    assert made.table("captions").num_rows == 7


SHOTS = [make_clip_shot(Settings(5, 854, 480, 0.4, "mix"), index) for index in range(300)]


def asked(index: int) -> list[tuple[str, str]]:
    return language.questions(SHOTS[index], DURATION_S, np.random.default_rng(index))


def test_the_count_is_the_number_of_people():
    for index, shot in enumerate(SHOTS):
        question, answer = asked(index)[1]
        assert "people" in question
        assert answer == f"{language.NUMBERS[len(shot.people)]}."


def test_yes_and_no_are_true_and_about_equally_frequent():
    by_text = {motion.doing: motion.name for motion in actions.MOTIONS.values()}
    answers = Counter()
    for index, shot in enumerate(SHOTS):
        question, answer = asked(index)[0]
        name = by_text[question.removeprefix("Is anyone ").removesuffix("?")]
        shown = any(name in (person.plan.posture, *person.plan.motions) for person in shot.people)
        assert answer == ("Yes." if shown else "No.")
        answers[answer] += 1
    assert 0.4 < answers["Yes."] / len(SHOTS) < 0.6


def test_action_and_colour_answers_name_the_person_that_was_rendered():
    for index, shot in enumerate(SHOTS):
        (question, answer), (colour_question, colour) = asked(index)[2:4]
        person = next(p for p in shot.people if f"the person in the {p.look.shirt} {p.look.garment} " in question)
        main = person.plan.all[1] if person.plan.motions else person.plan.all[0]
        assert main.doing.split("{")[0].lower().strip() in answer.lower()
        if "alphabetical" in colour_question:
            assert all(p.look.shirt in colour.lower() for p in shot.people)
            continue
        wearing = [p for p in shot.people if p.look.shirt == colour.lower().removesuffix(".")]
        assert len(wearing) == 1
        doing = colour_question.partition(" of the person ")[2].removesuffix("?")
        if doing and not doing.startswith("who is"):
            doers = [p for p in shot.people if doing in {motion.doing for motion in p.plan.all}]
            assert doers == wearing


def test_a_turned_person_is_called_so_only_when_the_roll_says_so_all_the_time():
    said = Counter()
    for shot in SHOTS:
        for person in shot.people:
            way = language.orientation(person, DURATION_S)
            rolls = [abs((np.degrees(person.roll_at(t)) + 180) % 360 - 180) for t in np.linspace(0, DURATION_S, 31)]
            said[way] += 1
            if way == "upside down":
                assert min(rolls) > 135
            if way == "sideways":
                assert min(rolls) > 55
                assert max(rolls) < 125
    assert min(said["upside down"], said["sideways"], said["upright"]) > 30


def test_the_last_question_is_unanswerable_and_captions_say_who_wears_what():
    captions = set()
    for index, shot in enumerate(SHOTS):
        assert asked(index)[5][1] == language.UNANSWERABLE
        text = language.caption(shot, DURATION_S, np.random.default_rng(index))
        assert all(f"{person.look.shirt} {person.look.garment}" in text for person in shot.people)
        assert shot.module in text
        if len(shot.people) > 1:
            assert f"{language.NUMBERS[len(shot.people)].lower()} people" in text.lower()
        captions.add(text)
    assert len(captions) > 0.95 * len(SHOTS)


def test_more_questions_go_on_from_the_six_without_asking_twice_and_agree_with_them():
    for index, shot in enumerate(SHOTS[:60]):
        more = language.questions(shot, DURATION_S, np.random.default_rng(index), 20)
        assert more[:6] == asked(index)
        assert len({question for question, _ in more}) == len(more)
        assert 15 <= len(more) <= 20
        by_text = {motion.doing: motion.name for motion in actions.MOTIONS.values()}
        shown = {motion.name for person in shot.people for motion in person.plan.all}
        for question, answer in more:
            if question.startswith("Is anyone "):
                name = by_text[question.removeprefix("Is anyone ").removesuffix("?")]
                assert answer == ("Yes." if name in shown else "No.")


def test_a_dataset_has_as_many_questions_as_asked_for_and_the_same_first_six(tmp_path: Path):
    few, many = (
        generate_dataset(str(tmp_path / str(count)), 1, width=64, height=64, questions=count).table("qa").to_pylist()
        for count in (6, 12)
    )
    assert many[:6] == few
    assert [row["qa_index"] for row in many] == list(range(12))
    with pytest.raises(DatasetError, match="other settings"):
        generate_dataset(str(tmp_path / "6"), 1, width=64, height=64, questions=12)


def test_clips_of_fewer_frames_a_second_show_the_same_at_the_same_time(tmp_path: Path):
    slow = generate_dataset(str(tmp_path / "slow"), 1, seed=2, fps=10, **SMALL)
    clip = slow.table("clips").to_pylist()[0]
    assert (clip["fps"], clip["num_frames"], clip["duration_s"]) == (10.0, 30, 3.0)
    fast = list(render_clip(Settings(2, 128, 96, 0.4, "mix"), 0))
    rendered = list(render_clip(Settings(2, 128, 96, 0.4, "mix", fps=10), 0))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(fast[::3], rendered, strict=True))
    assert max(slow.table("boxes")["frame"].to_pylist()) <= 30
    with pytest.raises(ConfigError, match="frames a second"):
        generate_dataset(str(tmp_path / "none"), 1, fps=0)


def test_a_dataset_of_an_earlier_generator_is_not_finished_with_other_pictures(tmp_path: Path):
    root = str(tmp_path / "old")
    info = dict(generate_dataset(root, 1, width=64, height=64).info)
    info["generator"]["version"] -= 1
    storage.write_json(storage.join(root, "dataset.json"), info)
    with pytest.raises(DatasetError, match="other settings"):
        generate_dataset(root, 2, width=64, height=64)


def test_an_empty_module_is_described_as_empty():
    empty = type(SHOTS[0])("galley", (), SHOTS[0].camera_path)
    pairs = language.questions(empty, 3.0, np.random.default_rng(0))
    assert pairs[1][1] == "Zero."
    assert pairs[2][1] == pairs[3][1] == language.NOBODY
    assert "galley" in language.caption(empty, 3.0, np.random.default_rng(0))


def test_labels_are_balanced_enough_to_learn_from():
    labels = Counter(label for shot in SHOTS for person in shot.people for label in person.plan.labels)
    people = sum(len(shot.people) for shot in SHOTS)
    assert set(labels) == set(actions.ACTION_IDS)
    assert min(labels.values()) > 0.025 * people
    counts = Counter(len(shot.people) for shot in SHOTS)
    assert min(counts[n] for n in (1, 2, 3)) > 0.2 * len(SHOTS)
