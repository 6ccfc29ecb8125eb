"""What a GPU gains from this code: each part beside a plain PyTorch (or vLLM) loop of the same model, in one run.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --small                 # on a CPU, in two minutes: that it works, not how fast

Needs torch, NumPy, pydantic and PyYAML. Parts whose packages or weights are missing say so and are left out: detection
needs ultralytics and a checkpoint (`--detector yolo11n.pt`), answers need vLLM and transformers. The ratio is what
counts: ours over plain, 1 or more where our code costs nothing. Ends within `--limit-s` (480) seconds: a measurement
that would begin later is left out and named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.models.har.backbones.registry import backbone, build
from microg.models.har.backbones.roi_head import normalise
from microg.models.har.training.batch_norm import RunningStatistics
from microg.models.har.training.optimizers import build_optimizer
from microg.models.har.training.settings import OptimizerSettings, StepSettings
from microg.models.har.training.step import Stepper

BACKBONES = ("C2D_8x8_R50", "I3D_8x8_R50", "SLOWONLY_8x8_R50", "SLOWFAST_8x8_R50", "MVITv2_S_16x4", "X3D_S")
# Name, numbers of matrix products, channels last, compiled.
VARIANTS = (
    ("float32", "float32", False, False),
    ("bfloat16", "bfloat16", False, False),
    ("bfloat16, channels last", "bfloat16", True, False),
    ("bfloat16, compiled", "bfloat16", False, True),
)
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        part: train, infer, detect or answer.
        model: What was run.
        variant: How.
        ours: Rate of our code, in `unit` a second; None where it failed.
        plain: Rate of the plain loop.
        unit: What is counted.
        memory_gb: Peak memory of our code on the GPU.
        note: Why there is no number.
    """

    part: str
    model: str
    variant: str
    unit: str
    ours: float | None = None
    plain: float | None = None
    memory_gb: float | None = None
    note: str = ""

    def text(self) -> str:
        """Return a line of the table."""
        if self.ours is None or self.plain is None:
            return f"{self.part:7} {self.model:18} {self.variant:24} {self.note}"
        memory = "" if self.memory_gb is None else f"{self.memory_gb:7.2f} GB"
        rates = f"{self.ours:9.2f} {self.plain:9.2f} {self.unit}/s   ratio {self.ours / self.plain:5.2f}"
        return f"{self.part:7} {self.model:18} {self.variant:24} {rates} {memory}"


def rate(call: Callable[[], int], seconds: float, warm: int = 2) -> float:
    """Return what `call` does a second: it returns how many it did. The first `warm` calls do not count."""
    for _ in range(warm):
        call()
    synchronise()
    done, started = 0, time.perf_counter()
    while True:
        done += call()
        if time.perf_counter() - started > seconds:
            synchronise()
            return done / (time.perf_counter() - started)


def synchronise() -> None:
    """Wait for the GPU."""
    if CUDA:
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], float]) -> tuple[float, float | None]:
    """Return what `call` returns, and the GPU memory in GB that it took at most."""
    if not CUDA:
        return call(), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return call(), torch.cuda.max_memory_allocated() / 1e9


