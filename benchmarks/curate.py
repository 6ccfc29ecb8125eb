"""Speed and memory of curation, side by side with a plain sequential implementation, in one run.

    uv run python benchmarks/curate.py compare --clips DIR --weights yolo11n.pt
    uv run python benchmarks/curate.py memory --clips DIR --weights yolo11n.pt --sizes 20 200
    uv run python benchmarks/curate.py beside --clips DIR --detections DETECTIONS --limit 4

`compare`: CPU seconds a clip of (a) what the published scripts do with the same libraries: ultralytics `track` to
filter, PySceneDetect, optical flow, then `track` again for the boxes, each decoding the clip anew; (b) one pass of
`microg.models.curation.observe` with each profile. Boxes of (a) and of the exact profile must be equal; how far the
others agree with exact is printed.
`memory`: the whole command on Ray over N links to the clips: clips/s and cores busy, of the whole command and between
the first and the last clip, and peak memory of all processes.
`beside`: what feeds a GPU. Seconds a clip of decoding, measuring and tracking with stored detections, by one thread, by
two, and by two processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from microg.models.curation.box_rule import person_boxes
from microg.models.curation.clip_process import limit_threads
from microg.models.curation.motion import motion_level
from microg.models.curation.observe import observe
from microg.models.curation.scenes import scene_cuts
from microg.models.curation.tracking import TrackerSettings, Tracks
from microg.models.detection.base import PROFILES, Detections, DetectorSettings
from microg.models.detection.load import load_detector
from microg.models.detection.replay import read_detections
from microg.models.detection.sparse import agreement, iou_matrix
from microg.pipelines.curate.calibrate import calibrate
from microg.pipelines.curate.find_footage import Footage
from microg.system.zoo import require_weights
from microg.video import probe

WEIGHED_EVERY = 10  # looks: the kernel walks through all pages of a process to tell its memory


def cpu_seconds(way: Callable[[str], dict[str, Any]], clip: str) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds that all threads of this process spend on `way(clip)`, and its result."""
    started = time.process_time()
    result = way(clip)
    return time.process_time() - started, result


