"""How far a faster detector agrees with the exact one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microg.models.detection.base import Detections


def agreement(exact: Sequence[Detections], fast: Sequence[Detections], confidence: float = 0.6) -> dict[str, float]:
    """Compare two detectors' person boxes, frame by frame.

    Returns `frames`, `person_frame_agreement` (share of frames on whose containing a person above `confidence` both
    agree), `recall` (share of the exact boxes above it that the fast detector finds at IoU >= 0.5, at any
    confidence), and the means over these pairs of `iou`, `confidence_difference` and `corner_difference_px`. What has
    nothing to be a share or mean of is NaN.
    """
    pairs_iou, confidence_difference, corner_difference = [], [], []
    wanted = found = agree = 0
    for reference, candidate in zip(exact, fast, strict=True):
        strong = reference.persons(confidence)
        agree += (len(strong) > 0) == (len(candidate.persons(confidence)) > 0)
        wanted += len(strong)
        others = candidate.persons(0.0)
        if not len(strong) or not len(others):
            continue
        overlaps = iou_matrix(strong.boxes, others.boxes)
        best = overlaps.argmax(axis=1)
        for row in np.flatnonzero(overlaps.max(axis=1) >= 0.5):
            found += 1
            pairs_iou.append(float(overlaps[row, best[row]]))
            confidence_difference.append(abs(float(strong.confidence[row] - others.confidence[best[row]])))
            corner_difference.append(float(np.abs(strong.boxes[row] - others.boxes[best[row]]).mean()))
    return {
        "frames": len(exact),
        "person_frame_agreement": agree / len(exact) if exact else float("nan"),
        "recall": found / wanted if wanted else float("nan"),
        "iou": _mean(pairs_iou),
        "confidence_difference": _mean(confidence_difference),
        "corner_difference_px": _mean(corner_difference),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N, M) intersection over union of (N, 4) and (M, 4) corner boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return overlap / np.maximum(area_a[:, None] + area_b[None] - overlap, 1e-9)
