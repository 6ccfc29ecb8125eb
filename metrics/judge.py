"""A language model as judge of answers: its prompt, how its reply is read, and what verdicts amount to.

The prompt is a versioned file whose hash goes with every verdict. A reply that cannot be read, or none, is a failure of
the judge and never a wrong answer: accuracy is over the judged, with bounds that hold whatever the failed would be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from microg import storage
from microg.errors import ConfigError
from microg.escaping import well_formed
from microg.texts.items import Task
from microg.texts.pairs import Pair

Verdict = Literal["correct", "incorrect"]
_PROMPTS = Path(__file__).with_name("prompts")
DEFAULT_PROMPTS: dict[Task, str] = {"vqa": "judge_vqa_v1", "caption": "judge_caption_v1"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["correct", "incorrect"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 5},
        "reason": {"type": "string"},
    },
    "required": ["verdict", "score", "reason"],
    "additionalProperties": False,
}
_HIGHEST = 5.0


@dataclass(frozen=True)
class JudgePrompt:
    """A judge's prompt: `user` holds `{item}`, where question and answers stand as JSON; `digest` is of the file."""

    id: str
    task: Task
    system: str
    user: str
    digest: str

    def fill(self, pair: Pair) -> str:
        """Return the user message for an item. Question and answers are data inside JSON, not part of the prompt."""
        item: dict[str, Any] = {"correct_answer": pair.references[0], "given_answer": pair.scored}
        if len(pair.references) > 1:
            item["also_correct"] = list(pair.references[1:])
        if pair.question is not None:
            item = {"question": pair.question, **item}
        return self.user.format(item=json.dumps(item, ensure_ascii=False, indent=2))


def judge_prompt(name: str) -> JudgePrompt:
    """Return a prompt that comes with the package, or the one in the YAML file `name`.

    Raises `ConfigError` when there is none, or it lacks a key.

    >>> judge_prompt("judge_vqa_v1").task
    'vqa'
    """
    file = _PROMPTS / f"{name}.yaml"
    bundled = "/" not in name and file.is_file()
    if not bundled and not (name.endswith((".yaml", ".yml")) and storage.exists(name)):
        known = ", ".join(sorted(path.stem for path in _PROMPTS.glob("*.yaml")))
        raise ConfigError(f"there is no judge prompt {name!r}", f"prompts are {known}, or a YAML file of your own")
    data = file.read_bytes() if bundled else storage.read_bytes(name)
    try:
        found = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from error
    found = found if isinstance(found, dict) else {}
    lacks = [key for key in ("id", "task", "system", "user") if not isinstance(found.get(key), str)]
    if lacks or found["task"] not in DEFAULT_PROMPTS:
        raise ConfigError(f"judge prompt {name} lacks {', '.join(lacks) or 'a task: vqa or caption'}")
    prompt = JudgePrompt(found["id"], found["task"], found["system"], found["user"], hashlib.sha256(data).hexdigest())
    try:
        filled = prompt.user.format(item="ITEM")
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"judge prompt {name}: braces other than {{item}} are written twice: {error}") from error
    if "ITEM" not in filled:
        raise ConfigError(f"judge prompt {name}: its user text does not hold {{item}}")
    return prompt


@dataclass(frozen=True)
class Judgement:
    """What a judge said of an item, or why there is no verdict (`error`). `cost`: US dollars now, None if not known."""

    pair: Pair
    verdict: Verdict | None = None
    score: float | None = None
    reason: str | None = None
    error: str | None = None
    cached: bool = False
    cost: float | None = None


_MOST_OBJECTS = 100


def read_verdict(text: str) -> tuple[Verdict, float | None, str | None]:
    """Return verdict, score (0 to 5) and reason of a judge's reply: its first JSON object with a verdict.

    Raises `ValueError` saying what is wrong with it.

    >>> read_verdict('Sure: {"verdict": "Correct", "score": 5, "reason": "same"}')
    ('correct', 5.0, 'same')
    """
    decoder = json.JSONDecoder()
    found: Any = None
    # a reply of braces alone would otherwise be read once from each of them
    for place in islice((place for place, letter in enumerate(text) if letter == "{"), _MOST_OBJECTS):
        try:
            found, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if "verdict" in found:
            break
        found = None
    if found is None:
        raise ValueError(f"no verdict in {text[:80]!r}")
    verdict = str(found["verdict"]).strip().lower()
    if verdict not in ("correct", "incorrect"):
        raise ValueError(f"verdict {found['verdict']!r} is neither correct nor incorrect")
    score, reason = found.get("score"), found.get("reason")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise ValueError(f"score {score!r} is no number")
    if score is not None and not 0 <= score <= _HIGHEST:
        raise ValueError(f"score {score!r} is not between 0 and 5")
    return verdict, None if score is None else float(score), None if reason is None else well_formed(str(reason))


def summary(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Return counts, accuracy over the judged, and its bounds were all failures incorrect or correct.

    mean_score is 0 to 1, over verdicts with a score. Ratios without items are None, and so is a cost that is not known
    of every item.
    """
    found = list(judgements)
    judged = [item for item in found if item.verdict is not None]
    right = sum(item.verdict == "correct" for item in judged)
    scores = [item.score for item in judged if item.score is not None]
    failed = len(found) - len(judged)
    costs: list[Any] = [item.cost for item in found]
    ratio: Mapping[str, float | None] = {
        "accuracy": right / len(judged) if judged else None,
        "accuracy_low": right / len(found) if found else None,
        "accuracy_high": (right + failed) / len(found) if found else None,
        "mean_score": sum(scores) / len(scores) / _HIGHEST if scores else None,
    }
    return {
        "items": len(found),
        "judged": len(judged),
        "correct": right,
        "failed": failed,
        "cached": sum(item.cached for item in found),
        "cost": None if None in costs else sum(costs),
        **ratio,
    }
