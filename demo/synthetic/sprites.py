"""Shaded pictures of body parts: each is computed once per person and size, then only warped.

A sprite is premultiplied BGRA of shape (height, width, 4), uint8. Shading comes from analytic surface normals, lit
from the viewer's side, so that it stays right at any rotation in the image plane; flat figures are not found by
person detectors, shaded and textured ones are.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from microg.demo.synthetic.bodies import HEAD_RADII, TORSO, Appearance, Colour

Sprite = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]  # float32 for speed; OpenCV's stubs know no dtypes
PAD = 2


def premultiplied(colour: Floats, alpha: Floats) -> Sprite:
    """Join colour (h, w, 3) in 0..255 and alpha (h, w) in 0..1 to a sprite."""
    alpha = np.clip(alpha, 0.0, 1.0)[..., None]
    return np.concatenate((np.clip(colour, 0, 255) * alpha, 255.0 * alpha), axis=2).round().astype(np.uint8)


def noise(rng: np.random.Generator, height: int, width: int, grain: float) -> Floats:
    """Return smooth noise of shape (height, width), about -1..1, with features of `grain` pixels."""
    rows, columns = max(int(height / grain), 2), max(int(width / grain), 2)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32) * 0.5
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _lit(normal_z: Floats, colour: Floats | Colour, gloss: float = 0.06) -> Floats:
    shade = 0.50 + 0.54 * np.clip(normal_z, 0, 1) ** 0.7
    return np.asarray(colour, dtype=np.float32) * shade[..., None] + 255.0 * gloss * (normal_z[..., None] ** 14)


def capsule(
    length: float,
    start: float,
    end: float,
    scale: float,
    colour: Colour,
    rng: np.random.Generator,
    *,
    cloth: float = 1.0,
    cuff: Colour | None = None,
) -> Sprite:
    """Draw a tapered limb along +x: joints at x = 0 and `length`, radii `start` and `end` (body units).

    The first joint lies at pixel (PAD + start * scale, height / 2). `cloth` is the strength of folds; `cuff` colours
    the far end.
    """
    longest = max(start, end)
    width = int(np.ceil((length + start + end) * scale)) + 2 * PAD
    height = int(np.ceil(2 * longest * scale)) + 2 * PAD
    x = ((np.arange(width, dtype=np.float32) + 0.5 - PAD) / scale - start)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / scale)[:, None]
    along = np.clip(x / max(length, 1e-6), 0, 1)
    radius = start + (end - start) * along
    nearest = along * length
    distance = np.hypot(x - nearest, y)
    alpha = np.clip((radius - distance) * scale + 0.5, 0, 1)
    # As round as the limb at its ends too: where two limbs meet there is no seam.
    rim = np.clip(0.97 * np.abs(y) / radius, 0, 1)
    grain = noise(rng, height, width, max(3.0, 0.018 * scale))
    folds = np.sin((x + 0.25 * y) * (90.0 + 40.0 * grain)) * np.exp(-(((along - 0.5) / 0.55) ** 2))
    normal_z = np.sqrt(1.0 - rim**2)
    base = np.broadcast_to(np.asarray(colour, dtype=np.float32), (height, width, 3)).copy()
    if cuff is not None:
        base[np.broadcast_to(x > length - 0.6 * end, (height, width))] = cuff
    texture = 1.0 + cloth * (0.035 * grain + 0.045 * folds)
    return premultiplied(_lit(normal_z.astype(np.float32), base * texture[..., None]), alpha)


def _torso_half_width(t: Floats) -> Floats:
    knots = (-0.10, -0.05, 0.0, 0.10, 0.30, 0.62, 0.80, 1.0, 1.10, 1.16)
    widths = (0.034, 0.055, 0.098, 0.122, 0.124, 0.098, 0.096, 0.108, 0.100, 0.060)
    return np.interp(t, knots, widths).astype(np.float32)


TORSO_TOP, TORSO_BOTTOM, TORSO_DEPTH = 0.10, 0.16, 0.66


def torso(person: Appearance, yaw: float, scale: float) -> Sprite:
    """Draw the trunk, neck at the top: `TORSO * (1 + TORSO_TOP + TORSO_BOTTOM)` units tall, seen at `yaw`.

    Cloth details sit at angles round the trunk, so that they move as the body turns.
    """
    rng = np.random.default_rng(person.seed)
    squash = float(np.hypot(np.cos(yaw), TORSO_DEPTH * np.sin(yaw)))
    height = int(np.ceil(TORSO * (1 + TORSO_TOP + TORSO_BOTTOM) * scale)) + 2 * PAD
    width = int(np.ceil(2 * 0.128 * squash * scale)) + 2 * PAD
    t = ((np.arange(height, dtype=np.float32) + 0.5 - PAD) / (TORSO * scale) - TORSO_TOP)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / scale)[None, :]
    half = cv2.GaussianBlur(_torso_half_width(t), (1, 0), sigmaX=0.1, sigmaY=max(0.012 * scale, 0.5)) * squash
    alpha = np.clip((half - np.abs(x)) * scale + 0.5, 0, 1)
    ends = np.minimum(t + TORSO_TOP, 1 + TORSO_BOTTOM - t) * TORSO * scale
    alpha = alpha * np.clip(ends + 0.5, 0, 1)
    across = np.clip(x / half, -1, 1)
    angle = np.arcsin(across) - yaw  # round the trunk, 0 at the breast bone
    grain = noise(rng, height, width, max(3.0, 0.022 * scale))
    slow = noise(rng, height, width, max(8.0, 0.09 * scale))
    normal_z = np.sqrt(1.0 - across**2) * (0.9 + 0.1 * np.cos((t - 0.25) * 2.2))
    colour = np.broadcast_to(np.asarray(person.shirt_colour, dtype=np.float32), (height, width, 3)).copy()
    light = np.clip(np.asarray(person.shirt_colour, dtype=np.float32) * 1.25 + 40, 0, 255)
    dark = np.asarray(person.shirt_colour, dtype=np.float32) * 0.45
    tt, front = np.broadcast_to(t, angle.shape), np.abs(angle) < 1.45
    if person.striped:
        colour[(np.sin(tt * 46.0) > 0.35) & (tt < 0.97)] = light
    if person.garment == "jacket":
        colour[front & (np.abs(angle) < 0.035)] = dark
        colour[front & (np.abs(np.abs(angle) - 0.62) < 0.26) & (np.abs(tt - 0.62) < 0.012)] = dark
    else:
        colour[front & (np.abs(angle) < 0.03) & (tt < 0.38)] = dark
    colour[tt > 0.97] = person.trousers
    colour[np.abs(tt - 0.965) < 0.022] = (34, 40, 46)
    collar = front & (np.abs(tt - (0.10 - 0.26 * np.abs(angle))) < 0.035) & (np.abs(angle) < 0.5)
    colour[collar] = light
    colour[(tt < 0.085 - 0.30 * np.abs(angle)) & front & (np.abs(angle) < 0.32)] = person.skin
    colour[(tt < -0.02)] = person.skin
    colour[front & (((angle + 0.62) / 0.26) ** 2 + ((tt - 0.33) / 0.085) ** 2 < 1)] = (176, 108, 52)
    colour[front & (((angle + 0.62) / 0.16) ** 2 + ((tt - 0.33) / 0.05) ** 2 < 1)] = (224, 226, 226)
    colour[front & (np.abs(angle - 0.62) < 0.26) & (np.abs(tt - 0.31) < 0.04)] = (52, 48, 44)
    folds = np.sin(t * 26.0 + across * 4.0 + slow * 5.0) * np.exp(-(((t - 0.72) / 0.3) ** 2))
    texture = 1.0 + 0.06 * grain + 0.07 * folds + 0.06 * slow
    occlusion = 1.0 - 0.30 * np.exp(-((t / 0.06) ** 2)) * (np.abs(across) < 0.75)
    return premultiplied(_lit(normal_z, colour * (texture * occlusion)[..., None], gloss=0.03), alpha)


def _hair_limit(depth: Floats, style: str) -> Floats:
    if style == "bald":
        return np.full_like(depth, -2.0)
    low = {"short": (0.62, 0.30), "long": (0.95, 0.62), "bun": (0.55, 0.22)}[style]
    return np.interp(depth, (-1.0, -0.25, 0.12, 0.40, 0.85), (low[0], low[0], low[1], -0.30, -0.56)).astype(np.float32)


def head(person: Appearance, yaw: float, pitch: float, mouth: float, eyes_closed: bool, scale: float) -> Sprite:
    """Draw a head on an ellipsoid of `HEAD_RADII`, centred in the sprite, turned by `yaw` and `pitch`."""
    rx, ry = HEAD_RADII
    margin = 1.16  # hair and ears stand out
    width, height = (int(np.ceil(2 * radius * margin * scale)) + 2 * PAD for radius in (rx, ry))
    x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / (rx * scale))[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / (ry * scale))[:, None]
    jaw = 1.0 - 0.17 * np.clip(y, 0, 1) ** 2
    sx, sy = np.broadcast_arrays(x / jaw, y)
    radius = np.hypot(sx, sy)
    z = np.sqrt(np.clip(1.0 - radius**2, 0, 1))
    cp, sp, cy, sn = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    y1, z1 = sy * cp - z * sp, sy * sp + z * cp
    hx, hy, hz = sx * cy - z1 * sn, y1, sx * sn + z1 * cy
    rng = np.random.default_rng(person.seed + 7)
    grain = noise(rng, height, width, max(2.0, 0.012 * scale))
    strands = np.sin(hx * 34.0 + grain * 3.0) * 0.5 + 0.5
    colour = np.broadcast_to(np.asarray(person.skin, dtype=np.float32), (height, width, 3)).copy()
    skin, hair = np.asarray(person.skin, dtype=np.float32), np.asarray(person.hair, dtype=np.float32)
    front = hz > 0.05

    def ellipse(cx: float, cy_: float, a: float, b: float) -> npt.NDArray[np.bool_]:
        return front & (((hx - cx) / a) ** 2 + ((hy - cy_) / b) ** 2 < 1)

    cheeks = np.exp(-(((np.abs(hx) - 0.45) / 0.2) ** 2) - ((hy - 0.28) / 0.18) ** 2) * front
    colour += cheeks[..., None] * np.array((-8, -10, 14), dtype=np.float32)
    for side in (-1.0, 1.0):
        cx = 0.36 * side
        colour[ellipse(cx, -0.08, 0.25, 0.17)] = skin * 0.80  # socket
        if eyes_closed:
            colour[ellipse(cx, -0.03, 0.19, 0.035)] = skin * 0.35
        else:
            colour[ellipse(cx, -0.06, 0.18, 0.095)] = (236, 238, 240)
            colour[ellipse(cx + 0.01, -0.06, 0.085, 0.10)] = (38, 34, 36)
        colour[ellipse(cx, -0.26, 0.22, 0.055)] = hair * 0.7 if person.hair_style != "bald" else skin * 0.45
    colour[ellipse(0.0, 0.14, 0.085, 0.22)] = np.clip(skin * 1.10, 0, 255)
    colour[ellipse(0.0, 0.30, 0.14, 0.06)] = skin * 0.70
    colour[ellipse(0.0, 0.56, 0.27, 0.075 + 0.16 * mouth)] = np.clip(skin * (0.62, 0.58, 0.86), 0, 255)
    if mouth > 0.15:
        colour[ellipse(0.0, 0.57, 0.20, 0.02 + 0.14 * mouth)] = (36, 24, 48)
    hairy = hy < _hair_limit(hz, person.hair_style) + 0.05 * (strands - 0.5)
    colour[hairy] = (hair * (0.82 + 0.32 * strands)[..., None])[hairy]
    outer = np.where(hairy & (hy < 0.2), 1.075, 1.0).astype(np.float32)
    normal_z = np.sqrt(np.clip(1.0 - (radius / outer) ** 2, 0, 1))
    alpha = np.clip((outer - radius) * rx * scale + 0.5, 0, 1)
    for side in (-1.0, 1.0):  # ears
        ear_x, ear_z = side * cy * 1.0, side * sn
        if ear_z < 0.45:
            ear = np.hypot((x - ear_x) / 0.17, (y - 0.02) / 0.2)
            patch = (ear < 1) & (alpha < 0.6)
            colour[patch], normal_z[patch] = skin * 0.92, 0.7
            alpha = np.maximum(alpha, np.clip((1 - ear) * 0.18 * rx * scale + 0.5, 0, 1))
    return premultiplied(_lit(normal_z, colour * (1 + 0.025 * grain)[..., None], gloss=0.05), alpha)


def loose_hair(person: Appearance, scale: float) -> Sprite:
    """Draw hair floating round the head (long) or tied up (bun); the head's centre is the sprite's centre."""
    ry = HEAD_RADII[1]
    size = int(np.ceil(2 * ry * 1.9 * scale)) + 2 * PAD
    axis = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) / (ry * scale)
    x, y = np.meshgrid(axis, axis)
    rng = np.random.default_rng(person.seed + 11)
    if person.hair_style == "bun":
        radius = np.hypot(x, y + 1.12) / 0.42
        alpha = np.clip((1 - radius) * 0.42 * ry * scale + 0.5, 0, 1)
    else:
        angle = np.arctan2(x, -y)
        wave = sum(
            (rng.uniform(0.02, 0.05) * np.sin(k * angle + rng.uniform(0, 6.28)) for k in (3, 5, 8, 13, 21)),
            start=np.zeros_like(angle),
        )
        reach = 1.22 - 0.10 * np.cos(angle) + wave
        radius = np.hypot(x, y) / reach
        alpha = np.clip((1 - radius) * reach * ry * scale * 0.6 + 0.5, 0, 1)
    strands = 0.5 + 0.5 * np.sin(np.arctan2(x, -y) * 38.0 + 4.0 * radius + noise(rng, size, size, 6.0) * 2.0)
    normal_z = np.sqrt(np.clip(1.0 - radius**2 * 0.8, 0, 1))
    colour = np.asarray(person.hair, dtype=np.float32) * (0.8 + 0.3 * strands)[..., None]
    return premultiplied(_lit(normal_z, colour, gloss=0.05), alpha.astype(np.float32))


HAND_SIZE = 0.088


def hand(person: Appearance, grip: str, scale: float) -> Sprite:
    """Draw a hand of length `HAND_SIZE` along +x from the wrist: `grip` is open, fist or point."""
    factor = 4
    size = int(np.ceil(HAND_SIZE * scale)) + 2 * PAD
    big = np.zeros((size * factor, size * factor), np.uint8)
    unit = HAND_SIZE * scale * factor
    origin = np.array((PAD * factor, size * factor / 2))

    def line(a: tuple[float, float], b: tuple[float, float], thick: float) -> None:
        points = [tuple(int(v) for v in origin + np.array(p) * unit) for p in (a, b)]
        cv2.line(big, points[0], points[1], 255, max(int(thick * unit), 1), cv2.LINE_AA)

    line((0.10, 0.0), (0.42, 0.0), 0.34)
    line((0.30, -0.09), (0.44, -0.09), 0.22)
    line((0.30, 0.09), (0.44, 0.09), 0.22)
    line((0.16, 0.10), (0.42 if grip != "fist" else 0.5, 0.32 if grip == "open" else 0.2), 0.13)
    if grip == "open":
        for y0, y1, reach in ((-0.15, -0.27, 0.80), (-0.05, -0.09, 0.92), (0.05, 0.09, 0.90), (0.14, 0.22, 0.78)):
            line((0.45, y0), (reach, y1), 0.10)
    else:
        line((0.42, -0.10), (0.56, -0.10), 0.22)
        line((0.42, 0.08), (0.56, 0.08), 0.22)
    if grip == "point":
        line((0.45, 0.10), (0.96, 0.12), 0.12)
    inside = cv2.distanceTransform(big, cv2.DIST_L2, 3) / (0.13 * unit)
    normal_z = np.sqrt(1 - (1 - np.clip(inside, 0, 1)) ** 2)
    small = (size, size)
    shade = cv2.resize(normal_z.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(big.astype(np.float32) / 255, small, interpolation=cv2.INTER_AREA)
    colour = np.broadcast_to(np.asarray(person.skin, dtype=np.float32), (size, size, 3))
    return premultiplied(
        _lit(0.25 + 0.75 * np.divide(shade, alpha, out=np.zeros_like(shade), where=alpha > 0), colour), alpha
    )
