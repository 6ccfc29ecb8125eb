"""Frames of a shot, and the exact mask and box of each person in them.

Masks hold what is visible: a nearer person and any object in front take pixels away, also a held object, which is no
part of its holder; hair, clothes and a sleeping bag are. A box spans the visible pixels of the frame, (x1, y1)
inclusive and (x2, y2) exclusive. A person of whom less than `MIN_VISIBLE` of the pixels drawn into the frame, or fewer
than `MIN_PIXELS` pixels, stay visible has no box on that frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from microg.demo.synthetic import props, sprites
from microg.demo.synthetic.actions import pose_at
from microg.demo.synthetic.bodies import TORSO, Appearance, Pose, Skeleton, solve
from microg.demo.synthetic.geometry import Vector, pitch_matrix, roll_matrix, vector, yaw_matrix
from microg.demo.synthetic.motions import shake_hands
from microg.demo.synthetic.shots import Person, Shot

MIN_VISIBLE = 0.2
MIN_PIXELS = 30
_STEP = 0.015  # lengths of foreshortened limbs are rounded up to this, in body units
_TURN = math.radians(7.0)  # heads and trunks are drawn at multiples of this
_SLEEPING_BAG = (120, 70, 40)
_SHOE = (58, 54, 56)
_SOFTNESS = 1.3  # of the lens: standard deviation in pixels of a frame 480 pixels high

Box = tuple[float, float, float, float]
Image = npt.NDArray[np.uint8]
_prop_sprite = lru_cache(maxsize=64)(props.draw)


@dataclass(frozen=True)
class Frame:
    """One frame: `image` (height, width, 3) BGR; `mask` (height, width) with person index + 1, 0 elsewhere; boxes."""

    image: Image
    mask: Image
    boxes: tuple[Box | None, ...]


@dataclass
class _Part:
    depth: float
    sprite: sprites.Sprite
    matrix: npt.NDArray[np.float64]  # (2, 3), from the sprite's to the frame's continuous coordinates
    person: bool


class ShotRenderer:
    """Renders the frames of one shot at any time; sprites are kept between frames."""

    def __init__(self, shot: Shot, background: Image, width: int, height: int) -> None:
        """`background` (rows, columns, 3) BGR must be larger than the frame by `shots.CAMERA_MARGIN` on each side."""
        self.shot, self.width, self.height = shot, width, height
        self._background = cv2.cvtColor(background, cv2.COLOR_BGR2BGRA)
        self._painters = [_Painter(person, height) for person in shot.people]

    def frame(self, time: float) -> Frame:
        """Render the frame at `time` seconds from the shot's start."""
        canvas = self._view(time)
        mask = np.zeros((self.height, self.width), np.uint8)
        drawn: list[int] = []
        regions: list[tuple[int, int, int, int] | None] = []
        for index, painter in enumerate(self._painters):
            region: tuple[int, int, int, int] | None = None
            for part in painter.parts(time, self.width / self.height):
                painted = _paste(canvas, mask, part, index + 1)
                if painted is not None and part.person:
                    region = painted if region is None else _union(region, painted)
            regions.append(region)
            drawn.append(0 if region is None else int(np.count_nonzero(_cut(mask, region) == index + 1)))
        boxes = tuple(
            _box(mask, index + 1, region, count)
            for index, (region, count) in enumerate(zip(regions, drawn, strict=True))
        )
        return Frame(self._filmed(canvas), mask, boxes)

    def _filmed(self, canvas: Image) -> Image:
        """Return what a camera makes of the picture: drawn edges are sharper than any lens, and detectors mind."""
        picture: Any = cv2.cvtColor(canvas, cv2.COLOR_BGRA2BGR)
        return cv2.GaussianBlur(picture, (0, 0), _SOFTNESS * self.height / 480)  # type: ignore[return-value]

    def _view(self, time: float) -> npt.NDArray[np.uint8]:
        x, y = self.shot.camera(time)
        spare_x = self._background.shape[1] - self.width
        spare_y = self._background.shape[0] - self.height
        matrix = np.array(((1, 0, -spare_x * (0.5 + 0.5 * x)), (0, 1, -spare_y * (0.5 + 0.5 * y))), np.float64)
        return cv2.warpAffine(self._background, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _cut(mask: Image, region: tuple[int, int, int, int]) -> Image:
    x1, y1, x2, y2 = region
    return mask[y1:y2, x1:x2]


def _union(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _box(mask: Image, value: int, region: tuple[int, int, int, int] | None, drawn: int) -> Box | None:
    if region is None or drawn == 0:
        return None
    visible = (_cut(mask, region) == value).astype(np.uint8)
    count = int(np.count_nonzero(visible))
    if count < max(MIN_PIXELS, MIN_VISIBLE * drawn):
        return None
    x, y, w, h = cv2.boundingRect(visible)
    x, y = x + region[0], y + region[1]
    return float(x), float(y), float(x + w), float(y + h)


def _paste(canvas: Image, mask: Image, part: _Part, value: int) -> tuple[int, int, int, int] | None:
    """Warp a sprite onto the canvas and the mask; return the region touched, None when outside the frame."""
    rows, columns = part.sprite.shape[:2]
    (a, b, tx), (c, d, ty) = part.matrix
    xs = (tx, tx + a * columns, tx + b * rows, tx + a * columns + b * rows)
    ys = (ty, ty + c * columns, ty + d * rows, ty + c * columns + d * rows)
    x1, y1 = max(math.floor(min(xs)), 0), max(math.floor(min(ys)), 0)
    x2, y2 = min(math.ceil(max(xs)) + 1, canvas.shape[1]), min(math.ceil(max(ys)) + 1, canvas.shape[0])
    if x1 >= x2 or y1 >= y2:
        return None
    # continuous coordinates have pixel centres at +0.5, OpenCV's at whole numbers
    local = np.array(((a, b, tx + 0.5 * (a + b) - 0.5 - x1), (c, d, ty + 0.5 * (c + d) - 0.5 - y1)), dtype=np.float64)
    warped = cv2.warpAffine(part.sprite, local, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
    alpha = cv2.extractChannel(warped, 3)
    rest = cv2.bitwise_not(alpha)
    target = canvas[y1:y2, x1:x2]
    kept = cv2.multiply(target, cv2.merge((rest, rest, rest, rest)), scale=1 / 255)
    cv2.add(kept, warped, dst=kept)
    target[...] = kept
    np.copyto(mask[y1:y2, x1:x2], value if part.person else 0, where=alpha > 127)
    return x1, y1, x2, y2


class _Painter:
    """Turns one person at a time into a list of parts, far to near."""

    def __init__(self, person: Person, height: int) -> None:
        self.person, self.height = person, height
        self.scale = person.scale * height
        self._cache: dict[tuple, sprites.Sprite] = {}

    def parts(self, time: float, aspect: float) -> list[_Part]:
        """Return all parts at `time`; `aspect` is the frame's width / height."""
        person, look = self.person, self.person.look
        pose = pose_at(person.plan, time, person.style)
        view_flat = pitch_matrix(person.pitch) @ yaw_matrix(person.yaw_at(time))
        if person.meeting is not None:
            neck = vector(0.0, -TORSO, 0.0)
            shake_hands(pose, time, person.style, view_flat.T @ person.meeting - neck, person.meeting_hand)
        roll = roll_matrix(person.roll_at(time))
        self._view = roll @ view_flat
        x, y = person.centre_at(time)
        offset = roll @ vector(person.offset, 0.0, 0.0) + self._view @ vector(0.0, -pose.rise, 0.0)
        self._origin = np.array((x * aspect, y, 0.0)) * self.height + offset * self.scale
        body = solve(pose)
        parts = [*self._legs(body, look), *self._trunk(body, look, pose), *self._arms(body, look, pose)]
        parts += self._props(body, pose)
        return sorted(parts, key=lambda part: part.depth)

    def _place(self, joint: Vector) -> Vector:
        return self._view @ joint * self.scale + self._origin

    def _sprite(self, key: tuple, make) -> sprites.Sprite:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _limb(self, name: str, a: Vector, b: Vector, radii: tuple[float, float], nearer: float = 0.0, **look) -> _Part:
        start, end = self._place(a), self._place(b)
        delta = (end - start)[:2]
        length = float(np.hypot(*delta)) / self.scale
        steps = math.ceil(length / _STEP)
        drawn = steps * _STEP
        seed = self.person.look.seed + sum(name.encode())
        sprite = self._sprite(
            (name, steps), lambda: sprites.capsule(drawn, *radii, self.scale, rng=np.random.default_rng(seed), **look)
        )
        axis = delta / max(float(np.hypot(*delta)), 1e-6) if length > 1e-6 else np.array((1.0, 0.0))
        stretch = (length + sum(radii)) / (drawn + sum(radii))
        along, across = axis * stretch, np.array((-axis[1], axis[0]))
        anchor = np.array((sprites.PAD + radii[0] * self.scale, sprite.shape[0] / 2))
        origin = start[:2] - along * anchor[0] - across * anchor[1]
        # keep the far joint exact: the near cap takes the rounding
        depth = float(start[2] + end[2]) / (2 * self.scale) + nearer
        return _Part(depth, sprite, np.column_stack((along, across, origin)), True)

    def _centred(self, sprite: sprites.Sprite, centre: Vector, right: Vector, down: Vector, person: bool) -> _Part:
        """Place a sprite by its centre; `right` and `down` are what one sprite pixel becomes, in frame pixels."""
        half = np.array((sprite.shape[1] / 2, sprite.shape[0] / 2))
        axes = np.column_stack((right[:2], down[:2]))
        matrix = np.column_stack((axes, centre[:2] - axes @ half))
        return _Part(float(centre[2]) / self.scale, sprite, matrix, person)

    def _legs(self, body: Skeleton, look: Appearance) -> list[_Part]:
        parts = []
        for side in (0, 1):
            hip, knee, ankle = body.hips[side], body.knees[side], body.ankles[side]
            parts.append(self._limb(f"thigh{side}", hip, knee, (0.060, 0.044), colour=look.trousers))
            parts.append(self._limb(f"shin{side}", knee, ankle, (0.043, 0.030), colour=look.trousers))
            parts.append(
                self._limb(
                    f"foot{side}", ankle, body.toes[side], (0.031, 0.026), 0.004, colour=_SHOE, cuff=(208, 208, 210)
                )
            )
        return parts

    def _facing(self, axes: Vector) -> tuple[float, float, float]:
        """Return (roll, yaw, pitch) on screen of a part with the given axes in the body frame."""
        turned = self._view @ axes
        up, front = -turned[:, 1], turned[:, 2]
        roll = math.atan2(up[0], -up[1])
        up, front = roll_matrix(-roll) @ up, roll_matrix(-roll) @ front
        pitch = math.atan2(up[2], -up[1])
        return roll, math.atan2(front[0], math.sin(pitch) * front[1] + math.cos(pitch) * front[2]), pitch

    def _trunk(self, body: Skeleton, look: Appearance, pose: Pose) -> list[_Part]:
        roll, yaw, pitch = self._facing(body.chest_axes)
        turn = round(yaw / _TURN)
        torso = self._sprite(("torso", turn), lambda: sprites.torso(look, turn * _TURN, self.scale))
        flat = roll_matrix(roll)
        # a trunk seen from its end is as long as it is deep
        shorter = math.hypot(math.cos(pitch), 0.45 * math.sin(pitch))
        middle = 0.5 * (1.0 + sprites.TORSO_BOTTOM - sprites.TORSO_TOP)
        centre = self._place(body.neck + (body.pelvis - body.neck) * middle)
        parts = [self._centred(torso, centre, flat[:, 0], flat[:, 1] * shorter, True)]
        head_axes = body.chest_axes @ yaw_matrix(pose.head_yaw) @ pitch_matrix(pose.head_pitch)
        roll, yaw, pitch = self._facing(head_axes)
        flat = roll_matrix(roll)
        state = (round(yaw / _TURN), round(pitch / _TURN), round(pose.mouth * 2), pose.eyes_closed)
        head = self._sprite(
            ("head", *state),
            lambda: sprites.head(look, state[0] * _TURN, state[1] * _TURN, state[2] / 2, state[3], self.scale),
        )
        place = self._place(body.head)
        face = self._centred(head, place, flat[:, 0], flat[:, 1], True)
        face.depth += 0.02
        parts.append(face)
        if look.hair_style in ("long", "bun"):
            loose = self._centred(
                self._sprite(("hair",), lambda: sprites.loose_hair(look, self.scale)),
                place,
                flat[:, 0],
                flat[:, 1],
                True,
            )
            loose.depth = min(face.depth, parts[0].depth) - 0.03
            parts.append(loose)
        if pose.sleeping_bag:
            top, bottom = body.neck * 0.10, 0.5 * (body.ankles[0] + body.ankles[1])
            parts.append(self._limb("bag", top, bottom, (0.128, 0.095), 0.12, colour=_SLEEPING_BAG, cloth=1.8))
        return parts

    def _arms(self, body: Skeleton, look: Appearance, pose: Pose) -> list[_Part]:
        parts = []
        shirt, skin = look.shirt_colour, look.skin
        for side in (0, 1):
            shoulder, elbow, wrist = body.shoulders[side], body.elbows[side], body.wrists[side]
            parts.append(self._limb(f"upper{side}", shoulder, elbow, (0.042, 0.033), 0.012, colour=shirt))
            lower = self._limb(
                f"lower{side}",
                elbow,
                wrist,
                (0.033, 0.024) if look.long_sleeves else (0.031, 0.021),
                0.016,
                colour=shirt if look.long_sleeves else skin,
                cloth=1.0 if look.long_sleeves else 0.25,
            )
            parts.append(lower)
            start, end = self._place(elbow), self._place(wrist)
            axis = (end - start)[:2] / self.scale / 0.15
            size = float(np.hypot(*axis))
            axis = axis / max(size, 1e-6) if size > 0.05 else np.array((0.0, 1.0))
            size = max(min(size, 1.0), 0.62)
            grip = pose.grips[side]
            sprite = self._sprite(("hand", grip), lambda grip=grip: sprites.hand(look, grip, self.scale))
            thumb = 1.0 if side else -1.0  # thumbs point to the body's middle line
            along, across = axis * size, np.array((-axis[1], axis[0])) * thumb
            anchor = np.array((sprites.PAD + 0.08 * sprites.HAND_SIZE * self.scale, sprite.shape[0] / 2))
            origin = end[:2] - along * anchor[0] - across * anchor[1]
            depth = float(end[2]) / self.scale + 0.022
            parts.append(_Part(depth, sprite, np.column_stack((along, across, origin)), True))
        return parts

    def _props(self, body: Skeleton, pose: Pose) -> list[_Part]:
        parts = []
        for prop in pose.props:
            sprite = _prop_sprite(prop.kind)
            right = self._view @ body.chest_axes @ prop.right * self.scale / sprite.shape[1]
            down = self._view @ body.chest_axes @ prop.down * self.scale / sprite.shape[0]
            part = self._centred(sprite, self._place(body.from_chest(prop.centre)), right, down, False)
            part.depth += 0.02
            parts.append(part)
        return parts