class Sequential:
    """The published chain, clip by clip, with the libraries' own entry points."""

    def __init__(self, weights: Path, folder: Path) -> None:
        from microg.models.detection import (
            ultralytics_model as _quiet,  # noqa: F401  (its messages would break our JSON)
        )

        from ultralytics import YOLO  # type: ignore[attr-defined]  # isort: skip

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
            ids, classes = ids.astype(np.int32), rows.cls.astype(np.int32)
            tracks.append(Tracks(boxes=rows.xyxy, track_id=ids, confidence=rows.conf, class_id=classes))
        info = probe(clip)
        published = person_boxes(tracks, width=info.width, height=info.height, fps=info.fps, level=motion_level(motion))
        return {"percentage": 100 * seen / frames, "cuts": cuts, "motion": motion, "boxes": published}

    @staticmethod
    def _motion(clip: str) -> float:
        import cv2

        from microg.models.curation.motion import GROUP_FRAMES, MotionMeter

        capture = cv2.VideoCapture(clip)
        meter = MotionMeter(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        for _ in range(GROUP_FRAMES):
            ok, frame = capture.read()
            if not ok:
                break
            meter.update(frame)
        return meter.published


class SinglePass:
    """What the pipeline's actor does with one clip."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._detector, self._step = load_detector(settings), settings.frame_step

    def __call__(self, clip: str) -> dict[str, Any]:
        info = probe(clip)
        seen = observe(clip, self._detector, num_frames=info.num_frames, frame_step=self._step)
        level = motion_level(seen.measured["motion_published"])
        published = person_boxes(seen.tracks, width=info.width, height=info.height, fps=info.fps, level=level)
        persons = sum(len(frame.persons(0.6)) > 0 for frame in seen.detections)
        return {
            "percentage": 100 * persons / seen.num_frames,
            "cuts": len(scene_cuts(seen.measured["content_scores"])),
            "motion": seen.measured["motion_published"],
            "boxes": published,
            "seconds": seen.seconds,
            "detections": seen.detections,
        }


def equal_boxes(a: Any, b: Any) -> bool:
    """Tell whether two clips' published boxes are the same, to the pixel."""
    return (
        len(a) == len(b)
        and bool((a.frame == b.frame).all())
        and bool((a.person_id == b.person_id).all())
        and bool((a.boxes == b.boxes).all())
    )


def compare(clips: list[str], weights: Path, repeats: int) -> dict[str, Any]:
    """Run all ways over the clips, interleaved, and return CPU seconds a clip, ratios, and how far results agree.

    Of several repeats the one that took least counts, for each clip and way: other work on a machine makes memory
    slower, and so CPU seconds longer, and the first call of each way also imports and compiles.
    """
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        footage = [Footage(Path(clip).stem, clip, "real", 0, "") for clip in clips]
        ways: dict[str, Callable[[str], dict[str, Any]]] = {"sequential": Sequential(weights, Path(temporary))}
        for name, values in PROFILES.items():
            settings = DetectorSettings(weights=str(weights)).replaced(**values)
            if settings.precision == "int8":
                settings = settings.replaced(**calibration(footage, temporary, settings, weights))
            ways[name] = SinglePass(settings)
        runs: dict[str, list[list[tuple[float, dict[str, Any]]]]] = {name: [] for name in ways}
        for clip in clips:
            for name in ways:
                runs[name].append([])
            for _ in range(repeats):
                for name, way in ways.items():
                    runs[name][-1].append(cpu_seconds(way, clip))
    best = {name: [min(tries, key=lambda run: run[0]) for tries in found] for name, found in runs.items()}
    seconds = {name: [spent for spent, _ in found] for name, found in best.items()}
    results = {name: [result for _, result in found] for name, found in best.items()}
    means = {name: float(np.mean(values)) for name, values in seconds.items()}
    exact = results["exact"]
    identical = [equal_boxes(a["boxes"], b["boxes"]) for a, b in zip(results["sequential"], exact, strict=True)]
    return {
        "clips": len(clips),
        "repeats": repeats,
        "cpu_s_per_clip": means,
        "cpu_s_by_clip": seconds,
        "ratio": {name: means["sequential"] / value for name, value in means.items()},
        "stages_cpu_s": {
            name: {stage: float(np.mean([r["seconds"][stage] for r in found])) for stage in found[0]["seconds"]}
            for name, found in results.items()
            if name != "sequential"
        },
        "clips_with_identical_boxes": sum(identical),
        "equal_decisions": {
            name: sum(keep(a) == keep(b) for a, b in zip(results["sequential"], found, strict=True))
            for name, found in results.items()
        },
        "agreement_with_exact": {
            name: agreement(frames_of(exact), frames_of(results[name])) | {"clips_mean_box_iou": box_iou(exact, found)}
            for name, found in results.items()
            if name not in ("sequential", "exact")
        },
    }


def calibration(footage: list[Footage], folder: str, settings: DetectorSettings, weights: Path) -> dict[str, str]:
    """Make INT8 weights as `microg curate --detector-profile fast` does."""
    return {"calibration": calibrate(footage, folder, settings, weights)["calibration"]}


def frames_of(results: list[dict[str, Any]]) -> list[Detections]:
    """Return the detections of all frames of all clips."""
    return [found for result in results for found in result["detections"]]


def box_iou(exact: list[dict[str, Any]], fast: list[dict[str, Any]]) -> float:
    """Return the mean IoU of the published boxes with the best box of the other way in the same frame, else 0."""
    values = []
    for a, b in zip((result["boxes"] for result in exact), (result["boxes"] for result in fast), strict=True):
        for frame, box in zip(a.frame, a.boxes, strict=True):
            others = b.boxes[b.frame == frame]
            values.append(float(iou_matrix(box[None].astype(float), others.astype(float)).max(initial=0.0)))
    return float(np.mean(values)) if values else float("nan")


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
        command = [
            sys.executable,
            "-m",
            "microg.jobs.cli",
            "curate",
            str(raw),
            f"{temporary}/out",
            "--pretrimmed",
            "--json",
        ]
        command += ["--detections", str(replayed)] if stored is not None else ["--weights", str(weights)]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        watched: dict[int, psutil.Process] = {}
        spent: dict[int, float] = {}
        peak = 0
        samples: list[tuple[float, float, int]] = []
        while process.poll() is None:
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                watched.setdefault(child.pid, child)
            weigh = len(samples) % WEIGHED_EVERY == 0
            total = 0
            for pid, child in watched.items():
                try:
                    times = child.cpu_times()
                    spent[pid] = times.user + times.system
                    total += child.memory_full_info().pss if weigh else 0
                except psutil.Error:
                    continue
            peak = max(peak, total)
            samples.append((time.monotonic(), sum(spent.values()), committed(Path(temporary) / "out")))
            time.sleep(0.5)
        wall = time.monotonic() - started
        report = json.loads(process.communicate()[0])
        shutil.rmtree(raw)
    return {
        "clips": size,
        "wall_s": wall,
        "peak_memory_mb": peak / 2**20,
        "cpu_s_all_processes": sum(spent.values()),
        "cores": os.cpu_count(),
        "cores_busy_whole_command": sum(spent.values()) / wall,
        "steady": steady(samples, started),
        "stages_cpu_s": report["throughput"]["stages"],
    }


def committed(out: Path) -> int:
    """Count the clips that were observed; each is one file until the end, when they are joined."""
    folder = out / "observations"
    return len(list(folder.glob("part-*.parquet"))) if folder.is_dir() else 0


def steady(samples: list[tuple[float, float, int]], started: float) -> dict[str, float]:
    """Return what happened between the first and the last commit of a clip; before it, Ray and the actors start.

    A sample is a time, the CPU seconds that all processes had spent until then, and the number of clips committed.
    """
    last = max(count for _, _, count in samples)
    begin = next(sample for sample in samples if sample[2] > 0)
    end = next(sample for sample in samples if sample[2] == last)
    wall = max(end[0] - begin[0], 1e-9)
    return {
        "startup_s": begin[0] - started,
        "wall_s": wall,
        "clips_per_s": (last - begin[2]) / wall,
        "cores_busy": (end[1] - begin[1]) / wall,
    }


def replay(clip: str, stored: str) -> None:
    """Observe a clip with its stored detections."""
    frames = probe(clip).num_frames
    observe(clip, None, num_frames=frames, stored=read_detections(stored, Path(clip).stem, frames))


def beside(clips: list[str], stored: str, repeats: int) -> dict[str, Any]:
    """Compare one thread with two threads and two processes, interleaved; the best of the tries counts."""
    limit_threads(1)

    def seconds_a_clip(pool: Executor, workers: int) -> float:
        started = time.perf_counter()
        list(pool.map(replay, clips * workers, [stored] * len(clips) * workers))
        return (time.perf_counter() - started) / (len(clips) * workers)

    with (
        ThreadPoolExecutor(1) as one,
        ThreadPoolExecutor(2) as two,
        ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"), limit_threads, (1,)) as processes,
    ):
        tries = []
        for _ in range(repeats):
            tries.append((seconds_a_clip(one, 1), seconds_a_clip(two, 2), seconds_a_clip(processes, 2)))
    alone, threads, apart = (min(each) for each in zip(*tries, strict=True))
    return {"s_a_clip": alone, "two_threads": alone / threads, "two_processes": alone / apart}


def main() -> None:
    """Parse the command line and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "memory", "beside"])
    parser.add_argument("--clips", required=True, help="folder with trimmed clips (mp4)")
    parser.add_argument("--weights", default="yolo11n.pt")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--repeats", type=int, default=2, help="compare, beside: tries a clip and way; the best counts")
    parser.add_argument("--limit", type=int, help="take only the first clips")
    parser.add_argument("--detections", help="memory, beside: replay these stored detections (one CSV a clip) instead")
    arguments = parser.parse_args()
    clips = sorted(str(path.resolve()) for path in Path(arguments.clips).glob("*.mp4"))[: arguments.limit]
    if arguments.what == "compare":
        result: Any = compare(clips, require_weights(arguments.weights), arguments.repeats)
    elif arguments.what == "beside":
        result = beside(clips, arguments.detections, arguments.repeats)
    else:
        weights = None if arguments.detections else require_weights(arguments.weights)
        result = [memory(clips, weights, size, arguments.detections) for size in arguments.sizes]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
