"""What models say in words: captions beside the reference with shared details marked (the paper's Figure 5), answers of
several models side by side (Figure 6).

A detail is a word that carries meaning; it is shared when both texts have it in any grammatical number or tense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microg.arrow import pc
from microg.data.dataset import Dataset
from microg.data.statistics import words
from microg.reports.clips.cards import clip_cards, spread
from microg.reports.clips.pictures import PictureStyle
from microg.reports.run_folders import RunFolder, model_name
from microg.texts.items import Task

_Key = tuple[str, int | None]  # clip id, index of the question
_PIECES = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[\W_]+")
_CUT = 900
# Words without a meaning of their own.
_LIGHT_WORDS = """
    a an the this that these those and or but if while as of in on at to from by with for into onto over under up down
    out off near is are was were be been being am do does did has have had can could will would should may might must it
    its he she they them his her their there here who whom whose which what when where why how not no yes one some any
    all both each other another very also just then than so such only own same more most
"""
_LIGHT = frozenset(_LIGHT_WORDS.split())


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: its words, and whether it is a detail that is `shared`, `lost`, `new`, or none of them."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class ModelText:
    """What one model says of an item: the text in pieces, words, scores by title, and why there is no text."""

    model: str
    pieces: tuple[Piece, ...]
    words: int
    scores: tuple[tuple[str, str], ...]
    problem: str | None = None
    right: bool | None = None


@dataclass(frozen=True)
class TextPanel:
    """A clip with one text of the reference and what each model says; `question` for answers only."""

    clip_id: str
    question: str | None
    reference: tuple[Piece, ...]
    reference_words: int
    models: tuple[ModelText, ...]


@dataclass(frozen=True)
class ClipTexts:
    """The panels of one clip under its picture (None, and why)."""

    clip_id: str
    picture: str | None
    problem: str | None
    panels: tuple[TextPanel, ...]


def clip_texts(
    runs: Sequence[RunFolder], task: Task, dataset: Dataset | None, limit: int, style: PictureStyle
) -> list[ClipTexts]:
    """Return at most `limit` clips, from the best to the worst described by all models together.

    `runs` are runs of `vlm score` that scored the same references.
    """
    pairs = {run.name: _pairs(run, task) for run in runs}
    shared = set.intersection(*(set(found) for found in pairs.values())) if pairs else set()
    if not shared or limit <= 0:
        return []
    scores = {run.name: _item_scores(run, task) for run in runs}
    by_clip: dict[str, list[_Key]] = {}
    for key in shared:
        by_clip.setdefault(key[0], []).append(key)

    def quality(clip: str) -> float:
        values = [_rank_value(scores[run.name].get(key, {}), task) for run in runs for key in by_clip[clip]]
        return sum(values) / len(values)

    ranked = [{"clip_id": clip} for clip in sorted(by_clip, key=lambda clip: (-quality(clip), clip))]
    chosen = [row["clip_id"] for row in spread(ranked, limit)]
    pictures = _pictures(dataset, chosen, style)
    result = []
    for clip in chosen:
        keys = sorted(by_clip[clip], key=lambda key: key[1] or 0)
        panels = tuple(
            _panel(key, [(run, pairs[run.name][key], scores[run.name].get(key, {})) for run in runs]) for key in keys
        )
        picture, problem = pictures.get(clip, (None, "its dataset is not to be found"))
        result.append(ClipTexts(clip, picture, problem, panels))
    return result


def mark(text: str, other: set[str], missing: str) -> tuple[Piece, ...]:
    """Cut a text into pieces: details that are among the stems `other` are `shared`, the rest of the kind `missing`.

    >>> [(piece.text, piece.kind) for piece in mark("The man floats.", {"float"}, "lost")]
    [('The ', ''), ('man', 'lost'), (' ', ''), ('floats', 'shared'), ('.', '')]
    """
    pieces: list[Piece] = []
    for found in _PIECES.findall(text[:_CUT] + ("…" if len(text) > _CUT else "")):
        inside = words(found)
        kind = ""
        if inside and inside[0] not in _LIGHT:
            kind = "shared" if stem(inside[0]) in other else missing
        if kind == "" and pieces and pieces[-1].kind == "":
            pieces[-1] = Piece(pieces[-1].text + found)
        else:
            pieces.append(Piece(found, kind))
    return tuple(pieces)


def details(text: str) -> set[str]:
    """Return the stems of a text's meaningful words.

    >>> sorted(details("The floating astronauts are waving."))
    ['astronaut', 'float', 'wav']
    """
    return {stem(word) for word in words(text) if word not in _LIGHT}


def stem(word: str) -> str:
    """Cut the endings of number and tense off a word, roughly.

    >>> [stem(word) for word in ("floats", "floating", "waved", "bodies", "glass")]
    ['float', 'float', 'wav', 'bodi', 'glass']
    """
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _panel(key: _Key, answers: Sequence[tuple[RunFolder, dict[str, Any], dict[str, float]]]) -> TextPanel:
    first = answers[0][1]
    reference = (first["references"] or [""])[0]
    stems = details(reference)
    models, found = [], set()
    for run, pair, scores in answers:
        text = pair["text"]
        if text is not None:
            found |= details(text)
        exact = scores.get("exact_match")
        models.append(
            ModelText(
                model_name(run) or run.name,
                () if text is None else mark(text, stems, "new"),
                len(words(text)),
                _score_labels(scores),
                None if text else f"no text: {pair['status']}",
                None if exact is None else exact >= 1,
            )
        )
    return TextPanel(key[0], first["question"], mark(reference, found, "lost"), len(words(reference)), tuple(models))


def _score_labels(scores: dict[str, float]) -> tuple[tuple[str, str], ...]:
    wanted = {"token_f1": "F1", "cider": "CIDEr-D", "rouge_l": "ROUGE-L", "meteor": "METEOR", "sbert": "S-BERT"}
    known = [(title, scores[name]) for name, title in wanted.items() if name in scores]
    return tuple((title, f"{100 * value:.0f}") for title, value in known[:4])


def _rank_value(scores: dict[str, float], task: Task) -> float:
    wanted = ("sbert", "rouge_l", "cider") if task == "caption" else ("token_f1", "rouge_l")
    return next((scores[name] for name in wanted if name in scores), 0.0)


def _pairs(run: RunFolder, task: Task) -> dict[_Key, dict[str, Any]]:
    table = run.table("text_pairs")
    rows = table.filter(pc.equal(table["task"], task)).to_pylist()
    return {(row["clip_id"], row["qa_index"]): row for row in rows}


def _item_scores(run: RunFolder, task: Task) -> dict[_Key, dict[str, float]]:
    table = run.table("text_items")
    table = table.filter(pc.equal(table["task"], task))
    if not table.num_rows:
        return {}
    protocols = pc.unique(table["protocol"]).to_pylist()
    protocol = "paper" if "paper" in protocols else protocols[0]
    result: dict[_Key, dict[str, float]] = {}
    for row in table.filter(pc.equal(table["protocol"], protocol)).to_pylist():
        result.setdefault((row["clip_id"], row["qa_index"]), {})[row["metric"]] = row["value"]
    return result


def _pictures(
    dataset: Dataset | None, clips: list[str], style: PictureStyle
) -> dict[str, tuple[str | None, str | None]]:
    if dataset is None:
        return {}
    rows = [row for row in dataset.table("clips").to_pylist() if row["clip_id"] in set(clips)]
    return {card.clip_id: (card.picture, card.problem) for card in clip_cards(dataset, rows, style)}
