"""One backbone on raw arrays: checked input, bounded memory, plain float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from microg.errors import FormatError
from microg.models.har.backbones.roi_head import BoxClassifier


def check_arrays(clips: np.ndarray, boxes: np.ndarray) -> None:
    """Raise `FormatError` unless clips (N, 3, T, H, W) are floats and boxes (M, 5) finite rows of clips 0..N-1."""
    if clips.ndim != 5 or clips.shape[1] != 3:
        raise FormatError(f"clips have shape {clips.shape}", "they must be (clips, 3, frames, height, width)")
    if clips.dtype.kind != "f":
        raise FormatError(
            f"clips are {clips.dtype}, not normalised float32", "convert: (clips / 255 - 0.45) / 0.225 as float32"
        )
    if 0 in clips.shape[1:]:
        raise FormatError(f"clips of shape {clips.shape} hold no pixels")
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise FormatError(f"boxes have shape {boxes.shape}", "they must be (boxes, 5): batch index, x1, y1, x2, y2")
    if boxes.dtype.kind not in "fiu":
        raise FormatError(f"boxes are {boxes.dtype}, not numbers")
    if not np.isfinite(boxes).all():
        raise FormatError(f"box {int(np.argmin(np.isfinite(boxes).all(axis=1)))} holds NaN or infinity")
    index = boxes[:, 0]
    wrong = (index != np.floor(index)) | (index < 0) | (index >= len(clips))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FormatError(
            f"box {row} belongs to clip {index[row]:g}, and there are {len(clips)} clips",
            "the first column of boxes is the clip's index, counted from 0",
        )


def forward_arrays(
    model: BoxClassifier,
    clips: np.ndarray,
    boxes: np.ndarray,
    *,
    device: str,
    batch_size: int = 2,
    progress: Callable[[int], object] = lambda clips: None,
) -> np.ndarray:
    """Return logits (M, classes) float32 of boxes (M, 5), in their order, in evaluation mode and full precision.

    `clips` (N, 3, T, H, W) may be a memory map: `batch_size` clips are read at a time; clips without boxes are not.
    `progress` is called with the number of clips just done. Raises `FormatError`.
    """
    check_arrays(clips, boxes)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = model.to(device).eval()
    logits = np.zeros((len(boxes), model.num_classes), np.float32)
    with torch.inference_mode():
        for chosen, rows in _batches(boxes, batch_size):
            pixels = torch.from_numpy(np.ascontiguousarray(clips[chosen], dtype=np.float32))
            local = np.asarray(boxes[rows], np.float32).copy()
            local[:, 0] = np.searchsorted(chosen, boxes[rows, 0])
            try:
                result = model(pixels.to(device), torch.from_numpy(local).to(device))
            except (ValueError, RuntimeError) as error:
                raise _too_small(clips.shape, model, error) from error
            logits[rows] = result.cpu().numpy()
            progress(len(chosen))
    return logits


def _batches(boxes: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the clips of a batch (sorted) and the rows of their boxes."""
    used = np.unique(boxes[:, 0]).astype(np.int64)
    for start in range(0, len(used), size):
        chosen = used[start : start + size]
        yield chosen, np.flatnonzero(np.isin(boxes[:, 0], chosen))


def _too_small(shape: tuple[int, ...], model: BoxClassifier, error: Exception) -> FormatError:
    spec = model.spec
    return FormatError(
        f"{spec.name} cannot run on clips of shape {shape}: {str(error).splitlines()[0]}",
        f"it was made for {spec.frames} frames with a short side of {spec.test_short_side} pixels",
    )
