"""Coefficients of agreement against textbook examples, the packages they come from, and hand computations."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from microg.annotations.rows import Item
from microg.metrics.agreement.coefficients import (
    ONE_VALUE,
    alpha_by,
    cohen,
    nominal,
    positive,
    set_distances,
    sets,
    with_others,
)
from microg.metrics.agreement.ratings import Ratings
from microg.metrics.agreement.scores import Scorer


def ratings(*rows: str) -> Ratings:
    """Build ratings from a text for each annotator, a letter a unit and `.` for nothing."""
    said: dict = {}
    for number, row in enumerate(rows):
        for unit, letter in enumerate(row):
            if letter != ".":
                said.setdefault(Item("screening", f"a_{unit:03d}"), {})[f"rater{number}"] = letter
    return Ratings.of(said)


def test_alpha_is_that_of_krippendorffs_own_reliability_data():
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: nominal data of four observers with
    # missing values, alpha 0.743
    found = ratings("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert nominal(found, found.clips)["alpha"].value == pytest.approx(0.743, abs=5e-4)


def test_fleiss_kappa_is_that_of_the_published_example():
    # Fleiss 1971 as the article on Fleiss' kappa tells it: 14 raters, 10 subjects, 5 categories, kappa 0.210
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    rows = ["".join("".join(str(c) * n for c, n in enumerate(row))[rater] for row in table) for rater in range(14)]
    found = ratings(*rows)
    assert nominal(found, found.clips)["fleiss_kappa"].value == pytest.approx(0.210, abs=5e-4)


def test_cohens_kappa_is_that_of_the_published_example():
    # 50 grant proposals read by two people: both yes 20, both no 15, only the first yes 5, only the second yes 10; 0.4
    found = ratings("y" * 20 + "n" * 15 + "y" * 5 + "n" * 10, "y" * 20 + "n" * 15 + "n" * 5 + "y" * 10)
    assert cohen(found, found.clips).value == pytest.approx(0.4)


def test_two_annotators_of_twelve_clips_with_three_differences_agree_as_computed_by_hand():
    # one says yes 6 times; the other differs on two of these and on one of the others: 4 yes-yes, 5 no-no
    found = ratings("yyyyyynnnnnn", "yyyynnnnnnny")
    measures = nominal(found, found.clips)
    assert measures["observed"].value == pytest.approx(9 / 12)
    # chance: (6 x 5 + 6 x 7) / 144 = 0.5
    assert cohen(found, found.clips).value == pytest.approx((0.75 - 0.5) / (1 - 0.5))
    # 24 values, 11 yes and 13 no: 1 - 23 x 6 / (2 x 11 x 13) = 1 - 138 / 286
    assert measures["alpha"].value == pytest.approx(1 - 138 / 286)
    # chance of Fleiss: (11 / 24)^2 + (13 / 24)^2 = 290 / 576
    assert measures["fleiss_kappa"].value == pytest.approx((0.75 - 290 / 576) / (1 - 290 / 576))
    assert (measures["alpha"].units, measures["alpha"].raters) == (12, 2)


def test_what_is_undefined_is_none_with_its_reason_and_never_one_or_zero():
    same = ratings("yyyy", "yyyy")
    measures = nominal(same, same.clips)
    assert measures["observed"].value == 1
    for measure in (measures["alpha"], measures["fleiss_kappa"], cohen(same, same.clips)):
        assert (measure.value, measure.reason) == (None, ONE_VALUE)
    uneven = ratings("yyny", "ynn.", "yynn")
    assert "2 to 3 annotators" in nominal(uneven, uneven.clips)["fleiss_kappa"].reason
    nobody = ratings("yy..", "..yy")
    assert (len(nobody.units), nominal(nobody, nobody.clips)["alpha"].value) == (0, None)


def test_agreement_on_yes_counts_only_where_somebody_said_it():
    said = {
        Item("action", f"a_{unit:03d}", 1): {"anna": anna, "ben": ben}
        for unit, (anna, ben) in enumerate([(True, True), (True, False)] + [(False, False)] * 10)
    }
    found = Ratings.of(said)
    assert nominal(found, found.clips)["observed"].value == pytest.approx(11 / 12)
    assert positive(found, found.clips).value == pytest.approx(2 / 3)  # of three times yes, two find another one


_SETS = (frozenset(), frozenset({1}), frozenset({1, 2}), frozenset({2, 3}))


def test_distances_of_sets_weigh_how_much_two_have_in_common():
    overlap, distance = set_distances(_SETS)
    assert overlap[2, 3] == pytest.approx(1 / 3)
    assert distance[2, 3] == pytest.approx(1 - 1 / 3 * 1 / 3)  # they cross
    assert distance[1, 2] == pytest.approx(1 - 1 / 2 * 2 / 3)  # one holds the other
    assert distance[0].tolist() == [0, 1, 1, 1]


def _library_alpha(found: Ratings, distance: np.ndarray) -> float:
    data = np.where(found.codes < 0, np.nan, found.codes)
    return krippendorff.alpha(
        reliability_data=data,
        value_domain=np.arange(len(found.values)),
        level_of_measurement=lambda v1, v2, i1, i2, n_v, dtype=np.float64: distance[i1, i2].astype(dtype),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=3, max_size=3), min_size=4, max_size=20))
def test_sums_over_clips_give_what_the_packages_give(rows: list[list[int]]):
    said = {
        Item("action", f"a_{unit // 2:03d}", unit): {f"r{n}": _SETS[code] for n, code in enumerate(row) if code >= 0}
        for unit, row in enumerate(rows)
    }
    found = Ratings.of(said)
    if len(found.values) < 2 or len(found.annotators) < 2:
        return
    _, distance = set_distances(found.values)
    found_sets = sets(found, found.clips)["alpha_masi"]
    assert found_sets.value == pytest.approx(_library_alpha(found, distance))
    for measure in nominal(found, found.clips).values():
        if measure.value is not None:
            assert measure.of(measure.parts.sum(axis=0, keepdims=True))[0] == pytest.approx(measure.value)
    pair = found.only(found.annotators[:2])
    kappa = cohen(pair, pair.clips)
    if kappa.value is not None:
        both = (pair.codes >= 0).all(axis=0)
        table = np.zeros((len(pair.values), len(pair.values)))
        np.add.at(table, tuple(pair.codes[:, both]), 1)
        assert kappa.value == pytest.approx(cohens_kappa(table, return_results=False))
        assert kappa.of(kappa.parts.sum(axis=0, keepdims=True))[0] == pytest.approx(kappa.value)


def test_an_annotator_is_compared_with_each_other_one_of_a_unit():
    found = ratings("yyyy", "yyyn", "nyy.")
    assert with_others(found, found.clips, "rater0", np.eye(2)).value == pytest.approx((0.5 + 1 + 1 + 0) / 4)


def test_intervals_are_over_clips_so_that_units_of_a_clip_stay_together():
    # every clip has ten people who all agree or all differ: as many independent facts as there are clips
    said = {
        Item("action", f"a_{clip:03d}", person): {"anna": True, "ben": clip % 4 != 0}
        for clip in range(20)
        for person in range(10)
    }
    found = Ratings.of(said)
    measure = nominal(found, found.clips)["observed"]
    score = Scorer("action", 20, 2000, 0).score("observed", measure)
    assert score.value == pytest.approx(0.75)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 20)
    assert score.low == pytest.approx(0.75 - half, abs=0.06)
    assert score.high == pytest.approx(0.75 + half, abs=0.06)
    assert Scorer("action", 20, 2000, 0).score("observed", measure) == score
    one_clip = Ratings.of({Item("action", "a_000", n): {"anna": True, "ben": n > 1} for n in range(5)})
    alone = Scorer("action", 1).score("observed", nominal(one_clip, one_clip.clips)["observed"])
    assert (alone.value, alone.low, alone.high) == (0.6, None, None)


def test_alpha_by_a_nominal_distance_is_nominal_alpha():
    found = ratings("abcabc.", "abcacc.", ".bcabca")
    distance = 1 - np.eye(3)
    assert alpha_by(found, found.clips, distance).value == pytest.approx(nominal(found, found.clips)["alpha"].value)
    assert fleiss_kappa(np.array([[2, 0], [0, 2]]), method="fleiss") == pytest.approx(1)
