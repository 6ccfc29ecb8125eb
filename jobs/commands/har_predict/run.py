"""What `microg har predict` does: checks, the Ray part, the run folder, and what it prints."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from microg import storage
from microg.console import say, say_aside
from microg.jobs.common import show_plan_values
from microg.locks import exclusive
from microg.runs import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from microg.data.vocabulary import Vocabulary
    from microg.models.har.backbones.roi_head import BoxClassifier
    from microg.pipelines.har.predict import PredictSettings

COMMAND = "har predict"
_VIEWS = {"test": "full frame, one view, given boxes", "val": "centre crop, one view, given boxes"}
_SHOWN_ERRORS = 5
_TOLD = ("model", "roi_scale", "label_space", "weights", "weights_digest")


def predict(dataset: str, settings: PredictSettings, folder: str | None, *, dry_run: bool) -> dict[str, Any]:
    """Predict what is missing in the run folder and return the report.

    Raises `MicrogError` for whatever the user can put right before anything is written.
    """
    from microg.formats.key_frame_sources import read_key_frames
    from microg.pipelines.core import session
    from microg.pipelines.har import prediction_store
    from microg.pipelines.har.predict import open_network, weights_file

    found = read_key_frames(dataset, settings.split, settings.scheme)
    weights_file(settings.weights)  # what is not there is told before Ray is started
    if not dry_run and not (folder and storage.exists(storage.join(folder, "metrics.json"))):
        session.begin(settings.resources)  # it comes up while the model is built
    network, settings, loaded = open_network(settings, _known(dataset))
    key_frames = found.rows.slice(0, settings.limit)
    name = f"{settings.model}-{settings.digest()[:4]}{found.fingerprint[:4]}"
    folder = storage.absolute(folder or f"runs/har_predict/{name}")
    with nullcontext() if dry_run else exclusive(folder):
        done = prediction_store.finished_keys(folder)
        left = _left(key_frames, done)
        report: dict[str, Any] = {
            "run": folder,
            "dataset": dataset,
            **{name: getattr(settings, name) for name in _TOLD},
            "weights_loaded": loaded.to_dict() | {"loaded": len(loaded.loaded)},
            "key_frames": key_frames.num_rows,
            "samples": _people(key_frames),
            "done_before": key_frames.num_rows - left.num_rows,
            "notes": list(found.notes),
        }
        if dry_run:
            return report | {"plan": _plan(left, settings)}
        run = Run.start(folder, COMMAND, settings, dataset=found.fingerprint, protocol=_VIEWS[settings.view])
        if left.num_rows:
            report |= _score(run, key_frames, _by_size(left, dataset), settings, network, dataset)
        prediction_store.files(folder).compact()
        table = prediction_store.finish(folder, key_frames)
        failed = [row for row in table.select(["sample_id", "status", "error"]).to_pylist() if row["status"] != "ok"]
        report |= {
            "failed": len(failed),
            "errors": failed,
            "predictions": run.path("tables", "har_predictions.parquet"),
        }
        run.finish(report)
    return report


def _known(dataset: str) -> tuple[Vocabulary, ...]:
    """Return the dataset's own actions, which weights may be declared to be of."""
    from microg.data.dataset import Dataset

    opened = storage.exists(storage.join(dataset, "dataset.json"))
    return (Dataset.open(dataset).vocabulary,) if opened else ()


def _left(key_frames: pa.Table, done: set[str]) -> pa.Table:
    import pyarrow as pa

    return key_frames.filter(pa.array([key not in done for key in key_frames["key"].to_pylist()], pa.bool_()))


def _people(key_frames: pa.Table) -> int:
    return sum(len(people) for people in key_frames["person_id"].to_pylist())


def _by_size(key_frames: pa.Table, dataset: str) -> pa.Table:
    """Put clips of one frame size next to each other, as far as the dataset tells sizes: only those make a batch."""
    import pyarrow as pa

    from microg.data.dataset import Dataset

    if not storage.exists(storage.join(dataset, "dataset.json")):
        return key_frames
    clips = Dataset.open(dataset).table("clips").select(["clip_id", "width", "height"]).to_pylist()
    sizes = {row["clip_id"]: (row["width"] or 0, row["height"] or 0) for row in clips}
    ids = key_frames["clip_id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda place: sizes.get(ids[place], (0, 0)))
    return key_frames.take(pa.array(order, pa.int64()))


def _plan(left: pa.Table, settings: PredictSettings) -> dict[str, Any]:
    from microg.pipelines.har.predict import sized_pipeline

    return {
        "key_frames_to_do": left.num_rows,
        "samples_to_do": _people(left),
        "view": _VIEWS[settings.view],
        "stages": sized_pipeline(settings).plan(),
        **{name: getattr(settings, name) for name in ("batch_size", "device", "precision")},
        "resources": settings.resources.model_dump(),
    }


def _score(
    run: Run, key_frames: pa.Table, left: pa.Table, settings: PredictSettings, network: BoxClassifier, dataset: str
) -> dict[str, Any]:
    """Run the Ray part on the key frames that are `left`, and return what it adds to the report."""
    from microg.models.video.decoders.registry import require_decoder
    from microg.pipelines.core import session
    from microg.pipelines.core.live_scores import defined
    from microg.pipelines.har.live_scores import LiveHarScores
    from microg.pipelines.har.predict import run_prediction, with_device

    decoder = require_decoder(settings.decoder)
    session.connect(settings.resources)
    settings, device = with_device(settings)
    run.record_device(device, decoder=decoder)
    say_aside(f"{left.num_rows} key frames with {settings.model} on {device}")
    live = None
    if settings.live_scores and settings.label_space is not None:
        said, part = settings.actions, {"split": settings.split, "scheme": settings.scheme}
        live = LiveHarScores.open(run.root, dataset, key_frames, said, **part)
    with nullcontext() if live is None else closing(live):
        throughput = run_prediction(left, run.root, settings, network, device=device, live=live)
        scores = {} if live is None else {"scores": defined(live.by_protocol())}
    return {"throughput": throughput, **scores}


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    from microg.metrics.har.registry import METRICS

    loaded = report["weights_loaded"]
    say(f"{report['model']}, RoI scale {report['roi_scale']}, {report['label_space']}: {loaded['loaded']} tensors")
    not_loaded = [*loaded["missing"], *(item["name"] for item in loaded["mismatched"])]
    if not_loaded:
        say(f"left as initialised: {len(not_loaded)} tensors, e.g. {', '.join(not_loaded[:3])}")
    for note in report["notes"]:
        say(f"note: {note}")
    say(f"{report['key_frames']:,} key frames, {report['samples']:,} boxes; {report['done_before']:,} done before")
    if "plan" in report:
        show_plan_values(report["plan"])
        say("nothing was predicted (--dry-run)")
        return
    if report.get("throughput"):
        from microg.pipelines.core.telemetry import throughput_line

        say(throughput_line(report["throughput"]))
    for protocol, scores in report.get("scores", {}).items():
        known = {name: value for name, value in scores.items() if value is not None}
        say(f"scores, {protocol}: {', '.join(f'{METRICS[name].title} {100 * v:.2f}' for name, v in known.items())}")
    for row in report["errors"][:_SHOWN_ERRORS]:
        say(f"failed: {row['sample_id']}: {row['error']}")
    if report["failed"]:
        say(f"{report['failed']:,} of {report['samples']:,} boxes failed; run the same command to try them again")
    say(f"wrote {report['predictions']}")
