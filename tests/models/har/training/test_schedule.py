from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from microg.models.har.training import augment, optimizers
from microg.models.har.training.optimizers import learning_rate
from microg.models.har.training.settings import ScheduleSettings


def reference_rate(facts: dict[str, Any], epoch: float) -> float:
    """The reference's rule written out from the protocol facts, not from our code."""
    steps, last = [*facts["steps"], facts["max_epoch_last_run"]], len(facts["lrs"]) - 1

    def by_steps(at: float) -> float:
        index = next((place for place, start in enumerate(steps) if at < start), len(steps))
        return facts["base_lr"] * facts["lrs"][min(index - 1, last)]

    warm = facts["warmup_epochs"]
    if epoch >= warm:
        return by_steps(epoch)
    return facts["warmup_start_lr"] + epoch * (by_steps(warm) - facts["warmup_start_lr"]) / warm


def test_every_published_run_gets_the_reference_rate_at_every_iteration(oracles: Path) -> None:
    models = json.loads((oracles / "har_models" / "protocol_facts.json").read_text())["models"]
    trained = {name: facts for name, facts in models.items() if "base_lr" in facts}
    assert len(trained) == 12
    for name, facts in trained.items():
        settings = ScheduleSettings(
            lr=facts["base_lr"],
            starts=tuple(facts["steps"]),
            relative=tuple(facts["lrs"]),
            warmup_epochs=facts["warmup_epochs"],
            warmup_start_lr=facts["warmup_start_lr"],
        )
        iterations = 3835 // facts["batch_global"]
        for epoch in range(facts["max_epoch_last_run"]):
            for iteration in range(0, iterations, 7):
                at = epoch + iteration / iterations
                expected = reference_rate(facts, at)
                assert learning_rate(settings, at, facts["max_epoch_last_run"]) == pytest.approx(expected, rel=1e-12), (
                    name,
                    at,
                )


def test_warm_up_is_linear_from_its_start_to_the_first_full_rate() -> None:
    settings = ScheduleSettings(lr=0.1, warmup_epochs=5, warmup_start_lr=0.000125)
    assert learning_rate(settings, 0, 40) == 0.000125
    assert learning_rate(settings, 1, 40) == pytest.approx(0.000125 + (0.1 - 0.000125) / 5)
    assert learning_rate(settings, 5, 40) == 0.1


def test_cosine_falls_from_the_rate_to_its_end() -> None:
    settings = ScheduleSettings(policy="cosine", lr=0.2, end_lr=0.002, warmup_epochs=0)
    assert learning_rate(settings, 0, 10) == pytest.approx(0.2)
    assert learning_rate(settings, 5, 10) == pytest.approx((0.2 + 0.002) / 2)
    assert learning_rate(settings, 10, 10) == pytest.approx(0.002)


def test_cosine_after_warm_up_starts_at_the_full_rate() -> None:
    settings = ScheduleSettings(policy="cosine", lr=0.2, warmup_epochs=2, warmup_start_lr=0, after_warmup=True)
    assert learning_rate(settings, 1, 10) == pytest.approx(0.1)
    assert learning_rate(settings, 2, 10) == pytest.approx(0.2)
    assert learning_rate(settings, 6, 10) == pytest.approx(0.1)


@pytest.mark.parametrize(("starts", "relative"), [((0, 5), (1,)), ((5,), (1,)), ((0, 9, 4), (1, 0.1, 0.01)), ((), ())])
def test_steps_that_make_no_schedule_are_refused(starts: tuple[float, ...], relative: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        ScheduleSettings(starts=starts, relative=relative)


def test_examples_in_docstrings_run() -> None:
    for module in (augment, optimizers):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
