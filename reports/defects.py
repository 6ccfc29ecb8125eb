"""Known defects of the published runs, each demonstrated from data: from the runs of the report where they show it,
from published numbers, or by arithmetic. What cannot be shown is said to be so."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from microg.actions.predictions import read_predictions
from microg.data.dataset import Dataset
from microg.errors import MicrogError
from microg.metrics.published import har_row, har_rows, text_row, text_rows
from microg.metrics.published.paper import contradictions
from microg.reports.plots.style import NEUTRAL, Plot, figure, finish, styled
from microg.reports.run_folders import RunFolder, predictions_path


@dataclass(frozen=True)
class Defect:
    """One defect: what it is, how our commands avoid it, and what shows it. `runs` are the runs that have it."""

    code: str
    title: str
    what: str
    fix: str
    _: KW_ONLY
    evidence: tuple[str, ...] = ()
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()
    plots: tuple[Plot, ...] = ()
    runs: tuple[str, ...] = ()


_DUPLICATES = ("duplicate-boxes", "duplicate-truth", "claims-by-file-order")
# What the logs of the published runs say was not loaded from the Kinetics weights.
_UNLOADED = {
    "MVIT_B_16x4": "patch embedding, every qkv, position and class tokens",
    "C2D_8x8_R50": "nine convolutions of res4 and res5",
    "C2D_NLN_8x8_R50": "all non-local blocks",
    "SLOWFAST_4x16_R50": "fusion convolutions (kernel 5 in the file, 7 in the model)",
}


def defects(runs: Sequence[RunFolder], datasets: Sequence[Dataset] = ()) -> list[Defect]:
    """Return all known defects with what these runs, the published numbers and arithmetic show of them."""
    scored = [run for run in runs if "protocols" in run.metrics]
    texts = [run for run in runs if "tasks" in run.metrics]
    return [
        roi_scale(scored),
        unloaded_weights(runs),
        slow_frames(),
        scoring_rules(scored),
        zero_shot_columns(scored),
        validation_view(),
        split_leakage(datasets),
        contradicting_numbers(),
        doubtful_bleu(),
        cider_length(texts),
        answers_without_video(texts),
        unused_augmentation(),
    ]


def roi_scale(runs: Sequence[RunFolder]) -> Defect:
    """X3D and MViT pool with scale 1/16 where their stride is 32."""
    evidence, plots, found = [], [], []
    for run in runs:
        for item in run.metrics.get("findings", []):
            if item["code"] == "roi-scale":
                found.append(run.name)
                evidence.append(f"{run.name}: {item['message']}")
                plot = _equal_scores(run)
                plots += [plot] if plot is not None else []
    return Defect(
        "roi-scale",
        "RoI scale of X3D and MViT",
        "Their features are 32 times smaller than the frame, but boxes were scaled by 1/16: boxes in the right and "
        "lower half fall outside the feature map, are pooled from nothing, and all get one and the same scores.",
        "The recipes' variant 'intended' scales by the true stride, 'published' repeats the defect. 'microg har score' "
        "finds it in any predictions, from the scores alone.",
        evidence=tuple(evidence),
        plots=tuple(plots[:4]),
        runs=tuple(found),
    )


def _equal_scores(run: RunFolder) -> Plot | None:
    path = predictions_path(run)
    if path is None:
        return None
    try:
        found = read_predictions(path, score_kind=run.config.get("score_kind"), space=run.config.get("label_space"))
    except MicrogError:
        return None
    boxes, scores = found.distinct()
    places = boxes[["x1", "y1", "x2", "y2"]].to_numpy()
    _, group, counts = np.unique(scores, axis=0, return_inverse=True, return_counts=True)
    return equal_scores_map(places, group.ravel() == int(np.argmax(counts)), run.name)


def unloaded_weights(runs: Sequence[RunFolder]) -> Defect:
    """Parts of four models were never loaded from the weights they start from."""
    rows = [
        {"row": har_row(name).title, "not loaded": what, "published mAP %": 100 * har_row(name).scores["map"]}
        for name, what in _UNLOADED.items()
    ]
    evidence, found = [], []
    for run in runs:
        loaded = run.metrics.get("weights_loaded") or {}
        lost = [name for what in ("missing", "mismatched") for name in loaded.get(what) or []]
        if lost:
            found.append(run.name)
            evidence.append(f"{run.name}: {len(lost)} tensors not loaded, such as {lost[0]}")
    return Defect(
        "unloaded-weights",
        "Weights that were not loaded",
        "Four models began with parts at random, because names or shapes in the Kinetics file did not match and the "
        "loader went on.",
        "Weights load with a report of every tensor; anything but the classification head missing is refused unless "
        "--allow-missing names it.",
        evidence=tuple(evidence),
        tables=(("Published rows concerned", pd.DataFrame(rows)),),
        runs=tuple(found),
    )


def slow_frames() -> Defect:
    """SlowFast's slow pathway saw one or two frames."""
    rows = []
    for name, frames, rate in (("SlowFast R50 8x8", 8, 8), ("SlowFast R50 4x16", 4, 16), ("SlowFast R101 32x2", 32, 2)):
        kept = np.linspace(0, frames - 1, frames // 4).astype(int).tolist()
        shown = ", ".join(map(str, kept))
        rows.append({"model": name, "fast frames": frames, "every": rate, "slow frames": len(kept), "which": shown})
    return Defect(
        "slow-frames",
        "SlowFast's slow pathway",
        "The names count the fast pathway's frames. Every fourth of them goes to the slow one: of 8 frames 2, of 4 one "
        "single frame, so that the slow pathway of the fine-tuned models saw no motion.",
        "The recipes' variant 'intended' feeds 32 x 2 frames, so that 8 or 4 reach the slow pathway.",
        evidence=("linspace(0, T - 1, T / 4), as the published code takes them:",),
        tables=(("", pd.DataFrame(rows)),),
    )


def scoring_rules(runs: Sequence[RunFolder]) -> Defect:
    """Padding, repeated truth, thresholds on logits, classes without truth."""
    rows, evidence, found = [], [], []
    for run in runs:
        protocols = run.metrics["protocols"]
        if {"paper", "corrected"} <= set(protocols):
            paper, corrected = protocols["paper"], protocols["corrected"]
            found.append(run.name)
            rows.append(
                {
                    "run": run.name,
                    "mAP paper": _percent(paper, "map"),
                    "mAP corrected": _percent(corrected, "map"),
                    "F1 paper": _percent(paper, "f1"),
                    "F1 corrected": _percent(corrected, "f1"),
                    "classes with truth": corrected.get("classes"),
                }
            )
        for item in run.metrics.get("findings", []):
            if item["code"] in _DUPLICATES:
                evidence.append(f"{run.name}: {item['message']}")
    return Defect(
        "scoring-rules",
        "How the published scores were counted",
        "One box was counted twice (padding of the sampler), repeated labels as misses; truth was looked up by frame, "
        "not by person; a class was 'said' from logit 0.5 (p = 0.62) on; F1 and recall were averaged over 50 classes "
        "though nine have no truth on test, which takes a fifth off both.",
        "Protocol 'corrected' of 'microg har score' mends each; 'paper' keeps them, digit for digit.",
        evidence=tuple(dict.fromkeys(evidence)),
        tables=(("The same predictions under both protocols (%)", pd.DataFrame(rows)),) if rows else (),
        runs=tuple(found),
    )


def _percent(found: dict, metric: str) -> float | None:
    value = (found.get(metric) or {}).get("macro")
    return None if value is None else 100 * value


def zero_shot_columns(runs: Sequence[RunFolder]) -> Defect:
    """F1 and recall of zero-shot rows are averages over 80 columns."""
    rows = []
    for name in har_rows():
        row = har_row(name)
        if row.label_space == "ava80":
            known = len(row.ap)
            rows.append(
                {
                    "row": row.title,
                    "F1 over 80, published %": 100 * row.scores["f1"],
                    "F1 over 50 %": 100 * row.scores["f1"] * 80 / 50,
                    f"F1 over the {known} with truth %": 100 * row.scores["f1"] * 80 / known,
                }
            )
    evidence = [
        f"{run.name}: scored in {run.metrics['label_space']}, {run.metrics['protocols'][name].get('classes')} classes "
        f"with truth"
        for run in runs
        if run.metrics.get("label_space") == "ava80"
        for name in list(run.metrics["protocols"])[:1]
    ]
    return Defect(
        "zero-shot-columns",
        "Zero-shot rows averaged over 80 columns",
        "Classes without truth score zero, so that the mean over AVA's 80 columns is lower than the fine-tuned rows' "
        "over 50 for the same answers. The two tables cannot be compared as they stand.",
        "'microg har score --onto microg50' scores the classes both share; 'corrected' averages classes with truth.",
        evidence=tuple(evidence),
        tables=(("The same answers, averaged otherwise", pd.DataFrame(rows)),),
    )


def validation_view() -> Defect:
    """Validation looks at a centre crop, test at the whole frame."""
    rows = []
    for name in har_rows():
        row = har_row(name)
        if row.epoch is None:
            continue
        try:
            val = har_row(f"{name}/val/{row.epoch}").scores["map"]
        except MicrogError:
            continue
        test = row.scores["map"]
        rows.append(
            {
                "row": row.title,
                "epoch": row.epoch,
                "val mAP %": 100 * val,
                "test mAP %": 100 * test,
                "test - val": 100 * (test - val),
            }
        )
    return Defect(
        "validation-view",
        "Validation and test are not comparable",
        "Validation saw a centre crop (seven of its boxes lie outside), test the full frame; and val has truth for 36 "
        "classes, test for 41. Epochs were chosen by the former.",
        "validation.geometry=test in the recipes' variant 'intended' looks at whole frames in both.",
        tables=(("Published values of the tested epoch", pd.DataFrame(rows)),),
    )


def split_leakage(datasets: Sequence[Dataset]) -> Defect:
    """The published split is by clip, so that clips of one video are on both sides."""
    rows = []
    for dataset in datasets:
        splits, clips = (dataset.table(name).to_pandas() for name in ("splits", "clips"))
        if splits.empty:
            continue
        joined = splits.merge(clips[["clip_id", "source_id"]], on="clip_id")
        for scheme, part in joined.groupby("scheme", sort=True):
            test = part[part["split"] == "test"]
            others = {name: set(part.loc[part["split"] == name, "source_id"]) for name in ("train", "val")}
            rows.append(
                {
                    "dataset": str(dataset.info.get("name", "dataset")),
                    "scheme": scheme,
                    "test clips": len(test),
                    "sources of test": test["source_id"].nunique(),
                    **{
                        f"% sharing a source with {name}": 100 * float(test["source_id"].isin(found).mean())
                        if len(test)
                        else None
                        for name, found in others.items()
                    },
                }
            )
    return Defect(
        "split-leakage",
        "The split shares videos between train and test",
        "Clips were split, not videos: 47 of the 48 sources are in the published test set, and 98.4% of its clips "
        "share a source with val. Neighbouring clips show the same people and room.",
        "'microg data split' writes a second scheme, grouped by source; train and score with --scheme source.",
        evidence=() if rows else ("no dataset of this report has splits",),
        tables=(("Splits of the datasets of this report", pd.DataFrame(rows)),) if rows else (),
    )


def contradicting_numbers() -> Defect:
    """Numbers of the paper contradict each other."""
    found = contradictions()
    rows = [{"tables": ", ".join(map(str, item.tables)), "what the numbers say": item.text} for item in found]
    return Defect(
        "contradicting-numbers",
        "Numbers of the paper that do not agree",
        "Tables of the paper disagree with each other, with their own sums or with the published runs; most of all its "
        "Table 7, whose columns Movies and Real Videos are exchanged between rows.",
        "Published cells stand in this report as printed; 'microg data stats' counts from the tables of a dataset.",
        evidence=(f"{len(found)} contradictions, found by computing",),
        tables=(("", pd.DataFrame(rows)),),
    )


def unused_augmentation() -> Defect:
    """RandAugment in the MViT configurations has no effect."""
    return Defect(
        "unused-augmentation",
        "Augmentation that never ran",
        "The MViT configurations switch RandAugment and MixUp on; the detection data set class applies neither.",
        "Recipes name only what runs; an unknown key is refused.",
        evidence=("not to be seen in scores or predictions: it follows from the published code alone",),
    )


_SHOWN = 3000


def equal_scores_map(boxes: np.ndarray, equal: np.ndarray, name: str) -> Plot | None:
    """Draw where in the frame the boxes with one and the same score vector begin, beside all others.

    `boxes` (n, 4) are normalised; `equal` (n,) marks those of the largest group of equal vectors. None without any.
    """
    if not equal.any():
        return None
    order = np.argsort(equal, kind="stable")[-_SHOWN:]
    with styled():
        result, axes = figure(6.4, 4.6)
        for index in order:
            x1, y1, x2, y2 = boxes[index]
            red = bool(equal[index])
            axes.plot(
                [x1, x2, x2, x1, x1],
                [y1, y1, y2, y2, y1],
                color="#D55E00" if red else "#9aa5b1",
                alpha=0.55 if red else 0.12,
                linewidth=1.1 if red else 0.6,
                zorder=3 if red else 2,
                rasterized=True,
            )
        axes.set(xlim=(0, 1), ylim=(1, 0), xlabel="across the frame", ylabel="down the frame")
        axes.grid(visible=False)
        axes.set_title(f"{int(equal.sum()):,} of {len(boxes):,} boxes have equal scores")
        handles = [
            Line2D([], [], color="#D55E00", label="one and the same score vector"),
            Line2D([], [], color=NEUTRAL, alpha=0.5, label="other boxes"),
        ]
        result.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=10)
        text = (
            f"Boxes of {name} in the frame: {int(equal.sum()):,} of {len(boxes):,} have one and the same score vector, "
            f"all beginning beyond {100 * float(boxes[equal][:, :2].max(axis=1).min()):.0f}% of the frame."
        )
        return finish(result, "equal_scores", text)


