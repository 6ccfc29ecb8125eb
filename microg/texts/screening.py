"""What a model said of whether a clip shows people in weightlessness (prompts of task `screening`)."""

from __future__ import annotations

import json
from typing import NamedTuple

from microg.errors import FormatError


class Screening(NamedTuple):
    """A model's judgement: keep the clip or drop it, None where it could not tell, and its reason."""

    keep: bool | None
    reason: str


def read_screening(text: str) -> Screening:
    """Read a generated answer of task `screening`.

    Raises:
        FormatError: It is not of the shape that the prompt asks for.

    >>> read_screening('{"weightless": "no", "reason": "a title"}')
    Screening(keep=False, reason='a title')
    """
    try:
        value = json.loads(text)
        keep = {"yes": True, "no": False, "unclear": None}[value["weightless"]]
        return Screening(keep, str(value.get("reason") or "").strip())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{text[:80]!r} is no screening", 'it looks like {"weightless": "yes", "reason": "..."}'
        ) from error
