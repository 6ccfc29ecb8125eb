"""Speed and memory of caption and answer scoring beside stock pycocoevalcap: all n-gram metrics, METEOR included.

    python benchmarks/text_score.py                      # 1,238 captions and 7,428 answers, paper protocol
    python benchmarks/text_score.py --protocol standard --times 10

Each measurement runs in a process of its own, imports included. CPU seconds count the Java programs; memory is the
largest sum of what Python and its Java programs held at once. `first` is a run on a machine that has no index of
METEOR's paraphrase table yet.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.text_corpus import ANSWERS, CAPTIONS, Corpus, answers, captions
from microg.jobs.common import JsonOption, make_app, print_json, run

_NAMES = {"Bleu_4": "bleu_4", "CIDEr": "cider", "ROUGE_L": "rouge_l", "METEOR": "meteor"}


def ours(protocol: str, corpora: dict[str, Corpus]) -> tuple[dict[str, float], dict[str, float]]:
    """Return all scores, and the wall seconds of each part."""
    from microg.metrics.text import registry, scoring
    from microg.metrics.text.items import check
    from microg.metrics.text.meteor import shared

    scores, seconds = {}, {}
    for task, corpus in corpora.items():
        items = check(corpus.ids, corpus.predictions, corpus.references)
        started = time.perf_counter()
        tokens = scoring.tokenized(items, registry.protocol(protocol).tokenizer)
        seconds[f"{task} tokenize"] = time.perf_counter() - started
        for name in registry.names("nothing", "java"):
            started = time.perf_counter()
            found = registry.empty(name).take(items, tokens).compute()
            seconds[f"{task} {name}"] = time.perf_counter() - started
            scores |= {f"{task} {value}": score for value, score in found.items()}
    shared().close()
    return scores, seconds


def stock(protocol: str, corpora: dict[str, Corpus]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores of pycocoevalcap, and the wall seconds of each part."""
    from microg.metrics.text.java import java

    os.environ["PATH"] = f"{Path(java()).parent}{os.pathsep}{os.environ['PATH']}"
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    scores, seconds = {}, {}
    for task, corpus in corpora.items():
        sides = []
        started = time.perf_counter()
        for texts in (corpus.references, corpus.predictions):
            side: Any = {name: [text] for name, text in zip(corpus.ids, texts, strict=True)}
            if protocol == "standard":
                side = PTBTokenizer().tokenize({name: [{"caption": text[0]}] for name, text in side.items()})
            sides.append(side)
        seconds[f"{task} tokenize"] = time.perf_counter() - started
        for name, kind in (("Bleu_4", Bleu), ("CIDEr", Cider), ("ROUGE_L", Rouge), ("METEOR", Meteor)):
            started = time.perf_counter()
            scorer = kind()
            score = scorer.compute_score(*sides, **({"verbose": 0} if name == "Bleu_4" else {}))[0]
            del scorer  # ends METEOR
            seconds[f"{task} {_NAMES[name].partition('_4')[0]}"] = time.perf_counter() - started
            scores[f"{task} {_NAMES[name]}"] = float(score[3] if isinstance(score, list) else score)
    return scores, seconds


def measure(task: str, protocol: str, times: int) -> dict[str, Any]:
    """Do one task in this process."""
    corpora = {"caption": captions(CAPTIONS * times), "qa": answers(ANSWERS * times)}
    held, over = {"python": 0, "java": 0}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(held, over), daemon=True)
    before, started = _cpu(), time.perf_counter()
    watcher.start()
    scores, seconds = (ours if task == "ours" else stock)(protocol, corpora)
    over.set()
    watcher.join()
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": _cpu() - before,
        "peak_bytes": held,
        "parts_wall_s": seconds,
        "scores": scores,
        "items": sum(len(corpus.ids) for corpus in corpora.values()),
    }


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def _watch(held: dict[str, int], over: threading.Event) -> None:
    me = psutil.Process()
    while not over.wait(0.2):
        java = 0
        for child in me.children(recursive=True):
            try:
                java += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        held["python"] = max(held["python"], me.memory_info().rss)
        held["java"] = max(held["java"], java)


def _in_own_process(task: str, protocol: str, times: int, **environment: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", task, "--protocol", protocol, "--times", str(times)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring {task} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(
    protocol: Annotated[str, typer.Option(help="paper or standard.")] = "paper",
    times: Annotated[int, typer.Option(min=1, help="Size of the large run, as a multiple; 1: none.")] = 1,
    first: Annotated[bool, typer.Option(help="Also measure a run without the index of the paraphrase table.")] = False,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Print wall and CPU time, memory and the ratio to pycocoevalcap, whose scores must agree."""
    if task:
        print(json.dumps(measure(task, protocol, times)))
        return
    _in_own_process("ours", protocol, 1)  # index and file cache
    results = {name: _in_own_process(name, protocol, 1) for name in ("ours", "stock")}
    if first:
        with tempfile.TemporaryDirectory() as folder:
            results["first"] = _in_own_process("ours", protocol, 1, XDG_CACHE_HOME=folder)
    if times > 1:
        results[f"ours x {times}"] = _in_own_process("ours", protocol, times)
    ratio = {key: results["stock"][key] / results["ours"][key] for key in ("wall_s", "cpu_s")}
    known = results["stock"]["scores"]
    worst = max(abs(known[name] - results["ours"]["scores"][name]) for name in known)
    if as_json:
        print_json({**results, "ratio": ratio, "largest_difference": worst})
        return
    for name, part in results.items():
        memory = part["peak_bytes"]
        print(
            f"{name}: {part['items']:,} items in {part['wall_s']:.1f} s wall, {part['cpu_s']:.1f} s CPU; "
            f"Python {memory['python'] / 1e6:.0f} MB, Java {memory['java'] / 1e6:.0f} MB"
        )
        print("   wall s: " + ", ".join(f"{key} {value:.2f}" for key, value in part["parts_wall_s"].items()))
    print(f"{protocol}: ratio wall {ratio['wall_s']:.1f}, CPU {ratio['cpu_s']:.1f}; largest difference {worst:.1e}")


if __name__ == "__main__":
    app = make_app("Speed of text scoring.")
    app.command()(main)
    run(app)
