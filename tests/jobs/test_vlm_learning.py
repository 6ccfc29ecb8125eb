"""A tiny vision-language model learns to see: its answers about clips that are new to it, beside a blind baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from microg import storage
from microg.demo.story import LESSONS
from microg.metrics.text.answers import exactly
from microg.metrics.text.report import question_prior
from microg.texts.files import read_text_predictions, read_text_references
from microg.texts.pairs import Pair, pair
from tests.support.processes import microg


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_model_trained_as_in_the_demo_answers_better_than_one_that_sees_nothing(
    tmp_path: Path, ray_session: None
) -> None:
    lessons, exam, trained, said, scored = (tmp_path / name for name in ("lessons", "exam", "run", "said", "scored"))
    assert microg("data", "synth", lessons, "--clips", 7 * 240, *LESSONS, "--seed", 1) == 0
    # clips of another seed, with six questions each
    assert microg("data", "synth", exam, "--clips", 400, *LESSONS, "--questions", 6, "--seed", 2) == 0
    for data in (lessons, exam):
        assert microg("data", "split", data) == 0
    assert microg("vlm", "train-tiny", lessons, "--run", trained) == 0
    assert (
        microg(
            "vlm",
            "generate",
            "--model",
            trained / "model",
            "--engine",
            "transformers",
            "--dataset",
            exam,
            "--run",
            said,
        )
        == 0
    )
    assert (
        microg("vlm", "score", "--run", said, "--references", exam, "--metrics", "cider", "--no-plots", "--out", scored)
        == 0
    )
    found = storage.read_json(str(scored / "metrics.json"))["tasks"]["vqa"]["standard"]
    seen, blind = found["scores"], found["baselines"]["blind"]
    print({name: (seen[name], blind[name]) for name in seen if name in blind})
    assert seen["count_accuracy"] >= blind["count_accuracy"] + 0.35
    assert seen["yes_no_accuracy"] >= blind["yes_no_accuracy"] + 0.12  # "no" where most clips do not show it
    assert seen["exact_match"] >= blind["exact_match"] + 0.2
    pairs = pair(read_text_predictions(str(said)), read_text_references(str(exam)), "vqa")
    asked = [item for item in pairs.items if item.question and item.question.endswith("doing?")]
    assert len(asked) > 200
    model, guessed = named_actions(asked)
    print({"action": (model, guessed)})
    assert model >= 2 * guessed


def named_actions(items: Sequence[Pair]) -> tuple[float, float]:
    """Return how often the model, and a guess from the question alone, name the action, with whomever it is done."""
    plain = [replace(item, references=(action(item.references[0]),), text=action(item.scored)) for item in items]
    said = [item.text or "" for item in plain], question_prior(plain)
    right = [sum(exactly(text, item.references) for text, item in zip(texts, plain, strict=True)) for texts in said]
    return right[0] / len(items), right[1] / len(items)


def action(answer: str) -> str:
    """Return an answer less with whom: "Shaking hands with the person in the red shirt." -> "Shaking hands"."""
    return answer.partition(" with the person")[0]
