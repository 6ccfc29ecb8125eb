"""INT8 weights for the `fast` profile: static quantisation of the ONNX export, calibrated on the footage at hand.

INT8 gives other numbers than float32; `microg.models.detection.agreement` says by how much.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from microg import storage
from microg.errors import WeightsError
from microg.models.detection.base import DetectorSettings
from microg.models.detection.export import export_onnx
from microg.system.weights import cache_folder

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

    from microg.models.detection.letterbox import letterbox
    from microg.models.detection.network_backends import to_network_input

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
    if storage.is_local(settings.calibration):
        return storage.local_path(settings.calibration)
    content = storage.read_bytes(settings.calibration)
    local = cache_folder() / "onnx" / f"int8-{hashlib.sha256(content).hexdigest()[:16]}.onnx"
    if not local.is_file():
        storage.write_bytes(str(local), content)
    return local
