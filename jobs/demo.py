"""`microg demo`: the whole pipeline once, on a laptop, from footage to a page one can look at.

Each step is an ordinary command; it is printed before it runs, so that the demo can be repeated by hand.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import curate as curate_job
from jobs import data_split, data_stats, data_synth, data_validate
from jobs.common import EXIT_FAILED_ROWS, make_app, run

_WEIGHTS = ("yolo11n.pt", "yolo11n_dq.pt")


def demo(
    footage: Annotated[
        str | None, typer.Argument(metavar="[FOOTAGE]", help="Folder with your own raw videos; default: synthetic.")
    ] = None,
    out: Annotated[str, typer.Option(help="Run folder to make or to resume.")] = "runs/demo",
    weights: Annotated[
        str | None, typer.Option(help="Detector weights: a name or a path; default: yolo11n.pt where it is found.")
    ] = None,
    videos: Annotated[int, typer.Option(min=1, help="Synthetic footage: how many files of 18 s.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Synthetic footage: seed.")] = 0,
) -> None:
    """From raw footage to an annotated, checked and described dataset, with a page to look at; a few minutes.

    Examples:

    - `microg demo`
    - `microg demo my_videos/ --out runs/mine --weights weights/yolo11s.pt`
    """
    steps = _Steps()
    root = str(Path(out).absolute())
    dataset = f"{root}/dataset"
    raw = footage or f"{root}/footage"
    detector, simulated = _detector(weights, synthetic=footage is None, root=root)
    if footage is None:
        steps(
            f"microg data synth {raw} --footage --videos {videos} --seconds 18 --seed {seed}",
            lambda: data_synth.synth(raw, footage=True, videos=videos, seconds=18.0, seed=seed),
        )
    if simulated is not None:
        from microg.synthetic.detections import write_detections

        print(
            "note: no detector weights were found, so the rendered truth is replayed in place of a detector "
            "('microg doctor' says how to get weights)",
            file=sys.stderr,
        )
        write_detections(raw, simulated)
    options = f"--weights {detector}" if detector else f"--detections {simulated}"
    steps(
        f"microg curate {raw} {dataset} {options} --previews --compare-rules",
        lambda: curate_job.curate(
            raw, dataset, weights=detector, detections=simulated, previews=True, compare_rules=True
        ),
    )
    if footage is None:
        steps(f"microg data annotate-synthetic {dataset} {raw}", lambda: data_synth.annotate_synthetic(dataset, raw))
    steps(f"microg data split {dataset}", lambda: data_split.split(dataset, keep_unlabelled=True))
    steps(
        f"microg data validate {dataset} --findings {root}/findings.json",
        lambda: data_validate.validate(dataset, findings=f"{root}/findings.json"),
    )
    steps(
        f"microg data stats {dataset} --out {root}/statistics", lambda: data_stats.stats(dataset, f"{root}/statistics")
    )
    page = f"{root}/demo.html"
    steps(f"microg data page {dataset} {page}", lambda: _write_page(dataset, page, steps.seconds))
    _record(root, raw, detector, simulated, steps.seconds)
    print(f"\ndone in {sum(steps.seconds.values()):.0f} s; open {page}")
    if steps.failed:
        print(f"some rows failed in: {', '.join(steps.failed)}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED_ROWS)


class _Steps:
    """Runs commands one after another, and times them; failed rows do not stop the demo, bad input does."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def __call__(self, command: str, call: Callable[[], Any]) -> None:
        name = " ".join(word for word in shlex.split(command)[:3] if "/" not in word)
        print(f"\n$ {command}", flush=True)
        started = time.monotonic()
        try:
            call()
        except typer.Exit as stop:
            if stop.exit_code == EXIT_FAILED_ROWS:
                self.failed.append(name)
            elif stop.exit_code:
                raise
        self.seconds[name] = time.monotonic() - started
        print(f"# {name}: {self.seconds[name]:.1f} s", flush=True)


def _detector(weights: str | None, *, synthetic: bool, root: str) -> tuple[str | None, str | None]:
    """Return (weights, None), or (None, folder of simulated detections) for synthetic footage without weights."""
    from microg.weights import find_weights, require_weights

    if weights is not None:
        return str(require_weights(weights)), None
    found = next((path for name in _WEIGHTS if (path := find_weights(name))), None)
    if found is not None:
        return str(found), None
    if not synthetic:
        require_weights(_WEIGHTS[0])  # raises, saying how to get them
    return None, f"{root}/simulated_detections"


def _write_page(dataset: str, page: str, seconds: dict[str, float]) -> None:
    from microg import storage
    from microg.dataset import Dataset
    from reports.page import write_dataset_page

    curated = storage.read_json(storage.join(dataset, "metrics.json"))
    summary = {key: curated[key] for key in ("counts", "rule", "throughput") if key in curated}
    write_dataset_page(Dataset.open(dataset), page, run_summary={**summary, "seconds": seconds})


def _record(root: str, raw: str, detector: str | None, simulated: str | None, seconds: dict[str, float]) -> None:
    """Make the demo's folder a run folder: what was asked, and how it ended."""
    from microg.config import Config
    from microg.dataset import Dataset
    from microg.runs import Run

    class DemoSettings(Config):
        footage: str
        detector: str

    settings = DemoSettings(footage=Path(raw).name, detector=Path(detector or simulated or "").name)
    dataset = Dataset.open(f"{root}/dataset")
    run_folder = Run.start(root, "demo", settings)
    run_folder.finish({"dataset": dataset.fingerprint(), "seconds": seconds})


if __name__ == "__main__":
    app = make_app("Run the demo.")
    app.command()(demo)
    run(app)
