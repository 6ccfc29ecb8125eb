"""Shots: who is where, does what, and how bodies and camera drift; everything is drawn from one random generator.

Positions are fractions of the frame's width and height; sizes are body units per frame height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from microg.demo.synthetic.actions import DECK, HANDSHAKE, MOTIONS, Plan, make_style
from microg.demo.synthetic.bodies import Appearance
from microg.demo.synthetic.geometry import Vector, vector
from microg.demo.synthetic.motions import Style

CAMERA_MARGIN = 0.035  # of the frame's height, on each side
_SCALES = {1: (0.68, 0.86), 2: (0.66, 0.82), 3: (0.58, 0.70)}
ZOOM = (0.5, 2.0)  # the least and the most
_TAU = 2.0 * math.pi


@dataclass(frozen=True)
class Drift:
    """A slow bounded motion: amplitude * sin(2 pi (t / period + phase))."""

    amplitude: float
    period: float
    phase: float

    def at(self, time: float) -> float:
        """Return the displacement at `time` seconds."""
        return self.amplitude * math.sin(_TAU * (time / self.period + self.phase))


def _drift(rng: np.random.Generator, amplitude: float) -> Drift:
    return Drift(amplitude * float(rng.uniform(0.5, 1.0)), float(rng.uniform(7.0, 12.0)), float(rng.random()))


@dataclass(frozen=True)
class Person:
    """One person in a shot; `meeting` is where two hands meet, on the unrolled screen in body units."""

    look: Appearance
    plan: Plan
    style: Style
    scale: float
    centre: tuple[float, float]
    path: tuple[Drift, Drift]
    yaw: float
    yaw_drift: Drift
    pitch: float
    roll: float
    roll_drift: Drift
    offset: float = 0.0
    meeting: Vector | None = None
    meeting_hand: int = 0

    def centre_at(self, time: float) -> tuple[float, float]:
        """Return the pelvis (or the middle of a pair) as fractions of the frame."""
        return self.centre[0] + self.path[0].at(time), self.centre[1] + self.path[1].at(time)

    def yaw_at(self, time: float) -> float:
        """Return how far the body turns from facing the camera, in radians."""
        return self.yaw + self.yaw_drift.at(time)

    def roll_at(self, time: float) -> float:
        """Return the clockwise rotation on screen, in radians; 0 is upright."""
        return self.roll + self.roll_drift.at(time)


@dataclass(frozen=True)
class Shot:
    """A take without cuts: module, people (far to near) and camera drift."""

    module: str
    people: tuple[Person, ...]
    camera_path: tuple[Drift, Drift]

    def camera(self, time: float) -> tuple[float, float]:
        """Return the camera's position within its margin, each in -1..1."""
        return self.camera_path[0].at(time), self.camera_path[1].at(time)


def draw_roll(rng: np.random.Generator, upright: float) -> float:
    """Draw a body's rotation: within 20 degrees of upright with probability `upright`, else any angle."""
    if rng.random() < upright:
        return float(np.radians(rng.uniform(-20.0, 20.0)))
    return float(np.radians(rng.uniform(-180.0, 180.0)))


def make_shot(
    rng: np.random.Generator,
    module: str,
    looks: tuple[Appearance, ...],
    plans: tuple[Plan, ...],
    *,
    upright: float,
    aspect: float,
    handshake: bool = False,
    zoom: float = 1.0,
) -> Shot:
    """Draw a shot in which `looks[i]` does `plans[i]`; `handshake` replaces the first two plans by a handshake.

    zoom: how much larger people are than where all of each fits into the frame.
    """
    count = len(looks)
    camera = (_drift(rng, 0.9), _drift(rng, 0.9))
    places = [(index + 0.5) / count for index in range(count)]
    people: list[Person] = []
    if handshake and count >= 2:
        people += _pair(rng, looks[:2], aspect, count, upright, zoom)
        places = [0.86] if count == 3 else []
        looks, plans = looks[2:], plans[2:]
    for look, plan, place in zip(looks, plans, places, strict=True):
        people.append(_single(rng, look, plan, place, count, aspect, upright, zoom))
    order = rng.permutation(len(people)) if not handshake else range(len(people))
    return Shot(module, tuple(people[index] for index in order), camera)


