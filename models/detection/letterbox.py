"""From a frame to a detector's input and back: scaled into a square, padded with grey to multiples of the stride."""

from __future__ import annotations

import numpy as np

from microg.models.detection.ultralytics_model import STRIDE


def letterbox(frame: np.ndarray, image_size: int) -> np.ndarray:
    """Scale an (H, W, 3) uint8 BGR frame into `image_size` and pad it with grey to multiples of the stride."""
    import cv2

    height, width = frame.shape[:2]
    ratio = min(image_size / height, image_size / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (width, height) != (new_width, new_height):
        frame = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    pad_x, pad_y = (image_size - new_width) % STRIDE / 2, (image_size - new_height) % STRIDE / 2
    top, bottom = round(pad_y - 0.1), round(pad_y + 0.1)
    left, right = round(pad_x - 0.1), round(pad_x + 0.1)
    return cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def to_frame(boxes: np.ndarray, input_shape: tuple[int, ...], frame_shape: tuple[int, ...]) -> np.ndarray:
    """Map (N, 4) boxes from letterboxed input pixels to the frame, clipped to it; shapes are (height, width)."""
    from ultralytics.utils import ops

    return ops.scale_boxes(input_shape, boxes.copy(), frame_shape)  # type: ignore[arg-type, return-value]
