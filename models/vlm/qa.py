"""Questions for dataset builders, from captions (paper, section 3): proposed, ranked, filtered, chosen, checked.

Pure but for the engine: every step takes replies and gives candidates, which keep what each step said of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from microg.models.vlm.base import Reply, Request
from microg.models.vlm.prompts import Prompt, prompt

PROMPTS = PROPOSE, RANK, CHECK = "qa-propose-v1", "qa-rank-v1", "qa-check-v1"
CRITERIA = ("consistency", "fluency", "relevance", "information")
_WORD = re.compile(r"\w+")
# Below this in any criterion a pair is dropped; above this share of common words two questions are the same.
_LOWEST, _ALIKE = 3, 0.6

Ask = Callable[[Prompt, Sequence[Request]], Iterable[Reply]]


@dataclass(frozen=True)
class Candidate:
    """One proposed pair of a clip and what became of it.

    `reason` says why it was dropped, or is empty; `chosen` is its place from 0 among those kept, or None; `review` says
    why people should look at it, or is empty. `error`: a step could not be done for it.
    """

    clip_id: str
    number: int
    form: str
    question: str
    answer: str
    consistency: int | None = None
    fluency: int | None = None
    relevance: int | None = None
    information: int | None = None
    reason: str = ""
    chosen: int | None = None
    review: str = ""
    error: str = ""

    @property
    def score(self) -> int:
        """Sum of the four criteria."""
        return sum(getattr(self, name) or 0 for name in CRITERIA)


def make_pairs(captions: dict[str, str], ask: Ask, count: int = 6) -> tuple[list[Candidate], dict[str, str]]:
    """Return all candidates of all clips, and for clips without any the reason.

    `captions`: clip id -> caption; `ask` answers the requests of a prompt, in any order; `count` pairs a clip are kept.
    """
    proposals, failed = propose(captions, ask, 2 * count)
    by_clip: dict[str, list[Candidate]] = {}
    for candidate in rank(captions, proposals, ask):
        by_clip.setdefault(candidate.clip_id, []).append(candidate)
    candidates = [candidate for listed in by_clip.values() for candidate in choose(listed, count)]
    return check(captions, candidates, ask), failed


def propose(captions: dict[str, str], ask: Ask, count: int) -> tuple[list[Candidate], dict[str, str]]:
    """Step 1: ask for `count` candidates a caption."""
    template = prompt(PROPOSE)
    requests = [template.request(clip, caption=text, count=str(count)) for clip, text in captions.items()]
    candidates: list[Candidate] = []
    failed: dict[str, str] = {}
    for clip, (value, problem) in read_json(PROPOSE, ask(template, requests)).items():
        if problem or not value["pairs"]:
            failed[clip] = problem or "no pair was proposed"
            continue
        for number, pair in enumerate(value["pairs"]):
            texts = (pair["form"].strip().lower(), pair["question"].strip(), pair["answer"].strip())
            candidates.append(Candidate(clip, number, *texts))
    return sorted(candidates, key=lambda each: (each.clip_id, each.number)), failed


def rank(captions: dict[str, str], candidates: list[Candidate], ask: Ask) -> list[Candidate]:
    """Step 2: judge each candidate, and drop what is hallucinated, uncertain, empty or bad by some criterion."""
    judged = [place for place, each in enumerate(candidates) if each.question and each.answer]
    verdicts = _verdicts(RANK, captions, candidates, judged, ask)
    result = []
    for place, each in enumerate(candidates):
        if place not in verdicts:
            result.append(replace(each, reason="question or answer is empty"))
            continue
        value, problem = verdicts[place]
        if problem:
            result.append(replace(each, reason="not judged", error=problem))
            continue
        low = [name for name in CRITERIA if value[name] < _LOWEST]
        reasons = [name for name in ("hallucinated", "uncertain") if value[name]] + [f"low {name}" for name in low]
        result.append(replace(each, **{name: value[name] for name in CRITERIA}, reason=", ".join(reasons)))
    return result


def choose(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Choose `count` candidates of one clip: the best of each form first, then the best of what is left.

    A question that is nearly one already chosen is dropped. Ties go to the earlier proposal.
    """
    order = sorted((each for each in candidates if not each.reason), key=lambda each: (-each.score, each.number))
    chosen: list[Candidate] = []
    dropped: dict[int, str] = {}
    for new_form in (True, False):
        for each in order:
            if len(chosen) == count or each in chosen or each.number in dropped:
                continue
            if new_form and each.form in {other.form for other in chosen}:
                continue
            alike = next((other for other in chosen if _alike(each.question, other.question) > _ALIKE), None)
            if alike is not None:
                dropped[each.number] = f"much like candidate {alike.number}"
            else:
                chosen.append(each)
    places = {each.number: place for place, each in enumerate(sorted(chosen, key=lambda each: each.number))}

    def left(each: Candidate) -> str:
        return "" if each.number in places else dropped.get(each.number, "others are better")

    return [replace(each, chosen=places.get(each.number), reason=each.reason or left(each)) for each in candidates]


def check(captions: dict[str, str], candidates: list[Candidate], ask: Ask) -> list[Candidate]:
    """Step 3: flag chosen pairs whose answer does not mean what the caption says."""
    chosen = [place for place, each in enumerate(candidates) if each.chosen is not None]
    result = list(candidates)
    for place, (value, problem) in _verdicts(CHECK, captions, candidates, chosen, ask).items():
        if problem:
            result[place] = replace(result[place], review="could not be checked", error=problem)
        elif not value["same"]:
            result[place] = replace(result[place], review=f"from the caption alone: {value['own_answer'].strip()}")
    return result


def _verdicts(
    name: str, captions: dict[str, str], candidates: list[Candidate], places: list[int], ask: Ask
) -> dict[int, tuple[dict, str]]:
    """Ask the prompt `name` about the candidates at `places`; return the JSON of each reply, or what is wrong."""
    template, requests = prompt(name), []
    for place in places:
        each = candidates[place]
        fields: dict[str, Any] = {"caption": captions[each.clip_id], "question": each.question, "answer": each.answer}
        requests.append(template.request(str(place), **fields))
    return {int(key): value for key, value in read_json(name, ask(template, requests)).items()}


def read_json(name: str, replies: Iterable[Reply]) -> dict[str, tuple[dict, str]]:
    """Return the JSON of each reply, or what is wrong with it."""
    read: dict[str, tuple[dict, str]] = {}
    for reply in replies:
        if reply.status != "ok" or reply.text is None:
            read[reply.key] = ({}, reply.error or "no text")
            continue
        try:
            read[reply.key] = (json.loads(prompt(name).read(reply.text)), "")
        except ValueError as error:
            read[reply.key] = ({}, str(error))
    return read


def _alike(first: str, second: str) -> float:
    """Return the share of words that two questions have in common."""
    one, two = (set(_WORD.findall(text.lower())) for text in (first, second))
    return len(one & two) / max(len(one | two), 1)
