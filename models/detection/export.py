"""A detector's network as ONNX files: whole, cut so that boxes need not be worked out where nothing is, or in INT8."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from microg import storage
from microg.errors import WeightsError
from microg.models.detection.base import DetectorSettings
from microg.models.detection.ultralytics_model import load_model
from microg.system.weights import cache_folder
from microg.system.zoo import require_weights

# Raise when an export below changes, so that cached files are made anew.
_VERSION = 3
_OPSET = 19
_IMAGES = (1, 3, 384, 640)  # the example that is traced; height and width are free


@dataclass(frozen=True)
class SplitFiles:
    """trunk: images -> one feature map a level, then all class probabilities. branches: a level's features -> boxes."""

    trunk: Path
    branches: tuple[Path, ...]


def export_onnx(path: Path) -> Path:
    """Return an ONNX file of the checkpoint with free batch, height and width, made once and kept in the cache.

    Input `images` (B, 3, H, W) float32 RGB in 0..1; output `output0` (B, 4 + classes, anchors): cx, cy, w, h in
    input pixels, then class probabilities.
    """

    def write(folder: Path) -> None:
        model = load_model(path)
        head: Any = model.model[-1]  # type: ignore[index]
        head.export, head.format, head.dynamic = True, "onnx", True
        _export(model, torch.zeros(_IMAGES), folder / "model.onnx", "images", ("output0",))

    return _made_once(path, "whole", write) / "model.onnx"


def export_split(path: Path) -> SplitFiles | None:
    """Return the checkpoint as a trunk with the branch for classes, and the branches for boxes; made once as above.

    Trunk: input `images` as above; outputs the feature maps (1, C, h, w) of each level, then `scores` (1, classes,
    anchors). A branch: input `features` (1, C, h, w); output `distances` (1, 4, h * w) of left, top, right and bottom
    side from the centre of each cell, in cells. None when the head is not built as expected.
    """

    def write(folder: Path) -> None:
        model: Any = load_model(path)
        head = model.model[-1]
        if not _splits(head):
            return
        for level, convolutions in enumerate(head.cv2):
            example = torch.zeros(1, convolutions[0].conv.in_channels, 16, 16)
            branch = _Distances(convolutions, head.dfl)
            _export(branch, example, folder / f"boxes{level}.onnx", "features", ("distances",))
        model.model[-1] = _Scores(head)
        levels = (f"level{level}" for level in range(head.nl))
        _export(model, torch.zeros(_IMAGES), folder / "trunk.onnx", "images", (*levels, "scores"))

    folder = _made_once(path, "split", write)
    branches = tuple(sorted(folder.glob("boxes*.onnx")))
    return SplitFiles(folder / "trunk.onnx", branches) if branches else None


class _Scores(nn.Module):
    """A head without its branch for boxes: hands the features on."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.branches = head.cv3
        self.f, self.i, self.type = head.f, head.i, head.type  # where it stands in ultralytics' list of layers

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = [branch(level).flatten(2) for branch, level in zip(self.branches, features, strict=True)]
        return (*features, torch.cat(found, 2).sigmoid())


class _Distances(nn.Module):
    """The branch for boxes of one level."""

    def __init__(self, convolutions: nn.Module, expectation: nn.Module) -> None:
        super().__init__()
        self.convolutions, self.expectation = convolutions, expectation

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.expectation(self.convolutions(features).flatten(2))


def _splits(head: Any) -> bool:
    """Tell whether boxes of each level come from convolutions 3, 3 and 1 wide, which reach two cells far."""
    from ultralytics.nn.modules.head import Detect

    def shape(branch: nn.Module) -> list[tuple[Any, ...]]:
        found = [each for each in branch.modules() if isinstance(each, nn.Conv2d)]
        return [(each.kernel_size, each.stride, each.padding, each.dilation) for each in found]

    wide, narrow = ((3, 3), (1, 1), (1, 1), (1, 1)), ((1, 1), (1, 1), (0, 0), (1, 1))
    return type(head) is Detect and all(shape(branch) == [wide, wide, narrow] for branch in head.cv2)


def _made_once(path: Path, kind: str, write: Callable[[Path], None]) -> Path:
    """Return the cached folder of what `write` makes of a checkpoint; it is there whole or not at all."""
    target = cache_folder() / "onnx" / f"{path.stem}-{storage.sha256(path)[:16]}-v{_VERSION}-{kind}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as temporary:
            made = Path(temporary) / kind
            made.mkdir()
            write(made)
            try:
                made.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first
                    raise
    return target


def _export(model: nn.Module, example: torch.Tensor, target: Path, name: str, outputs: Sequence[str]) -> None:
    import onnx
    import onnxslim

    free = {name: {0: "batch", 2: "height", 3: "width"}}
    free |= {each: {0: "batch", 2: f"{each}_2", **({3: f"{each}_3"} if "level" in each else {})} for each in outputs}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            str(target),
            opset_version=_OPSET,
            dynamo=False,
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=free,
        )
    slimmed: Any = onnxslim.slim(str(target))
    onnx.save(slimmed, str(target))


# The head's box arithmetic and final concatenation stay in float32: one scale for pixels and probabilities would
# round all probabilities to zero.
_FLOAT_NODES = re.compile(r"/model\.\d+/(dfl|Concat|Sigmoid|Mul|Add|Sub|Div|Slice|Split|Reshape|Gather|Shape|Expand)")


def build_quantized(
    weights: Path, frames: Sequence[np.ndarray], image_size: int, target: str, *, backend: str = "onnxruntime"
) -> None:
    """Quantise `weights` with `frames` ((H, W, 3) uint8 BGR) as calibration data, and write the ONNX file `target`.

    For OpenVINO only convolutions are quantised: it fuses activation and rounding into them (23 ms a frame against 26
    with everything quantised). ONNX Runtime fuses less and is faster the other way round (26 against 35).

    Raises `WeightsError` without frames.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from microg.models.detection.network_backends import letterbox, to_network_input

    if not frames:
        raise WeightsError("cannot calibrate INT8 weights without frames", "give footage that can be decoded")

    class Frames(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(frames)

        def get_next(self) -> Any:
            frame = next(self._left, None)
            return None if frame is None else {"images": to_network_input(letterbox(frame, image_size)[None])}

    import onnx

    source = export_onnx(weights)
    with tempfile.TemporaryDirectory(prefix="microg-quantize-") as folder, _quiet_logging():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        last = f"/model.{_last_block(prepared)}/"
        excluded = [
            node.name
            for node in onnx.load(str(prepared)).graph.node
            if node.name.startswith(last) and _FLOAT_NODES.match(node.name)
        ]
        quantize_static(
            str(prepared),
            str(quantized),
            Frames(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_exclude=excluded,
            op_types_to_quantize=["Conv"] if backend == "openvino" else None,
        )
        storage.write_bytes(target, quantized.read_bytes())


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep ONNX Runtime's quantiser from writing its advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _last_block(model: Path) -> int:
    import onnx

    numbers = [re.match(r"/model\.(\d+)/", node.name) for node in onnx.load(str(model)).graph.node]
    return max(int(match[1]) for match in numbers if match)


def quantized_model(settings: DetectorSettings, weights: Path) -> Path:
    """Return the local file of the INT8 weights named by `settings.calibration`.

    Raises `WeightsError` when they were not built: quantised weights belong to the footage they were calibrated on.
    """
    if settings.calibration is None or not storage.exists(settings.calibration):
        raise WeightsError(
            f"INT8 weights for {weights.name} were not calibrated",
            "run 'microg curate --detector-profile fast', which does it",
        )
    return require_weights(settings.calibration)
