"""Known defects of published scores of captions and answers (see `microg.reports.defects.har`)."""

# pandas annotates `frame[...]` as DataFrame | Series | Any, which makes nearly every chained call an error.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from microg.metrics.published import text_row, text_rows
from microg.reports.defects.record import Defect
from microg.reports.run_folders.runs import RunFolder


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
