"""What a detector is: frames in, boxes with confidence and class out; and what all kinds of boxes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from pydantic import Field

from microg.config import Config

PERSON = 0
STRIDE = 32  # sides of a YOLO network's input are multiples of it
# Trackers use detections down to this confidence.
CONFIDENCE_FLOOR = 0.1

Backend = Literal["auto", "torch", "onnxruntime", "openvino"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """N boxes, and of each what the other fields say; `select` picks some.

    Attributes:
        boxes: (N, 4) (x1, y1, x2, y2) in pixels of the frame.
        confidence: (N,) float32.

    Raises:
        ValueError: Fields of another shape.
    """

    boxes: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            expected = (len(self.boxes), 4) if name == "boxes" else (len(self.boxes),)
            if values.shape != expected:
                raise ValueError(f"{name} of {type(self).__name__} must have shape {expected}, not {values.shape}")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: np.ndarray | slice) -> Self:
        """Return the boxes at `rows`: a mask, indices or a slice."""
        return type(self)(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections(Boxes):
    """Boxes (float32) of one frame, by descending confidence.

    Attributes:
        class_id: (N,) int32 of the detector's classes (0 is a person).
    """

    class_id: np.ndarray

    @classmethod
    def from_array(cls, rows: np.ndarray) -> Self:
        """Build from (N, 6) rows (x1, y1, x2, y2, confidence, class)."""
        rows = np.asarray(rows, dtype=np.float32).reshape(-1, 6)
        return cls(boxes=rows[:, :4].copy(), confidence=rows[:, 4].copy(), class_id=rows[:, 5].astype(np.int32))

    def to_array(self) -> np.ndarray:
        """Return (N, 6) float32 rows (x1, y1, x2, y2, confidence, class)."""
        return np.column_stack([self.boxes, self.confidence, self.class_id]).astype(np.float32).reshape(-1, 6)

    def persons(self, above: float) -> Self:
        """Return the person boxes with confidence > `above`."""
        return self.select((self.class_id == PERSON) & (self.confidence > above))


class Detector(Protocol):
    """Finds objects of all its classes, down to `CONFIDENCE_FLOOR`, in frames of one size."""

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        """Return the detections of each (H, W, 3) uint8 BGR frame."""
        ...


class DetectorSettings(Config):
    """Which detector finds people, and how it runs."""

    weights: str = Field(default="yolo11n.pt", description="Detector weights: a path, or a name that is searched for.")
    backend: Backend = Field(
        default="auto", description="What runs the detector; auto takes the fastest measured on this kind of machine."
    )
    image_size: int = Field(
        default=640, ge=64, le=4096, multiple_of=32, description="Longer side of the detector's input in pixels."
    )
    precision: Literal["float32", "int8"] = Field(
        default="float32", description="Numbers that the network computes with; int8 is faster and gives other boxes."
    )
    frame_step: int = Field(
        default=1, ge=1, le=15, description="The network sees every n-th frame; boxes between are interpolated."
    )
    rotations: Literal[1, 4] = Field(
        default=1,
        description="4 also looks at each frame turned by 90, 180 and 270 degrees, because plain detectors miss bodies "
        "that are not upright; it is 4 times the work.",
    )
    iou_threshold: float = Field(
        default=0.7, gt=0, le=1, description="IoU above which the weaker of two boxes is suppressed."
    )
    batch_size: int = Field(default=8, ge=1, description="Frames that the network sees at a time.")
    device: str = Field(default="auto", description="Device of the backend torch: auto, cpu or cuda.")
    calibration: str | None = Field(
        default=None, description="INT8 weights, which the command calibrates on the footage and fills in."
    )

    mixed: bool = Field(
        default=False, description="Let a dataset that is gone on with hold boxes of several backends and devices."
    )

    volatile = frozenset({"batch_size", "device", "mixed", "calibration"})

    @property
    def exact(self) -> bool:
        """Whether every frame is seen by the network as it was trained."""
        return self.frame_step == 1 and self.precision == "float32"


# Speed against exactness: settings by the name that `--detector-profile` knows them by.
PROFILES: dict[str, dict[str, Any]] = {
    "exact": {"frame_step": 1, "precision": "float32"},
    "balanced": {"frame_step": 3, "precision": "float32"},
    "fast": {"frame_step": 3, "precision": "int8"},
}
