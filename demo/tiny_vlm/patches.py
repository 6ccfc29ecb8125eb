"""Frames as a Qwen-VL processor sees them: resized once and kept small, turned into patches whenever they are needed.

A processor resizes, normalises and cuts into patches on each call. Training shows the same clip many times, a little
moved each time: the resized frames are kept as bytes, and the rest is done here, to the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from microg.models.vlm.base import Frames
from microg.models.vlm.engines.checkpoint import frames_for_processor


@dataclass(frozen=True)
class PatchRule:
    """How a processor normalises pixels and cuts patches: sides in pixels, frames a patch, and patches merged."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int
    frames: int
    merge: int

    @classmethod
    def of(cls, processor: Any) -> PatchRule:
        """Read the rule of a processor's video part."""
        video = processor.video_processor
        return cls(
            tuple(video.image_mean),
            tuple(video.image_std),
            video.patch_size,
            video.temporal_patch_size,
            video.merge_size,
        )

    def grid(self, frames: np.ndarray) -> tuple[int, int, int]:
        """Return the number of patches in time, height and width of frames (t, h, w, 3)."""
        count, height, width = frames.shape[:3]
        return count // self.frames, height // self.patch, width // self.patch

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """Return the normalised patches (n, 3 * frames * patch * patch) float32 of uint8 frames (t, h, w, 3)."""
        time, high, wide = self.grid(frames)
        scale = np.float32(1 / 255) / np.array(self.std, np.float32)
        shift = np.array(self.mean, np.float32) / np.array(self.std, np.float32)
        merged = (
            time,
            self.frames,
            high // self.merge,
            self.merge,
            self.patch,
            wide // self.merge,
            self.merge,
            self.patch,
            3,
        )
        cut = frames.reshape(merged).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # as bytes: a quarter of the memory to move
        values = np.ascontiguousarray(cut).reshape(time * high * wide, -1).astype(np.float32)
        of_channel = self.frames * self.patch**2
        values *= np.repeat(scale, of_channel)
        values -= np.repeat(shift, of_channel)
        return values

    def join(self, patches: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
        """Return the uint8 frames (t, h, w, 3) that patches were cut from."""
        time, high, wide = grid
        cut = (
            time,
            high // self.merge,
            wide // self.merge,
            self.merge,
            self.merge,
            3,
            self.frames,
            self.patch,
            self.patch,
        )
        frames = patches.reshape(cut).transpose(0, 6, 1, 3, 7, 2, 4, 8, 5)
        frames = frames.reshape(time * self.frames, high * self.patch, wide * self.patch, 3)
        return ((frames * np.array(self.std) + np.array(self.mean)) * 255).round().clip(0, 255).astype(np.uint8)


def resize_frames(processor: Any, frames: Frames) -> tuple[np.ndarray, float]:
    """Return frames at the size that `processor` gives them, (t, h, w, 3) uint8, and the seconds between two pairs.

    An odd number of frames becomes even as in the processor, by its last frame again.
    """
    shown = frames_for_processor([frames], "video")
    video = processor.video_processor(
        shown["videos"],
        video_metadata=shown["video_metadata"],
        do_sample_frames=False,
        return_tensors="np",
        input_data_format="channels_last",
        return_metadata=True,
    )
    rule = PatchRule.of(processor)
    found = rule.join(np.asarray(video["pixel_values_videos"]), tuple(map(int, video["video_grid_thw"][0])))  # pyright: ignore[reportArgumentType]
    return found, rule.frames / video["video_metadata"][0].sampled_fps


@dataclass(frozen=True)
class Move:
    """A small change of view: mirrored or not, then scaled about the centre, then shifted by parts of a side."""

    mirror: bool = False
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0

    @classmethod
    def draw(cls, chance: np.random.Generator, mirror: bool, amount: float) -> Move:
        """Draw one: mirrored half of the time where that is allowed, moved and scaled by up to `amount`."""
        zoom, right, down = 1 + amount * chance.uniform(-1, 1), *(amount * chance.uniform(-1, 1, 2))
        return cls(mirror and bool(chance.random() < 0.5), float(zoom), float(right), float(down))

    def frames(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (t, h, w, 3) uint8 seen so, edges reflected."""
        height, width = frames.shape[1:3]
        sign = -self.zoom if self.mirror else self.zoom
        matrix = np.array(
            [
                [sign, 0, (width - 1) / 2 * (1 - sign) + self.right * width],
                [0, self.zoom, (height - 1) / 2 * (1 - self.zoom) + self.down * height],
            ]
        )
        moved = [cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101) for frame in frames]
        return np.stack(moved)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (..., 4), corners as parts of the frame's sides, seen so."""
        left, top, right, bottom = np.moveaxis(boxes, -1, 0)
        if self.mirror:
            left, right = 1 - right, 1 - left
        across, along = (
            0.5 + (np.stack((left, right)) - 0.5) * self.zoom + self.right,
            0.5 + (np.stack((top, bottom)) - 0.5) * self.zoom + self.down,
        )
        return np.stack((across[0], along[0], across[1], along[1]), -1)


def covered_cells(boxes: np.ndarray, rows: int, columns: int, least: float = 0.3) -> np.ndarray:
    """Return which cells of a grid over a frame each box covers by `least` of the cell: (t, p, rows, columns) bool.

    boxes (t, p, 4): of people, corners as parts of the frame's sides, nan where somebody is not there.
    """
    across, along = np.arange(columns + 1) / columns, np.arange(rows + 1) / rows
    wide = np.minimum(boxes[..., 2, None], across[1:]) - np.maximum(boxes[..., 0, None], across[:-1])
    high = np.minimum(boxes[..., 3, None], along[1:]) - np.maximum(boxes[..., 1, None], along[:-1])
    return np.clip(high, 0, None)[..., :, None] * np.clip(wide, 0, None)[..., None, :] * rows * columns >= least


def cell_labels(covered: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what is in each cell, (t, rows, columns, 1 + actions) float32.

    covered (t, p, rows, columns) bool: by whom; labels (p, actions) bool: what they do. The first value of a cell says
    whether somebody is there, the others which actions those people do.
    """
    with_presence = np.concatenate([np.ones((len(labels), 1), bool), labels.astype(bool)], 1)
    return np.logical_or.reduce(covered[..., None] & with_presence[None, :, None, None, :], axis=1).astype(np.float32)
