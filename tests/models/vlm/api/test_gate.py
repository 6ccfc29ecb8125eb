"""Pace, number under way and money: the pure decisions, and the gate that waits."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from microg.errors import ConfigError
from microg.models.vlm.api.budget import Budget
from microg.models.vlm.api.gate import (
    BudgetError,
    GateCore,
    Limits,
    LocalGate,
    Outcome,
    Permit,
    Rate,
    Refused,
    Wait,
    Window,
)


def _send_times(rate: Rate, seconds: float, late: float = 0.0, amount: float = 1.0) -> list[float]:
    chance, now, sent = random.Random(0), 0.0, []
    while now < seconds:
        wait = rate.wait_s(now)
        if wait > 0:
            now += wait + chance.uniform(0, late)
        else:
            sent.append(now)
            rate.take(now, amount)
    return sent


@pytest.mark.parametrize("late", [0.0, 0.05])
def test_a_rate_is_nearly_used_up_and_never_exceeded_in_any_minute_or_second(late):
    sent = _send_times(Rate(600), 180, late)
    assert len(sent) / 3 >= 0.97 * 600
    for start in range(0, 1200, 7):
        within = [at for at in sent if start / 10 <= at < start / 10 + 60]
        assert len(within) <= 600
        assert len([at for at in within if at < start / 10 + 1]) <= 11


def test_a_rate_does_not_burst_after_a_pause():
    rate = Rate(600)
    _send_times(rate, 1)
    first = [now for now in (100 + step / 1000 for step in range(300)) if rate.wait_s(now) <= 0 and not rate.take(now)]
    assert len(first) <= 6


def test_tokens_that_were_not_used_are_given_back():
    rate = Rate(60_000, 100)
    rate.take(0.0, 10_000)
    assert rate.wait_s(0.0) == pytest.approx(10_000 / 980)
    rate.give_back(0.0, 9_000)
    assert rate.wait_s(0.0) == pytest.approx(1_000 / 980)


def test_a_refusal_slows_down_once_per_event_and_the_pace_recovers():
    rate = Rate(600)
    full = rate.pace(0.0)
    for moment in (1.0, 1.1, 1.2):
        rate.refused(moment)
    assert rate.pace(1.2) == pytest.approx(0.8 * full, rel=0.01)
    assert rate.pace(60.0) == full


def test_the_window_doubles_each_round_until_refused_then_grows_by_one_a_round():
    window = Window(2, 1000)
    for expected in (4, 8, 16):
        for _ in range(window.limit):
            window.succeeded(True)
        assert window.limit == expected
    window.refused(now=10.0, started=9.0)
    assert window.limit == 8
    window.refused(now=10.1, started=9.5)  # was under way when the window was halved
    assert window.limit == 8
    for _ in range(8):
        window.succeeded(True)
    assert window.size == pytest.approx(9, abs=0.5)


def test_the_window_grows_only_in_full_use_and_stays_between_one_and_its_largest():
    window = Window(4, 6)
    for _ in range(50):
        window.succeeded(False)
    assert window.limit == 4
    for _ in range(50):
        window.succeeded(True)
    assert window.limit == 6
    for moment in range(20):
        window.refused(float(moment), float(moment))
    assert window.limit == 1


def test_the_window_settles_near_what_a_server_can_take():
    window, now, sizes = Window(4, 64), 0.0, []
    for _ in range(400):  # rounds of requests to a server that takes 20 at once
        now += 1
        for place in range(window.limit):
            if place < 20:
                window.succeeded(True)
            else:
                window.refused(now, now - 0.5)
        sizes.append(window.limit)
    assert 10 <= sum(sizes[50:]) / len(sizes[50:]) <= 21
    assert max(sizes[50:]) <= 22


def _core(**limits: float) -> GateCore:
    return GateCore(Limits(**limits), Budget())  # pyright: ignore[reportArgumentType]


def test_a_pause_that_a_server_asks_for_holds_everybody_but_not_for_ever():
    core = _core(start=8)
    first = core.start(0.0, 1, 0, 10)
    assert isinstance(first, Permit)
    core.finish(1.0, first, Outcome("refused", retry_after_s=5))
    held = core.start(2.0, 1, 0, 10)
    assert isinstance(held, Wait)
    assert held.seconds == pytest.approx(4.0)
    second = core.start(6.0, 1, 0, 10)
    assert isinstance(second, Permit)
    core.finish(7.0, second, Outcome("refused", retry_after_s=90_000))
    assert isinstance(core.start(68.0, 1, 0, 10), Permit)


def test_a_permit_whose_holder_died_frees_its_place_and_counts_as_paid():
    core = GateCore(Limits(concurrency=1), Budget(1.0))
    lost = core.start(0.0, 1, 0.4, lease_s=10)
    assert isinstance(lost, Permit)
    assert isinstance(core.start(5.0, 1, 0.4, 10), Wait)
    assert isinstance(core.start(10.5, 1, 0.4, 10), Permit)
    assert (core.status().lost, core.status().spent) == (1, 0.4)
    core.finish(11.0, lost, Outcome("ok", cost=0.1))  # it lived after all: settled once
    assert core.status().spent == 0.4


def test_limits_that_responses_name_are_used_where_none_were_given():
    core = _core(start=64)
    first = core.start(0.0, 1, 0, 10)
    assert isinstance(first, Permit)
    core.finish(0.1, first, Outcome("ok", requests_per_minute=60))
    assert isinstance(core.start(0.1, 1, 0, 10), Permit)
    assert isinstance(core.start(0.2, 1, 0, 10), Wait)
    given = _core(start=64, requests_per_minute=600_000)
    one = given.start(0.0, 1, 0, 10)
    assert isinstance(one, Permit)
    given.finish(0.1, one, Outcome("ok", requests_per_minute=1))
    assert isinstance(given.start(0.2, 1, 0, 10), Permit)
    assert isinstance(given.start(0.3, 1, 0, 10), Permit)


def test_money_is_set_aside_before_sending_and_freed_by_what_was_not_used():
    budget = Budget(1.0)
    held = budget.hold(0.6)
    assert budget.check(0.6) == "later"
    assert budget.check(1.1) == "never"
    assert budget.settle(held, 0.1) == 0.1
    assert budget.check(0.6) == "yes"
    assert budget.settle(budget.hold(0.9), None) == 0.9  # nobody knows what it cost: all of it
    assert budget.check(0.01) == "never"


def test_a_request_that_cost_more_than_its_bound_makes_later_bounds_larger():
    budget = Budget(10.0)
    budget.settle(budget.hold(1.0), 2.0)
    assert budget.check(4.1) == "never"
    assert budget.check(3.9) == "yes"


def test_ten_cent_amounts_add_up_without_rounding():
    budget = Budget(1.0)
    for _ in range(10):
        budget.settle(budget.hold(0.1), 0.1)
    assert budget.spent == 1.0
    assert budget.check(0.000001) == "never"


def test_random_requests_at_once_never_exceed_the_cap_and_use_most_of_it():
    chance = random.Random(1)
    budget, under_way, spent = Budget(1.0), [], 0.0
    core = GateCore(Limits(concurrency=50, start=50), budget)
    now, refused = 0.0, False
    while not refused:
        now += 0.001
        found = core.start(now, 1, 0.02, 1000)
        if isinstance(found, Permit):
            under_way.append(found)
        elif isinstance(found, Refused):
            refused = True
        if under_way and (not isinstance(found, Permit) or chance.random() < 0.5):
            permit = under_way.pop(chance.randrange(len(under_way)))
            spent += core.finish(now, permit, Outcome("ok", cost=chance.uniform(0, 0.02)))
        assert budget.spent + budget.held <= 1.0
    for permit in under_way:
        spent += core.finish(now, permit, Outcome("ok", cost=0.02))
    assert budget.spent <= 1.0
    assert budget.spent > 0.95
    assert spent == pytest.approx(budget.spent)


def test_the_account_survives_its_process_and_what_was_under_way_counts_as_spent(tmp_path: Path):
    path = str(tmp_path / "account.sqlite")
    code = (
        "import os, signal, sys\nfrom microg.models.vlm.api.budget import Budget\n"
        "budget = Budget(1.0, journal=sys.argv[1])\n"
        "budget.settle(budget.hold(0.3), 0.1)\nbudget.hold(0.2)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -9
    budget = Budget(1.0, journal=path)
    assert budget.spent == pytest.approx(0.3)
    assert budget.settle(1, 0.05) == 0.05  # what the dead process had set aside, settled by its successor
    assert budget.spent == pytest.approx(0.15)
    with pytest.raises(ValueError, match="nothing is set aside"):
        budget.settle(1, 0.05)
    budget.close()


@pytest.mark.parametrize(("known", "spent"), [(0.0, 0.1), (0.05, 0.1), (0.4, 0.4)])
def test_of_what_rows_and_the_account_know_was_spent_the_larger_counts(tmp_path: Path, known: float, spent: float):
    with closing(Budget(1.0, journal=tmp_path / "account.sqlite")) as budget:
        budget.settle(budget.hold(0.3), 0.1)
    with closing(Budget(1.0, known, tmp_path / "account.sqlite")) as budget:
        assert budget.spent == pytest.approx(spent)
        budget.settle(budget.hold(0.2), 0.1)
    with closing(Budget(1.0, known, tmp_path / "account.sqlite")) as budget:  # such as after a crash
        assert budget.spent == pytest.approx(spent + 0.1)


def test_a_file_that_is_no_account_is_refused(tmp_path: Path):
    (tmp_path / "text").write_text("this is no database " * 100)
    with pytest.raises(ConfigError, match="cannot be used"):
        Budget(1.0, journal=tmp_path / "text")


def test_a_gate_passes_requests_in_order_and_wakes_when_one_ends():
    async def run() -> list[int]:
        gate, order = LocalGate(Limits(concurrency=2, start=2)), []

        async def one(number: int) -> None:
            await asyncio.sleep(number / 1000)
            permit = await gate.start(1, 0, 60)
            assert isinstance(permit, Permit)
            order.append(number)
            await asyncio.sleep(0.02)
            await gate.finish(permit, Outcome("failed"))

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(one(number))
        return order

    assert asyncio.run(run()) == list(range(12))


def test_waiting_ends_at_its_deadline_and_at_the_end_of_the_money():
    async def run() -> None:
        gate = LocalGate(Limits(concurrency=1), Budget(1.0))
        held = await gate.start(1, 0.6, 60)
        assert isinstance(await gate.start(1, 0.1, 60, timeout_s=0.05), Wait)
        assert isinstance(held, Permit)
        await gate.finish(held, Outcome("refused", cost=0.6, retry_after_s=50))
        assert isinstance(await gate.start(1, 0.1, 60, timeout_s=2), Wait)  # at once: the pause is longer
        with pytest.raises(BudgetError, match=r"\$0\.600000 of the cap"):
            await gate.start(1, 0.5, 60)

    asyncio.run(run())
