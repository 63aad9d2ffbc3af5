"""Meters: what an event contributes, and folds that may be made in any order."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.meters import (
    NUMBER,
    Aggregation,
    Filter,
    Fold,
    LatePolicy,
    Measured,
    Meter,
    Operator,
    distinct_hash,
    fold,
    in_force,
    measure,
    merge,
    number,
)
from tallystick.core.money import fits
from tests.literals import D, U, at


def meter(
    aggregation: str = "sum", property_name: str | None = None, *filters: Filter, version: int = 1
) -> Meter:
    return Meter(
        id=U(version),
        feature_id=U(100),
        feature_code="api_calls",
        version=version,
        event_code="api_calls",
        aggregation=Aggregation(aggregation),
        property_name=property_name,
        filters=filters,
    )


def where(operator: str, value: str) -> Filter:
    return Filter("region", Operator(operator), value)


@pytest.mark.parametrize(
    ("operator", "value", "given_value", "matches"),
    [
        ("equals", "eu", "eu", True),
        ("equals", "eu", "EU", False),
        ("equals", "eu", " eu", False),
        ("equals", "5", "5.0", False),  # equality is of text
        ("equals", "", "", True),
        ("equals", "eu", None, False),
        ("not_equals", "eu", "us", True),
        ("not_equals", "eu", "eu", False),
        ("not_equals", "eu", None, True),  # the one operator a missing property satisfies
        ("contains", "eu", "eu-west-1", True),
        ("contains", "EU", "eu-west-1", False),
        ("contains", "", "anything", True),
        ("contains", "eu", None, False),
        ("greater_than", "5", "6", True),
        ("greater_than", "5", "5", False),
        ("greater_than", "9", "10", True),  # as numbers, not as text
        ("greater_than", "5", "5.000000000001", True),
        ("greater_than", "-1", "0", True),
        ("greater_than", "5", "lots", False),  # a word is no number
        ("greater_than", "lots", "6", False),
        ("greater_than", "5", "NaN", False),
        ("greater_than", "5", "Infinity", False),
        ("greater_than", "5", "", False),
        ("greater_than", "5", None, False),
        ("less_than", "5", "4.9", True),
        ("less_than", "5", "5", False),
        ("less_than", "10", "9", True),
        ("less_than", "5", "-Infinity", False),
        ("less_than", "5", "little", False),
        ("less_than", "5", None, False),
    ],
)
def test_what_a_filter_lets_through(
    operator: str, value: str, given_value: str | None, matches: bool
) -> None:
    properties = {} if given_value is None else {"region": given_value}
    assert where(operator, value).lets_through(properties) is matches


def test_every_operator_is_in_the_table() -> None:
    assert {each.value for each in Operator} == {
        "equals",
        "not_equals",
        "greater_than",
        "less_than",
        "contains",
    }


def test_filters_must_all_agree() -> None:
    picky = meter("sum", None, where("equals", "eu"), Filter("size", Operator.GREATER_THAN, "10"))
    assert measure(picky, D(3), {"region": "eu", "size": "11"}) == Measured(D(3))
    assert measure(picky, D(3), {"region": "eu", "size": "10"}) is None
    assert measure(picky, D(3), {"region": "us", "size": "11"}) is None
    assert measure(picky, D(3), {"size": "11"}) is None


@pytest.mark.parametrize(
    ("aggregation", "property_name", "value", "properties", "contributes"),
    [
        ("count", None, "5", {}, "1"),  # the value does not matter
        ("count", None, "0", {}, "1"),
        ("sum", None, "5", {}, "5"),
        ("sum", None, "0.000000000001", {}, "0.000000000001"),
        ("sum", "bytes", "5", {"bytes": "12.5"}, "12.5"),
        ("sum", "bytes", "5", {"bytes": "many"}, None),
        ("sum", "bytes", "5", {"bytes": ""}, None),
        ("sum", "bytes", "5", {"bytes": "1E+999999999"}, None),
        ("sum", "bytes", "5", {"bytes": "NaN"}, None),
        ("sum", "bytes", "5", {}, None),
        ("max", None, "7", {}, "7"),
        ("max", "peak", "7", {"peak": "3"}, "3"),
    ],
)
def test_what_an_event_contributes(
    aggregation: str,
    property_name: str | None,
    value: str,
    properties: Mapping[str, str],
    contributes: str | None,
) -> None:
    measured = measure(meter(aggregation, property_name), D(value), properties)
    assert (None if measured is None else measured.quantity) == (
        None if contributes is None else D(contributes)
    )


def test_distinct_values_are_told_apart_by_their_exact_text() -> None:
    users = meter("unique", "user_id")
    seen = [measure(users, D(1), {"user_id": each}) for each in ("a", "A", "a ", "ä")]
    assert len({each.distinct for each in seen if each}) == 4


@pytest.mark.parametrize(
    "blank", [{}, {"user_id": ""}, {"user_id": "  "}, {"user_id": "\t\n"}, {"user_id": "\xa0\u3000"}]
)
def test_a_blank_property_is_nobody(blank: Mapping[str, str]) -> None:
    assert measure(meter("unique", "user_id"), D(1), blank) is None


def test_only_sums_and_counts_add_up() -> None:
    assert [each for each in Aggregation if meter(each).adds_up] == [Aggregation.SUM, Aggregation.COUNT]


quantities = st.integers(0, 10**32 - 1).map(lambda digits: Decimal(digits).scaleb(-12))
names = st.sampled_from([f"user_{each}" for each in range(12)])
aggregations = st.sampled_from(list(Aggregation))


def measured_by(which: Meter, quantity: Decimal, name: str) -> Measured:
    properties = {"user_id": name}
    found = measure(which, quantity, properties)
    assert found is not None
    return found


def of(aggregation: Aggregation) -> Meter:
    return meter(aggregation, "user_id" if aggregation is Aggregation.UNIQUE else None)


@given(aggregations, st.lists(st.lists(st.tuples(quantities, names), max_size=6), max_size=6))
def test_merging_partial_folds_equals_folding_everything_at_once(
    aggregation: Aggregation, hours: list[list[tuple[Decimal, str]]]
) -> None:
    which = of(aggregation)
    parts = [fold(which, [measured_by(which, *each) for each in hour]) for hour in hours]
    whole = fold(which, [measured_by(which, *each) for hour in hours for each in hour])
    assert merge(which, parts) == whole


@given(aggregations, st.lists(st.tuples(quantities, names), max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(
    aggregation: Aggregation, events: list[tuple[Decimal, str]], chance: object
) -> None:
    which = of(aggregation)
    shuffled = list(events)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(which, [measured_by(which, *each) for each in events]) == fold(
        which, [measured_by(which, *each) for each in shuffled]
    )


folds = st.builds(
    lambda events: events,
    st.lists(st.tuples(quantities, names), max_size=5),
)


@given(aggregations, folds, folds, folds)
def test_merge_is_associative_and_commutative_and_nothing_is_its_zero(
    aggregation: Aggregation,
    one: list[tuple[Decimal, str]],
    two: list[tuple[Decimal, str]],
    three: list[tuple[Decimal, str]],
) -> None:
    which = of(aggregation)
    a, b, c = (fold(which, [measured_by(which, *each) for each in events]) for events in (one, two, three))
    assert merge(which, [merge(which, [a, b]), c]) == merge(which, [a, merge(which, [b, c])])
    assert merge(which, [a, b]) == merge(which, [b, a])
    assert merge(which, [a, Fold()]) == a == merge(which, [Fold(), a])


def test_no_events_amount_to_nothing() -> None:
    for aggregation in Aggregation:
        assert fold(of(aggregation), []) == Fold(0, D(0)) == merge(of(aggregation), [])


def test_the_largest_value_of_an_empty_hour_does_not_hide_a_negative_one() -> None:
    peak = meter("max", "degrees")
    cold = fold(peak, [Measured(D("-7"))])
    assert merge(peak, [Fold(), cold]).quantity == D("-7")


def test_a_distinct_value_seen_in_two_hours_counts_once() -> None:
    users = meter("unique", "user_id")
    morning = fold(users, [measured_by(users, D(1), "ada"), measured_by(users, D(1), "bob")])
    evening = fold(users, [measured_by(users, D(1), "ada")])
    day = merge(users, [morning, evening])
    assert (day.events, day.quantity) == (3, D(2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", "5"),
        ("-0.5", "-0.5"),
        ("1e3", "1000"),
        ("", None),
        ("five", None),
        ("NaN", None),
        ("sNaN", None),
        ("Infinity", None),
        ("1E+999999999999999999999", None),
        ("0e9999", "0"),
        ("0e10000", None),  # nobody writes such an exponent, and PostgreSQL reads no larger one
        ("1e00000000000005", "100000"),
        ("\x1c 5\t", "5"),
        ("123456789012345678901", None),  # 21 digits
        ("0.0000000000001", None),  # 13 places
        ("0x10", None),
        ("1,5", None),
    ],
)
def test_which_texts_are_numbers(text: str, expected: str | None) -> None:
    assert number(text) == (None if expected is None else D(expected))


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    found = number(text)
    assert found is None or found.is_finite()


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([], "0"),
        ([("5", "10:00")], "5"),
        ([("5", "10:00"), ("3", "11:00")], "3"),  # what happened last, larger or not
        ([("3", "11:00"), ("5", "10:00")], "3"),  # whatever came in last
        ([("3", "11:00"), ("5", "11:00")], "5"),  # of one instant, the larger
        ([("5", "11:00"), ("3", "11:00")], "5"),
        ([("5", "10:00"), ("0", "11:00")], "0"),
        ([("-7", "10:00")], "-7"),
        ([("5", "10:00"), ("9", "10:00:00.000001")], "9"),
    ],
)
def test_the_latest_value_is_the_one_that_happened_last(
    readings: list[tuple[str, str]], expected: str
) -> None:
    level = meter("latest", "level")
    measured = [
        measure(level, D(1), {"level": value}, at(f"2026-02-01T{moment}+00:00")) for value, moment in readings
    ]
    found = fold(level, [each for each in measured if each is not None])
    assert (found.events, found.quantity) == (len(readings), D(expected))


moments = st.integers(0, 20).map(lambda minutes: at("2026-02-01") + timedelta(minutes=minutes))


@given(st.lists(st.lists(st.tuples(quantities, moments), max_size=5), max_size=5), st.randoms())
def test_the_latest_value_is_found_by_hours_in_any_order_as_at_once(
    hours: list[list[tuple[Decimal, datetime]]], chance: Random
) -> None:
    level = meter("latest")
    whole = fold(level, [Measured(value, at=moment) for hour in hours for value, moment in hour])
    parts = [fold(level, [Measured(value, at=moment) for value, moment in hour]) for hour in hours]
    chance.shuffle(parts)
    assert merge(level, parts) == whole
    assert merge(level, [*parts, Fold()]) == whole


def test_when_a_value_was_so_is_kept_only_where_the_latest_counts() -> None:
    noon = at("2026-02-01T12:00Z")
    assert measure(meter("latest"), D(5), {}, noon) == Measured(D(5), at=noon)
    for each in ("sum", "count", "max"):
        found = measure(meter(each), D(5), {}, noon)
        assert found is not None
        assert found.at is None


@given(st.from_regex(NUMBER, fullmatch=True))
def test_what_looks_like_a_number_is_one_to_python(text: str) -> None:
    value = Decimal(text)
    assert number(text) == (value if fits(value) else None)


def test_a_long_text_that_is_no_number_is_told_so_quickly() -> None:
    for text in ("1" * 1000 + "x", "1." + "1" * 1000 + "x", "1e" + "0" * 1000 + "x", "." * 1000, " " * 1000):
        assert number(text) is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_hashes_of_distinct_values_are_distinct(one: str, other: str) -> None:
    assert (distinct_hash(one) == distinct_hash(other)) is (one == other)


@pytest.mark.parametrize(
    ("start", "version"),
    [
        ("2025-12-01", 1),  # before there was any: the first there was
        ("2026-01-01", 1),
        ("2026-01-31T23:59:59Z", 1),
        ("2026-02-01", 2),  # valid from the very instant the period begins
        ("2026-03-01", 2),
        ("2026-04-01", 3),
    ],
)
def test_a_changed_meter_counts_from_the_next_period(start: str, version: int) -> None:
    versions = [
        (at("2026-01-01"), meter(version=1)),
        (at("2026-02-01"), meter(version=2)),
        (at("2026-03-15"), meter(version=3)),
    ]
    assert in_force(versions, at(start)).version == version


def test_the_published_policies_for_late_events() -> None:
    assert {each.value for each in LatePolicy} == {"next_period", "current_period", "ignore"}
    assert meter().late_policy is LatePolicy.NEXT_PERIOD


@pytest.mark.parametrize("text", ["1_000", "٣", "５", "²"])
def test_what_only_python_reads_as_a_number_is_none(text: str) -> None:
    assert number(text) is None