def _scale(rng: np.random.Generator, count: int, aspect: float) -> float:
    low, high = _SCALES[count]
    return float(rng.uniform(low, high)) * min(1.0, aspect / count / 0.55)


def _beyond(scale: float) -> float:
    """How far a body that does not fit is moved down itself: feet leave the frame before the face does."""
    return max(0.0, 0.5 * scale - 0.46)


def _along(length: float, roll: float, aspect: float) -> tuple[float, float]:
    """Return a way down a body, in frame heights, as fractions of the frame's width and height."""
    return -math.sin(roll) * length / aspect, math.cos(roll) * length


def _single(
    rng: np.random.Generator,
    look: Appearance,
    plan: Plan,
    place: float,
    count: int,
    aspect: float,
    upright: float,
    zoom: float,
) -> Person:
    side = float(rng.choice((-1.0, 1.0)))
    turned = MOTIONS[plan.posture].turned
    yaw = math.radians(side * float(rng.uniform(24, 42) if turned else rng.uniform(0, 30)))
    scale = _scale(rng, count, aspect) * (0.86 if plan.posture == "jump" else 1.0) * zoom
    room = 0.16 if count == 1 else 0.02
    roll = draw_roll(rng, upright)
    # a body lies around its pelvis: a sitting one reaches less far down, so its middle is higher
    lift = 0.10 * scale if plan.posture == "sit" else 0.0
    right, down = _along(lift + _beyond(scale), roll, aspect)
    centre = (place + float(rng.uniform(-room, room)) + right, 0.5 + float(rng.uniform(-0.03, 0.03)) + down)
    return Person(
        look,
        plan,
        make_style(rng),
        scale,
        centre,
        (_drift(rng, 0.035 / count), _drift(rng, 0.03)),
        yaw,
        _drift(rng, math.radians(8)),
        math.radians(float(rng.uniform(4, 14))),
        roll,
        _drift(rng, math.radians(7 if upright >= 0.75 else 16)),
    )


def _pair(
    rng: np.random.Generator, looks: tuple[Appearance, ...], aspect: float, count: int, upright: float, zoom: float
) -> list[Person]:
    scale = _scale(rng, count, aspect) * zoom
    path = (_drift(rng, 0.02), _drift(rng, 0.02))
    roll = draw_roll(rng, max(upright, 0.6))
    right, down = _along(_beyond(scale), roll, aspect)
    centre = ((0.5 if count == 2 else 0.36) + right, 0.5 + down)
    roll_drift = _drift(rng, math.radians(7))
    pitch = math.radians(float(rng.uniform(4, 12)))
    style = make_style(rng)
    apart = 0.245
    people = []
    for index, look in enumerate(looks):
        sign = -1.0 if index == 0 else 1.0
        yaw = -sign * math.radians(float(rng.uniform(40, 54)))
        people.append(
            Person(
                look,
                HANDSHAKE,
                style,
                scale,
                centre,
                path,
                yaw,
                Drift(0.0, 8.0, 0.0),
                pitch,
                roll,
                roll_drift,
                offset=sign * apart,
                meeting=vector(-sign * apart, -0.17, 0.14),
                meeting_hand=index,
            )
        )
    return people


def draw_plans(seed: int, index: int, count: int) -> tuple[Plan, ...]:
    """Deal `count` plans for shot `index` from shuffled decks, so that all actions come about equally often.

    A pure function of its arguments: three cards of the endless deck belong to each shot, whoever else is dealt.
    """
    plans = []
    for place in range(3 * index, 3 * index + count):
        deck, card = divmod(place, len(DECK))
        order = np.random.default_rng((seed, 0x0DEC, deck)).permutation(len(DECK))
        plans.append(DECK[int(order[card])])
    return tuple(plans)