def doubtful_bleu() -> Defect:
    """BLEU-4 above ROUGE-L."""
    rows = []
    for name in text_rows():
        row = text_row(name)
        scores = row.scores.get("vqa", {})
        if scores:
            ratio = scores["BLEU-4"] / scores["ROUGE-L"]
            rows.append({"model": row.title, **{key: scores[key] for key in ("BLEU-4", "ROUGE-L")}, "ratio": ratio})
    return Defect(
        "doubtful-bleu",
        "BLEU-4 that looks like BLEU-1",
        "Four words in a row are rarer than the longest common subsequence: BLEU-4 stays far below ROUGE-L. In two "
        "published rows it lies above.",
        "Tables mark these values with a question mark; 'microg vlm score' prints BLEU-1 to BLEU-4.",
        tables=(("Published answers", pd.DataFrame(rows)),),
    )


def cider_length(runs: Sequence[RunFolder]) -> Defect:
    """CIDEr-D is mostly a length match."""
    rows, found = [], []
    for run in runs:
        for task, by_protocol in run.metrics.get("tasks", {}).items():
            lengths = (by_protocol.get("paper") or next(iter(by_protocol.values()))).get("lengths") or {}
            if lengths:
                found.append(run.name)
                rows.append(
                    {
                        "run": run.name,
                        "task": task,
                        "words": lengths["words"],
                        "words in reference": lengths["reference_words"],
                        "CIDEr-D %": 100 * lengths["cider"],
                        "without length penalty %": 100 * lengths["cider_without_penalty"],
                        "taken by the penalty %": 100 * lengths["cider_penalty_share"],
                    }
                )
    factors = pd.DataFrame(
        {
            "words too many or too few": [0, 5, 10, 15, 20],
            "factor": [float(np.exp(-(d**2) / 72)) for d in (0, 5, 10, 15, 20)],
        }
    )
    return Defect(
        "cider-length",
        "CIDEr-D measures length first",
        "A caption loses 75% of its CIDEr-D for ten words too many or too few, 99.6% for twenty. A published caption "
        "score tells how far a model keeps to the references' length.",
        "'microg vlm score' gives the value without the penalty, and lengths, beside each score.",
        tables=(("The penalty", factors), *((("In these runs", pd.DataFrame(rows)),) if rows else ())),
        runs=tuple(dict.fromkeys(found)),
    )


def answers_without_video(runs: Sequence[RunFolder]) -> Defect:
    """Systems that see nothing reach scores."""
    rows, seen = [], set()
    for run in runs:
        part = run.metrics.get("tasks", {}).get("vqa", {}).get("paper") or {}
        corpus = (part.get("corpus") or {}).get("hash")
        if not part.get("baselines") or corpus in seen:
            continue
        seen.add(corpus)
        for system, scores in part["baselines"].items():
            shown = {
                name: scores.get(key)
                for name, key in (("CIDEr-D %", "cider"), ("ROUGE-L %", "rouge_l"), ("exact match %", "exact_match"))
            }
            rows.append({"system": system, **{name: None if v is None else 100 * v for name, v in shown.items()}})
    return Defect(
        "no-video",
        "Scores that need no video",
        "Answering 'Not mentioned.' to everything reaches CIDEr 34 where 7% of the questions cannot be answered, about "
        "what the best published model has. BERTScore begins at 83 for unrelated texts.",
        "Every score stands beside three systems that see no video: a constant answer, the likeliest answer to the "
        "question, another clip's answer.",
        evidence=() if rows else ("no run of this report has baselines",),
        tables=(("Without video, on these references", pd.DataFrame(rows)),) if rows else (),
    )
