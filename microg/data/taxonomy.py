"""The 50 actions of MicroG-4M in three groups, and their maps to AVA-80 and JHMDB-21.

Action ids are those of AVA v2.2, of which MicroG-4M uses 50 (1, 3, 5 ... 80); the class index 0..49 is the rank of
the id. Three ids carry another meaning than in AVA: 28 is "operate spaceship" (AVA: drive), 61 also takes any
unspecified action (AVA: watch TV) and 26 also takes undressing (AVA: dress/put on clothing).
"""

from __future__ import annotations

from dataclasses import dataclass

from microg.errors import DatasetError

GROUPS = ("PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION")
GROUP_NAMES = {
    "PERSON_MOVEMENT": "person movement",
    "OBJECT_MANIPULATION": "object manipulation",
    "PERSON_INTERACTION": "person interaction",
}


@dataclass(frozen=True)
class Action:
    """One action class: its AVA id, published name and group."""

    id: int
    name: str
    group: str


_MOVEMENT = {
    1: "bend/bow (at the waist)",
    3: "crouch/kneel",
    5: "fall down",
    6: "get up",
    7: "jump/leap",
    8: "lie/sleep",
    9: "martial art",
    10: "run/jog",
    11: "sit",
    12: "stand",
    14: "walk",
}
_MANIPULATION = {
    17: "carry/hold (an object)",
    20: "climb (e.g., a mountain)",
    22: "close (e.g., a door, a box)",
    24: "cut",
    26: "dress/undress clothing",
    27: "drink",
    28: "operate spaceship",
    29: "eat",
    30: "enter",
    34: "hit (an object)",
    36: "lift/pick up",
    38: "open (e.g., a window, a car door)",
    41: "play musical instrument",
    43: "point to (an object)",
    45: "pull (an object)",
    46: "push (an object)",
    47: "put down",
    48: "read",
    56: "take a photo",
    57: "text on/look at a cellphone",
    58: "throw",
    59: "touch (an object)",
    60: "turn (e.g., a screwdriver)",
    61: "watch (e.g., TV)/any unspecified action",
    62: "work on a computer",
    63: "write",
}
_INTERACTION = {
    64: "fight/hit (a person)",
    65: "give/serve (an object) to (a person)",
    66: "grab (a person)",
    67: "hand clap",
    68: "hand shake",
    69: "hand wave",
    70: "hug (a person)",
    72: "kiss (a person)",
    74: "listen to (a person)",
    76: "push (another person)",
    78: "take (an object) from (a person)",
    79: "talk to (e.g., self, a person, a group)",
    80: "watch (a person)",
}

ACTIONS: tuple[Action, ...] = tuple(
    Action(action_id, name, group)
    for group, names in zip(GROUPS, (_MOVEMENT, _MANIPULATION, _INTERACTION), strict=True)
    for action_id, name in names.items()
)
BY_ID: dict[int, Action] = {action.id: action for action in ACTIONS}
ACTION_IDS: tuple[int, ...] = tuple(BY_ID)
CLASS_INDEX: dict[int, int] = {action_id: index for index, action_id in enumerate(ACTION_IDS)}

# AVA v2.2's 80 classes: ours plus these thirty, with AVA's own wording where it differs.
_AVA_ONLY = {
    2: "crawl",
    4: "dance",
    13: "swim",
    15: "answer phone",
    16: "brush teeth",
    18: "catch (an object)",
    19: "chop",
    21: "clink glass",
    23: "cook",
    25: "dig",
    31: "exit",
    32: "extract",
    33: "fishing",
    35: "kick (an object)",
    37: "listen (e.g., to music)",
    39: "paint",
    40: "play board game",
    42: "play with pets",
    44: "press",
    49: "ride (e.g., a bike, a car, a horse)",
    50: "row boat",
    51: "sail boat",
    52: "shoot",
    53: "shovel",
    54: "smoke",
    55: "stir",
    71: "kick (a person)",
    73: "lift (a person)",
    75: "play with kids",
    77: "sing to (e.g., self, a person, a group)",
}
_AVA_WORDING = {26: "dress/put on clothing", 28: "drive (e.g., a car, a truck)", 61: "watch (e.g., TV)"}
AVA_80: dict[int, str] = dict(
    sorted({**{action.id: action.name for action in ACTIONS}, **_AVA_ONLY, **_AVA_WORDING}.items())
)
# Our action id -> AVA id of the class that an AVA model would answer for it; 28 has none in AVA.
TO_AVA_80: dict[int, int | None] = {action_id: None if action_id == 28 else action_id for action_id in ACTION_IDS}

_JHMDB_NAMES = (
    "brush_hair catch clap climb_stairs golf jump kick_ball pick pour pullup push run shoot_ball "
    "shoot_bow shoot_gun sit stand swing_baseball throw walk wave"
)
JHMDB_21: tuple[str, ...] = tuple(_JHMDB_NAMES.split())
# Our action id -> JHMDB-21 class, for the eleven that both sets have.
TO_JHMDB_21: dict[int, str] = {
    7: "jump",
    10: "run",
    11: "sit",
    12: "stand",
    14: "walk",
    20: "climb_stairs",
    36: "pick",
    46: "push",
    58: "throw",
    67: "clap",
    69: "wave",
}


def group_name(group: str) -> str:
    """Return how people read the name of a group of actions; groups of a dataset's own are called as they are.

    >>> group_name("PERSON_MOVEMENT"), group_name("moving")
    ('person movement', 'moving')
    """
    return GROUP_NAMES.get(group, group)


def action(action_id: int) -> Action:
    """Return the action with this AVA id.

    >>> action(12).name
    'stand'
    """
    try:
        return BY_ID[action_id]
    except KeyError:
        raise DatasetError(
            f"action id {action_id} is not one of the 50", "microg.data.taxonomy.ACTIONS lists them"
        ) from None
