"""Tokenizers of the protocols: `raw` leaves texts as they are, `ptb` is the field's Penn Treebank tokenizer.

Raw texts are cased and keep punctuation; metrics split them at whitespace. PTB texts are lower-cased words joined by
spaces, punctuation removed; one text's tokens do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from microg.metrics.text.java import JavaProgram, jar
from microg.metrics.text.ngrams import blocks

Tokenizer = Callable[[Sequence[str]], list[str]]

# Tokens removed after tokenizing; brackets are there in upper case only, while tokens are lower-cased: they stay.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
# Without a line after it, the tokens of "No." depend on what the next text begins with.
_GUARD = "the"
_AT_ONCE = 20_000
# Tokens of this process's texts: the same references are tokenized for each model and baseline.
_KEPT = 200_000
_known: dict[str, str] = {}


def raw(texts: Sequence[str]) -> list[str]:
    """Return texts as they are."""
    return list(texts)


def ptb(texts: Sequence[str]) -> list[str]:
    """Return PTB tokens joined by spaces, lower case, without punctuation; each text for itself.

    Texts are strings as `microg.metrics.text.items.check` lets through. Raises `JavaError`.

    >>> ptb(["An astronaut's tool-belt isn't visible.", ""])
    ["an astronaut 's tool-belt is n't visible", '']
    """
    clean = [one_line(text) for text in texts]
    distinct = set(clean)
    if len(_known) + len(distinct) > _KEPT:
        _known.clear()
    new = sorted(distinct - _known.keys())
    for part in blocks(len(new), _AT_ONCE):
        _known.update(zip(new[part], _ptb_lines(new[part]), strict=True))
    tokens = {text: _known[text] for text in distinct}
    return [tokens[text] for text in clean]


def one_line(text: str) -> str:
    """Return a text without the separator `|||`, each run of whitespace (line ends of any kind) as one space.

    >>> one_line("a\u2028b ||| c ")
    'a b c'
    """
    return " ".join(text.replace("|||", " ").split())


def _ptb_lines(texts: Sequence[str]) -> list[str]:
    program = ["-cp", str(jar("tokenizer", "stanford-corenlp-3.4.1.jar")), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = [line for text in texts for line in (text, _GUARD)]
    with JavaProgram("the PTB tokenizer", [], [*program, "-preserveLines", "-lowerCase"]) as tokenizer:
        answers = tokenizer.ask(lines, last=True)
    return [" ".join(word for word in line.split(" ") if word and word not in PUNCTUATION) for line in answers[::2]]


TOKENIZERS: dict[str, Tokenizer] = {"raw": raw, "ptb": ptb}
