from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from microg.errors import ConfigError
from microg.pipelines.core.training.plan import PADDING, Plan, Position

PLAN = Plan(train=103, val=17, batch=24, micro_batch=6, workers=1, epochs=3, validate_every=2, seed=5)


def shown(plan: Plan, start: Position = Position()) -> list[tuple[int, bool, tuple[int, ...]]]:
    """All (epoch, validation, key frames of a step or of validation) in the order of the run, from every worker."""
    steps: dict[tuple[int, int], list[int]] = {}
    vals: dict[int, list[int]] = {}
    for worker in range(plan.workers):
        units = iter(plan.units_of(worker, start))
        for epoch in range(start.epoch, plan.epochs):
            for iteration in range(start.iteration if epoch == start.epoch else 0, plan.iterations):
                for _ in range(plan.micro_batches * plan.blocks):
                    unit = plan.unit(next(units))
                    assert (unit.epoch, unit.validation) == (epoch, False)
                    steps.setdefault((epoch, iteration), []).extend(unit.keys)
            if plan.validates(epoch):
                for _ in range(plan.val_rounds):
                    unit = plan.unit(next(units))
                    assert (unit.epoch, unit.validation) == (epoch, True)
                    vals.setdefault(epoch, []).extend(unit.keys)
        assert next(units, None) is None
    return [(epoch, False, tuple(keys)) for (epoch, _), keys in sorted(steps.items())] + [
        (epoch, True, tuple(keys)) for epoch, keys in sorted(vals.items())
    ]


def test_an_epoch_shows_no_key_frame_twice_and_leaves_out_only_the_incomplete_batch() -> None:
    epochs: dict[int, Counter[int]] = {}
    for epoch, validation, keys in shown(PLAN):
        if not validation:
            epochs.setdefault(epoch, Counter()).update(keys)
    assert len(epochs) == 3
    for counts in epochs.values():
        assert set(counts.values()) == {1}
        assert len(counts) == 103 // 24 * 24
    assert len({tuple(PLAN.order(epoch)) for epoch in range(3)}) == 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_validation_sees_every_key_frame_exactly_once(workers: int) -> None:
    found = [(epoch, keys) for epoch, validation, keys in shown(replace(PLAN, workers=workers)) if validation]
    assert [epoch for epoch, _ in found] == [1, 2]  # every second epoch, and the last
    for _, keys in found:
        assert sorted(key for key in keys if key != PADDING) == list(range(17))


def micro_batches(plan: Plan, worker: int, count: int) -> list[tuple[int, ...]]:
    units = iter(plan.units_of(worker, Position()))
    return [tuple(key for _ in range(plan.blocks) for key in plan.unit(next(units)).keys) for _ in range(count)]


def test_the_number_of_workers_changes_nothing_but_who_computes_a_micro_batch() -> None:
    alone = micro_batches(PLAN, 0, 8)
    for workers in (2, 4):
        plan = replace(PLAN, workers=workers)
        parts = [micro_batches(plan, worker, 8 // workers) for worker in range(workers)]
        assert [part for turn in zip(*parts, strict=True) for part in turn] == alone


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [Position(0, 2), Position(1, 0), Position(1, 4), Position(2, 3), Position(3, 0)])
def test_resuming_shows_exactly_what_was_not_shown_yet(start: Position, workers: int) -> None:
    plan = replace(PLAN, workers=workers)
    everything = shown(plan)
    done = start.epoch * plan.iterations + start.iteration
    steps, vals = [part for part in everything if not part[1]], [part for part in everything if part[1]]
    assert shown(plan, start) == steps[done:] + [part for part in vals if part[0] >= start.epoch]


def test_published_sizes_give_the_reference_number_of_iterations() -> None:
    # distributed sampler, then an incomplete last batch left out: 3,835 key frames on 3 or 4 GPUs
    for batch, gpus, iterations in ((63, 3, 60), (64, 4, 59), (48, 3, 79), (16, 4, 239)):
        plan = Plan(
            train=3835,
            val=542,
            batch=batch,
            micro_batch=batch // gpus,
            workers=gpus,
            epochs=40,
            validate_every=5,
            seed=0,
        )
        assert plan.iterations == iterations
        assert plan.micro_batches == 1
        assert plan.micro_batch % plan.block == 0


def test_a_split_smaller_than_a_batch_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"3 samples.*--set batch"):
        Plan(train=3, val=1, batch=8, micro_batch=8, workers=1, epochs=1, validate_every=1, seed=0)
