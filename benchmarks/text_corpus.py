"""Captions and answers of realistic length, vocabulary and overlap for benchmarks: deterministic, made from parts.

The size of the published test set: 1,238 captions of about 50 words, 7,428 answers of 1 to 20 words, some of them
equal. A tenth of the words are drawn from 5,000 of the most ambiguous, hence common, words of WordNet.
"""

from __future__ import annotations

import random
import zipfile
from dataclasses import dataclass
from functools import cache

from microg.metrics.text.java import jar

CAPTIONS, ANSWERS = 1_238, 7_428

_WHO = (
    "an astronaut",
    "a crew member",
    "two astronauts",
    "three taikonauts",
    "a cosmonaut",
    "a woman",
    "a man",
    "the commander",
    "a flight engineer",
    "two crew members",
    "a tourist",
    "the pilot",
    "an actor",
    "a scientist",
)
_LOOK = (
    "in a dark blue jumpsuit",
    "wearing a red polo shirt",
    "in a white spacesuit",
    "with long floating hair",
    "in a grey T-shirt and shorts",
    "wearing a headset",
    "with glasses",
    "in an orange pressure suit",
    "wearing white gloves",
    "in a striped sweater",
    "with a patch on the left shoulder",
    "in green trousers",
)
_DOES = (
    "floats upside down",
    "drifts slowly to the left",
    "guides a loose cable back into its clip",
    "waves at the camera",
    "turns a wrench with both hands",
    "holds on to a blue handrail",
    "plays a small flute",
    "catches a floating candy",
    "squeezes water out of a pouch",
    "pulls along the truss hand over hand",
    "sleeps in a vertical bag",
    "rotates around the long axis",
    "types on a laptop",
    "exercises on the treadmill",
    "reads from a tablet",
    "opens a storage container",
    "pushes off the wall with one foot",
    "adjusts the lens of a camera",
    "spins a book",
    "combs wet hair",
    "checks the seal of a glove",
    "salutes",
    "laughs and bumps into a bag",
    "points at the window",
    "eats a tortilla",
    "ties the end of a bungee cord",
    "throws a ball back and forth",
    "somersaults twice",
)
_WHERE = (
    "in the laboratory module",
    "near the cupola windows",
    "inside the airlock",
    "beside an open equipment rack",
    "in Node 1 of the International Space Station",
    "in front of a workstation",
    "under a bank of lights",
    "in a narrow cockpit",
    "outside the station",
    "next to the galley table",
    "between two storage racks",
    "at the end of a long corridor",
    "above the hatch",
    "in the core module",
)
_ALSO = (
    "the walls are covered with cables, mission patches and control panels",
    "Earth's blue limb is visible behind",
    "several food packages drift in the background",
    "a brown mesh net hangs at the right edge of the frame",
    "the solar arrays fill the upper half of the picture",
    "a safety tether trails behind",
    "sunlight moves over faces",
    "the camera follows from behind and tilts",
    "a second person's legs can be seen at the top",
    "papers hover nearby",
    "a large red banner with white characters hangs there",
    "the scene is lit by a single lamp",
    "the loose ends of straps move as if under water",
    "a clock on the panel shows the mission time",
)
_SHORT = ("Yes.", "No.", "Not mentioned.", "Two.", "Three.", "One.", "Blue.", "Red.", "White.", "Upside down.")


@dataclass(frozen=True)
class Corpus:
    """Items of one task: ids, predictions and references (n)."""

    ids: list[str]
    predictions: list[str]
    references: list[str]


def captions(number: int = CAPTIONS, seed: int = 0) -> Corpus:
    """Return captions of 1 to 4 sentences; predictions share some sentences with the reference and reword others."""
    rng = random.Random(f"captions {seed}")
    said, true = [], []
    for _ in range(number):
        facts = [_sentence(rng) for _ in range(rng.randint(1, 4))]
        true.append(" ".join(facts))
        kept = [_reworded(rng, fact) for fact in facts if rng.random() < 0.6]
        more = [_sentence(rng) for _ in range(rng.randint(0, 3))]
        said.append(" ".join(kept + more))
    return Corpus([f"source{n // 20:03d}_{n:05d}" for n in range(number)], said, true)


def answers(number: int = ANSWERS, seed: int = 0) -> Corpus:
    """Return answers, six a clip: a third short and common, the rest phrases and sentences."""
    rng = random.Random(f"answers {seed}")
    said, true = [], []
    for _ in range(number):
        short = rng.random() < 0.35
        reference = rng.choice(_SHORT) if short else _answer(rng)
        true.append(reference)
        said.append(
            _reworded(rng, reference) if rng.random() < 0.55 else (rng.choice(_SHORT) if short else _answer(rng))
        )
    return Corpus([f"source{n // 120:03d}_{n // 6:05d}/{n % 6}" for n in range(number)], said, true)


def _sentence(rng: random.Random) -> str:
    text = f"{rng.choice(_WHO)} {rng.choice(_LOOK)} {rng.choice(_DOES)} {rng.choice(_WHERE)}"
    if rng.random() < 0.5:
        text += f" while {rng.choice(_ALSO)}" if rng.random() < 0.5 else f", and {rng.choice(_ALSO)}"
    text = _with_rare_words(rng, text)
    return f"{text[0].upper()}{text[1:]}."


def _answer(rng: random.Random) -> str:
    parts = [f"{rng.choice(_WHO)} {rng.choice(_DOES)}", f"{rng.choice(_DOES)} {rng.choice(_WHERE)}", rng.choice(_LOOK)]
    text = rng.choice([*parts, f"Because {rng.choice(_ALSO)}", rng.choice(_WHERE)])
    text = _with_rare_words(rng, text)
    return f"{text[0].upper()}{text[1:]}."


def _reworded(rng: random.Random, text: str) -> str:
    """Return the text with some words dropped or exchanged."""
    words = text.split()
    for place in range(len(words) - 1, -1, -1):
        chance = rng.random()
        if chance < 0.06 and len(words) > 1:
            del words[place]
        elif chance < 0.12:
            words[place] = rng.choice(rng.choice(_DOES + _WHERE).split())
    return " ".join(words)


def _with_rare_words(rng: random.Random, text: str) -> str:
    common = _common_words()
    return " ".join(
        common[int(len(common) * rng.random() ** 3)] if rng.random() < 0.1 else word for word in text.split()
    )


@cache
def _common_words(number: int = 5_000) -> list[str]:
    """Return words by falling number of meanings in METEOR's copy of WordNet: lines of a word and its synonym sets."""
    with zipfile.ZipFile(jar("meteor", "meteor-1.5.jar")) as archive:
        lines = archive.read("synonym/english.synsets").decode().splitlines()
    meanings = {word: len(sets.split()) for word, sets in zip(lines[::2], lines[1::2], strict=True)}
    words = [word for word in meanings if word.isascii() and word.isalpha() and word.islower() and len(word) > 2]
    return sorted(words, key=lambda word: (-meanings[word], word))[:number]
