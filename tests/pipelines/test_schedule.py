"""The order of samples: every sample once an epoch over all ranks, whatever the numbers of ranks and samples."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microg.errors import ConfigError
from pipelines.schedule import Schedule


def epoch_by_rank(ranks: list[Schedule], epoch: int) -> list[list[list[int]]]:
    """Return samples by step, rank."""
    parts = [iter(rank.rank_order(epoch).tolist()) for rank in ranks]
    return [
        [[next(part) for _ in range(rank.rank_batch(step))] for rank, part in zip(ranks, parts, strict=True)]
        for step in range(ranks[0].steps)
    ]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.booleans(), st.booleans())
def test_each_sample_comes_once_an_epoch_over_all_ranks(
    rows: int, batch: int, world: int, shuffle: bool, drop: bool
) -> None:
    if batch < world or (drop and rows < batch):
        return
    ranks = [Schedule(rows, batch, 0, 3, shuffle, 7, drop, rank, world) for rank in range(world)]
    for epoch in range(3):
        steps = epoch_by_rank(ranks, epoch)
        seen = [sample for step in steps for part in step for sample in part]
        assert len(seen) == len(set(seen)) == (rows // batch * batch if drop else rows)
        assert all(sum(map(len, step)) == batch for step in steps[: rows // batch])
        assert sum(rank.rank_rows for rank in ranks) == len(seen)
        for step in steps:
            assert max(map(len, step)) - min(map(len, step)) <= 1


def test_the_global_batch_is_the_same_for_any_number_of_ranks() -> None:
    one = epoch_by_rank([Schedule(50, 12, shuffle=True, seed=3)], 0)
    three = epoch_by_rank([Schedule(50, 12, shuffle=True, seed=3, rank=rank, world_size=3) for rank in range(3)], 0)
    assert [sorted(chain(*step)) for step in one] == [sorted(chain(*step)) for step in three]


def test_epochs_and_seeds_shuffle_differently_and_repeatably() -> None:
    first = Schedule(30, 5, 0, 9, True, seed=1)
    assert first.rank_order(2).tolist() == Schedule(30, 5, 2, 4, True, seed=1).rank_order(2).tolist()
    orders = {
        tuple(first.rank_order(0)),
        tuple(first.rank_order(1)),
        tuple(Schedule(30, 5, 0, 9, True, 2).rank_order(0)),
    }
    assert len(orders) == 3
    assert Schedule(4, 2).rank_order(5).tolist() == [0, 1, 2, 3]


def test_batches_tell_epoch_step_and_size() -> None:
    assert list(Schedule(5, 2, 1, 3).batches()) == [(1, 0, 2), (1, 1, 2), (1, 2, 1), (2, 0, 2), (2, 1, 2), (2, 2, 1)]
    assert [count for _, _, count in Schedule(5, 4, rank=1, world_size=2).batches()] == [2, 0]
    assert np.array_equal(Schedule(5, 4, rank=1, world_size=2).rank_order(0), [1, 3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 2, "world_size": 3}, "each of 3 workers"),
        ({"batch_size": 8, "drop_last": True}, "do not fill one global batch"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "no such schedule"),
    ],
)
def test_sizes_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(5, **values)
