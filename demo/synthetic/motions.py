"""How bodies move: each function turns a pose by time, in the frame of the body, so that it looks the same at any roll.

A function takes the pose to change, the time in seconds and the person's `Style`; hands are set relative to the neck
and feet relative to their hip (see `bodies.Pose`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from microg.demo.synthetic.bodies import PlacedProp, Pose
from microg.demo.synthetic.geometry import Vector, along_keys, smoothstep, vector

TAU = 2.0 * math.pi


@dataclass(frozen=True)
class Style:
    """How one person does it: the side of the main hand (-1 or 1), tempo factor, phase 0..1, object held."""

    side: int
    tempo: float
    phase: float
    held: str

    def cycle(self, time: float, hertz: float) -> float:
        """Return the phase, 0..1 and beyond, of a motion that repeats `hertz` times a second."""
        return time * hertz * self.tempo + self.phase


def _index(style: Style) -> int:
    return 1 if style.side > 0 else 0


def stand(pose: Pose, time: float, style: Style) -> None:
    """Straight legs, a slight sway."""
    sway = 0.012 * math.sin(TAU * style.cycle(time, 0.3))
    for foot, sign in zip(pose.feet, (-1, 1), strict=True):
        foot += vector(0.004 * sign, 0.0, sway * sign)


def sit(pose: Pose, time: float, style: Style) -> None:
    """Thighs to the front, shins down."""
    sway = 0.012 * math.sin(TAU * style.cycle(time, 0.35))
    for index, sign in enumerate((-1, 1)):
        pose.feet[index] = vector(0.03 * sign, 0.265, 0.205 + sway * sign)


def walk(pose: Pose, time: float, style: Style) -> None:
    """Legs and arms swing in turn."""
    swing = math.sin(TAU * style.cycle(time, 1.0))
    for index, sign in enumerate((-1, 1)):
        stride = swing * sign
        lift = 0.07 * max(0.0, math.cos(TAU * style.cycle(time, 1.0)) * sign)
        pose.feet[index] = vector(0.012 * sign, 0.425 - lift - 0.03 * abs(stride), 0.19 * stride)
        pose.hands[index] = vector(0.15 * sign, 0.27, 0.05 - 0.15 * stride)


def jump(pose: Pose, time: float, style: Style) -> None:
    """Crouch, push off, rise with raised arms."""
    phase = style.cycle(time, 0.75) % 1.0
    crouched = smoothstep(phase / 0.35) if phase < 0.35 else 1.0 - smoothstep((phase - 0.35) / 0.13)
    if phase > 0.82:
        crouched = 0.35 * smoothstep((phase - 0.82) / 0.1) * (1.0 - smoothstep((phase - 0.92) / 0.08))
    flight = math.sin(math.pi * (phase - 0.42) / 0.45) if 0.42 < phase < 0.87 else 0.0
    pose.rise = 0.20 * flight - 0.10 * crouched
    for index, sign in enumerate((-1, 1)):
        pose.feet[index] = vector(0.03 * sign, 0.452 - 0.19 * crouched, 0.03 * crouched)
        pose.hands[index] = vector(0.20 * sign, 0.27 - 0.46 * flight, 0.10 - 0.16 * crouched)
        pose.elbows[index] = vector(sign, 0.3, -0.4)
    pose.bend = 0.40 * crouched


def bend(pose: Pose, time: float, style: Style) -> None:
    """The trunk nods forward at the waist."""
    pose.bend = math.radians(44.0 - 22.0 * math.cos(TAU * style.cycle(time, 0.45)))
    pose.head_pitch = -0.35
    for index, sign in enumerate((-1, 1)):
        pose.hands[index] = vector(0.13 * sign, 0.16, 0.26)


def sleep(pose: Pose, time: float, style: Style) -> None:
    """Still, in a bag, eyes closed, arms afloat."""
    breath = math.sin(TAU * style.cycle(time, 0.25))
    pose.sleeping_bag, pose.eyes_closed = True, True
    pose.head_pitch = 0.30 + 0.03 * breath
    for index, sign in enumerate((-1, 1)):
        pose.feet[index] = vector(0.0, 0.45, 0.0)
        pose.hands[index] = vector((0.10 + 0.015 * breath) * sign, 0.10 + 0.01 * breath, 0.25)
        pose.elbows[index] = vector(sign, 0.5, 0.0)


def wave(pose: Pose, time: float, style: Style) -> None:
    """A raised hand swings sideways."""
    index, sign = _index(style), style.side
    swing = math.sin(TAU * style.cycle(time, 1.5))
    pose.hands[index] = vector(sign * (0.22 + 0.15 * swing), -0.29 + 0.04 * abs(swing), 0.06)
    pose.elbows[index] = vector(sign, 0.9, -0.1)


def clap(pose: Pose, time: float, style: Style) -> None:
    """Both hands meet again and again."""
    gap = 0.012 + 0.09 * (1.0 - math.cos(TAU * style.cycle(time, 1.7)))
    for index, sign in enumerate((-1, 1)):
        pose.hands[index] = vector(sign * gap, 0.06, 0.20)
        pose.elbows[index] = vector(sign, 0.7, -0.1)


def point(pose: Pose, time: float, style: Style) -> None:
    """A straight arm to the side, one finger out."""
    index, sign = _index(style), style.side
    sway = math.sin(TAU * style.cycle(time, 0.5))
    pose.hands[index] = vector(sign * 0.42, -0.02 + 0.02 * sway, 0.07)
    pose.grips[index] = "point"
    pose.head_yaw += 0.5 * sign


def drink(pose: Pose, time: float, style: Style) -> None:
    """A pouch at the mouth, lowered now and then."""
    index, sign = _index(style), style.side
    phase = style.cycle(time, 0.55) % 1.0
    lowered = smoothstep((phase - 0.70) / 0.12) * (1.0 - smoothstep((phase - 0.88) / 0.12))
    up, down = vector(sign * 0.045, 0.015, 0.12), vector(sign * 0.10, 0.13, 0.18)
    hand = up + (down - up) * lowered
    pose.hands[index] = hand
    pose.elbows[index] = vector(sign, 0.8, 0.0)
    pose.grips[index] = "fist"
    pose.head_pitch += -0.22 * (1.0 - lowered)
    pose.props.append(
        PlacedProp(
            "pouch", hand + vector(-sign * 0.03, -0.005, 0.035), vector(0.125, 0.0, 0.0), vector(0.0, 0.20, 0.03)
        )
    )


def eat(pose: Pose, time: float, style: Style) -> None:
    """A spoon goes between a can and the mouth."""
    index, sign = _index(style), style.side
    bite = 0.5 - 0.5 * math.cos(TAU * style.cycle(time, 0.8))
    low, high = vector(sign * 0.05, 0.14, 0.19), vector(sign * 0.075, 0.01, 0.15)
    hand = low + (high - low) * smoothstep(bite)
    pose.hands[index], pose.grips[index] = hand, "fist"
    pose.elbows[index] = vector(sign, 0.4, 0.0)
    bowl = vector(-sign * 0.05, 0.175, 0.19)
    pose.hands[1 - index], pose.grips[1 - index] = bowl + vector(-sign * 0.03, 0.03, -0.01), "fist"
    pose.mouth = max(pose.mouth, 0.9 * max(0.0, bite - 0.6) / 0.4)
    pose.props.append(PlacedProp("can", bowl, vector(0.16, 0.0, 0.0), vector(0.0, 0.135, 0.02)))
    pose.props.append(
        PlacedProp(
            "spoon",
            hand + vector(-sign * 0.045, -0.03, 0.02),
            vector(-sign * 0.17, -0.065, 0.0),
            vector(0.0, 0.06, 0.0),
        )
    )


def read(pose: Pose, time: float, style: Style) -> None:
    """An open book in both hands, head bent."""
    sway = 0.006 * math.sin(TAU * style.cycle(time, 0.4))
    centre = vector(0.0, 0.085 + sway, 0.22)
    for index, sign in enumerate((-1, 1)):
        pose.hands[index] = centre + vector(0.115 * sign, 0.04, -0.01)
        pose.elbows[index], pose.grips[index] = vector(sign, 0.9, 0.0), "fist"
    pose.head_pitch += 0.38
    pose.props.append(PlacedProp("book", centre, vector(0.25, 0.0, 0.0), vector(0.0, 0.13, 0.09)))


def computer(pose: Pose, time: float, style: Style) -> None:
    """Both hands tap on a laptop."""
    centre = vector(0.0, 0.20, 0.25)
    for index, sign in enumerate((-1, 1)):
        tap = math.sin(TAU * (style.cycle(time, 3.0) + 0.5 * index))
        pose.hands[index] = centre + vector(sign * 0.075, -0.03 + 0.016 * tap, -0.06)
        pose.elbows[index] = vector(sign, 0.8, -0.2)
    pose.head_pitch += 0.30
    pose.props.append(PlacedProp("laptop base", centre, vector(0.23, 0.0, 0.0), vector(0.0, 0.035, -0.16)))
    pose.props.append(
        PlacedProp("laptop lid", centre + vector(0.0, -0.09, 0.10), vector(0.23, 0.0, 0.0), vector(0.0, 0.155, -0.05))
    )


def hold(pose: Pose, time: float, style: Style) -> None:
    """An object in both hands, a camera in one."""
    sway = 0.012 * math.sin(TAU * style.cycle(time, 0.5))
    if style.held == "camera":
        index, sign = _index(style), style.side
        centre = vector(sign * 0.19, 0.09 + sway, 0.19)
        pose.hands[index], pose.grips[index] = centre + vector(0.0, 0.03, -0.01), "fist"
        pose.props.append(PlacedProp("camera", centre, vector(0.18, 0.0, 0.0), vector(0.0, 0.14, 0.01)))
        return
    centre = vector(0.0, 0.17 + sway, 0.21)
    for index, sign in enumerate((-1, 1)):
        pose.hands[index], pose.grips[index] = centre + vector(0.105 * sign, 0.02, 0.0), "fist"
        pose.elbows[index] = vector(sign, 0.5, -0.4)
    pose.props.append(PlacedProp(style.held, centre, vector(0.20, 0.0, 0.0), vector(0.0, 0.15, 0.02)))


_THROW = [
    (0.00, vector(0.17, 0.28, 0.02)),
    (0.24, vector(0.24, -0.16, -0.14)),
    (0.36, vector(0.24, -0.17, -0.14)),
    (0.48, vector(0.33, -0.14, 0.22)),
    (0.62, vector(0.20, 0.14, 0.24)),
    (0.80, vector(0.17, 0.28, 0.05)),
]
_RELEASE, _SEIZE = 0.47, 0.06


def throw(pose: Pose, time: float, style: Style) -> None:
    """Take a ball at the hip, wind up, throw, again."""
    index, sign = _index(style), style.side
    mirror = vector(sign, 1.0, 1.0)
    phase = style.cycle(time, 0.7) % 1.0
    hand = along_keys(phase, _THROW) * mirror
    pose.hands[index], pose.elbows[index] = hand, vector(sign, 0.5, -0.3)
    held = _SEIZE <= phase < _RELEASE
    pose.grips[index] = "fist" if held else "open"
    if held:
        centre = hand + vector(0.02 * sign, -0.04, 0.03)
    elif phase >= _RELEASE:
        flown = (phase - _RELEASE) / (0.7 * style.tempo)
        centre = along_keys(_RELEASE, _THROW) * mirror + vector(0.02 * sign, -0.04, 0.03)
        centre = centre + vector(0.85 * sign, -0.40, 0.55) * (1.3 * flown)
    else:
        return
    pose.props.append(PlacedProp("ball", centre, vector(0.13, 0.0, 0.0), vector(0.0, 0.13, 0.0)))


def screwdriver(pose: Pose, time: float, style: Style) -> None:
    """A tool turns at a panel, the elbow swings."""
    index, sign = _index(style), style.side
    turn = math.sin(TAU * style.cycle(time, 1.4))
    hand = vector(sign * (0.02 + 0.010 * turn), 0.09 + 0.012 * turn, 0.20)
    pose.hands[index], pose.grips[index] = hand, "fist"
    pose.elbows[index] = vector(sign * 1.0, 0.05 + 0.95 * turn, 0.0)
    panel = vector(-sign * 0.19, 0.11, 0.20)
    pose.hands[1 - index], pose.grips[1 - index] = panel + vector(-sign * 0.03, 0.08, -0.02), "fist"
    pose.elbows[1 - index] = vector(-sign, 0.9, -0.2)
    pose.head_pitch += 0.25
    pose.props.append(PlacedProp("panel", panel, vector(0.19, 0.0, 0.04), vector(0.0, 0.25, 0.0)))
    width = 0.032 * (0.55 + 0.45 * abs(math.cos(TAU * style.cycle(time, 1.4))))
    pose.props.append(
        PlacedProp(
            "screwdriver",
            hand + vector(-sign * 0.055, -0.012, 0.03),
            vector(-sign * 0.19, 0.0, 0.0),
            vector(0.0, 1.3 * width, 0.0),
        )
    )


def talk(pose: Pose, time: float, style: Style) -> None:
    """The mouth moves, free hands beat time."""
    pose.mouth = max(pose.mouth, 0.5 + 0.5 * math.sin(TAU * style.cycle(time, 3.1)))
    pose.head_yaw += 0.22 * math.sin(TAU * style.cycle(time, 0.7))
    pose.head_pitch += 0.12 * math.sin(TAU * style.cycle(time, 1.3))
    for index, sign in enumerate((-1, 1)):
        if pose.grips[index] != "open":
            continue  # this hand is busy
        beat = math.sin(TAU * (style.cycle(time, 0.9) + 0.33 * index))
        pose.hands[index] = vector(sign * (0.24 + 0.03 * beat), 0.12 + 0.085 * beat, 0.19)
        pose.elbows[index] = vector(sign, 0.9, -0.3)


def shake(pose: Pose, time: float, style: Style) -> None:
    """Leave the pose alone: only a pair knows where its hands meet, see `shake_hands`."""


def shake_hands(pose: Pose, time: float, style: Style, meeting: Vector, index: int) -> None:
    """Take hand `index` to the meeting point (chest frame) and pump it along the body's height."""
    pump = 0.035 * math.sin(TAU * 1.6 * time + TAU * style.phase)
    pose.hands[index] = meeting + vector(0.0, pump, 0.0)
    pose.elbows[index] = vector(0.3 if index else -0.3, 1.0, -0.3)
    pose.grips[index] = "fist"
