"""Speed and memory of HAR scoring: one test set, a hundred copies of it, a bootstrap, and a plain-Python loop.

    python benchmarks/har_score.py --predictions detections.parquet --groundtruth ava_test.csv

Without files a random test set of the published size is made. Each measurement runs in a process of its own, on one
core, after import: CPU seconds, and the peak of the whole process's memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import har_reference
from microg import storage
from microg.actions.predictions import read_predictions
from microg.actions.rows import PREDICTION_ROWS, TRUTH_ROWS
from microg.actions.truth import read_truth
from microg.data.label_space import MICROG_50
from microg.jobs.common import JsonOption, make_app, print_json, run
from microg.metrics.har.arrays import arrays_from_rows
from microg.metrics.har.protocols import CORRECTED, PAPER, evaluate
from microg.metrics.har.registry import METRICS
from microg.metrics.har.resampling import bootstrap
from microg.metrics.har.scores import averages, class_scores
from microg.metrics.har.scoring import score

_TASKS = ("score", "alone", "bootstrap", "plain")


def random_set(clips: int, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Return prediction and truth rows of a random test set: one box a clip, 50 logits, about 2.3 labels a box."""
    rng = np.random.default_rng(seed)
    ids = np.repeat([f"src{number // 20}_{number:03d}" for number in range(clips)], 50)
    corner = np.round(rng.uniform(0, 0.5, (clips, 2)), 3)
    box = np.concatenate([corner, np.round(corner + rng.uniform(0.1, 0.5, (clips, 2)), 3)], axis=1)
    true = rng.random((clips, 50)) < 0.5 * np.exp(-np.arange(50) / 5)
    logits = np.round(rng.normal(size=(clips, 50)) - 4 + 5 * true, 4)
    columns: dict[str, Any] = {"row": np.arange(clips * 50), "clip_id": pa.array(ids).dictionary_encode()}
    columns["frame"] = np.full(clips * 50, 52, np.int32)
    columns |= {name: np.repeat(box[:, place], 50) for place, name in enumerate(("x1", "y1", "x2", "y2"))}
    columns |= {"action_id": np.tile(np.array(MICROG_50.ids, np.int32), clips), "score": logits.reshape(-1)}
    predictions = pa.table(columns).cast(PREDICTION_ROWS)
    marked = predictions.filter(pa.array(true.reshape(-1)))
    columns = {name: marked[name] for name in TRUTH_ROWS.names if name in marked.column_names}
    columns |= {"row": np.arange(marked.num_rows), "person_id": np.ones(marked.num_rows, np.int32)}
    return predictions, pa.table(columns).select(TRUTH_ROWS.names).cast(TRUTH_ROWS)


