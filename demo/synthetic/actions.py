"""What people do: the actions, how language names them, and the plans that a person may follow.

A plan is one posture and at most two hand motions; its labels follow the convention of AVA: whoever has an object in
a hand also "carries/holds" it (not the thrown ball, which leaves the hand, nor the laptop, which floats).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from microg.demo.synthetic import motions
from microg.demo.synthetic.bodies import Pose
from microg.demo.synthetic.motions import Style

HELD = ("toolbox", "cargo bag", "camera")


@dataclass(frozen=True)
class Motion:
    """One action: its AVA id, how language names it, and how it moves a pose.

    `turned` asks for a body seen half from the side, where the evidence of legs and waist lies.
    """

    action_id: int
    name: str
    doing: str
    does: str
    move: Callable[[Pose, float, Style], None]
    turned: bool = False
    holds: bool = False
    prop: str | None = None


@dataclass(frozen=True)
class Plan:
    """A posture and the hand motions done in it, by name."""

    posture: str
    motions: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Motion, ...]:
        """Posture first, then the motions."""
        return tuple(MOTIONS[name] for name in (self.posture, *self.motions))

    @property
    def labels(self) -> tuple[int, ...]:
        """Action ids, sorted, without doubles: at most five."""
        ids = {motion.action_id for motion in self.all}
        if any(motion.holds for motion in self.all):
            ids.add(17)
        return tuple(sorted(ids))


MOTIONS: dict[str, Motion] = {
    motion.name: motion
    for motion in (
        Motion(12, "stand", "standing", "stands", motions.stand),
        Motion(11, "sit", "sitting", "sits", motions.sit, turned=True),
        Motion(14, "walk", "walking", "walks", motions.walk, turned=True),
        Motion(7, "jump", "jumping", "jumps", motions.jump),
        Motion(1, "bend", "bending at the waist", "bends at the waist", motions.bend, turned=True),
        Motion(8, "sleep", "sleeping in a sleeping bag", "sleeps in a sleeping bag", motions.sleep),
        Motion(69, "wave", "waving a hand", "waves a hand", motions.wave),
        Motion(67, "clap", "clapping", "claps", motions.clap),
        Motion(43, "point", "pointing to the side", "points to the side", motions.point),
        Motion(
            27, "drink", "drinking from a pouch", "drinks from a pouch", motions.drink, holds=True, prop="a drink pouch"
        ),
        Motion(29, "eat", "eating from a can", "eats from a can", motions.eat, holds=True, prop="a can of food"),
        Motion(48, "read", "reading a book", "reads a book", motions.read, holds=True, prop="a book"),
        Motion(62, "computer", "working on a laptop", "works on a laptop", motions.computer),
        Motion(17, "hold", "holding {held}", "holds {held}", motions.hold, holds=True, prop="{held}"),
        Motion(58, "throw", "throwing a ball", "throws a ball", motions.throw),
        Motion(
            60,
            "screwdriver",
            "turning a screwdriver",
            "turns a screwdriver",
            motions.screwdriver,
            holds=True,
            prop="a screwdriver",
        ),
        Motion(79, "talk", "talking", "talks", motions.talk),
        Motion(68, "handshake", "shaking hands", "shakes hands", motions.shake),
    )
}

_SINGLE = ("wave", "clap", "point", "drink", "eat", "read", "computer", "hold", "throw", "screwdriver", "talk")
DECK: tuple[Plan, ...] = (
    *(Plan("stand", (name,)) for name in _SINGLE),
    *(Plan("sit", (name,)) for name in _SINGLE),
    *(Plan("walk", (name,)) for name in ("wave", "point", "talk", "drink", "read")),
    *(Plan("jump", names) for names in (("clap",), ("wave",), (), ("throw",))),
    *(Plan("bend", names) for names in (("screwdriver",), ("computer",), (), ("eat",))),
    *(Plan("sleep") for _ in range(4)),
    Plan("stand", ("point", "talk")),
    Plan("sit", ("point", "talk")),
)
HANDSHAKE = Plan("stand", ("handshake",))
ACTION_IDS: tuple[int, ...] = tuple(sorted({label for plan in (*DECK, HANDSHAKE) for label in plan.labels}))


def make_style(rng: np.random.Generator) -> Style:
    """Draw how one person moves."""
    return Style(
        side=int(rng.choice((-1, 1))),
        tempo=float(rng.uniform(0.85, 1.2)),
        phase=float(rng.random()),
        held=str(rng.choice(HELD)),
    )


def pose_at(plan: Plan, time: float, style: Style) -> Pose:
    """Return the pose of `plan` at `time` seconds, in the body frame."""
    pose = Pose()
    for motion in plan.all:
        motion.move(pose, time, style)
    return pose
