"""From a clip to the frames a model is shown: one decode serves every policy and every question.

Only the frames that some policy wants are converted to pixels, and decoding stops after the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from microg.errors import VideoError
from microg.models.video.decoders.registry import open_decoder
from microg.models.vlm.base import Frames
from microg.models.vlm.sampling import FramePolicy, Resize
from microg.video import decode_frames_at


def sample_frames(
    uri: str, policies: Sequence[FramePolicy], *, key_frame: int | None = None, decoder: str = "auto"
) -> list[Frames]:
    """Decode a clip once; return for each policy its frames, upright RGB, in the order the policy gives them.

    `key_frame` counts from 1, as in the dataset's tables. The number of frames is counted in the file, not taken from
    its header. Raises `VideoError` when the clip is damaged, holds no frames, or a policy refuses it.
    """
    header, _ = decode_frames_at(uri, (), lambda frame: None)
    counted, _ = decode_frames_at(uri, (), lambda frame: None, count=True)
    for num_frames in (counted.num_frames, None):
        if num_frames is None:  # fewer frames come out than are stored: count those
            num_frames = len(decode_frames_at(uri, range(counted.num_frames), lambda frame: True)[1])
        indices = [_indices(policy, num_frames, counted.fps, key_frame) for policy in policies]
        wanted = {index for listed in indices for index in listed}
        pixels = open_decoder(decoder).frames_at(uri, sorted(wanted))
        if header.num_frames > counted.num_frames:
            name = uri.rsplit("/", 1)[-1]
            raise VideoError(f"{name} is damaged: it holds {counted.num_frames} of {header.num_frames} frames")
        if wanted <= pixels.keys():
            return [
                Frames(_stacked(pixels, listed, policy.resize), tuple(listed), counted.fps, num_frames)
                for policy, listed in zip(policies, indices, strict=True)
            ]
    raise VideoError(f"{uri.rsplit('/', 1)[-1]} is damaged: frames that were there once cannot be decoded again")


def _indices(policy: FramePolicy, num_frames: int, fps: float, key_frame: int | None) -> list[int]:
    if num_frames == 0:
        raise VideoError("the clip has no frame that can be decoded")
    return policy.indices(num_frames, fps, None if key_frame is None else key_frame - 1)


def _stacked(pixels: dict[int, np.ndarray], indices: Sequence[int], resize: Resize | None) -> np.ndarray:
    if resize is None:
        return np.stack([pixels[index] for index in indices])
    resized = {index: _resized(pixels[index], resize) for index in set(indices)}
    return np.stack([resized[index] for index in indices])


def _resized(frame: np.ndarray, resize: Resize) -> np.ndarray:
    height, width = frame.shape[:2]
    target = resize.target(width, height)
    if target == (width, height):
        return frame
    smaller = target[0] <= width and target[1] <= height
    return cv2.resize(frame, target, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