def copies(rows: pa.Table, number: int) -> pa.Table:
    """Return `number` copies of rows under new clip ids."""
    column = rows["clip_id"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    names = column.dictionary.to_pylist()
    dictionary = pa.array([f"copy{place}-{name}" for place in range(number) for name in names])
    codes = column.indices.to_numpy(zero_copy_only=False)
    indices = np.concatenate([codes + place * len(names) for place in range(number)]).astype(np.int32)
    result = pa.concat_tables([rows] * number).combine_chunks()
    result = result.set_column(1, "clip_id", pa.DictionaryArray.from_arrays(indices, dictionary))
    return result.set_column(0, "row", pa.array(np.arange(result.num_rows)))


def measure(task: str, predictions: str, truth: str, resamples: int) -> dict[str, Any]:
    """Do one task in this process; returns rows, CPU seconds, peak memory and, for scores, the values."""
    if task == "plain":
        said, true = (_tuples(path) for path in (predictions, truth))
        said, true = [row[:8] for row in said], [row[:7] for row in true]
        started = time.process_time()
        values = har_reference.score(said, true, MICROG_50.ids)
        return _result(len(said), started, values)
    if task == "alone":
        said, true = read_predictions(predictions), read_truth(truth, MICROG_50)
        started = time.process_time()
        arrays = arrays_from_rows(said.boxes, true.rows, MICROG_50)
        values = {}
        for protocol in (PAPER, CORRECTED):
            evaluation = evaluate(arrays, protocol)
            scores = class_scores(evaluation, protocol.threshold("logit"), ties=(protocol.ties,))
            found = averages(scores, protocol).values
            values[protocol.name] = {metric: found[metric]["macro"] for metric in METRICS}
        return _result(said.rows.num_rows, started, values)
    if task == "bootstrap":
        report = score(read_predictions(predictions), read_truth(truth, MICROG_50), (CORRECTED,))
        started = time.process_time()
        bootstrap(evaluate(report.arrays, CORRECTED), 0.0, unit="clip", resamples=resamples)
        return _result(resamples, started, {})
    # what is imported on first use
    for name in ("microg.formats.base", "pandas"):  # Arrow looks for pandas when it is handed an array
        import_module(name)
    storage.exists(predictions)
    started = time.process_time()
    said, true = read_predictions(predictions), read_truth(truth, MICROG_50)
    read = time.process_time()
    report = score(said, true, (PAPER, CORRECTED))
    values = {
        name: {metric: result.overall.values[metric]["macro"] for metric in METRICS}
        for name, result in report.results.items()
    }
    return {**_result(said.rows.num_rows, read, values), "reading_s": read - started}


def _result(rows: int, started: float, values: dict[str, Any]) -> dict[str, Any]:
    peak = _peak_bytes()
    return {"rows": rows, "cpu_s": time.process_time() - started, "peak_bytes": peak, "values": values}


def _peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _tuples(path: str) -> list[tuple]:
    table = storage.read_parquet(path).drop_columns(["row"])
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _in_own_process(task: str, predictions: Path, truth: Path, resamples: int, repeats: int) -> dict[str, Any]:
    """Run a task in fresh processes and return the quickest; one thread everywhere."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--task", task, "--predictions", str(predictions), "--groundtruth", str(truth)]
    results = []
    for _ in range(repeats):
        done = subprocess.run(
            [*command, "--resamples", str(resamples)], env={**os.environ, **threads}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"measuring {task} failed: {done.stderr}")
        results.append(json.loads(done.stdout))
    return min(results, key=lambda result: result["cpu_s"])


def main(
    predictions: Annotated[str | None, typer.Option(help="Predictions; default: a random test set.")] = None,
    groundtruth: Annotated[str | None, typer.Option(help="Truth of these predictions.")] = None,
    number: Annotated[int, typer.Option("--copies", min=1, help="Copies of the test set in the large run.")] = 100,
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of the bootstrap.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, of which the quickest counts.")] = 3,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Print CPU time, memory, and the ratio to a plain-Python loop, whose scores must agree."""
    if task in _TASKS:
        print(json.dumps(measure(task, str(predictions), str(groundtruth), resamples)))
        return
    if predictions and groundtruth:
        rows, truth = read_predictions(predictions).rows, read_truth(groundtruth, MICROG_50).rows
    else:
        rows, truth = random_set(1137)
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder, "one"), Path(folder, "many")
        for place, count in ((one, 1), (many, number)):
            storage.write_parquet(place / "said.parquet", copies(rows, count))
            storage.write_parquet(place / "true.parquet", copies(truth, count))
        del rows, truth
        paths = {name: (place / "said.parquet", place / "true.parquet") for name, place in (("1", one), ("n", many))}
        results = {
            "one": _in_own_process("score", *paths["1"], resamples, repeats),
            "many": _in_own_process("score", *paths["n"], resamples, 1),
            "alone": _in_own_process("alone", *paths["1"], resamples, repeats),
            "bootstrap": _in_own_process("bootstrap", *paths["1"], resamples, 1),
            "plain": _in_own_process("plain", *paths["1"], resamples, 1),
        }
    found, plain = results["one"]["values"], results["plain"]["values"]
    worst = max(abs(found[p][m] - plain[p][m]) for p in found for m in plain[p])
    ratio = {name: results["plain"]["cpu_s"] / results[name]["cpu_s"] for name in ("alone", "one")}
    summary = {**results, "ratio_to_plain_python": ratio, "largest_difference": worst}
    if as_json:
        print_json(summary)
        return
    for name, title in (("one", "one test set"), ("many", f"{number} copies")):
        part = results[name]
        print(
            f"{title}: {part['rows']:,} rows, both protocols, in {part['cpu_s']:.3f} s CPU "
            f"(reading and checking {part['reading_s']:.3f} s more), peak {part['peak_bytes'] / 1e9:.2f} GB"
        )
    print(f"bootstrap: {resamples:,} resamples over clips, all metrics, in {results['bootstrap']['cpu_s']:.2f} s CPU")
    print(
        f"plain Python loop: {results['plain']['cpu_s']:.2f} s CPU for mAP, F1, precision, recall and AUROC of both "
        f"protocols; the same alone {results['alone']['cpu_s']:.3f} s, ratio {ratio['alone']:.0f}; with tie brackets, "
        f"slices and warnings ratio {ratio['one']:.0f}; largest difference of any score {worst:.1e}"
    )


if __name__ == "__main__":
    app = make_app("Speed and memory of HAR scoring.")
    app.command()(main)
    run(app)
