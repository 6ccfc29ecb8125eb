"""Answers without what is around them: thoughts, turns of a chat, fences, JSON, labels and quotes.

The rule, with an example of each part, is in docs/protocols.md, from which a test reads them.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from microg.texts.items import TextPredictions

# Where the answer's turn begins, of chats in the forms of Qwen, Llama 3, Gemma, Mistral, Phi and gpt-oss.
_TURN = re.compile(
    r"<\|im_start\|>\s*assistant|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<start_of_turn>\s*model"
    r"|\[/INST\]|<\|assistant\|>|<\|channel\|>final<\|message\|>"
)
_MARK = re.compile(r"<\|\w{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|image|video|start_of_turn|end_of_turn)>|\[/?INST\]")
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]|◁(/?)think▷", re.IGNORECASE)
_LABEL = re.compile(
    r"[*_#\s]{0,6}(?:(?:the|my) )?(?:final |short )?(?:answer|response|caption|description|output|assistant|a)(?: is)?"
    r"[*_]{0,2} ?[:：][*_]{0,2}",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"[\w+-]{0,20}\n?")
_FIELDS = ("answer", "prediction", "response", "caption", "description", "text", "output", "A")
_PAIRS = (("**", "**"), ('"', '"'), ("“", "”"), ("`", "`"))
_MOST_LAYERS = 8


def clean(text: str) -> str:
    """Return the answer in a text; a text that is nothing but an answer stays as it is, bit for bit.

    >>> clean("<think>Two or three?</think> **Answer:** Two."), clean(" Two. ")
    ('Two.', ' Two. ')
    """
    plain = _without_thoughts(_own_turn(text))
    for _ in range(_MOST_LAYERS):
        inner = _of_fence(_of_pair(_of_tags(_of_json(plain))))
        label = _LABEL.match(inner)
        inner = inner[label.end() :].lstrip() if label else inner
        if inner == plain:
            break
        plain = inner
    return plain.strip() if plain.strip() != text.strip() else text


def cleaned(predictions: TextPredictions) -> tuple[TextPredictions, int]:
    """Return predictions with every text cleaned, and how many that changed."""
    rows = tuple(replace(row, texts=tuple(map(clean, row.texts))) for row in predictions.rows)
    changed = sum(row.texts != before.texts for row, before in zip(rows, predictions.rows, strict=True))
    return replace(predictions, rows=rows), changed


def _own_turn(text: str) -> str:
    """Return the last turn of the model in a chat, up to the mark that ends it."""
    turns = list(_TURN.finditer(text))
    text = text[turns[-1].end() :] if turns else text
    parts = _MARK.split(text)
    return text if len(parts) == 1 else next((part.strip() for part in parts if part.strip()), "")


def _without_thoughts(text: str) -> str:
    """Return a text without thoughts, also where the prompt opened them, or they were cut off."""
    kept: list[str] = []
    place, inside = 0, False
    for mark in _THOUGHT.finditer(text):
        if any(mark.groups()):
            if not inside:
                kept.clear()
            place, inside = mark.end(), False
        elif not inside:
            kept.append(text[place : mark.start()])
            inside = True
    if not inside:
        kept.append(text[place:])
    return text if len(kept) == 1 and kept[0] == text else "".join(kept).strip()


def _of_tags(text: str) -> str:
    """Return what stands in the last `<answer>` or `\\boxed{}`, where there is one."""
    for begin, end in (("<answer>", "</answer>"), ("\\boxed{", "}")):
        place = text.rfind(begin)
        if place >= 0:
            inner = text[place + len(begin) :]
            return inner.partition(end)[0].strip()
    return text


def _of_fence(text: str) -> str:
    """Return what a fence around the whole text holds, and the answer in JSON that is fenced within other words."""
    before, fence, rest = text.partition("```")
    inner, closed, after = rest.partition("```")
    if not (fence and closed):
        return text
    inner = inner[_LANGUAGE.match(inner).end() :].strip() if "\n" in inner else inner.strip()  # pyright: ignore[reportOptionalMemberAccess]
    read = _of_json(inner)
    return read if read != inner else text if before.strip() or after.strip() else inner


def _of_json(text: str) -> str:
    """Return the answer of a JSON object or list of one, or the text where it is none."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, dict):
        found = next((found[name] for name in _FIELDS if name in found), None)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return json.dumps(found)
    return found.strip() if isinstance(found, str) else text


def _of_pair(text: str) -> str:
    """Return what stands between quotes or marks of bold letters that are around the whole text and nowhere inside."""
    bare = text.strip()
    for begin, end in _PAIRS:
        inner = bare[len(begin) : -len(end)]
        whole = len(bare) > len(begin) + len(end) and bare.startswith(begin) and bare.endswith(end)
        if whole and begin not in inner and end not in inner:
            return inner.strip()
    return text
