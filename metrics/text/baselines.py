"""Systems that see no video, to be scored beside every model: what they reach is worth nothing.

constant: one text for everything. blind: answers from the question alone, captions of other clips. shuffled: the
model's own texts, each given to another clip. Constant and blind are made from the references (blind: of other clips).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from microg.metrics.text.answers import normalise
from microg.texts.pairs import Pair, Pairs

SYSTEMS = ("constant", "blind", "shuffled")
_LEAST_SUPPORT = 2


def baselines(pairs: Pairs, seed: int = 0) -> dict[str, list[str]]:
    """Return the texts of each system, aligned with `pairs.items`."""
    clips = [item.key.clip_id for item in pairs.items]
    true = [item.references[0] for item in pairs.items]
    moved = other_clips(clips, seed)
    return {
        "constant": [typical(true) if pairs.task == "caption" else most_common(true)] * len(true),
        "blind": [true[place] for place in moved] if pairs.task == "caption" else question_prior(pairs.items),
        "shuffled": [pairs.items[place].scored for place in moved],
    }


def most_common(texts: Sequence[str]) -> str:
    """Return the most frequent text, compared as answers are; of equals the first in alphabetical order.

    >>> most_common(["Yes.", "Not mentioned.", "yes", "No."])
    'Yes.'
    """
    return _top(_count(texts), _first_forms(texts), Counter())[0]


def typical(texts: Sequence[str]) -> str:
    """Return the text whose set of words agrees best with all texts (mean Dice coefficient); of equals the first.

    >>> typical(["a man floats", "a man sleeps", "two women wave"])
    'a man floats'
    """
    words = [sorted(set(normalise(text).split())) for text in texts]
    codes = {word: code for code, word in enumerate(dict.fromkeys(word for item in words for word in item))}
    sizes = np.array([len(item) for item in words])
    distinct, size_code = np.unique(sizes, return_inverse=True)
    # texts by (size, word): all that the overlap with every text depends on
    there = np.zeros((len(codes) + 1, len(distinct)))
    for item, code in zip(words, size_code, strict=True):
        there[[codes[word] for word in item], code] += 1
    scores = np.zeros(len(texts))
    for place, item in enumerate(words):
        overlap = there[[codes[word] for word in item]].sum(axis=0)
        scores[place] = (2 * overlap / np.maximum(sizes[place] + distinct, 1)).sum()
    return texts[int(np.argmax(scores))]


def question_prior(items: Sequence[Pair]) -> list[str]:
    """Return for each question the most frequent answer to questions that begin alike, of other clips.

    The longest beginning counts for which other clips gave one answer at least twice. (The per-question-type prior of
    Antol et al. 2015, with the type as fine as the data allow.)
    """
    clips = [item.key.clip_id for item in items]
    true = [item.references[0] for item in items]
    forms = _first_forms(true)
    answers = [normalise(text) for text in true]
    starts = [_beginnings(item.question) for item in items]
    totals: dict[tuple[str, ...], Counter[str]] = {}
    own: dict[tuple[tuple[str, ...], str], Counter[str]] = {}
    for clip, answer, beginnings in zip(clips, answers, starts, strict=True):
        for start in beginnings:
            totals.setdefault(start, Counter())[answer] += 1
            own.setdefault((start, clip), Counter())[answer] += 1
    ranked = {
        start: Counter(dict(sorted(count.items(), key=lambda p: (-p[1], p[0])))) for start, count in totals.items()
    }
    result = []
    for clip, beginnings in zip(clips, starts, strict=True):
        text = ""
        for start in beginnings:
            text, support = _top(ranked[start], forms, own[start, clip])
            if support >= _LEAST_SUPPORT:
                break
        result.append(text)
    return result


def other_clips(clips: Sequence[str], seed: int = 0) -> list[int]:
    """Return for each item the place of an item of another clip, each once, wherever no clip has more than half.

    Clips are put in random order, their items in a row, in random order too (a clip's first question is often of one
    kind), and the row is turned by the largest clip's size.
    """
    groups: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        groups.setdefault(clip, []).append(place)
    names = sorted(groups)
    chance = np.random.default_rng(seed)
    chance.shuffle(names)
    row = [place for name in names for place in chance.permutation(groups[name]).tolist()]
    step = max(map(len, groups.values()), default=0)
    turned = row[step:] + row[:step]
    result = [0] * len(clips)
    for place, other in zip(row, turned, strict=True):
        result[place] = other
    return result


def _count(texts: Sequence[str]) -> Counter[str]:
    counts = Counter(normalise(text) for text in texts)
    return Counter(dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))))


def _first_forms(texts: Sequence[str]) -> dict[str, str]:
    forms: dict[str, str] = {}
    for text in texts:
        forms.setdefault(normalise(text), text)
    return forms


def _top(ranked: Counter[str], forms: dict[str, str], own: Counter[str]) -> tuple[str, int]:
    """Return the most frequent answer less one's own, and its count; `ranked` falls by count, then alphabetically."""
    best, most = "", 0
    for answer, count in ranked.items():
        if count <= most:
            break
        left = count - own.get(answer, 0)
        if left > most:
            best, most = answer, left
    return forms.get(best, ""), most


def _beginnings(question: str | None) -> list[tuple[str, ...]]:
    words = tuple(normalise(question or "").split())
    return [words[:length] for length in range(len(words), -1, -1)]
