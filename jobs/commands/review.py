"""What `microg review` prints: what there is to judge, the links, progress now and then, and how it ended."""

from __future__ import annotations

import getpass
from collections.abc import Sequence

from microg.console import say, say_aside
from microg.errors import ConfigError
from microg.review.items import MODES, Mode
from microg.review.order import ORDERS, Order
from microg.review.rules import Annotator
from microg.review.serving import Plan, Review, address, bring_home, look, opened, serve


def checked_modes(names: Sequence[str]) -> tuple[Mode, ...]:
    """Return the modes of these names, in the page's order. Raises `ConfigError` for others, and for none."""
    unknown = [name for name in names if name not in MODES]
    if unknown or not names:
        what = f"there is no mode {unknown[0]!r}" if unknown else "--modes names none"
        raise ConfigError(what, f"modes are {', '.join(MODES)}")
    return tuple(mode for mode in MODES if mode in names)


def checked_order(name: str) -> Order:
    """Return the order of this name. Raises `ConfigError` for another."""
    for order in ORDERS:
        if order == name:
            return order
    raise ConfigError(f"there is no order {name!r}", f"orders are {', '.join(ORDERS)}")


def user_name() -> str:
    """Return the user's name, `annotator` where the system does not tell it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "annotator"


def show_plan(plan: Plan) -> None:
    """Print what there is to judge, and who does it."""
    desk = look(plan)
    say(f"{desk.material.name}: {len(desk.material.clips)} clips")
    who = Annotator(plan.annotator, adjudicator=True)
    for mode in desk.progress(who):
        say(f"{mode['mode']}: {mode['total']} to judge, {mode['done']} done")
    people = plan.named or [plan.annotator]
    say(
        f"annotators: {', '.join(people)}"
        + (f"; adjudicators: {', '.join(plan.adjudicators)}" if plan.adjudicators else "")
    )
    say("nothing was served (--dry-run)")


def run(plan: Plan, *, open_page: bool) -> None:
    """Serve a review until it is interrupted."""
    with opened(plan) as review:
        serve(review, lambda port: _greet(review, port, open_page), _Teller(review).tell)
        waiting, saved = bring_home(review), review_count(review)
    if waiting:
        say_aside(f"note: {waiting}", "they reach the dataset when 'microg review' runs again")
    say(f"{saved} saved; next: microg data adjudicate {plan.dataset}")


def review_count(review: Review) -> str:
    """Return in words how many judgements were saved since the start."""
    return f"{review.saved} judgement{'' if review.saved == 1 else 's'}"


def _greet(review: Review, port: int, open_page: bool) -> None:
    plan, place = review.plan, address(review.plan, port)
    page = f"{place}/"
    if review.links:
        say("links (they are not shown again; --new-tokens makes others):")
        for name, token in review.links.items():
            say(f"  {name}: {place}/#token={token}")
        page = f"{place}/#token={next(iter(review.links.values()))}"
    elif plan.named or not plan.local_only:
        say(f"{place}/ for {', '.join(review.store.people())}, by the links that they have")
    else:
        say(f"{place}/ for {plan.annotator}")
    say("Ctrl-C ends it")
    if open_page:
        import webbrowser

        webbrowser.open(page)


class _Teller:
    """Prints a line when something was saved since the last one."""

    def __init__(self, review: Review) -> None:
        self._review, self._told = review, 0

    def tell(self) -> None:
        """Print how far people are."""
        if self._review.saved == self._told:
            return
        self._told = self._review.saved
        paces = ", ".join(f"{pace.annotator} {pace.judged}" for pace in self._review.store.paces())
        say(f"{review_count(self._review)} saved; by annotator, all in all: {paces}")
