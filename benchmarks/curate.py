"""Speed and memory of curation, side by side with a plain sequential implementation, in one run.

    uv run python benchmarks/curate.py compare --clips DIR --weights yolo11n.pt
    uv run python benchmarks/curate.py memory --clips DIR --weights yolo11n.pt --sizes 20 200

`compare`: CPU seconds a clip of (a) what the published scripts do with the same libraries: ultralytics `track` to
filter, PySceneDetect, optical flow, then `track` again for the boxes, each decoding the clip anew; (b) one pass of
`models.observe`, exact; (c) the same with INT8 weights (`fast` profile). Boxes of (a) and (b) must be equal.
`memory`: the whole command on Ray over N links to the clips: clips/s, cores busy, peak memory of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from microg.weights import require_weights
from models.box_rule import person_boxes
from models.detection.base import DetectorSettings
from models.detection.load import load_detector
from models.motion import motion_level
from models.observe import observe
from models.scenes import scene_cuts
from models.tracking import TrackerSettings, Tracks
from models.video import probe


def cpu_seconds(way: Callable[[str], dict[str, Any]], clip: str) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds that all threads of this process spend on `way(clip)`, and its result."""
    started = time.process_time()
    result = way(clip)
    return time.process_time() - started, result


class Sequential:
    """The published chain, clip by clip, with the libraries' own entry points."""

    def __init__(self, weights: Path, folder: Path) -> None:
        from ultralytics import YOLO  # type: ignore[attr-defined]

        self._model = YOLO(str(weights))
        settings = {**TrackerSettings().model_dump(), "tracker_type": "botsort", "with_reid": False}
        settings |= {"proximity_thresh": 0.5, "appearance_thresh": 0.8, "model": "auto"}
        self._tracker = folder / "botsort.yaml"
        self._tracker.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))

    def __call__(self, clip: str) -> dict[str, Any]:
        from scenedetect import ContentDetector, detect

        seen = frames = 0
        for result in self._model.track(clip, stream=True, persist=False, verbose=False):
            frames += 1
            boxes: Any = result.boxes
            seen += bool(((boxes.cls == 0) & (boxes.conf > 0.6)).any())
        cuts = max(len(detect(clip, ContentDetector(threshold=40))) - 1, 0)
        motion = self._motion(clip)
        tracks = []
        for result in self._model.track(clip, stream=True, persist=False, verbose=False, tracker=str(self._tracker)):
            found: Any = result.boxes
            boxes = found.cpu().numpy()
            ids = boxes.id if boxes.id is not None else np.empty(0)
            rows = boxes if boxes.id is not None else boxes[:0]
            tracks.append(Tracks(rows.xyxy, ids.astype(np.int32), rows.conf, rows.cls.astype(np.int32)))
        info = probe(clip)
        published = person_boxes(tracks, width=info.width, height=info.height, fps=info.fps, level=motion_level(motion))
        return {"percentage": 100 * seen / frames, "cuts": cuts, "motion": motion, "boxes": published}

    @staticmethod
    def _motion(clip: str) -> float:
        import cv2

        from models.motion import GROUP_FRAMES, MotionMeter

        capture = cv2.VideoCapture(clip)
        meter = MotionMeter(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        for _ in range(GROUP_FRAMES):
            ok, frame = capture.read()
            if not ok:
                break
            meter.update(frame)
        return meter.published


def single_pass(clip: str, detector: Any) -> dict[str, Any]:
    """What the pipeline's actor does with one clip."""
    info = probe(clip)
    seen = observe(clip, detector, num_frames=info.num_frames)
    published = person_boxes(
        seen.tracks, width=info.width, height=info.height, fps=info.fps, level=motion_level(seen.motion_published)
    )
    persons = sum(len(frame.persons(0.6)) > 0 for frame in seen.detections)
    return {
        "percentage": 100 * persons / seen.num_frames, "cuts": len(scene_cuts(seen.content_scores)),
        "motion": seen.motion_published, "boxes": published, "seconds": seen.seconds,
    }  # fmt: skip


def equal_boxes(a: Any, b: Any) -> bool:
    """Tell whether two clips' published boxes are the same, to the pixel."""
    return (
        len(a) == len(b)
        and bool((a.frame == b.frame).all())
        and bool((a.person_id == b.person_id).all())
        and bool((a.boxes == b.boxes).all())
    )


def compare(clips: list[str], weights: Path) -> dict[str, Any]:
    """Run the three ways over the clips, interleaved, and return CPU seconds a clip and their ratios."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        from pipelines.calibrate import calibrate
        from pipelines.footage import Footage

        footage = [Footage(Path(clip).stem, clip, "real", 0, "") for clip in clips]
        settings = DetectorSettings(weights=str(weights))
        agreement = calibrate(footage, temporary, settings, weights)
        exact = load_detector(settings)
        fast = load_detector(settings.replaced(precision="int8", calibration=agreement["calibration"]))
        ways: dict[str, Callable[[str], dict[str, Any]]] = {
            "sequential": Sequential(weights, Path(temporary)),
            "single pass": lambda clip: single_pass(clip, exact),
            "fast (INT8)": lambda clip: single_pass(clip, fast),
        }
        for way in ways.values():
            way(clips[0])  # warm up: imports, compilation
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        stages: dict[str, float] = {}
        same = decided = fast_decided = 0
        for clip in clips:
            results = {}
            for name, way in ways.items():
                spent, results[name] = cpu_seconds(way, clip)
                seconds[name].append(spent)
            for stage, spent in results["single pass"]["seconds"].items():
                stages[stage] = stages.get(stage, 0.0) + spent / len(clips)
            old, new, quick = results["sequential"], results["single pass"], results["fast (INT8)"]
            same += equal_boxes(old["boxes"], new["boxes"])
            decided += keep(old) == keep(new)
            fast_decided += keep(new) == keep(quick)
    means = {name: float(np.mean(values)) for name, values in seconds.items()}
    return {
        "clips": len(clips), "cpu_s_per_clip": means,
        "ratio": {name: means["sequential"] / value for name, value in means.items()},
        "stages_cpu_s": stages, "clips_with_identical_boxes": same, "equal_decisions": decided,
        "fast_equal_decisions": fast_decided, "fast_agreement": agreement,
    }  # fmt: skip


def keep(result: dict[str, Any]) -> bool:
    """Apply the published filter."""
    return result["percentage"] >= 60 and result["cuts"] == 0


def memory(clips: list[str], weights: Path | None, size: int, stored: str | None) -> dict[str, Any]:
    """Run the command over `size` links to the clips, detecting or replaying, and watch all its processes."""
    import psutil

    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "raw"
        raw.mkdir()
        replayed = Path(temporary) / "detections"
        replayed.mkdir()
        for index in range(size):
            clip = Path(clips[index % len(clips)])
            (raw / f"copy{index:04d}_000.mp4").symlink_to(clip)
            if stored is not None:
                (replayed / f"copy{index:04d}_000.csv").symlink_to(Path(stored).resolve() / f"{clip.stem}.csv")
        command = [sys.executable, "-m", "jobs.cli", "curate", str(raw), f"{temporary}/out", "--pretrimmed", "--json"]
        command += ["--detections", str(replayed)] if stored is not None else ["--weights", str(weights)]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        watched: dict[int, psutil.Process] = {}
        spent: dict[int, float] = {}
        peak = 0
        while process.poll() is None:
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                watched.setdefault(child.pid, child)
            total = 0
            for pid, child in watched.items():
                try:
                    times = child.cpu_times()
                    spent[pid] = times.user + times.system
                    total += child.memory_full_info().pss
                except psutil.Error:
                    continue
            peak = max(peak, total)
            time.sleep(0.5)
        wall = time.monotonic() - started
        report = json.loads(process.communicate()[0])
        shutil.rmtree(raw)
    throughput = report["throughput"]
    return {
        "clips": size, "wall_s": wall, "clips_per_s": throughput["clips_per_s"], "peak_memory_mb": peak / 2**20,
        "cpu_s_all_processes": sum(spent.values()), "cores": os.cpu_count(),
        "cores_busy": sum(spent.values()) / wall, "stages_cpu_s": throughput["stages"],
    }  # fmt: skip


def main() -> None:
    """Parse the command line and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "memory"])
    parser.add_argument("--clips", required=True, help="folder with trimmed clips (mp4)")
    parser.add_argument("--weights", default="yolo11n.pt")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--limit", type=int, help="take only the first clips")
    parser.add_argument("--detections", help="memory: replay these stored detections (one CSV a clip) instead")
    arguments = parser.parse_args()
    clips = sorted(str(path.resolve()) for path in Path(arguments.clips).glob("*.mp4"))[: arguments.limit]
    if arguments.what == "compare":
        result: Any = compare(clips, require_weights(arguments.weights))
    else:
        weights = None if arguments.detections else require_weights(arguments.weights)
        result = [memory(clips, weights, size, arguments.detections) for size in arguments.sizes]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
