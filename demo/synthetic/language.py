"""Captions and questions about a shot, true by construction because they are made from what was rendered.

A clip has six questions, or more of the same `KINDS`: yes or no, a count, an action, a colour, a place or object, and
one that the picture cannot answer, whose answer is `UNANSWERABLE`. People are told apart by the colour of their
clothes, which differs within a shot. Answers are short and end with a full stop.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from microg.demo.synthetic.actions import MOTIONS, Motion
from microg.demo.synthetic.scenes import MODULES
from microg.demo.synthetic.shots import Person, Shot

KINDS = ("yes/no", "count", "action", "colour", "place or object", "unanswerable")
UNANSWERABLE = "Unanswerable."
NOBODY = "Nobody is there."
NUMBERS = ("Zero", "One", "Two", "Three", "Four", "Five")
_ASKED = tuple(motion.name for motion in MOTIONS.values() if motion.name != "hold")
_UNKNOWN = (
    "What is the name of {who}?",
    "What is written on the last page of the logbook?",
    "How old is {who}?",
    "On which date was this recorded?",
    "What did {who} do an hour before?",
    "Who is operating the camera?",
    "What is the temperature in the {module}?",
    "Which language does {who} speak at home?",
)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _wears(person: Person) -> str:
    return f"{_article(person.look.shirt)} {person.look.garment}"


def _the(person: Person) -> str:
    return f"the person in the {person.look.shirt} {person.look.garment}"


def _held(person: Person) -> str:
    return _article(person.style.held)


def _doing(motion: Motion, person: Person, shot: Shot) -> str:
    text = motion.doing.format(held=_held(person))
    if motion.name == "handshake":
        other = next(p for p in shot.people if p is not person and "handshake" in p.plan.motions)
        text += f" with {_the(other)}"
    return text


def _activity(person: Person, shot: Shot) -> str:
    """What a person does: the hand motions, or the posture where there are none."""
    posture, *motions = person.plan.all
    return " and ".join(_doing(motion, person, shot) for motion in (motions or [posture]))


def orientation(person: Person, duration: float) -> str:
    """Return "upright", "sideways" or "upside down" where that holds from start to end, else an empty string."""
    rolls = [abs((np.degrees(person.roll_at(time)) + 180) % 360 - 180) for time in np.linspace(0, duration, 9)]
    for name, low, high in (("upright", -1, 40), ("sideways", 60, 120), ("upside down", 140, 181)):
        if all(low < roll < high for roll in rolls):
            return name
    return ""


def _sentence(person: Person, shot: Shot, duration: float) -> str:
    posture, *motions = person.plan.all
    way = orientation(person, duration)
    text = posture.does + (f" {way}" if way in ("sideways", "upside down") else "")
    if motions:
        text += f" while {_activity(person, shot)}"
    return text


def caption(shot: Shot, duration: float, rng: np.random.Generator) -> str:
    """Describe the shot: module, how many people, clothes, postures, actions, and who is turned on screen."""
    module = MODULES[shot.module]
    if not shot.people:
        return str(
            rng.choice(
                (
                    f"The {module.name} of a spacecraft is empty; {module.landmark} can be seen.",
                    f"Nobody is in the {module.name}, where {module.landmark} can be seen.",
                )
            )
        )
    people = list(shot.people)
    people = [people[index] for index in rng.permutation(len(people))]
    place = str(
        rng.choice(
            (
                f"In the {module.name} of a spacecraft",
                f"In the {module.name}",
                f"Weightless in the {module.name}, with {module.landmark}",
            )
        )
    )
    if len(people) == 1:
        return f"{place}, a person in {_wears(people[0])} {_sentence(people[0], shot, duration)}."
    opening = str(
        rng.choice(
            (
                f"{place}, {NUMBERS[len(people)].lower()} people float.",
                f"{NUMBERS[len(people)]} people float in the {module.name}, with {module.landmark}.",
            )
        )
    )
    told = [f"A person in {_wears(people[0])} {_sentence(people[0], shot, duration)}."]
    told += [f"Another person, in {_wears(person)}, {_sentence(person, shot, duration)}." for person in people[1:]]
    return " ".join((opening, *told))


def questions(shot: Shot, duration: float, rng: np.random.Generator, count: int = 6) -> list[tuple[str, str]]:
    """Return (question, answer) pairs: yes/no, count, action, colour, place or object, unanswerable.

    Where `count` is above six, further ones of these kinds follow, none asked twice; fewer where little can be asked.
    """
    found: dict[str, str] = {}
    for _ in range(count):  # most rounds bring something new
        if len(found) == count:
            break
        for question, answer in (
            _yes_no(shot, rng),
            _count(shot, rng),
            _action(shot, rng),
            _colour(shot, duration, rng),
            _place(shot, rng),
            _unanswerable(shot, rng),
        ):
            if len(found) < count:
                found.setdefault(question, answer)
    return list(found.items())


def _yes_no(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    present = sorted({motion.name for person in shot.people for motion in person.plan.all} & set(_ASKED))
    absent = sorted(set(_ASKED) - set(present))
    if not shot.people and rng.random() < 0.5:
        return "Is the module empty?", "Yes."
    if present and rng.random() < 0.5:
        return f"Is anyone {MOTIONS[str(rng.choice(present))].doing}?", "Yes."
    return f"Is anyone {MOTIONS[str(rng.choice(absent))].doing}?", "No."


def _count(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    asked = ("How many people are there?", "How many people can be seen?", "What is the number of people in the scene?")
    return str(rng.choice(asked)), f"{NUMBERS[len(shot.people)]}."


def _action(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    if not shot.people:
        return "What are the people doing?", NOBODY
    person = shot.people[int(rng.integers(len(shot.people)))]
    text = _activity(person, shot)
    return f"What is {_the(person)} doing?", f"{text[0].upper()}{text[1:]}."


def _colour(shot: Shot, duration: float, rng: np.random.Generator) -> tuple[str, str]:
    if not shot.people:
        return "What colour are the clothes of the people?", NOBODY
    if len(shot.people) == 1:
        look = shot.people[0].look
        return f"What colour is the {look.garment} of the person?", f"{look.shirt.capitalize()}."
    shown = Counter(motion.name for person in shot.people for motion in person.plan.all if motion.name in _ASKED)
    unique = [(person, motion) for person in shot.people for motion in person.plan.all if shown.get(motion.name) == 1]
    if unique:
        person, motion = unique[int(rng.integers(len(unique)))]
        return (
            f"What colour is the {person.look.garment} of the person {motion.doing}?",
            f"{person.look.shirt.capitalize()}.",
        )
    turned = [(person, orientation(person, duration)) for person in shot.people]
    ways = Counter(way for _, way in turned if way)
    for person, way in turned:
        if way and ways[way] == 1 and all(other for _, other in turned):
            return (
                f"What colour is the {person.look.garment} of the person who is {way}?",
                f"{person.look.shirt.capitalize()}.",
            )
    colours = sorted(person.look.shirt for person in shot.people)
    listed = f"{', '.join(colours[:-1])} and {colours[-1]}"
    return "Which colours are the people's tops, in alphabetical order?", f"{listed.capitalize()}."


def _place(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    module = MODULES[shot.module]
    holders = [(person, motion.prop) for person in shot.people for motion in person.plan.all if motion.prop is not None]
    if holders and rng.random() < 0.5:
        person, prop = holders[int(rng.integers(len(holders)))]
        text = prop.format(held=_held(person))
        return f"What is {_the(person)} holding?", f"{text[0].upper()}{text[1:]}."
    if rng.random() < 0.3:
        text = module.landmark
        return "What can be seen in the background?", f"{text[0].upper()}{text[1:]}."
    return str(
        rng.choice(("Where does this take place?", "In which part of the spacecraft is this?"))
    ), f"In the {module.name}."


def _unanswerable(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    who = _the(shot.people[int(rng.integers(len(shot.people)))]) if shot.people else "the commander"
    return str(rng.choice(_UNKNOWN)).format(who=who, module=shot.module), UNANSWERABLE
