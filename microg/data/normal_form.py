"""The form in which answers are compared, and which answers say that a question cannot be answered."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBERS = {word: str(number) for number, word in enumerate(_UNITS)}
_ARTICLES = {"a", "an", "the"}
_LONGEST_MARKER = 4  # words by which a true answer says that there is none: "Not mentioned.", "Unanswerable."
# Said of a question that the video does not answer. Phrases that may be answers ("not visible") are left out.
_ABSTAINS = re.compile(
    r"\bnot (?:mentioned|specified|stated|provided|given|known|clear|determinable|(?:\w+ )?possible to \w+)\b"
    r"|\b(?:cannot|can not|cant|could not|couldnt) (?:be )?(?:determined?|tell|told|say|said|known?|answer(?:ed)?)\b"
    r"|\b(?:no|insufficient|not enough) information\b|\b(?:do not|dont) know\b|\bimpossible to \w+\b"
    r"|^(?:it is |its )?(?:unknown|unanswerable|unclear|undetermined|unspecified)"
    r"(?: (?:from|in|based|who|what|how)\b.*)?$"
)


@lru_cache(maxsize=100_000)
def normalise(text: str) -> str:
    """Return the form in which answers are compared.

    >>> normalise("The Two crew-members."), normalise("can't")
    ('2 crew members', 'cant')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[^\w\s]|_", " ", re.sub(r"['’`]", "", folded)).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def abstains(normalised: str) -> bool:
    """Tell whether an answer says that the question cannot be answered.

    >>> abstains(normalise("The name isn't known, it is not mentioned.")), abstains(normalise("He is not visible."))
    (True, False)
    """
    return bool(_ABSTAINS.search(normalised))


def is_no_answer(reference: str) -> bool:
    """Tell whether a true answer is the mark of a question that cannot be answered, and nothing more.

    >>> is_no_answer("Not mentioned."), is_no_answer("Her name is not mentioned, but she wears a red shirt.")
    (True, False)
    """
    true = normalise(reference)
    return abstains(true) and len(true.split()) <= _LONGEST_MARKER
