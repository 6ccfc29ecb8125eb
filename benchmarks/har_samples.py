"""What samples of action models cost: decoding and geometry.

    uv run python benchmarks/har_samples.py data/set --model SLOWONLY_8x8_R50 --limit 40

CPU seconds a sample, side by side with the plain way: OpenCV decodes every frame of the clip, then the same geometry.
How long training waits for samples, `benchmarks/har_train.py` measures.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from microg.formats.key_frame_sources import read_key_frames
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.models.har import clip_geometry
from microg.models.har.backbones.registry import backbone
from microg.pipelines.har.samples import View, decode_rows

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
    wanted = clip_geometry.frame_indices(row["frame"], view.spec.frames, view.spec.sampling_rate, len(frames))
    chosen = [frames[number] for number in wanted]
    boxes = np.asarray(row["boxes"]).reshape(-1, 4)
    if view.mode == "test":
        return clip_geometry.test_geometry(chosen, boxes, short_side=view.side)
    random = clip_geometry.augmentation(view.seed, 0, row["key"])
    return clip_geometry.train_geometry(chosen, boxes, crop=view.side, jitter=view.spec.train_jitter, random=random)


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
        view = View(spec=spec, mode=mode)
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
            "ours_ms": 1000 * ours / len(rows),
            "plain_ms": 1000 * plain / len(rows),
            "ratio": plain / ours,
            "ours_per_cpu_s": len(rows) / ours,
            "largest_mean_difference": worst,
        }
    _print(report, as_json)


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
