"""Months of UTC: their spans, their names, and which of them are old enough."""

import pytest

from tallystick.core.retention import Month, age, around, is_older
from tests.literals import P, at


def month(name: str) -> Month:
    found = Month.named(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("2024-02", "2024-02-01/2024-03-01"),  # leap
        ("2024-12", "2024-12-01/2025-01-01"),
    ],
)
def test_a_month_has_its_first_instant_and_not_that_of_the_next(name: str, span: str) -> None:
    assert month(name).span == P(span)
    assert Month.of(P(span).start) == month(name) != Month.of(P(span).end)


def test_a_month_is_of_utc_wherever_the_instant_was_told() -> None:
    assert str(Month.of(at("2024-03-01T05:00+05:45"))) == "2024-02"


def test_a_month_is_named_in_a_table_and_a_file() -> None:
    assert (month("2024-03").partition, month("2024-03").file_name) == (
        "events_2024_03",
        "events-2024-03.parquet",
    )
    assert [Month.named(each) for each in ("any", "2024-13", "2024-3", "0000-01", "")] == [None] * 5


def test_the_months_around_a_moment_reach_over_the_year() -> None:
    assert [str(each) for each in around(at("2026-12-31T23:59"))] == [
        "2026-11",
        "2026-12",
        "2027-01",
        "2027-02",
    ]


@pytest.mark.parametrize(
    ("text", "months"),
    [("24m", 24), ("2y", 24), ("1m", 1), ("0m", None), ("24", None), ("2 y", None), ("-1m", None)],
)
def test_an_age_is_so_many_months_or_years(text: str, months: int | None) -> None:
    assert age(text) == months


@pytest.mark.parametrize(
    ("name", "months", "now", "old"),
    [
        ("2024-10", 1, "2024-11-30T23:59", False),  # its last instant is not a month ago yet
        ("2024-10", 1, "2024-12-01T00:00", True),
        ("2024-02", 1, "2024-03-31T12:00", False),  # a month before 31 March is 29 February
        ("2024-02", 24, "2026-03-01T00:00", True),
        ("2024-03", 24, "2026-03-31T23:59", False),
    ],
)
def test_a_month_is_older_once_all_of_it_is(name: str, months: int, now: str, old: bool) -> None:
    assert is_older(month(name), months=months, now=at(now)) is old
