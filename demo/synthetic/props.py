"""Pictures of the objects that people hold and use; a sprite is premultiplied BGRA, see `sprites`."""

from __future__ import annotations

import cv2
import numpy as np

from microg.demo.synthetic.sprites import Sprite

_SIZE = 96


def _canvas(width: int = _SIZE, height: int = _SIZE) -> np.ndarray:
    return np.zeros((height, width, 4), np.uint8)


def _shade(image: np.ndarray, grain: float = 5.0) -> Sprite:
    """Add a cylinder-like light, bevel and grain, then premultiply."""
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1.06 - 0.22 * (x + 0.25) ** 2 - 0.14 * (y + 0.2) ** 2
    inside = cv2.distanceTransform((image[..., 3] > 127).astype(np.uint8), cv2.DIST_L2, 3)
    light = light * (0.62 + 0.38 * np.clip(inside / 4.0, 0, 1))
    rng = np.random.default_rng(width * 1000 + height)
    colour = image[..., :3].astype(np.float32) * light[..., None]
    colour += rng.standard_normal((height, width, 1)).astype(np.float32) * grain
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.concatenate((np.clip(colour, 0, 255) * alpha, alpha * 255), axis=2).round().astype(np.uint8)


def _box(image: np.ndarray, corner: tuple[int, int], opposite: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.rectangle(image, corner, opposite, (*colour, 255), -1, cv2.LINE_AA)


def _pouch() -> Sprite:
    image = _canvas(72, 120)
    _box(image, (32, 0), (39, 30), (60, 60, 235))
    _box(image, (4, 26), (67, 116), (236, 214, 60))
    _box(image, (4, 26), (67, 36), (190, 160, 30))
    _box(image, (14, 52), (57, 96), (190, 90, 20))
    cv2.putText(image, "H2O", (17, 80), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (250, 250, 250, 255), 2, cv2.LINE_AA)
    return _shade(image)


def _book() -> Sprite:
    image = _canvas(140, 96)
    _box(image, (0, 0), (139, 95), (70, 40, 150))
    for left, right in ((6, 68), (71, 133)):
        _box(image, (left, 6), (right, 89), (226, 238, 244))
        for row in range(14, 84, 8):
            cv2.line(image, (left + 6, row), (right - 8 - (row * 7) % 17, row), (120, 116, 112, 255), 2)
    cv2.line(image, (69, 2), (69, 93), (90, 80, 90, 255), 3)
    return _shade(image)


def _laptop_lid() -> Sprite:
    image = _canvas(144, 100)
    _box(image, (0, 0), (143, 99), (24, 60, 190))
    _box(image, (4, 4), (139, 95), (40, 96, 250))
    cv2.circle(image, (72, 50), 22, (250, 240, 210, 255), -1, cv2.LINE_AA)
    cv2.circle(image, (72, 50), 17, (230, 170, 60, 255), -1, cv2.LINE_AA)
    return _shade(image)


def _laptop_base() -> Sprite:
    image = _canvas(144, 100)
    _box(image, (0, 0), (143, 99), (206, 202, 198))
    for row in range(4):
        for column in range(12):
            _box(image, (8 + column * 11, 8 + row * 13), (16 + column * 11, 17 + row * 13), (44, 40, 40))
    _box(image, (48, 66), (96, 92), (140, 136, 132))
    return _shade(image)


def _can() -> Sprite:
    image = _canvas(84, 70)
    _box(image, (2, 6), (81, 66), (190, 196, 200))
    _box(image, (2, 16), (81, 60), (40, 220, 250))
    cv2.ellipse(image, (42, 8), (39, 7), 0, 0, 360, (60, 90, 130, 255), -1, cv2.LINE_AA)
    return _shade(image)


def _spoon() -> Sprite:
    image = _canvas(120, 40)
    cv2.line(image, (2, 20), (84, 20), (206, 206, 206, 255), 8, cv2.LINE_AA)
    cv2.ellipse(image, (98, 20), (20, 14), 0, 0, 360, (200, 200, 200, 255), -1, cv2.LINE_AA)
    cv2.ellipse(image, (100, 18), (15, 12), 0, 0, 360, (20, 110, 240, 255), -1, cv2.LINE_AA)
    return _shade(image)


def _toolbox() -> Sprite:
    image = _canvas(130, 96)
    cv2.rectangle(image, (40, 4), (90, 26), (50, 50, 52, 255), 8, cv2.LINE_AA)
    _box(image, (2, 22), (127, 92), (36, 60, 190))
    _box(image, (2, 50), (127, 58), (24, 38, 120))
    for x in (24, 98):
        _box(image, (x, 44), (x + 12, 66), (190, 196, 200))
    return _shade(image)


def _cargo_bag() -> Sprite:
    image = _canvas(120, 110)
    _box(image, (2, 2), (117, 107), (196, 214, 222))
    for x in (30, 84):
        _box(image, (x, 2), (x + 8, 107), (70, 80, 92))
    _box(image, (44, 40), (76, 66), (60, 150, 240))
    return _shade(image, 9.0)


def _camera() -> Sprite:
    image = _canvas(110, 84)
    _box(image, (30, 2), (76, 22), (52, 50, 50))
    _box(image, (2, 18), (107, 81), (40, 38, 38))
    cv2.circle(image, (58, 50), 27, (84, 80, 80, 255), -1, cv2.LINE_AA)
    cv2.circle(image, (58, 50), 19, (120, 60, 30, 255), -1, cv2.LINE_AA)
    cv2.circle(image, (51, 43), 6, (250, 230, 210, 255), -1, cv2.LINE_AA)
    return _shade(image)


def _ball() -> Sprite:
    axis = np.linspace(-1, 1, 72, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    normal = np.sqrt(np.clip(1 - radius**2, 0, 1))
    colour = np.where((np.abs(x + 0.3 * y) < 0.22)[..., None], (240, 250, 250), (40, 250, 190)).astype(np.float32)
    colour = colour * (0.4 + 0.65 * normal)[..., None]
    alpha = np.clip((1 - radius) * 36, 0, 1)[..., None]
    return np.concatenate((np.clip(colour, 0, 255) * alpha, alpha * 255), axis=2).round().astype(np.uint8)


def _screwdriver() -> Sprite:
    image = _canvas(130, 36)
    _box(image, (62, 14), (127, 21), (200, 196, 192))
    _box(image, (2, 4), (64, 31), (30, 200, 245))
    for x in (14, 32, 50):
        _box(image, (x, 4), (x + 6, 31), (24, 24, 24))
    return _shade(image)


def _panel() -> Sprite:
    image = _canvas(110, 130)
    _box(image, (0, 0), (109, 129), (70, 110, 30))
    _box(image, (6, 6), (103, 123), (110, 190, 60))
    for x in (16, 94):
        for y in (16, 114):
            cv2.circle(image, (x, y), 7, (90, 88, 86, 255), -1, cv2.LINE_AA)
            cv2.line(image, (x - 5, y), (x + 5, y), (40, 40, 40, 255), 2)
    _box(image, (28, 34), (82, 58), (60, 50, 40))
    for x, colour in ((36, (60, 220, 60)), (52, (60, 60, 240)), (68, (60, 220, 240))):
        cv2.circle(image, (x, 86), 6, (*colour, 255), -1, cv2.LINE_AA)
    return _shade(image)


_DRAW = {
    "pouch": _pouch,
    "book": _book,
    "laptop lid": _laptop_lid,
    "laptop base": _laptop_base,
    "can": _can,
    "spoon": _spoon,
    "toolbox": _toolbox,
    "cargo bag": _cargo_bag,
    "camera": _camera,
    "ball": _ball,
    "screwdriver": _screwdriver,
    "panel": _panel,
}


def draw(kind: str) -> Sprite:
    """Return the picture of an object; `KeyError` when there is none of that kind."""
    return _DRAW[kind]()
