"""Small geometry of the articulated body: rotations, two-bone inverse kinematics, easing.

Axes of every body frame: x to the image's right when the person faces the camera upright, y down, z from the body
towards its front (towards the camera when facing it). Angles are radians; positive roll turns clockwise on screen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def vector(x: float, y: float, z: float) -> Vector:
    """Return a float64 vector of shape (3,)."""
    return np.array((x, y, z), dtype=np.float64)


def yaw_matrix(angle: float) -> Vector:
    """Return the (3, 3) rotation that turns the front (0, 0, 1) to (sin, 0, cos)."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)))


def pitch_matrix(angle: float) -> Vector:
    """Return the (3, 3) rotation that turns the front (0, 0, 1) downwards to (0, sin, cos)."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((1.0, 0.0, 0.0), (0.0, c, s), (0.0, -s, c)))


def roll_matrix(angle: float) -> Vector:
    """Return the (3, 3) rotation in the image plane, clockwise on screen for positive angles."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))


def two_bone_joint(root: Vector, target: Vector, upper: float, lower: float, hint: Vector) -> tuple[Vector, Vector]:
    """Solve a two-bone limb: return (middle joint, end) for bones of length `upper` and `lower`.

    The end is `target`, pulled into reach where it lies too far or too near; the middle joint bends towards `hint`.
    """
    offset = target - root
    distance = float(np.linalg.norm(offset))
    if distance < 1e-9:
        offset, distance = vector(0.0, 1e-6, 0.0), 1e-6
    direction = offset / distance
    distance = min(max(distance, abs(upper - lower) + 1e-3), upper + lower - 1e-3)
    along = (upper**2 - lower**2 + distance**2) / (2.0 * distance)
    side = hint - direction * float(hint @ direction)
    norm = float(np.linalg.norm(side))
    if norm < 1e-6:  # the hint lies along the limb: any perpendicular does
        side = vector(direction[1], -direction[0], 0.0) + vector(0.0, 0.0, 1e-3)
        side -= direction * float(side @ direction)
        norm = float(np.linalg.norm(side))
    height = math.sqrt(max(upper**2 - along**2, 0.0))
    return root + direction * along + side / norm * height, root + direction * distance


def smoothstep(value: float) -> float:
    """Ease from 0 to 1, clamped.

    >>> smoothstep(0.5)
    0.5
    """
    value = min(max(value, 0.0), 1.0)
    return value * value * (3.0 - 2.0 * value)


def along_keys(phase: float, keys: list[tuple[float, Vector]]) -> Vector:
    """Interpolate a closed path of (phase in [0, 1), point) keys with easing between neighbours."""
    phase %= 1.0
    for index, (start, point) in enumerate(keys):
        end, following = keys[(index + 1) % len(keys)]
        end = end if index + 1 < len(keys) else 1.0 + end
        if start <= phase < end:
            return point + (following - point) * smoothstep((phase - start) / (end - start))
    start, point = keys[-1]
    span = 1.0 - start + keys[0][0]
    return point + (keys[0][1] - point) * smoothstep((phase + 1.0 - start) / span)
