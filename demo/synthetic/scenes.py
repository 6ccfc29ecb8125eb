"""Spacecraft modules: one still picture a scene, drawn as a corridor of textured walls.

The kinds differ strongly in brightness, saturation and hue, so that a cut from one to another is found by content
detectors; `content_distance` measures how strongly, by PySceneDetect's formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from microg.demo.synthetic.bodies import Colour
from microg.demo.synthetic.shots import CAMERA_MARGIN
from microg.demo.synthetic.walls import (
    Wall,
    blank_wall,
    cargo_wall,
    console_wall,
    end_wall,
    plant_wall,
    rack_wall,
    window_wall,
)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Module:
    """A kind of module: its name in language, wall colours, light, and how walls and the far end are drawn."""

    name: str
    base: Colour
    accent: Colour
    light: Colour
    brightness: float
    side: Callable[[np.random.Generator, Module], Wall]
    flat: Callable[[np.random.Generator, Module], Wall]
    end: str
    landmark: str


MODULES: dict[str, Module] = {
    module.name: module
    for module in (
        Module(
            "laboratory",
            (226, 222, 214),
            (206, 140, 60),
            (255, 252, 246),
            1.0,
            rack_wall,
            blank_wall,
            "hatch",
            "white equipment racks",
        ),
        Module(
            "cupola",
            (74, 54, 30),
            (120, 92, 40),
            (250, 190, 120),
            0.70,
            window_wall,
            blank_wall,
            "earth",
            "windows with a view of the Earth",
        ),
        Module(
            "galley",
            (132, 182, 216),
            (60, 110, 190),
            (190, 236, 255),
            0.95,
            rack_wall,
            blank_wall,
            "table",
            "a dining table",
        ),
        Module(
            "airlock",
            (66, 62, 60),
            (40, 160, 220),
            (214, 220, 230),
            0.72,
            rack_wall,
            console_wall,
            "round hatch",
            "a round hatch",
        ),
        Module(
            "greenhouse",
            (170, 84, 176),
            (60, 170, 70),
            (250, 150, 250),
            0.92,
            plant_wall,
            blank_wall,
            "plants",
            "green plants",
        ),
        Module(
            "storage bay",
            (44, 92, 116),
            (60, 140, 176),
            (120, 196, 240),
            0.70,
            cargo_wall,
            cargo_wall,
            "hatch",
            "tied cargo bags",
        ),
        Module(
            "flight deck",
            (60, 84, 26),
            (190, 210, 60),
            (230, 250, 150),
            0.76,
            console_wall,
            console_wall,
            "screens",
            "consoles with bright screens",
        ),
    )
}


def _quad(points: list[tuple[float, float]]) -> npt.NDArray[np.float32]:
    return np.array(points, dtype=np.float32)


def draw_module(name: str, rng: np.random.Generator, width: int, height: int) -> Image:
    """Draw one module's interior, BGR, larger than (height, width) by the camera's margin on each side."""
    module = MODULES[name]
    margin = int(np.ceil(CAMERA_MARGIN * height)) + 2
    w, h = width + 2 * margin, height + 2 * margin
    cx, cy = w * rng.uniform(0.42, 0.58), h * rng.uniform(0.42, 0.56)
    half_w, half_h = h * rng.uniform(0.24, 0.32), h * rng.uniform(0.21, 0.27)
    x1, y1, x2, y2 = cx - half_w, cy - half_h, cx + half_w, cy + half_h
    ax, ay = -0.04 * w, -0.04 * h
    bx, by = w - ax, h - ay
    faces = (
        (module.flat(rng, module), _quad([(ax, ay), (bx, ay), (x2, y1), (x1, y1)]), 1.04),  # ceiling, near edge first
        (module.flat(rng, module), _quad([(bx, by), (ax, by), (x1, y2), (x2, y2)]), 0.80),
        (module.side(rng, module), _quad([(ax, by), (ax, ay), (x1, y1), (x1, y2)]), 0.92),
        (module.side(rng, module), _quad([(bx, ay), (bx, by), (x2, y2), (x2, y1)]), 0.94),
    )
    picture = np.zeros((h, w, 3), np.float32)
    for wall, corners, light in faces:
        size = wall.shape[0]
        source = _quad([(0, 0), (size, 0), (size, size), (0, size)])
        matrix = cv2.getPerspectiveTransform(source, corners)
        area = np.zeros((h, w), np.uint8)
        cv2.fillConvexPoly(area, corners.round().astype(np.int32), 255)
        warped = cv2.warpPerspective(wall, matrix, (w, h), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(picture, warped * np.float32(light), where=(area > 0)[..., None])
    left, top, right, bottom = (round(v) for v in (x1, y1, x2, y2))
    far = cv2.resize(end_wall(rng, module), (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    picture[top:bottom, left:right] = far.astype(np.float32) * 0.86
    cv2.rectangle(picture, (left, top), (right, bottom), (30, 30, 30), max(h // 160, 1), cv2.LINE_AA)
    _lamps(picture, module, (x1, y1, x2), w)
    _handrails(picture, module, rng, (x1, y1, x2, y2), w, h)
    _cables(picture, rng, w, h)
    return _finish(picture, module, rng)


def _lamps(picture: npt.NDArray[np.float32], module: Module, end: tuple[float, float, float], w: int) -> None:
    x1, y1, x2 = end
    for near, far in ((0.34, 0.36), (0.66, 0.64)):
        start = np.array((w * near, 0.03 * y1))
        stop = np.array((x1 + (x2 - x1) * far, y1 * 0.92))
        for a, b in ((0.0, 0.42), (0.52, 0.80), (0.86, 1.0)):
            p, q = start + (stop - start) * a, start + (stop - start) * b
            cv2.line(
                picture,
                (int(p[0]), int(p[1])),
                (int(q[0]), int(q[1])),
                tuple(v * 1.5 for v in module.light),
                max(int(w * 0.022 * (1 - 0.62 * a)), 2),
                cv2.LINE_AA,
            )


def _handrails(
    picture: npt.NDArray[np.float32],
    module: Module,
    rng: np.random.Generator,
    end: tuple[float, float, float, float],
    w: int,
    h: int,
) -> None:
    x1, y1, x2, y2 = end
    rail = (200.0, 120.0, 40.0) if module.base[2] > 150 else (60.0, 190.0, 235.0)
    for corner, far, level in (((0, 0), x1, 0.30), ((w, 0), x2, 0.30), ((0, 0), x1, 0.72), ((w, 0), x2, 0.72)):
        begin = float(rng.uniform(0.08, 0.35))
        start = np.array(
            (corner[0] + (far - corner[0]) * begin, h * level + (y1 + (y2 - y1) * level - h * level) * begin)
        )
        stop_at = begin + 0.38
        stop = np.array(
            (corner[0] + (far - corner[0]) * stop_at, h * level + (y1 + (y2 - y1) * level - h * level) * stop_at)
        )
        thick = max(int(h * 0.018), 2)
        p, q = (tuple(int(v) for v in point) for point in (start, stop))
        cv2.line(picture, (p[0], p[1] + thick), (q[0], q[1] + thick), (20, 20, 20), thick, cv2.LINE_AA)
        cv2.line(picture, p, q, rail, thick, cv2.LINE_AA)
        cv2.line(
            picture,
            (p[0], p[1] - thick // 4),
            (q[0], q[1] - thick // 4),
            tuple(v * 0.5 + 120 for v in rail),
            max(thick // 4, 1),
            cv2.LINE_AA,
        )


def _cables(picture: npt.NDArray[np.float32], rng: np.random.Generator, w: int, h: int) -> None:
    for colour in ((40.0, 40.0, 44.0), (190.0, 120.0, 40.0), (60.0, 70.0, 200.0))[: int(rng.integers(1, 4))]:
        knots = np.sort(rng.uniform(-0.05, 1.05, 6)) * w
        knots[0], knots[-1] = -5, w * rng.uniform(0.3, 1.05)
        side = 0.05 if rng.random() < 0.5 else 0.93
        levels = h * (side + rng.uniform(-0.035, 0.035, 6))
        xs = np.linspace(knots[0], knots[-1], 80)
        ys = np.interp(xs, knots, levels)
        ys = np.convolve(np.pad(ys, 6, mode="edge"), np.ones(13) / 13, mode="valid")
        points = np.column_stack((xs, ys)).round().astype(np.int32)
        thick = max(h // 90, 2)
        cv2.polylines(picture, [points + np.array((0, thick // 2))], False, (16, 16, 16), thick, cv2.LINE_AA)
        cv2.polylines(picture, [points], False, colour, max(thick - 1, 1), cv2.LINE_AA)


def _finish(picture: npt.NDArray[Any], module: Module, rng: np.random.Generator) -> Image:
    h, w = picture.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    vignette = 1.08 - 0.42 * (((x - w / 2) / w) ** 2 + ((y - h / 2) / h) ** 2) * 2
    picture = picture * vignette[..., None] * module.brightness
    picture *= np.asarray(module.light, np.float32) / 255.0 * 0.55 + 0.45
    bright = np.clip(picture - 175, 0, 255)
    small = cv2.resize(bright, (w // 4, h // 4), interpolation=cv2.INTER_AREA)
    bloom = cv2.resize(cv2.GaussianBlur(small, (0, 0), h / 60), (w, h), interpolation=cv2.INTER_LINEAR)
    picture = cv2.GaussianBlur(picture, (0, 0), max(h / 480, 0.5)) + 0.55 * bloom
    picture += rng.standard_normal((h, w, 1)).astype(np.float32) * 2.0
    return np.clip(picture, 0, 255).astype(np.uint8)


def content_distance(before: Image, after: Image) -> float:
    """Return PySceneDetect's content value between two BGR frames: mean absolute change of hue, saturation, value."""
    first, second = (cv2.cvtColor(frame, cv2.COLOR_BGR2HSV).astype(np.int32) for frame in (before, after))
    return float(np.abs(first - second).mean(axis=(0, 1)).sum() / 3.0)
