"""Speed of HAR backbones: clips a second at test size, plain and with each option, as ratios within one run.

    python benchmarks/har_forward.py --threads 2
    python benchmarks/har_forward.py --model X3D_S --model MVITv2_S_16x4 --variant channels_last --variant compile

One clip of the model's test size (16:9) with one box, evaluation mode, random weights. Variants of a model take turns,
so that what else the machine does hits all alike; the fastest pass of each counts, because noise only adds. The last
column is how far a variant's logits lie from the plain ones.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.errors import ConfigError
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.devices import resolve_device
from microg.models.har.backbones import backbone, build, names

PLAIN = "plain"
VARIANTS = ("channels_last", "bf16", "compile")
Call = Callable[[], Tensor]


def _variant(name: str, kind: str, clips: Tensor, boxes: Tensor) -> Call:
    """Return one forward pass of a model under a variant; every variant has the same weights."""
    torch.manual_seed(0)
    model: Any = build(name).to(clips.device).eval()
    torch.nn.init.normal_(model.detection_head.proj.weight)
    if kind == "channels_last":
        model = model.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    if kind == "compile":
        model = torch.compile(model)
    autocast = torch.autocast(clips.device.type, torch.bfloat16) if kind == "bf16" else contextlib.nullcontext()

    def call() -> Tensor:
        with torch.inference_mode(), autocast:
            result = model(clips, boxes)
        if clips.is_cuda:
            torch.cuda.synchronize()
        return result

    return call


def measure(name: str, kinds: list[str], device: str, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Time the variants of one model in turns; returns one row a variant."""
    spec = backbone(name)
    height, width = spec.test_short_side, spec.test_short_side * 16 // 9
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(batch, 3, spec.frames, height, width, generator=generator).to(device)
    corners = torch.tensor([width * 0.3, height * 0.2, width * 0.6, height * 0.9])
    boxes = torch.stack([torch.cat((torch.tensor([float(clip)]), corners)) for clip in range(batch)]).to(device)
    calls = {kind: _variant(name, kind, clips, boxes) for kind in (PLAIN, *kinds)}
    logits = {kind: call().float() for kind, call in calls.items()}  # also compiles and warms up
    times: dict[str, list[float]] = {kind: [] for kind in calls}
    for _ in range(repeats):
        for kind, call in calls.items():
            started = time.perf_counter()
            call()
            times[kind].append(time.perf_counter() - started)
    plain = min(times[PLAIN])
    return [
        {
            "model": spec.name,
            "input": f"{spec.frames}x{height}x{width}",
            "variant": kind,
            "clips_per_s": batch / min(values),
            "speedup": plain / min(values),
            "max_logit_difference": float((logits[kind] - logits[PLAIN]).abs().max()),
        }
        for kind, values in times.items()
    ]


def main(
    model: Annotated[list[str] | None, typer.Option("--model", help="Model; repeatable; default: all.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help=f"{', '.join(VARIANTS)}; repeatable; default: plain only.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 2,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Clips a forward pass.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed passes of each variant.")] = 3,
    json_output: JsonOption = False,
) -> None:
    """Measure clips a second and print a Markdown table."""
    unknown = sorted(set(variant or ()) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"there is no variant {unknown[0]!r}", f"one of {', '.join(VARIANTS)}")
    torch.set_num_threads(threads)
    target = resolve_device(device)
    rows = []
    if not json_output:
        where = torch.cuda.get_device_name() if target != "cpu" else f"CPU, {threads} threads"
        print(f"{where}, torch {torch.__version__}, batch {batch}, float32 unless said\n")
        print("| model | input | variant | clips/s | speed | logits differ by |\n|---|---|---|---|---|---|")
    for name in model or names():
        for row in measure(name, variant or [], target, batch, repeats):
            rows.append(row)
            if not json_output:
                print(
                    f"| {row['model']} | {row['input']} | {row['variant']} | {row['clips_per_s']:.2f} | "
                    f"{row['speedup']:.2f}x | {row['max_logit_difference']:.1g} |",
                    flush=True,
                )
    if json_output:
        print_json(rows)


if __name__ == "__main__":
    app = make_app("Measure the speed of HAR backbones.")
    app.command()(main)
    run(app)
