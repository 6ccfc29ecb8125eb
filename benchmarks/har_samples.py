"""What samples of action models cost: decoding and geometry, and how long a training loop waits for them.

    uv run python benchmarks/har_samples.py decode data/set --model SLOWONLY_8x8_R50 --limit 40
    uv run python benchmarks/har_samples.py wait data/set --model TINY --epochs 4

`decode`: CPU seconds a sample, side by side with the plain way: OpenCV decodes every frame of the clip, then the same
geometry. `wait`: the share of a training loop's time that is waiting, for one stream over all epochs and for a stream
an epoch, decoding on Ray (`--decoders`) or in the loop's own process; with the seconds to the first batch.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.common import JsonOption, make_app, print_json, run
from microg.key_frames import read_key_frames
from models import clip_geometry
from models.backbones.registry import BackboneSpec, backbone
from pipelines.sample_stream import SampleStream, sample_stream
from pipelines.samples import Mode, View, decode_rows

app = make_app("Measure what samples of action models cost.")


def plain_sample(row: dict[str, Any], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Decode every frame of the clip with OpenCV, then take those wanted through the same geometry."""
    capture = cv2.VideoCapture(row["uri"])
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    wanted = clip_geometry.frame_indices(row["frame"], view.frames, view.sampling_rate, len(frames))
    chosen = [frames[number] for number in wanted]
    boxes = np.asarray(row["boxes"]).reshape(-1, 4)
    if view.mode == "test":
        return clip_geometry.test_geometry(chosen, boxes, short_side=view.test_short_side)
    random = clip_geometry.augmentation(view.seed, 0, row["key"])
    return clip_geometry.train_geometry(chosen, boxes, crop=view.train_crop, jitter=view.train_jitter, random=random)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@app.command()
def decode(
    dataset: str,
    model: Annotated[str, typer.Option(help="Model whose geometry is taken.")] = "SLOWONLY_8x8_R50",
    limit: Annotated[int, typer.Option(min=1, help="Key frames.")] = 40,
    as_json: JsonOption = False,
) -> None:
    """CPU seconds a sample of both ways, one thread, interleaved; the clips must be the same up to colour rounding."""
    cv2.setNumThreads(1)
    spec = backbone(model)
    rows = read_key_frames(dataset, "all").rows.slice(0, limit).to_pylist()
    report: dict[str, Any] = {"model": spec.name, "key_frames": len(rows)}
    for mode in ("train", "test"):
        view = View.of(spec, mode)
        ours = plain = 0.0
        worst = 0.0
        for row in rows:
            started = _cpu()
            sample = decode_rows([row], view)[0]
            between = _cpu()
            clip, _ = plain_sample(row, view)
            plain += _cpu() - between
            ours += between - started
            if sample.error:
                raise typer.BadParameter(sample.error)
            worst = max(worst, float(np.abs(sample.clip.astype(int) - clip).mean()))
        report[mode] = {
            "ours_ms": 1000 * ours / len(rows), "plain_ms": 1000 * plain / len(rows), "ratio": plain / ours,
            "ours_per_cpu_s": len(rows) / ours, "largest_mean_difference": worst,
        }  # fmt: skip
    _print(report, as_json)


@app.command()
def wait(
    dataset: str,
    model: Annotated[str, typer.Option(help="Model that is trained.")] = "TINY",
    split: Annotated[str, typer.Option(help="Split, or all.")] = "train",
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    decoders: Annotated[int, typer.Option(min=1, help="Decoding tasks at once.")] = 2,
    address: Annotated[str | None, typer.Option(help="Ray address.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train for a few epochs from each kind of stream; the model computes on all cores, as on a laptop."""
    from microg.config import Resources
    from pipelines import session

    spec = backbone(model)
    rows = read_key_frames(dataset, split, labelled=True).rows
    session.connect(Resources(address=address))
    report: dict[str, Any] = {"model": spec.name, "key_frames": rows.num_rows, "epochs": epochs, "batch": batch_size}

    def stream(mode: Mode, several: range, workers: int) -> SampleStream:
        return sample_stream(
            rows, spec, mode, label_space="microg50", batch_size=batch_size, epochs=several, drop_last=True,
            decoders=workers,
        )  # fmt: skip

    loop = TrainingLoop(spec)
    loop.run([stream("train", range(1), decoders)])  # imports, worker processes, the first call of each kernel
    report["one stream on Ray"] = loop.run([stream("train", range(epochs), decoders)])
    report["a stream an epoch on Ray"] = loop.run(
        [stream("train", range(epoch, epoch + 1), decoders) for epoch in range(epochs)]
    )
    report["one stream in this process"] = loop.run([stream("train", range(epochs), 0)])
    _print(report, as_json)


class TrainingLoop:
    """A plain training loop: forward, backward, step."""

    def __init__(self, spec: BackboneSpec) -> None:
        import torch

        from models.backbones.registry import build

        self._network = build(spec.name).train()
        self._optimizer = torch.optim.SGD(self._network.parameters(), lr=0.01)

    def run(self, streams: list[SampleStream]) -> dict[str, Any]:
        """Train on the streams one after another; return how the time was spent."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        from models.normalise import normalise

        started = time.monotonic()
        first = None
        steps = 0
        for stream in streams:
            for batch in stream:
                first = first or time.monotonic() - started
                loss = binary_cross_entropy_with_logits(
                    self._network(normalise(batch.clips), batch.boxes), batch.labels
                )
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
                steps += 1
        wall = time.monotonic() - started
        samples = sum(stream.meter.samples for stream in streams)
        return {
            "wall_s": wall, "first_batch_s": first, "wait_share": sum(stream.meter.wait_s for stream in streams) / wall,
            "samples_per_s": samples / wall, "steps": steps,
            "decode_ms": 1000 * sum(stream.meter.decode_s for stream in streams) / max(samples, 1),
        }  # fmt: skip


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}: " + ", ".join(f"{key} {number:.4g}" for key, number in value.items()))
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    run(app)
