"""What a validation found: the loss of the true answers, and scores of the answers that the model gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from microg.metrics.text import registry
from microg.pipelines.core.live_scores import defined
from microg.pipelines.vlm.live_scores import fold
from microg.pipelines.vlm.train.stream import Lesson
from microg.texts.pairs import Pair, Pairs


@dataclass
class Answers:
    """What one worker found; sums over its clips.

    Attributes:
        loss_sum: Cross-entropy in nats over all answer tokens.
        tokens: Number of these.
        clips: Clips looked at.
        pairs: What the model said beside what is true.
        failures: Clips that could not be used, with the reason.
    """

    loss_sum: float = 0.0
    tokens: int = 0
    clips: int = 0
    pairs: list[Pair] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, lesson: Lesson, texts: Sequence[str]) -> None:
        """Take what the model said to the requests of a lesson."""
        for key, request, truth, text in zip(lesson.keys, lesson.requests, lesson.answers, texts, strict=True):
            question = request.prompt if key.task == "vqa" else None
            self.pairs.append(Pair(key, (truth,), question, text, "ok" if text.strip() else "empty"))


def scores_of(parts: Iterable[Answers], *, once: bool) -> dict[str, Any]:
    """Return the loss a token, counts, and the scores of the answers, each the mean over the tasks that have it.

    Args:
        parts: What each worker found.
        once: Whether all workers answered the same clips.
    """
    parts = list(parts)
    pairs = parts[0].pairs if once else [pair for part in parts for pair in part.pairs]
    by_task: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.key.clip_id, pair.key.qa_index or 0)):
        by_task.setdefault(pair.key.task, []).append(pair)
    found = defined(fold(Pairs(task, tuple(items)) for task, items in by_task.items()).scores())  # pyright: ignore
    means = {}
    for name in selectable()[1:]:
        values = [value for scores in found.values() if (value := scores.get(name)) is not None]
        if values:
            means[name] = sum(values) / len(values)
    return {
        "val_loss": sum(part.loss_sum for part in parts) / max(sum(part.tokens for part in parts), 1),
        "val_clips": sum(part.clips for part in parts),
        "val_answers": len(pairs),
        "scores": means,
    }


def selectable() -> list[str]:
    """Return what the best epoch can be chosen by: the loss, and scores that need neither Java nor an encoder.

    >>> selectable()[:3]
    ['loss', 'cider', 'bleu_1']
    """
    cheap = [registry.METRICS[name] for name in registry.names("nothing")]
    return ["loss", *(score for found in (*cheap, registry.ANSWERS) for score in found.scores)]
