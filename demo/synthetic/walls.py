"""Textures of a module's walls: square BGR pictures, columns towards the far end, rows across."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from microg.demo.synthetic.bodies import Colour

Wall = npt.NDArray[np.uint8]
SIZE = 512


class Palette(Protocol):
    """What a wall needs to know of its module."""

    @property
    def base(self) -> Colour: ...
    @property
    def accent(self) -> Colour: ...
    @property
    def end(self) -> str: ...


def _tint(colour: Colour, factor: float) -> tuple[float, float, float]:
    b, g, r = (float(min(max(channel * factor, 0), 255)) for channel in colour)
    return b, g, r


def _start(rng: np.random.Generator, colour: Colour) -> Wall:
    wall = np.empty((SIZE, SIZE, 3), np.float32)
    wall[...] = colour
    coarse = cv2.resize(rng.standard_normal((16, 16)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    fine = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    wall *= (1 + 0.025 * coarse + 0.02 * fine)[..., None]
    return np.clip(wall, 0, 255).astype(np.uint8)


def _bevel(wall: Wall, x1: int, y1: int, x2: int, y2: int, colour: Colour, width: int = 3) -> None:
    cv2.rectangle(wall, (x1, y1), (x2, y2), _tint(colour, 0.42), width)
    cv2.line(wall, (x1 + width, y1 + width), (x2 - width, y1 + width), _tint(colour, 1.25), width - 1)
    cv2.line(wall, (x1 + width, y1 + width), (x1 + width, y2 - width), _tint(colour, 1.2), width - 1)
    for x in (x1 + 9, x2 - 9):
        for y in (y1 + 9, y2 - 9):
            cv2.circle(wall, (x, y), 3, _tint(colour, 0.5), -1, cv2.LINE_AA)


def _vent(wall: Wall, x1: int, y1: int, x2: int, y2: int, colour: Colour) -> None:
    for y in range(y1 + 18, y2 - 14, 11):
        cv2.line(wall, (x1 + 16, y), (x2 - 16, y), _tint(colour, 0.35), 5)


def _screen(wall: Wall, rng: np.random.Generator, x1: int, y1: int, x2: int, y2: int) -> None:
    x1, y1, x2, y2 = x1 + 12, y1 + 12, x2 - 12, y2 - 12
    cv2.rectangle(wall, (x1, y1), (x2, y2), (26, 22, 20), -1)
    glow = [(230, 190, 60), (90, 220, 90), (70, 190, 250)][int(rng.integers(3))]
    cv2.rectangle(wall, (x1 + 5, y1 + 5), (x2 - 5, y2 - 5), _tint(glow, 0.32), -1)
    xs = np.arange(x1 + 8, x2 - 8, 3)
    middle, swing = (y1 + y2) / 2, (y2 - y1) * 0.28
    ys = middle + swing * np.sin(xs * rng.uniform(0.05, 0.2)) * rng.uniform(0.4, 1)
    cv2.polylines(wall, [np.column_stack((xs, ys)).astype(np.int32)], False, glow, 3, cv2.LINE_AA)
    cv2.line(wall, (x1 + 10, y1 + 14), (x1 + (x2 - x1) // 2, y1 + 14), glow, 4)


def _knobs(wall: Wall, rng: np.random.Generator, x1: int, y1: int, x2: int, y2: int, accent: Colour) -> None:
    for x in range(x1 + 22, x2 - 14, 26):
        for y in range(y1 + 24, y2 - 14, 28):
            lamp = [accent, (60, 60, 220), (70, 200, 80), (220, 220, 220), (40, 40, 40)][int(rng.integers(5))]
            cv2.circle(wall, (x, y), 7, (24, 24, 24), -1, cv2.LINE_AA)
            cv2.circle(wall, (x, y), 5, lamp, -1, cv2.LINE_AA)


def _label(wall: Wall, rng: np.random.Generator, x1: int, y1: int, x2: int, y2: int, colour: Colour) -> None:
    width, height = max((x2 - x1) // 2, 20), max((y2 - y1) // 4, 12)
    x, y = x1 + int(rng.integers(10, max((x2 - x1) // 3, 11))), y1 + int(rng.integers(12, max((y2 - y1) // 2, 13)))
    cv2.rectangle(wall, (x, y), (x + width, y + height), colour, -1)
    for row in range(y + 5, y + height - 3, 7):
        cv2.line(wall, (x + 5, row), (x + width - 8, row), _tint(colour, 0.45), 2)


def _cells(rng: np.random.Generator, columns: int, rows: int) -> list[tuple[int, int, int, int]]:
    xs = [SIZE * i // columns for i in range(columns + 1)]
    cells = []
    for left, right in pairwise(xs):
        cuts = np.sort(rng.uniform(0.18, 0.82, rows - 1)) if rows > 1 else np.zeros(0)
        ys = [0, *(int(c * SIZE) for c in cuts), SIZE]
        cells += [(left + 3, top + 3, right - 3, bottom - 3) for top, bottom in pairwise(ys) if bottom - top > 30]
    return cells


def rack_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """Equipment racks: drawers, vents, screens, knobs, labels."""
    wall = _start(rng, module.base)
    for x1, y1, x2, y2 in _cells(rng, 4, 4):
        shade = float(rng.uniform(0.84, 1.10))
        wall[y1:y2, x1:x2] = np.clip(wall[y1:y2, x1:x2] * shade, 0, 255).astype(np.uint8)
        _bevel(wall, x1, y1, x2, y2, module.base)
        kind = rng.random()
        if kind < 0.22:
            _vent(wall, x1, y1, x2, y2, module.base)
        elif kind < 0.40 and y2 - y1 > 60:
            _screen(wall, rng, x1, y1, x2, y2)
        elif kind < 0.58:
            _knobs(wall, rng, x1, y1, x2, y2, module.accent)
        elif kind < 0.82:
            _label(wall, rng, x1, y1, x2, y2, module.accent if rng.random() < 0.5 else (225, 228, 230))
    return wall


def blank_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """Plain panels with seams and screws."""
    wall = _start(rng, module.base)
    for x1, y1, x2, y2 in _cells(rng, 3, 2):
        _bevel(wall, x1, y1, x2, y2, module.base, 4)
        if rng.random() < 0.4:
            _label(wall, rng, x1, y1, x2, y2, module.accent)
    return wall


def console_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """Screens and switches from edge to edge."""
    wall = _start(rng, module.base)
    for x1, y1, x2, y2 in _cells(rng, 4, 4):
        _bevel(wall, x1, y1, x2, y2, module.base)
        if rng.random() < 0.5 and y2 - y1 > 50:
            _screen(wall, rng, x1, y1, x2, y2)
        else:
            _knobs(wall, rng, x1, y1, x2, y2, module.accent)
    return wall


def cargo_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """Soft bags behind straps."""
    wall = _start(rng, module.base)
    for x1, y1, x2, y2 in _cells(rng, 4, 4):
        yy, xx = np.mgrid[0 : y2 - y1, 0 : x2 - x1].astype(np.float32)
        u, v = xx / (x2 - x1) * 2 - 1, yy / (y2 - y1) * 2 - 1
        bulge = np.clip(1.10 - 0.55 * (u**4 + v**4), 0.3, 1.2)
        colour = np.asarray(_tint(module.accent, float(rng.uniform(0.7, 1.15))), np.float32)
        if rng.random() < 0.25:
            colour = np.asarray((186, 200, 206), np.float32)
        wall[y1:y2, x1:x2] = np.clip(colour * bulge[..., None], 0, 255).astype(np.uint8)
        cv2.line(wall, ((x1 + x2) // 2, y1), ((x1 + x2) // 2, y2), (36, 40, 50), 7)
        cv2.line(wall, (x1, (y1 + y2) // 2), (x2, (y1 + y2) // 2), (36, 40, 50), 7)
        if rng.random() < 0.5:
            _label(wall, rng, x1, y1, x2, y2, (220, 226, 228))
    return wall


def plant_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """Shelves of leaves under grow lights."""
    wall = _start(rng, module.base)
    for row in range(4):
        top, bottom = row * SIZE // 4, (row + 1) * SIZE // 4
        for _ in range(150):
            x, y = int(rng.integers(0, SIZE)), int(rng.integers(top + 26, bottom - 18))
            green = (int(rng.integers(30, 90)), int(rng.integers(110, 210)), int(rng.integers(30, 90)))
            axes = (int(rng.integers(8, 19)), int(rng.integers(4, 9)))
            cv2.ellipse(wall, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, green, -1, cv2.LINE_AA)
            cv2.ellipse(wall, (x, y), axes, float(rng.uniform(0, 180)), 0, 180, _tint(green, 0.6), 1, cv2.LINE_AA)
        cv2.rectangle(wall, (0, bottom - 16), (SIZE, bottom - 2), (214, 210, 208), -1)
        cv2.rectangle(wall, (0, top), (SIZE, top + 8), (255, 190, 255), -1)
    return wall


def _earth(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Space above, the Earth's limb with seas, land and clouds below."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = y - height * rng.uniform(0.25, 0.4) - 0.00035 * (x - width * rng.uniform(0.3, 0.7)) ** 2 * (512 / width)
    picture = np.zeros((height, width, 3), np.float32)
    stars = rng.random((height, width)) > 0.9985
    picture[stars] = 230
    layers = [
        cv2.resize(rng.standard_normal((k, k)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for k in (5, 9, 17, 33)
    ]
    relief = layers[0] + 0.6 * layers[1] + 0.4 * layers[2]
    clouds = np.clip(layers[1] + 0.8 * layers[2] + 0.6 * layers[3] - 0.3, 0, 1.2) / 1.2
    ground = np.where((relief > 0.5)[..., None], (70, 120, 110), (150, 84, 24)).astype(np.float32)
    ground = ground * (1 - clouds[..., None]) + 245 * clouds[..., None]
    picture = np.where((depth > 0)[..., None], ground, picture)
    haze = np.exp(-np.abs(depth) / (0.035 * height))
    picture += haze[..., None] * np.array((235, 170, 80), np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def window_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """A row of large windows with the Earth outside."""
    wall = _start(rng, module.base)
    view = _earth(rng, SIZE, SIZE)
    for x1, y1, x2, y2 in [(14, 60, 246, 452), (266, 60, 498, 452)]:
        cv2.rectangle(wall, (x1 - 10, y1 - 10), (x2 + 10, y2 + 10), (150, 140, 130), -1)
        wall[y1:y2, x1:x2] = view[y1:y2, x1:x2]
        _bevel(wall, x1 - 10, y1 - 10, x2 + 10, y2 + 10, (150, 140, 130), 5)
    return wall


def end_wall(rng: np.random.Generator, module: Palette) -> Wall:
    """The far end: what gives the module its name."""
    if module.end == "earth":
        wall = _start(rng, module.base)
        view = _earth(rng, SIZE, SIZE)
        hexagon = np.array([(256 + 232 * np.cos(a), 256 + 232 * np.sin(a)) for a in np.arange(6) * np.pi / 3], np.int32)
        opening = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillConvexPoly(opening, hexagon, 255)
        np.copyto(wall, view, where=(opening > 0)[..., None])
        cv2.polylines(wall, [hexagon], True, (170, 160, 150), 14, cv2.LINE_AA)
        for a in hexagon[::2]:
            cv2.line(wall, (256, 256), (int(a[0]), int(a[1])), (120, 112, 104), 9, cv2.LINE_AA)
        return wall
    if module.end == "screens":
        return console_wall(rng, module)
    if module.end == "plants":
        return plant_wall(rng, module)
    wall = rack_wall(rng, module) if module.end != "round hatch" else _start(rng, module.base)
    if module.end == "table":
        cv2.rectangle(wall, (20, 300), (492, 372), (70, 110, 160), -1)
        cv2.rectangle(wall, (20, 300), (492, 316), (130, 176, 220), -1)
        for x, colour in ((80, (60, 60, 210)), (190, (70, 180, 80)), (300, (220, 220, 220)), (400, (40, 190, 240))):
            cv2.rectangle(wall, (x, 248), (x + 44, 300), colour, -1)
        return wall
    outline = (SIZE // 2, SIZE // 2)
    if module.end == "round hatch":
        # Small enough not to be a halo behind whoever floats before it: detectors lose people in one.
        for radius, factor in ((150, 1.5), (130, 0.7), (121, 1.35)):
            cv2.circle(wall, outline, radius, _tint(module.base, factor), -1, cv2.LINE_AA)
        cv2.circle(wall, outline, 40, (40, 170, 235), 12, cv2.LINE_AA)
        for a in np.arange(12) * np.pi / 6:
            centre = (int(256 + 140 * np.cos(a)), int(256 + 140 * np.sin(a)))
            cv2.circle(wall, centre, 7, (40, 40, 40), -1, cv2.LINE_AA)
    else:
        cv2.rectangle(wall, (116, 96), (396, 440), _tint(module.base, 0.45), -1)
        cv2.rectangle(wall, (136, 116), (376, 420), _tint(module.base, 0.75), -1)
        cv2.circle(wall, outline, 46, (60, 60, 60), 12, cv2.LINE_AA)
        cv2.line(wall, (210, 256), (302, 256), (60, 60, 60), 10)
    return wall
