"""People: how they look, and the joints of a body in a pose.

Lengths are in body units: a straight body measures about 1 from the crown to the soles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from microg.demo.synthetic.geometry import Vector, pitch_matrix, two_bone_joint, vector

Colour = tuple[int, int, int]  # blue, green, red

SHIRTS: dict[str, Colour] = {
    "red": (46, 43, 162),
    "orange": (47, 116, 194),
    "grey": (128, 126, 122),
    "green": (60, 122, 47),
    "blue": (166, 86, 48),
    "purple": (138, 62, 109),
    "white": (209, 210, 212),
    "pink": (159, 128, 204),
}
_TROUSERS: tuple[Colour, ...] = ((96, 92, 88), (94, 56, 34), (120, 152, 172), (54, 50, 48), (70, 84, 104))
_SKIN: tuple[Colour, ...] = (
    (188, 208, 240),
    (160, 186, 226),
    (128, 160, 206),
    (96, 130, 180),
    (66, 96, 144),
    (48, 66, 100),
)
_HAIR: tuple[Colour, ...] = ((30, 28, 30), (32, 48, 74), (52, 84, 122), (92, 148, 188), (44, 66, 128), (150, 152, 156))
HAIR_STYLES = ("short", "long", "bald", "bun")

TORSO = 0.30
NECK_TO_HEAD = 0.112
HEAD_RADII = (0.064, 0.082)
SHOULDER = vector(0.108, 0.028, 0.0)
HIP = vector(0.052, 0.0, 0.0)
UPPER_ARM, FOREARM = 0.165, 0.15
THIGH, SHIN = 0.235, 0.225
FOOT = 0.075


@dataclass(frozen=True)
class Appearance:
    """How one person looks; `shirt` is a key of `SHIRTS`, `garment` "shirt" or "jacket"."""

    shirt: str
    garment: str
    trousers: Colour
    skin: Colour
    hair: Colour
    hair_style: str
    long_sleeves: bool
    striped: bool
    seed: int

    @property
    def shirt_colour(self) -> Colour:
        """Blue, green, red of the shirt."""
        return SHIRTS[self.shirt]


def make_crew(rng: np.random.Generator, size: int = 3) -> tuple[Appearance, ...]:
    """Draw `size` people whose shirt colours all differ, so that a colour names one person."""
    colours = rng.permutation(list(SHIRTS))[:size]
    crew = []
    for colour in colours:
        jacket = rng.random() < 0.35
        crew.append(
            Appearance(
                shirt=str(colour),
                garment="jacket" if jacket else "shirt",
                trousers=_TROUSERS[rng.integers(len(_TROUSERS))],
                skin=_SKIN[rng.integers(len(_SKIN))],
                hair=_HAIR[rng.integers(len(_HAIR))],
                hair_style=HAIR_STYLES[rng.choice(len(HAIR_STYLES), p=(0.44, 0.3, 0.06, 0.2))],
                long_sleeves=bool(jacket or rng.random() < 0.4),
                striped=bool(not jacket and rng.random() < 0.25),
                seed=int(rng.integers(2**31)),
            )
        )
    return tuple(crew)


@dataclass
class PlacedProp:
    """A flat object in the chest frame: its centre, and the vectors that its picture's width and height become."""

    kind: str
    centre: Vector
    right: Vector
    down: Vector


@dataclass
class Pose:
    """What an action sets; index 0 is the side with x < 0. Hands are relative to the neck, feet to their hip."""

    bend: float = 0.0
    rise: float = 0.0
    hands: list[Vector] = field(default_factory=lambda: [vector(-0.19, 0.27, 0.13), vector(0.19, 0.27, 0.13)])
    elbows: list[Vector] = field(default_factory=lambda: [vector(-1.0, 0.8, -0.6), vector(1.0, 0.8, -0.6)])
    grips: list[str] = field(default_factory=lambda: ["open", "open"])
    feet: list[Vector] = field(default_factory=lambda: [vector(-0.012, 0.452, 0.0), vector(0.012, 0.452, 0.0)])
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    mouth: float = 0.0
    eyes_closed: bool = False
    sleeping_bag: bool = False
    props: list[PlacedProp] = field(default_factory=list)


@dataclass(frozen=True)
class Skeleton:
    """Joints in the body frame (origin at the pelvis), each of shape (3,); pairs are (x < 0, x > 0)."""

    pelvis: Vector
    neck: Vector
    head: Vector
    chest_axes: Vector
    shoulders: tuple[Vector, Vector]
    elbows: tuple[Vector, Vector]
    wrists: tuple[Vector, Vector]
    hips: tuple[Vector, Vector]
    knees: tuple[Vector, Vector]
    ankles: tuple[Vector, Vector]
    toes: tuple[Vector, Vector]

    def from_chest(self, point: Vector) -> Vector:
        """Return a point given in the chest frame (relative to the neck) in the body frame."""
        return self.neck + self.chest_axes @ point


def solve(pose: Pose) -> Skeleton:
    """Place all joints for `pose`."""
    pelvis = vector(0.0, 0.0, 0.0)
    chest = pitch_matrix(pose.bend)
    neck = chest @ vector(0.0, -TORSO, 0.0)
    head = neck + chest @ vector(0.0, -NECK_TO_HEAD, 0.012)
    sides: dict[str, list[Vector]] = {name: [] for name in ("s", "e", "w", "h", "k", "a", "t")}
    for index, sign in enumerate((-1.0, 1.0)):
        mirrored = vector(sign, 1.0, 1.0)
        shoulder = neck + chest @ (SHOULDER * mirrored)
        elbow, wrist = two_bone_joint(
            shoulder, neck + chest @ pose.hands[index], UPPER_ARM, FOREARM, chest @ pose.elbows[index]
        )
        hip = HIP * mirrored
        knee, ankle = two_bone_joint(hip, hip + pose.feet[index], THIGH, SHIN, vector(sign * 0.15, -0.2, 1.0))
        shin = (ankle - knee) / SHIN
        forward = vector(sign * 0.15, 0.35, 1.0)
        forward -= shin * float(forward @ shin) * 0.8
        toe = ankle + forward / np.linalg.norm(forward) * FOOT
        for name, joint in zip("sewhkat", (shoulder, elbow, wrist, hip, knee, ankle, toe), strict=True):
            sides[name].append(joint)
    pairs = {name: (joints[0], joints[1]) for name, joints in sides.items()}
    return Skeleton(
        pelvis, neck, head, chest, pairs["s"], pairs["e"], pairs["w"], pairs["h"], pairs["k"], pairs["a"], pairs["t"]
    )
