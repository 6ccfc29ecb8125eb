from __future__ import annotations

from dataclasses import replace

import pytest

from microg.pipelines.core.training.lots import Lots
from microg.pipelines.core.training.plan import Plan, Position

PLAN = Plan(train=50, val=7, batch=12, micro_batch=4, workers=3, epochs=3, validate_every=2, seed=1)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", [Position(), Position(1, 2), Position(2, 4)])
@pytest.mark.parametrize("clip_bytes", [1, 2**20, 2**24])
def test_lots_hold_every_unit_of_each_worker_in_the_order_it_is_due(
    workers: int, start: Position, clip_bytes: int
) -> None:
    plan = replace(PLAN, workers=workers)
    lots = Lots.of(plan, start, clip_bytes)
    for worker in range(workers):
        dealt = [unit for lot in range(worker, lots.count, workers) for unit in lots.units(lot)]
        assert dealt == list(plan.units_of(worker, start))


def test_lots_are_alike_for_all_workers_so_that_dealing_them_in_turn_is_right() -> None:
    lots = Lots.of(PLAN, Position(1, 1), 2**21)
    sizes = [len(lots.units(lot)) for lot in range(lots.count)]
    assert lots.count > PLAN.workers
    assert all(len(set(sizes[turn : turn + PLAN.workers])) == 1 for turn in range(0, len(sizes), PLAN.workers))


def test_small_clips_share_a_lot_and_large_ones_do_not() -> None:
    assert Lots.of(PLAN, Position(), 2**18).size > 8
    assert Lots.of(PLAN, Position(), 2**24).size == 1


def test_a_run_that_is_done_has_no_lots() -> None:
    assert Lots.of(PLAN, Position(epoch=3), 1).count == 0
