"""Terms over a period: what is kinder counts now, what is harder waits (behaviour.md §4.3)."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.catalog import Terms, terms_over
from tallystick.core.pricing import PerUnit
from tests.core.offers import terms
from tests.literals import P, at

FEBRUARY, MARCH = P("2026-02-01/2026-03-01"), P("2026-03-01/2026-04-01")
MID_FEBRUARY = at("2026-02-15")


def over(period: Any, *versions: Terms) -> Terms:
    found = terms_over(versions, period)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "after", "this_period", "next_period"),
    [
        # an allowance
        ({"included": "5000"}, {"included": "10000"}, {"included": "10000"}, {"included": "10000"}),
        ({"included": "10000"}, {"included": "5000"}, {"included": "10000"}, {"included": "5000"}),
        ({"unlimited": False}, {"unlimited": True}, {"unlimited": True}, {"unlimited": True}),
        ({"unlimited": True}, {"unlimited": False}, {"unlimited": True}, {"unlimited": False}),
        # the unit price
        (
            {"overage": True, "unit": "0.005"},
            {"overage": True, "unit": "0.002"},
            {"overage": True, "unit": "0.002"},
            {"overage": True, "unit": "0.002"},
        ),
        (
            {"overage": True, "unit": "0.002"},
            {"overage": True, "unit": "0.005"},
            {"overage": True, "unit": "0.002"},
            {"overage": True, "unit": "0.005"},
        ),
        # being switched on and off
        ({"enabled": False}, {"enabled": True}, {"enabled": True}, {"enabled": True}),
        ({"enabled": True}, {"enabled": False}, {"enabled": True}, {"enabled": False}),
        # the end of overage would stop a customer who relied on it
        (
            {"overage": True, "unit": "0.01"},
            {"overage": False, "unit": "0.01"},
            {"overage": True, "unit": "0.01"},
            {"overage": False, "unit": "0.01"},
        ),
        # some of both in one change: each part for itself
        (
            {"included": "100", "overage": True, "unit": "0.01"},
            {"included": "200", "overage": True, "unit": "0.02"},
            {"included": "200", "overage": True, "unit": "0.01"},
            {"included": "200", "overage": True, "unit": "0.02"},
        ),
        (
            {"included": "200", "overage": True, "unit": "0.02"},
            {"included": "100", "overage": True, "unit": "0.01"},
            {"included": "200", "overage": True, "unit": "0.01"},
            {"included": "100", "overage": True, "unit": "0.01"},
        ),
    ],
)
def test_better_now_worse_later(
    before: dict[str, Any], after: dict[str, Any], this_period: dict[str, Any], next_period: dict[str, Any]
) -> None:
    versions = (terms(**before), terms(**after, version=2, valid_from=MID_FEBRUARY))
    assert promised(over(FEBRUARY, *versions)) == promised(terms(**this_period))
    assert promised(over(MARCH, *versions)) == promised(terms(**next_period))


def promised(of: Terms) -> tuple[object, ...]:
    return (of.enabled, of.included, of.unlimited, of.overage_enabled, of.price)


def test_what_was_in_force_at_the_start_counts_not_what_came_before_it() -> None:
    versions = (
        terms("100"),
        terms("500", version=2, valid_from=at("2026-01-10")),
        terms("50", version=3, valid_from=at("2026-01-20")),
    )
    assert over(FEBRUARY, *versions).included == 50


def test_a_change_at_the_very_start_of_a_period_is_in_it_and_at_its_end_is_not() -> None:
    for when, expected in ((FEBRUARY.start, 50), (FEBRUARY.end, 100)):
        assert over(FEBRUARY, terms("100"), terms("50", version=2, valid_from=when)).included == expected


def test_a_kindness_within_the_period_is_not_taken_back_within_it() -> None:
    versions = (
        terms("100"),
        terms("300", version=2, valid_from=at("2026-02-10")),
        terms("50", version=3, valid_from=at("2026-02-20")),
    )
    assert over(FEBRUARY, *versions).included == 300
    assert over(MARCH, *versions).included == 50


def test_a_feature_added_in_the_period_counts_at_once() -> None:
    added = terms("100", valid_from=MID_FEBRUARY)
    assert over(FEBRUARY, added).included == 100


def test_a_feature_withdrawn_stays_until_the_period_ends() -> None:
    versions = (terms("100"), terms("100", version=2, valid_from=MID_FEBRUARY, removed=True))
    assert over(FEBRUARY, *versions).included == 100
    assert terms_over(versions, MARCH) is None


def test_a_feature_that_comes_back_is_there_at_once() -> None:
    versions = (
        terms("100"),
        terms("100", version=2, valid_from=at("2026-01-15"), removed=True),
        terms("40", version=3, valid_from=MID_FEBRUARY),
    )
    assert over(FEBRUARY, *versions).included == 40


def test_without_terms_there_is_nothing() -> None:
    assert terms_over((), FEBRUARY) is None
    assert terms_over((terms(valid_from=at("2026-03-02")),), FEBRUARY) is None


@pytest.mark.parametrize(
    ("unlimited", "overage", "stops"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_a_feature_without_overage_is_a_hard_limit(unlimited: bool, overage: bool, stops: bool) -> None:
    assert terms(unlimited=unlimited, overage=overage).stops_at_included is stops


changes = st.builds(
    lambda included, unit, unlimited, enabled, hours: terms(
        str(included),
        overage=True,
        unit=str(Decimal(unit).scaleb(-4)),
        unlimited=unlimited,
        enabled=enabled,
        valid_from=at("2025-12-01") + timedelta(hours=hours),
    ),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.booleans(),
    st.booleans(),
    st.integers(0, 24 * 150),
)


def moment(of: Terms) -> datetime:
    return of.valid_from


@given(st.lists(changes, min_size=1, max_size=6))
def test_within_a_period_a_customer_is_never_worse_off_than_at_its_start(versions: list[Terms]) -> None:
    ordered = sorted(versions, key=moment)
    at_start = [each for each in ordered if each.valid_from <= FEBRUARY.start]
    for upto in range(len(at_start), len(ordered)):
        earlier, later = terms_over(ordered[:upto], FEBRUARY), terms_over(ordered[: upto + 1], FEBRUARY)
        if earlier is None or later is None:
            continue
        assert later.included >= earlier.included
        assert later.unlimited >= earlier.unlimited
        assert later.enabled >= earlier.enabled
        assert isinstance(later.price, PerUnit)
        assert isinstance(earlier.price, PerUnit)
        assert later.price.unit_amount <= earlier.price.unit_amount


@given(st.lists(changes, min_size=1, max_size=6))
def test_the_next_period_begins_with_the_newest_terms(versions: list[Terms]) -> None:
    ordered = sorted(versions, key=moment)
    before = [each for each in ordered if each.valid_from <= FEBRUARY.start]
    if before and all(one.valid_from < two.valid_from for one, two in pairwise(ordered)):
        assert terms_over(before, FEBRUARY) == before[-1]
