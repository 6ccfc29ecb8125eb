"""Judgements as people read them in lists, and decisions as people write them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from microg.annotations.rows import Kind
from microg.data.vocabulary import Vocabulary
from microg.errors import AnnotationError, DatasetError

NO_ACTION, CANNOT_TELL, REJECT, AS = "none", "cannot tell", "reject", "as "
_BETWEEN_TEXTS = " | "


def in_words(value: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    """Return what somebody said, for people: `12 stand; 80 watch (a person)`, `drop: a title`, a text, `reject`.

    A question and its answer are written `Who floats? | An astronaut.`
    """
    if value.get("withdrawn"):
        return "withdrawn"
    if "keep" in value:
        return ("keep" if value["keep"] else "drop") + (f": {value['reason']}" if value.get("reason") else "")
    if "verdict" in value:
        texts = [value[name] for name in ("caption", "question", "answer") if name in value]
        return REJECT if value["verdict"] == REJECT else _BETWEEN_TEXTS.join(texts)
    if "op" in value:
        return _edit_in_words(value)
    if value.get("cannot_tell"):
        return CANNOT_TELL
    known = vocabulary.by_id
    return "; ".join(known[each].label if each in known else str(each) for each in value["actions"]) or NO_ACTION


def _edit_in_words(value: Mapping[str, Any]) -> str:
    if value["op"] == "draw":
        return f"drew {sum(map(len, value['stretches']))} boxes"
    if value["op"] == "merge":
        return f"merged into person {value['into']}"
    if value["op"] == "split":
        return f"split from frame {value['frame']}, then person {value['new']}"
    return "deleted"


def read_decision(
    text: str, kind: Kind, vocabulary: Vocabulary, said: Mapping[str, Mapping[str, Any]], where: str
) -> dict[str, Any]:
    """Return the value that a decision means.

    Args:
        text: What `in_words` writes, or `as NAME` for what an annotator said.
        kind: What it decides.
        vocabulary: The dataset's actions.
        said: What annotators said of the item.
        where: What to call its place in errors.

    Raises:
        AnnotationError: It is no decision of this kind.
    """
    plain = text.strip()
    if plain.casefold().startswith(AS) and (name := plain[len(AS) :].strip()) in said:
        return dict(said[name])
    if kind == "action":
        return _actions(plain, vocabulary, where)
    if kind == "screening":
        word, _, reason = (part.strip() for part in plain.partition(":"))
        if word.casefold() not in ("keep", "drop"):
            raise AnnotationError(f"{where}: {plain!r} is no decision", "write 'keep', 'drop: why', or 'as NAME'")
        keep = word.casefold() == "keep"
        return {"keep": keep, **({"reason": reason} if reason else {})}
    if kind == "caption":
        rejected = plain.casefold() == REJECT
        return {"verdict": REJECT, "caption": ""} if rejected else {"verdict": "edit", "caption": plain}
    if kind == "qa":
        return _question(plain, said, where)
    raise AnnotationError(f"{where}: nothing is decided about {kind} in a list", "edit boxes in 'microg review'")


def _actions(plain: str, vocabulary: Vocabulary, where: str) -> dict[str, Any]:
    if plain.casefold() == CANNOT_TELL:
        return {"actions": [], "cannot_tell": True}
    if plain.casefold() == NO_ACTION:
        return {"actions": []}
    try:
        return {"actions": sorted({vocabulary.parse(part) for part in plain.split(";") if part.strip()})}
    except DatasetError as error:
        raise AnnotationError(f"{where}: {error.what}", error.fix) from error


def _question(plain: str, said: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    if plain.casefold() == REJECT:
        return {"verdict": REJECT, "question": "", "answer": ""}
    question, mark, answer = plain.partition(_BETWEEN_TEXTS)
    if mark:
        return {"verdict": "edit", "question": question.strip(), "answer": answer.strip()}
    asked = {each["question"] for each in said.values() if each.get("question")}
    if len(asked) != 1:
        raise AnnotationError(
            f"{where}: {plain!r} does not say which question it answers", "write 'question | answer', or 'as NAME'"
        )
    return {"verdict": "edit", "question": asked.pop(), "answer": plain}