def clips_of(name: str, batch: int, small: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return clips (N, 3, T, S, S) uint8 as our samples hold them, one box a clip, and labels."""
    spec = backbone(name)
    side = 64 if small else spec.train_crop
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (batch, spec.frames, side, side, 3), dtype=torch.uint8, generator=generator)
    clips = clips.permute(0, 4, 1, 2, 3)
    boxes = torch.tensor([[number, 4.0, 4.0, side - 4.0, side - 4.0] for number in range(batch)])
    labels = (torch.rand(batch, spec.num_classes, generator=generator) < 0.1).float()
    return (clips.pin_memory(), boxes.pin_memory(), labels.pin_memory()) if CUDA else (clips, boxes, labels)


def model_of(name: str, channels_last: bool) -> nn.Module:
    """Return a model with the same random weights each time."""
    torch.manual_seed(0)
    model: Any = build(name).to(DEVICE)
    return model.to(memory_format=torch.channels_last_3d) if channels_last else model


def training(name: str, variant: tuple[str, Any, bool, bool], batch: int, seconds: float, small: bool) -> Row:
    """Compare training steps: ours as `har train` takes them, and the loop that PyTorch's tutorials show."""
    title, precision, channels_last, compiled = variant
    clips, boxes, labels = clips_of(name, batch, small)
    kind = {"float32": None, "bfloat16": torch.bfloat16}[precision]
    keys = [f"clip_{number}" for number in range(batch)]

    def ours() -> float:
        model: Any = model_of(name, channels_last).train()
        settings = OptimizerSettings()
        optimizer = build_optimizer(model, settings, 1e-4)
        statistics = RunningStatistics(model)
        wrapped: Any = torch.compile(model, dynamic=True) if compiled else model
        step = StepSettings(precision=precision, channels_last=channels_last, compile=compiled)
        stepper = Stepper(wrapped, optimizer, step, settings, DEVICE)

        def call() -> int:
            statistics.begin_step()
            there = normalise(clips.to(DEVICE, non_blocking=True))
            if channels_last:
                there = there.contiguous(memory_format=torch.channels_last_3d)
            places = boxes.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
            stepper.forward_backward(there, *places, keys, share=1.0, last=True)
            statistics.take_micro_batch(0)
            stepper.step()
            statistics.end_step([statistics.rows()])
            return batch

        return rate(call, seconds)

    def plain() -> float:
        model: Any = model_of(name, channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4)
        wrapped: Any = torch.compile(model, dynamic=True) if compiled else model
        criterion = nn.BCEWithLogitsLoss()

        def call() -> int:
            inputs = ((clips.float() / 255 - 0.45) / 0.225).to(DEVICE)
            if channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, kind, enabled=kind is not None):
                loss = criterion(wrapped(inputs, boxes.to(DEVICE)).float(), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            loss.item()
            return batch

        return rate(call, seconds)

    mine, memory = peak_memory(ours)
    return Row("train", name, title, "clips", mine, plain(), memory)


def inference(name: str, variant: tuple[str, Any, bool, bool], batch: int, seconds: float, small: bool) -> Row:
    """Compare passes without gradients: ours as `har predict` makes them, and the plain loop."""
    title, precision, channels_last, compiled = variant
    clips, boxes, _ = clips_of(name, batch, small)
    kind = {"float32": None, "bfloat16": torch.bfloat16}[precision]
    model: Any = model_of(name, channels_last).eval()
    wrapped: Any = torch.compile(model, dynamic=True) if compiled else model

    def forward(inputs: torch.Tensor, places: torch.Tensor) -> np.ndarray:
        if channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(DEVICE.type, kind, enabled=kind is not None):
            return wrapped(inputs, places).float().cpu().numpy()

    def ours() -> int:
        return len(forward(normalise(clips.to(DEVICE, non_blocking=True)), boxes.to(DEVICE, non_blocking=True)))

    def plain() -> int:
        return len(forward(((clips.float() / 255 - 0.45) / 0.225).to(DEVICE), boxes.to(DEVICE)))

    mine, memory = peak_memory(lambda: rate(ours, seconds))
    return Row("infer", name, title, "clips", mine, rate(plain, seconds), memory)


def detection(weights: str | None, seconds: float, small: bool) -> Row:
    """Compare frames a second of our detector in torch with one `ultralytics` predicts with, frame by frame."""
    name = Path(weights).name if weights else "detector"
    try:
        from ultralytics.models import YOLO

        from microg.models.detection.base import DetectorSettings
        from microg.models.detection.load import make_engine
        from microg.models.detection.yolo import YoloDetector
    except ImportError as error:
        return Row("detect", name, "float32", "frames", note=f"left out: {error}")
    if weights is None or not Path(weights).is_file():
        return Row("detect", name, "float32", "frames", note="left out: no checkpoint, give --detector FILE.pt")
    shape = (90, 120, 160, 3) if small else (90, 480, 854, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    settings = DetectorSettings(weights=weights, backend="torch", device=DEVICE.type, batch_size=32)
    ours = YoloDetector(settings, make_engine(settings, Path(weights)))
    plain: Any = YOLO(weights)

    def predict() -> int:
        return sum(len(plain.predict(frame, verbose=False, device=DEVICE.type)) for frame in frames[:30])

    mine, memory = peak_memory(lambda: rate(lambda: len(ours.detect(list(frames))), seconds, warm=1))
    return Row("detect", name, "float32", "frames", mine, rate(predict, seconds, warm=1), memory)


def answers(small: bool) -> Row:
    """Compare answers a second of our vLLM engine with vLLM alone on the same prompts, a Qwen2.5-VL of random weights
    (3 billion parameters, or a tiny one with `small`).
    """
    row = Row("answer", "Qwen2.5-VL", "tiny" if small else "3B", "rows")
    try:
        import vllm  # noqa: F401

        from microg.demo.tiny_models import build as build_vlm
        from microg.models.vlm.base import Frames, Request, Sampling
        from microg.models.vlm.engines.vllm import VllmEngine
    except ImportError as error:
        return Row("answer", row.model, row.variant, row.unit, note=f"left out: {error}")
    large = {"hidden": 2048, "layers": 36, "heads": 16, "vision_hidden": 1280, "vision_layers": 32, "vision_heads": 16}
    count, side, tokens = (8, 56, 8) if small else (256, 448, 64)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="microg-gpu-") as folder:
        changes: dict[str, Any] = {} if small else {**large, "side": side}
        model = build_vlm("qwen2_5_vl", folder, **changes)
        engine = VllmEngine(str(model), context=2048 if small else 8192)
        llm = engine.load()._running()  # idle while it is asked without us

        def requests() -> list[Request]:  # new pixels each time: vLLM would remember those of before
            made = []
            for number in range(count):
                pixels = generator.integers(0, 256, (9, side, side, 3), np.uint8)
                frames = Frames(pixels=pixels, indices=tuple(range(0, 90, 10)), fps=30.0, num_frames=90)
                made.append(Request(f"{number}", f"What does person {number} do?", frames=frames))
            return made

        sampling = Sampling(max_tokens=tokens)

        def ours() -> int:
            return sum(1 for _ in engine.generate(requests(), sampling))

        def alone() -> int:
            prompts: Any = [engine._prompt(request) for request in requests()]
            return len(llm.generate(prompts, engine._parameters(sampling), use_tqdm=False))

        mine, memory = peak_memory(lambda: rate(ours, 0, warm=1))
        found = Row("answer", row.model, row.variant, "rows", mine, rate(alone, 0, warm=1), memory)
        engine.close()
        return found


def measurements(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield what is measured by its name, in the order of what one would want to know first."""
    small, seconds = arguments.small, 0.2 if arguments.small else 2.0
    batch = 2 if small else 8
    names = BACKBONES[-1:] if small else BACKBONES
    for variant in VARIANTS[: 2 if small else None]:
        for name in names:
            yield f"train {name} {variant[0]}", lambda n=name, v=variant: training(n, v, batch, seconds, small)
            yield f"infer {name} {variant[0]}", lambda n=name, v=variant: inference(n, v, batch, seconds, small)
        if variant is VARIANTS[1]:
            yield "detect", lambda: detection(arguments.detector, seconds, small)
            yield "answer", lambda: answers(small)


def main() -> None:
    """Measure, print the table as it grows, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="File to write.")
    parser.add_argument("--small", action="store_true", help="One small backbone and few frames, for a CPU.")
    parser.add_argument("--detector", help="Detection checkpoint of ultralytics.")
    parser.add_argument("--limit-s", type=float, default=480.0, help="Seconds after which nothing more begins.")
    arguments = parser.parse_args()
    started, rows = time.monotonic(), []
    name = torch.cuda.get_device_name() if CUDA else "CPU"
    print(f"{name}, torch {torch.__version__}; rates: ours, plain")
    for title, measure in measurements(arguments):
        if time.monotonic() - started > arguments.limit_s:
            print(f"left out, as the time was up: {title}")
            continue
        try:
            row = measure()
        except Exception as error:  # out of memory, or what this machine lacks: the others still count
            part, _, model = title.partition(" ")
            row = Row(part, model, "", "", note=f"failed: {type(error).__name__}: {str(error)[:200]}")
        rows.append(row)
        print(row.text(), flush=True)
        if arguments.json:  # after each: a run that is ended keeps what it has
            document = {"device": name, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
            Path(arguments.json).write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
