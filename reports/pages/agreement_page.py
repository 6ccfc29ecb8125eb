"""The HTML page of how far the annotators of a dataset agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from microg import storage
from microg.annotations.rows import Item, Kind
from microg.annotations.words import in_words
from microg.data.dataset import Dataset
from microg.data.vocabulary import Vocabulary
from microg.metrics.agreement.report import KindAgreement
from microg.metrics.agreement.scores import Score
from microg.reports.clips.cards import clip_cards
from microg.reports.clips.pictures import PictureStyle, colour_number
from microg.reports.html import HtmlTable, Section, html_table, picture, render_page, section
from microg.reports.plots.agreement import action_bars

_EXAMPLES = 24
_STYLE = PictureStyle(width=360, quality=70, form="webp")
_TITLES: Mapping[Kind, tuple[str, str]] = {
    "screening": ("Screening", "clips"),
    "action": ("Actions", "people"),
    "box": ("Boxes", "clips"),
    "caption": ("Captions", "captions"),
    "qa": ("Questions", "questions"),
}
METRICS: Mapping[str, str] = {
    "observed": "same judgement",
    "jaccard": "overlap of labels",
    "alpha": "Krippendorff's alpha",
    "alpha_masi": "Krippendorff's alpha, MASI distance",
    "alpha_without": "alpha without them",
    "alpha_masi_without": "alpha without them",
    "fleiss_kappa": "Fleiss' kappa",
    "kappa": "Cohen's kappa",
    "positive": "agreement on yes",
    "exact": "same text",
    "rouge_l": "ROUGE-L",
    "token_f1": "F1 of words",
    "iou": "IoU of matched people",
    "idf1": "IDF1",
    "box_f1": "F1 of boxes",
    "id_agreement": "same id",
    "people_f1": "F1 of people",
    "only_first": "people only the first has, a clip",
    "only_second": "people only the second has, a clip",
    "false_keep": "kept what people drop",
    "false_drop": "dropped what people keep",
    "right": "as people decided",
}
_HEADS: Mapping[Kind, tuple[str, ...]] = {
    "screening": ("observed", "fleiss_kappa", "alpha"),
    "action": ("observed", "jaccard", "alpha_masi"),
    "box": ("iou", "idf1", "people_f1", "id_agreement"),
    "caption": ("observed", "fleiss_kappa", "alpha"),
    "qa": ("observed", "fleiss_kappa", "alpha"),
}
_MATRIX: Mapping[Kind, tuple[str, ...]] = {
    "screening": ("kappa",),
    "action": ("kappa", "alpha_masi"),
    "box": ("iou", "idf1"),
    "caption": ("kappa",),
    "qa": ("kappa",),
}
_METHOD = """
Values go up to 1; of those corrected for chance, 0 is what chance gives. Krippendorff's alpha of sets of labels weighs
how much they differ (MASI distance); of single actions, verdicts and screening it is nominal. Somebody who could not
tell is missing. Cohen's kappa of a pair over actions takes every person and every action that either of the two ever
gave as one yes or no. Intervals are 95%, clips drawn with replacement. An undefined value says why.
"""


def write_agreement_page(
    dataset: Dataset, found: Mapping[Kind, KindAgreement], out_html: str, *, notes: Sequence[str] = ()
) -> None:
    """Write the page: a section a kind with its numbers, pairs, annotators, actions, confused labels and examples."""
    cards = _cards(dataset, [item for each in found.values() for item in _examples(each)])
    vocabulary = dataset.vocabulary
    parts: list[Section | None] = [_section(kind, each, vocabulary, cards) for kind, each in found.items()]
    parts.append(section("method", "How it is computed", "agreement_method", text=_METHOD.strip(), notes=list(notes)))
    name = str(dataset.info.get("name", "dataset"))
    text = render_page(f"Agreement: {name}", "How far those who judged the clips agree with each other", parts)
    storage.write_bytes(out_html, text.encode())


def _section(kind: Kind, found: KindAgreement, vocabulary: Vocabulary, cards: Mapping[str, Any]) -> Section:
    title, what = _TITLES[kind]
    whole = {score.metric: score for score in found.scores if _is_whole(score)}
    actions = [
        (vocabulary.by_id[int(score.slice)].label, score)
        for score in found.scores
        if score.slice_kind == "action" and score.metric == "alpha"
    ]
    bars = action_bars(actions)
    return section(
        f"agreement-{kind}",
        title,
        "agreement",
        units=found.units,
        alone=found.alone,
        differing=len(found.differing),
        what=what,
        heads=[_head(name, whole[name]) for name in _HEADS[kind] if name in whole],
        notes=found.notes,
        matrices=[each for metric in _MATRIX[kind] if (each := _matrix(metric, found)) is not None],
        tables=[each for each in (_annotators(found), _parts(found), _actions(found, vocabulary)) if each is not None],
        plot=None if bars is None else picture(bars),
        confusions=_confusions(found, vocabulary),
        examples=[_example(item, found.differing[item], vocabulary, cards) for item in _examples(found)],
    )


def _is_whole(score: Score) -> bool:
    return score.slice_kind == "all" and score.annotator is None


def _number(score: Score | None) -> str:
    if score is None:
        return ""
    return "undefined" if score.value is None else _two(score.value)


def _two(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}"  # no minus before a zero


def _interval(score: Score) -> str:
    return score.reason or ("" if score.low is None else f"{_two(score.low)} to {_two(score.high or 0)}")


def _head(name: str, score: Score) -> dict[str, Any]:
    return {
        "title": METRICS[name],
        "value": _number(score),
        "note": _interval(score),
        "undefined": score.value is None,
    }


def _matrix(metric: str, found: KindAgreement) -> dict[str, Any] | None:
    cells = {
        frozenset((score.annotator, score.other)): score
        for score in found.scores
        if score.metric == metric and score.slice_kind == "all" and score.other is not None
    }
    if not cells:
        return None
    names = sorted({str(name) for pair in cells for name in pair})
    rows = []
    for name in names:
        scores = [cells.get(frozenset((name, other))) if name != other else None for other in names]
        rows.append({"name": name, "cells": [each and _cell(each) for each in scores]})
    return {"title": f"{METRICS[metric]} of each two", "names": names, "rows": rows}


def _cell(score: Score) -> dict[str, str]:
    note = _interval(score) if score.value is not None else "always the same"
    return {"value": _number(score), "note": f"{note}, n {score.units:,}" if note else f"n {score.units:,}"}


def _annotators(found: KindAgreement) -> HtmlTable | None:
    """Return each annotator's numbers: with the others, without them, with what was decided."""
    own = [score for score in found.scores if score.annotator is not None and score.other is None]
    if not own:
        return None
    heads = list(dict.fromkeys(_column(score) for score in own))
    rows = []
    for name, count in found.annotators.items():
        values = {_column(score): _with_interval(score) for score in own if score.annotator == name}
        rows.append({"annotator": name, "judged": count, **{head: values.get(head, "") for head in heads}})
    return html_table("Each annotator with the others", pd.DataFrame(rows))


