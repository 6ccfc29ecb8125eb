"""Rendered people: bodies, motions, masks and boxes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from microg.data import taxonomy
from microg.demo.synthetic import actions, bodies, render, scenes, shots
from microg.demo.synthetic.shots import Drift, Person, Shot

WIDTH, HEIGHT = 320, 240
STILL = Drift(0.0, 8.0, 0.0)


def make(seed: int, people: int, *, upright: float = 0.4, handshake: bool = False) -> Shot:
    rng = np.random.default_rng(seed)
    crew = bodies.make_crew(rng)[:people]
    plans = shots.draw_plans(seed, 0, people)
    return shots.make_shot(rng, "galley", crew, plans, upright=upright, aspect=WIDTH / HEIGHT, handshake=handshake)


def grey(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height + 30, width + 30, 3), 120, np.uint8)


def one(plan: actions.Plan, seed: int = 0, **changes) -> Person:
    """A person in the middle who only does the plan, without drifting."""
    rng = np.random.default_rng(seed)
    shot = shots.make_shot(rng, "galley", bodies.make_crew(rng, 1), (plan,), upright=1.0, aspect=WIDTH / HEIGHT)
    still = {"centre": (0.5, 0.5), "path": (STILL, STILL), "yaw_drift": STILL, "roll_drift": STILL, "roll": 0.0}
    return replace(shot.people[0], **{**still, **changes})


def show(*people: Person) -> render.ShotRenderer:
    return render.ShotRenderer(Shot("galley", people, (STILL, STILL)), grey(), WIDTH, HEIGHT)


def test_boxes_span_exactly_the_visible_pixels_of_each_person():
    for seed in range(4):
        frame = render.ShotRenderer(make(seed, 1 + seed % 3), grey(), WIDTH, HEIGHT).frame(0.3 * seed)
        for index, box in enumerate(frame.boxes):
            assert box is not None
            rows, columns = np.nonzero(frame.mask == index + 1)
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("turned", [0.0, np.pi / 2, np.pi])
def test_a_person_who_does_not_fit_loses_the_feet_and_keeps_the_face(turned: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shots, "draw_roll", lambda rng, upright: turned)
    widths = []
    for zoom in (1.0, 1.3, 1.6):
        rng = np.random.default_rng(2)
        plan = actions.Plan("stand", ("read",))
        shot = shots.make_shot(rng, "galley", bodies.make_crew(rng, 1), (plan,), upright=1.0, aspect=1.0, zoom=zoom)
        still = replace(shot.people[0], path=(STILL, STILL), roll_drift=STILL)
        frame = render.ShotRenderer(Shot("galley", (still,), (STILL, STILL)), grey(240, 240), 240, 240).frame(0.0)
        upright = np.rot90(frame.mask, round(turned / (np.pi / 2)))  # turned back
        rows = np.flatnonzero(upright.any(axis=1))
        widths.append(np.ptp(np.flatnonzero(upright.any(axis=0))))
        assert rows[0] > 2, zoom  # the head is in the frame
        assert (rows[-1] == 239) == (zoom > 1), zoom
    assert widths[0] * 1.2 < widths[1] < widths[2] / 1.1


def test_the_mask_marks_the_pixels_that_a_person_changed():
    empty = show().frame(1.0).image.astype(int)
    frame = show(one(actions.Plan("stand", ("wave",)))).frame(1.0)
    changed = np.abs(frame.image.astype(int) - empty).max(axis=2) > 0
    near = cv2.dilate(frame.mask, np.ones((9, 9), np.uint8)) > 0  # soft edges and the lens reach beyond the mask
    assert not changed[~near].any()
    assert changed[frame.mask == 1].mean() > 0.98


def test_a_held_object_is_no_part_of_its_holder():
    with_book, without = (show(one(actions.Plan("stand", names))).frame(1.0) for names in (("read",), ()))
    book = (with_book.mask == 0) & (without.mask == 1)
    assert book.sum() > 100


def test_a_hidden_person_has_no_box_and_a_half_hidden_one_a_smaller_box():
    plan = actions.Plan("stand")
    behind = one(plan, scale=0.5)
    alone = show(behind).frame(0.0).boxes[0]
    hidden = show(behind, one(actions.Plan("sleep"), scale=0.98)).frame(0.0)
    assert alone is not None
    assert hidden.boxes[0] is None
    assert hidden.boxes[1] is not None
    beside = show(behind, one(actions.Plan("sleep"), scale=0.9, centre=(0.56, 0.5))).frame(0.0).boxes[0]
    assert beside is not None
    assert beside[0] == alone[0]
    assert beside[2] < alone[2]


def test_a_person_outside_the_frame_has_no_box():
    assert show(one(actions.Plan("stand"), centre=(2.0, 0.5))).frame(0.0).boxes == (None,)


def test_an_action_looks_the_same_upside_down():
    for plan in (actions.Plan("stand", ("wave",)), actions.Plan("sit", ("computer",)), actions.Plan("walk")):
        person = one(plan, pitch=0.1)
        upright, turned = (show(replace(person, roll=roll)).frame(0.8).mask for roll in (0.0, np.pi))
        back = np.rot90(turned, 2)
        assert (upright & back).sum() / (upright | back).sum() > 0.95


def test_limbs_keep_their_lengths_in_every_pose():
    style = actions.make_style(np.random.default_rng(0))
    for plan in actions.DECK:
        for time in np.linspace(0, 3, 13):
            body = bodies.solve(actions.pose_at(plan, float(time), style))
            for a, b, length in (
                (body.shoulders, body.elbows, bodies.UPPER_ARM),
                (body.elbows, body.wrists, bodies.FOREARM),
                (body.hips, body.knees, bodies.THIGH),
                (body.knees, body.ankles, bodies.SHIN),
            ):
                for start, end in zip(a, b, strict=True):
                    assert np.linalg.norm(end - start) == pytest.approx(length, abs=1e-6)


def test_each_hand_motion_moves_the_hands_its_own_way():
    style = actions.Style(side=1, tempo=1.0, phase=0.0, held="toolbox")
    traces = {}
    for name in actions.MOTIONS:
        plan = actions.Plan(name) if name in {p.posture for p in actions.DECK} else actions.Plan("stand", (name,))
        if name == "handshake":
            continue
        poses = [actions.pose_at(plan, time, style) for time in np.arange(30) / 30]
        traces[name] = np.array([np.concatenate((*p.hands, *p.feet, [p.bend, p.rise])) for p in poses])
    names = sorted(traces)
    for first, name in enumerate(names):
        for other in names[first + 1 :]:
            assert np.abs(traces[name] - traces[other]).max() > 0.04, (name, other)


def test_at_least_twelve_actions_of_the_taxonomy_and_at_most_five_labels_a_person():
    assert len(actions.ACTION_IDS) >= 12
    assert set(actions.ACTION_IDS) <= set(taxonomy.ACTION_IDS)
    for plan in (*actions.DECK, actions.HANDSHAKE):
        assert 1 <= len(plan.labels) <= 5
        assert len(set(plan.labels)) == len(plan.labels)


def test_hands_of_a_handshake_meet():
    for seed in range(3):
        frame = render.ShotRenderer(make(seed, 2, upright=1.0, handshake=True), grey(), WIDTH, HEIGHT).frame(1.0)
        away = cv2.distanceTransform((frame.mask != 1).astype(np.uint8), cv2.DIST_L2, 5)
        assert away[frame.mask == 2].min() <= 2.0


def test_people_of_a_crew_differ_in_the_colour_of_their_clothes():
    for seed in range(20):
        crew = bodies.make_crew(np.random.default_rng(seed))
        assert len({member.shirt for member in crew}) == len(crew)


def test_plans_of_a_shot_depend_on_seed_and_index_alone_and_come_about_equally_often():
    assert shots.draw_plans(3, 17, 2) == shots.draw_plans(3, 17, 3)[:2]
    dealt = [plan for index in range(400) for plan in shots.draw_plans(3, index, 3)]
    counts = {plan: dealt.count(plan) for plan in set(actions.DECK)}
    doubles = {plan: actions.DECK.count(plan) for plan in counts}
    assert max(counts[p] / doubles[p] for p in counts) - min(counts[p] / doubles[p] for p in counts) <= 2


def test_a_module_is_drawn_the_same_from_the_same_seed_and_otherwise_differs():
    first, again, other = (scenes.draw_module("cupola", np.random.default_rng(s), 160, 120) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert scenes.content_distance(first, again) == 0
