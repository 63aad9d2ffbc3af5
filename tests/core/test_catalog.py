"""Terms over a period: what is kinder counts now, what is harder waits (behaviour.md §4.3), what is dated is obeyed."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.catalog import Terms, is_kinder, stretches, terms_at
from tallystick.core.pricing import Flat, Graduated, PerUnit, Price, Volume
from tallystick.core.times import Period
from tests.core.offers import FEBRUARY, MARCH, package, percentage, terms, tiers
from tests.literals import D, P, at

MID_FEBRUARY = at("2026-02-15")


def over(period: Period, *versions: Terms) -> Terms:
    """The terms of a period that knows only one."""
    ((span, found),) = stretches(versions, period)
    assert span == period
    return found


def story(versions: Sequence[Terms], period: Period = FEBRUARY) -> list[tuple[str, str]]:
    """Which days are lived under which allowance: ("02-01 – 02-15", "100")."""
    return [
        (f"{span.start:%m-%d} – {span.end:%m-%d}", str(found.included))
        for span, found in stretches(versions, period)
    ]


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
        # a lower price that is no longer charged is no price at all
        (
            {"overage": True, "unit": "0.01"},
            {"overage": False, "unit": "0.001"},
            {"overage": True, "unit": "0.01"},
            {"overage": False, "unit": "0.001"},
        ),
        # the bounds of a period's charge
        ({"minimum": "50"}, {"minimum": "20"}, {"minimum": "20"}, {"minimum": "20"}),
        ({"minimum": "20"}, {"minimum": "50"}, {"minimum": "20"}, {"minimum": "50"}),
        ({"minimum": "50"}, {"minimum": None}, {"minimum": None}, {"minimum": None}),
        ({"minimum": None}, {"minimum": "50"}, {"minimum": None}, {"minimum": "50"}),
        ({"maximum": "50"}, {"maximum": "20"}, {"maximum": "20"}, {"maximum": "20"}),
        ({"maximum": "20"}, {"maximum": "50"}, {"maximum": "20"}, {"maximum": "50"}),
        ({"maximum": "50"}, {"maximum": None}, {"maximum": "50"}, {"maximum": None}),
        ({"maximum": None}, {"maximum": "50"}, {"maximum": "50"}, {"maximum": "50"}),
        # some of both in one change: each part for itself
        (
            {"included": "100", "overage": True, "unit": "0.01", "maximum": "9"},
            {"included": "200", "overage": True, "unit": "0.02", "maximum": "5"},
            {"included": "200", "overage": True, "unit": "0.01", "maximum": "5"},
            {"included": "200", "overage": True, "unit": "0.02", "maximum": "5"},
        ),
        (
            {"included": "200", "overage": True, "unit": "0.02", "minimum": "5"},
            {"included": "100", "overage": True, "unit": "0.01", "minimum": "9"},
            {"included": "200", "overage": True, "unit": "0.01", "minimum": "5"},
            {"included": "100", "overage": True, "unit": "0.01", "minimum": "9"},
        ),
        # a percentage is taken of everything: units that will be included go with the price to come (ruling 19)
        (
            {"price": percentage("2.9")},
            {"price": PerUnit(D("0.01")), "included": "1000"},
            {"price": percentage("2.9")},
            {"price": PerUnit(D("0.01")), "included": "1000"},
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
    return (
        of.enabled,
        of.included,
        of.unlimited,
        of.overage_enabled,
        of.price,
        of.minimum,
        of.maximum,
    )


STEPS = ("100: 1 + 5", "∞: 0.5 + 20")
TRANSFER = percentage("1", fixed="0.30", least="0.50", most="5", free_events=2, free_amount="100")


def transfer(**other: Any) -> Price:
    """The same percentage, but for what is said."""
    return percentage(
        **{
            "percent": "1",
            "fixed": "0.30",
            "least": "0.50",
            "most": "5",
            "free_events": 2,
            "free_amount": "100",
            **other,
        }
    )


@pytest.mark.parametrize(
    ("newer", "older", "kinder"),
    [
        (PerUnit(D("0.01")), PerUnit(D("0.02")), True),
        (PerUnit(D("0.02")), PerUnit(D("0.01")), False),
        (PerUnit(D("0.010")), PerUnit(D("0.01")), False),  # the same
        (Flat(D(49)), Flat(D(99)), True),
        (Flat(D(99)), Flat(D(49)), False),
        # tiers: any rate and any flat amount, on the same steps
        (Graduated(tiers("100: 0.9 + 5", "∞: 0.5 + 20")), Graduated(tiers(*STEPS)), True),
        (Graduated(tiers("100: 1 + 4", "∞: 0.5 + 20")), Graduated(tiers(*STEPS)), True),
        (Graduated(tiers("100: 1 + 5", "∞: 0.4 + 19")), Graduated(tiers(*STEPS)), True),
        (Graduated(tiers("100: 0.5 + 5", "∞: 0.6 + 20")), Graduated(tiers(*STEPS)), False),  # dearer above
        (Graduated(tiers("100: 0 + 5", "∞: 0 + 21")), Graduated(tiers(*STEPS)), False),
        (Graduated(tiers("100: 1.1 + 0", "∞: 0 + 0")), Graduated(tiers(*STEPS)), False),
        (Graduated(tiers("90: 1 + 5", "∞: 0.5 + 20")), Graduated(tiers(*STEPS)), False),  # other steps
        (Graduated(tiers("∞: 0")), Graduated(tiers(*STEPS)), False),
        (Graduated(tiers(*STEPS)), Graduated(tiers(*STEPS), charge_flat_at_zero=True), True),
        (Graduated(tiers(*STEPS), charge_flat_at_zero=True), Graduated(tiers(*STEPS)), False),
        (Volume(tiers("100: 0.9 + 5", "∞: 0.5 + 19")), Volume(tiers(*STEPS)), True),
        (Volume(tiers("100: 0.9 + 5", "∞: 0.5 + 21")), Volume(tiers(*STEPS)), False),
        (Volume(tiers("101: 1 + 5", "∞: 0.5 + 20")), Volume(tiers(*STEPS)), False),  # 100.5 costs more
        (Volume(tiers("99: 1 + 5", "∞: 0.5 + 20")), Volume(tiers(*STEPS)), False),
        (Volume(tiers(*STEPS), charge_flat_at_zero=True), Volume(tiers(*STEPS)), False),
        # packages of one size
        (package("1000", "24"), package("1000", "25"), True),
        (package("1000", "25", free="1"), package("1000", "25"), True),
        (package("1000", "26", free="999"), package("1000", "25"), False),
        (package("1000", "20"), package("1000", "25", free="1"), False),
        (package("2000", "25"), package("1000", "25"), False),  # cheaper, but of another size: it waits
        (package("100", "2"), package("1000", "25"), False),
        # a percentage: every part of it
        (transfer(percent="0.9"), TRANSFER, True),
        (transfer(percent="1.1"), TRANSFER, False),
        (transfer(fixed="0"), TRANSFER, True),
        (transfer(fixed="0.31"), TRANSFER, False),
        (transfer(least="0.40"), TRANSFER, True),
        (transfer(least=None), TRANSFER, True),
        (transfer(least="0.60"), TRANSFER, False),
        (TRANSFER, transfer(least=None), False),
        (transfer(most="4"), TRANSFER, True),
        (transfer(most=None), TRANSFER, False),
        (transfer(most="6"), TRANSFER, False),
        (TRANSFER, transfer(most=None), True),
        (transfer(free_events=3), TRANSFER, True),
        (transfer(free_events=1), TRANSFER, False),
        (transfer(free_amount="101"), TRANSFER, True),
        (transfer(free_amount="99"), TRANSFER, False),
        (transfer(percent="0", fixed="0.31"), TRANSFER, False),
        # prices of two models cannot be told apart so simply
        (PerUnit(D(0)), Flat(D(99)), False),
        (Flat(D(0)), PerUnit(D(1)), False),
        (Volume(tiers(*STEPS)), Graduated(tiers(*STEPS)), False),
        (Graduated(tiers(*STEPS)), Volume(tiers(*STEPS)), False),
        (package("1", "0"), PerUnit(D(1)), False),
        (percentage("0"), PerUnit(D(1)), False),
    ],
)
def test_which_price_is_kinder_than_which(newer: Price, older: Price, kinder: bool) -> None:
    assert is_kinder(newer, older) is kinder
    versions = (terms(price=older), terms(price=newer, version=2, valid_from=MID_FEBRUARY))
    assert over(FEBRUARY, *versions).price == (newer if kinder else older)
    assert over(MARCH, *versions).price == newer


def test_the_version_that_is_shown_is_the_one_whose_price_counts() -> None:
    better, worse = "0.005", "0.02"
    for unit, shown in ((better, 2), (worse, 1)):
        versions = (
            terms(overage=True, unit="0.01"),
            terms("9", overage=True, unit=unit, version=2, valid_from=MID_FEBRUARY),
        )
        assert (over(FEBRUARY, *versions).version, over(MARCH, *versions).version) == (shown, 2)


def test_what_was_in_force_at_the_start_counts_not_what_came_before_it() -> None:
    versions = (
        terms("100"),
        terms("500", version=2, valid_from=at("2026-01-10")),
        terms("50", version=3, valid_from=at("2026-01-20")),
    )
    assert over(FEBRUARY, *versions).included == 50


@pytest.mark.parametrize("pinned", [False, True])
def test_a_change_at_the_very_start_of_a_period_is_in_it_and_at_its_end_is_not(pinned: bool) -> None:
    for when, expected in ((FEBRUARY.start, 50), (FEBRUARY.end, 100)):
        changed = terms("50", version=2, valid_from=when, pinned=pinned)
        assert over(FEBRUARY, terms("100"), changed).included == expected


def test_the_order_in_which_versions_are_told_does_not_matter() -> None:
    first, second = terms("100"), terms("50", version=2, valid_from=MID_FEBRUARY, pinned=True)
    assert stretches((second, first), FEBRUARY) == stretches((first, second), FEBRUARY)


def test_of_two_versions_of_one_instant_the_later_one_counts() -> None:
    versions = (
        terms("100", valid_from=FEBRUARY.start),
        terms("50", version=2, valid_from=FEBRUARY.start),
    )
    assert over(FEBRUARY, *reversed(versions)).included == 50


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
    assert stretches(versions, MARCH) == ()


def test_a_feature_that_comes_back_is_there_at_once() -> None:
    versions = (
        terms("100"),
        terms("100", version=2, valid_from=at("2026-01-15"), removed=True),
        terms("40", version=3, valid_from=MID_FEBRUARY),
    )
    assert over(FEBRUARY, *versions).included == 40


def test_a_feature_withdrawn_and_brought_back_was_never_gone() -> None:
    versions = (
        terms("100"),
        terms("100", version=2, valid_from=at("2026-02-10"), removed=True),
        terms("40", version=3, valid_from=at("2026-02-20")),
    )
    assert over(FEBRUARY, *versions).included == 100
    assert over(MARCH, *versions).included == 40


def test_without_terms_there_is_nothing() -> None:
    assert stretches((), FEBRUARY) == ()
    assert stretches((terms(valid_from=at("2026-03-02")),), FEBRUARY) == ()
    assert stretches((terms(removed=True),), FEBRUARY) == ()
    assert terms_at((), FEBRUARY, MID_FEBRUARY) is None


def dated(included: str, day: str, version: int, **more: Any) -> Terms:
    return terms(included, valid_from=at(f"2026-{day}"), version=version, pinned=True, **more)


def undated(included: str, day: str, version: int, **more: Any) -> Terms:
    return terms(included, valid_from=at(f"2026-{day}"), version=version, **more)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        # better or worse, a dated change counts from its instant
        ([dated("50", "02-15", 2)], [("02-01 – 02-15", "100"), ("02-15 – 03-01", "50")]),
        ([dated("500", "02-15", 2)], [("02-01 – 02-15", "100"), ("02-15 – 03-01", "500")]),
        (
            [dated("50", "02-10", 2), dated("70", "02-20", 3)],
            [("02-01 – 02-10", "100"), ("02-10 – 02-20", "50"), ("02-20 – 03-01", "70")],
        ),
        # before this period it is what the period begins with; after it, nothing
        ([dated("50", "01-15", 2)], [("02-01 – 03-01", "50")]),
        ([dated("50", "03-15", 2)], [("02-01 – 03-01", "100")]),
        # an undated one betters the stretch it falls in, and no other
        (
            [dated("50", "02-15", 2), undated("70", "02-20", 3)],
            [("02-01 – 02-15", "100"), ("02-15 – 03-01", "70")],
        ),
        (
            [dated("50", "02-15", 2), undated("40", "02-20", 3)],
            [("02-01 – 02-15", "100"), ("02-15 – 03-01", "50")],
        ),
        (
            [undated("200", "02-10", 2), dated("50", "02-15", 3)],
            [("02-01 – 02-15", "200"), ("02-15 – 03-01", "50")],
        ),
        # it was decided before, and counts later: the instant decides, not the version
        (
            [dated("50", "02-20", 2), undated("200", "02-10", 3)],
            [("02-01 – 02-20", "200"), ("02-20 – 03-01", "50")],
        ),
        # two for one instant: the second corrects the first
        (
            [dated("50", "02-15", 2), dated("60", "02-15", 3)],
            [("02-01 – 02-15", "100"), ("02-15 – 03-01", "60")],
        ),
        # gone from an instant, and back
        ([dated("0", "02-10", 2, removed=True)], [("02-01 – 02-10", "100")]),
        (
            [dated("0", "02-10", 2, removed=True), dated("40", "02-20", 3)],
            [("02-01 – 02-10", "100"), ("02-20 – 03-01", "40")],
        ),
        (
            [dated("0", "02-10", 2, removed=True), undated("40", "02-20", 3)],
            [("02-01 – 02-10", "100"), ("02-10 – 03-01", "40")],
        ),
        (
            [undated("0", "02-05", 2, removed=True), dated("40", "02-20", 3)],
            [("02-01 – 02-20", "100"), ("02-20 – 03-01", "40")],
        ),
    ],
)
def test_a_dated_change_begins_a_stretch(versions: list[Terms], expected: list[tuple[str, str]]) -> None:
    assert story([terms("100"), *versions]) == expected


def test_a_feature_added_on_a_day_of_its_own_begins_then() -> None:
    assert story([dated("40", "02-15", 1)]) == [("02-15 – 03-01", "40")]
    assert story([dated("40", "02-01", 1)]) == [("02-01 – 03-01", "40")]
    assert story([dated("40", "03-01", 1)]) == []


def test_a_dated_price_is_obeyed_to_the_microsecond() -> None:
    noon = at("2026-02-15T12:00:00.000001Z")
    versions = (
        terms(overage=True, unit="0.01"),
        terms(overage=True, unit="0.02", valid_from=noon, version=2, pinned=True),
    )
    just_before = noon - timedelta(microseconds=1)
    for moment, unit in (
        (FEBRUARY.start, "0.01"),
        (just_before, "0.01"),
        (noon, "0.02"),
        (FEBRUARY.end - timedelta(microseconds=1), "0.02"),
    ):
        found = terms_at(versions, FEBRUARY, moment)
        assert found is not None
        assert found.price == PerUnit(D(unit))
    assert terms_at(versions, FEBRUARY, FEBRUARY.end) is None  # it belongs to March


def test_while_a_feature_is_gone_no_terms_rule() -> None:
    versions = (terms("100"), dated("0", "02-10", 2, removed=True), dated("40", "02-20", 3))
    assert terms_at(versions, FEBRUARY, at("2026-02-15")) is None
    found = terms_at(versions, FEBRUARY, at("2026-02-20"))
    assert found is not None
    assert found.included == 40


@pytest.mark.parametrize(
    ("unlimited", "overage", "stops"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_a_feature_without_overage_is_a_hard_limit(unlimited: bool, overage: bool, stops: bool) -> None:
    assert terms(unlimited=unlimited, overage=overage).stops_at_included is stops


money = st.one_of(st.none(), st.integers(0, 100).map(str))


def change(*, pinned: st.SearchStrategy[bool], removed: st.SearchStrategy[bool]) -> st.SearchStrategy[Terms]:
    return st.builds(
        lambda included, unit, unlimited, enabled, hours, pinned, removed, minimum, maximum: terms(
            str(included),
            overage=True,
            unit=str(Decimal(unit).scaleb(-4)),
            unlimited=unlimited,
            enabled=enabled,
            valid_from=at("2025-12-01") + timedelta(hours=hours),
            pinned=pinned,
            removed=removed,
            minimum=minimum,
            maximum=maximum,
        ),
        st.integers(0, 1000),
        st.integers(0, 1000),
        st.booleans(),
        st.booleans(),
        st.integers(0, 24 * 150),
        pinned,
        removed,
        money,
        money,
    )


undated_changes = change(pinned=st.just(False), removed=st.just(False))
any_changes = change(pinned=st.booleans(), removed=st.booleans())


def moment(of: Terms) -> datetime:
    return of.valid_from


def only(found: Sequence[tuple[Period, Terms]]) -> Terms | None:
    assert len(found) <= 1
    return found[0][1] if found else None


@given(st.lists(undated_changes, min_size=1, max_size=6))
def test_within_a_period_a_customer_is_never_worse_off_than_at_its_start(versions: list[Terms]) -> None:
    ordered = sorted(versions, key=moment)
    at_start = [each for each in ordered if each.valid_from <= FEBRUARY.start]
    for upto in range(len(at_start), len(ordered)):
        earlier = only(stretches(ordered[:upto], FEBRUARY))
        later = only(stretches(ordered[: upto + 1], FEBRUARY))
        if earlier is None or later is None:
            continue
        assert later.included >= earlier.included
        assert later.unlimited >= earlier.unlimited
        assert later.enabled >= earlier.enabled
        assert isinstance(later.price, PerUnit)
        assert isinstance(earlier.price, PerUnit)
        assert later.price.unit_amount <= earlier.price.unit_amount
        assert (later.minimum or 0) <= (earlier.minimum or 0)
        assert earlier.maximum is None or (later.maximum is not None and later.maximum <= earlier.maximum)


@given(st.lists(undated_changes, min_size=1, max_size=6))
def test_the_next_period_begins_with_the_newest_terms(versions: list[Terms]) -> None:
    ordered = sorted(versions, key=moment)
    before = [each for each in ordered if each.valid_from <= FEBRUARY.start]
    if before and all(one.valid_from < two.valid_from for one, two in pairwise(ordered)):
        assert only(stretches(before, FEBRUARY)) == before[-1]


@given(st.lists(any_changes, max_size=8), st.integers(0, 24 * 28 - 1))
def test_stretches_lie_side_by_side_within_the_period(versions: list[Terms], hours: int) -> None:
    found = stretches(versions, FEBRUARY)
    for span, ruling in found:
        assert FEBRUARY.start <= span.start < span.end <= FEBRUARY.end
        assert not ruling.removed
    for (one, _), (two, _) in pairwise(found):
        assert one.end <= two.start
    instant = FEBRUARY.start + timedelta(hours=hours)
    there = [each for span, each in found if instant in span]
    assert terms_at(versions, FEBRUARY, instant) == (there[0] if there else None)


@given(st.lists(any_changes, max_size=8))
def test_bounds_that_fit_together_still_do_when_they_were_bettered(versions: list[Terms]) -> None:
    fitting = [
        each
        for each in versions
        if each.minimum is None or each.maximum is None or each.minimum <= each.maximum
    ]
    for _, ruling in stretches(fitting, FEBRUARY):
        assert ruling.minimum is None or ruling.maximum is None or ruling.minimum <= ruling.maximum


def test_periods_of_other_lengths_are_no_different() -> None:
    week = P("2026-02-12T10:00/2026-02-19")
    versions = (terms("100"), terms("50", version=2, valid_from=MID_FEBRUARY, pinned=True))
    assert story(versions, week) == [("02-12 – 02-15", "100"), ("02-15 – 02-19", "50")]