def _column(score: Score) -> str:
    of = {"decided": " as decided", "text": f" of the {score.slice}"}.get(score.slice_kind, "")
    return METRICS[score.metric] + of


def _with_interval(score: Score) -> str:
    if score.value is None:
        return "undefined"
    return _number(score) if score.low is None else f"{_number(score)} ({_interval(score)})"


def _parts(found: KindAgreement) -> HtmlTable | None:
    rows = [
        {
            "part": score.slice.replace("_", " ").lower(),
            "measure": METRICS[score.metric],
            "value": _with_interval(score),
            "units": score.units,
            "note": score.reason,
        }
        for score in found.scores
        if score.slice_kind in ("group", "text") and score.annotator is None
    ]
    return html_table("Parts", pd.DataFrame(rows)) if rows else None


def _actions(found: KindAgreement, vocabulary: Vocabulary) -> HtmlTable | None:
    by_action: dict[int, dict[str, Score]] = {}
    for score in found.scores:
        if score.slice_kind == "action" and score.annotator is None:
            by_action.setdefault(int(score.slice), {})[score.metric] = score
    rows = [
        {
            "action": vocabulary.by_id[action].label,
            **{
                METRICS[name]: _with_interval(scores[name])
                for name in ("alpha", "fleiss_kappa", "positive", "observed")
            },
            "people": scores["observed"].units,
        }
        for action, scores in by_action.items()
    ]
    return html_table("Each action", pd.DataFrame(rows)) if rows else None


def _confusions(found: KindAgreement, vocabulary: Vocabulary) -> HtmlTable | None:
    rows = [
        {
            "one said": vocabulary.by_id[each.first].label,
            "where another said": "nothing more" if each.second is None else vocabulary.by_id[each.second].label,
            "times": each.count,
            "examples": ", ".join(f"{item.clip_id}:{item.person_id}" for item in each.examples[:3]),
        }
        for each in found.confusions
    ]
    return html_table("Labels given in place of each other (clip:person)", pd.DataFrame(rows), 25) if rows else None


def _examples(found: KindAgreement) -> list[Item]:
    """Return units that were judged differently, those of the most frequent confusions first."""
    first = [item for each in found.confusions for item in each.examples[:2]]
    return list(dict.fromkeys([*first, *sorted(found.differing, key=str)]))[:_EXAMPLES]


def _cards(dataset: Dataset, items: Sequence[Item]) -> dict[str, Any]:
    wanted = {item.clip_id for item in items}
    rows = [row for row in dataset.table("clips").to_pylist() if row["clip_id"] in wanted]
    return {card.clip_id: card for card in clip_cards(dataset, rows, _STYLE)}


def _example(
    item: Item, by: Mapping[str, Mapping[str, Any]], vocabulary: Vocabulary, cards: Mapping[str, Any]
) -> dict[str, Any]:
    missing = {"clip_id": item.clip_id, "picture": None, "problem": "the clip is not in the dataset"}
    return {
        "card": cards.get(item.clip_id, missing),
        "person": item.person_id,
        "colour": None if item.person_id is None else colour_number(item.person_id),
        "index": item.index,
        "said": [(name, _said(value, vocabulary)) for name, value in sorted(by.items())],
    }


def _said(value: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    verdict = f"{value['verdict']}: " if value.get("verdict") in ("accept", "edit") else ""
    parts = value.get("edits", [value])
    return verdict + "; ".join(in_words(each, vocabulary) for each in parts)
