"""Time: periods tile the line, whatever the calendar and the clocks of a zone do."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallystick.core import times
from tallystick.core.times import (
    Anchor,
    Period,
    add_months,
    boundary,
    days_between,
    first_instant,
    hour_of,
    index_at,
    is_zone,
    local_day,
    parse_instant,
    period,
    show_instant,
    whole_hours,
)
from tests.literals import P, at

ZONES = [
    "UTC",
    "America/New_York",
    "America/Sao_Paulo",  # midnight of 2018-11-04 does not exist
    "America/Havana",  # 00:30 of 2018-11-04 happens twice
    "America/St_Johns",  # until 2011 the clocks changed at 00:01; half an hour off the hour
    "Africa/Cairo",  # midnight of 2023-04-28 does not exist
    "Asia/Beirut",  # midnight of 2023-03-26 does not exist
    "Asia/Gaza",
    "Asia/Kathmandu",  # +05:45
    "Asia/Kolkata",  # +05:30
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Pacific/Apia",  # has no 2011-12-30 at all
    "Pacific/Chatham",  # +12:45
    "Pacific/Kiritimati",  # +14:00
    "Pacific/Niue",  # -11:00
    "Europe/London",
    "Europe/Lisbon",
]


def anchored(instant: datetime, zone: str, *, weekly: bool = False) -> Anchor:
    return Anchor(instant, local_day(instant, zone), weekly)


zones = st.sampled_from(ZONES)
instants = st.integers(0, 100 * 365 * 86_400_000).map(
    lambda ms: at("1990-01-01") + timedelta(milliseconds=ms)
)
late_days = st.builds(
    lambda year, month, day, minutes: (
        datetime(year, month, 1, tzinfo=UTC) + timedelta(days=day, minutes=minutes)
    ),
    st.integers(1995, 2060),
    st.integers(1, 12),
    st.integers(26, 31),
    st.integers(0, 24 * 60 - 1),
)
"""Moments around the ends of months, where calendars go wrong."""


@given(st.one_of(instants, late_days), zones, st.booleans(), st.integers(0, 400))
@example(at("2018-10-04T12:00Z"), "America/Sao_Paulo", False, 0)
@example(at("2011-11-30T18:00Z"), "Pacific/Apia", False, 0)
@example(at("2011-12-23T18:00Z"), "Pacific/Apia", True, 0)
def test_periods_tile_the_line_without_gap_or_overlap(
    start: datetime, zone: str, weekly: bool, index: int
) -> None:
    anchor = anchored(start, zone, weekly=weekly)
    assert period(anchor, 0, zone).start == start
    this, following = period(anchor, index, zone), period(anchor, index + 1, zone)
    assert this.start < this.end == following.start < following.end


@given(st.one_of(instants, late_days), zones, st.booleans(), st.integers(0, 400))
@example(at("2018-10-04T12:00Z"), "America/Sao_Paulo", False, 1)
@example(at("2011-11-30T18:00Z"), "Pacific/Apia", False, 1)
@example(at("2018-10-04T12:00Z"), "America/Havana", False, 1)
@example(at("2009-10-01T12:00Z"), "America/St_Johns", False, 1)
def test_the_index_of_a_boundary_is_its_own_and_just_before_it_the_one_before(
    start: datetime, zone: str, weekly: bool, index: int
) -> None:
    anchor = anchored(start, zone, weekly=weekly)
    begins = boundary(anchor, index, zone)
    assert index_at(anchor, begins, zone) == index
    assert index_at(anchor, begins - timedelta(microseconds=1), zone) == index - 1


@given(
    st.one_of(instants, late_days), zones, st.booleans(), st.timedeltas(timedelta(0), timedelta(days=5000))
)
def test_every_moment_lies_in_exactly_the_period_its_index_names(
    start: datetime, zone: str, weekly: bool, later: timedelta
) -> None:
    anchor = anchored(start, zone, weekly=weekly)
    index = index_at(anchor, start + later, zone)
    assert start + later in period(anchor, index, zone)


@given(instants, zones)
def test_before_the_anchor_there_is_no_period(start: datetime, zone: str) -> None:
    assert index_at(anchored(start, zone), start - timedelta(microseconds=1), zone) == -1


@given(st.one_of(instants, late_days), zones, st.integers(1, 60))
def test_a_later_boundary_is_the_first_instant_of_its_day_for_people_there(
    start: datetime, zone: str, index: int
) -> None:
    anchor = anchored(start, zone)
    begins = boundary(anchor, index, zone)
    wanted = add_months(anchor.day, index)
    assert local_day(begins, zone) >= wanted  # greater only where the day does not exist
    assert local_day(begins - timedelta(seconds=1), zone) < wanted


@pytest.mark.parametrize(
    ("day", "zone", "begins"),
    [
        ("2026-01-31", "UTC", "2026-01-31T00:00Z"),
        ("2026-01-31", "Asia/Tokyo", "2026-01-30T15:00Z"),
        ("2026-01-31", "Asia/Kathmandu", "2026-01-30T18:15Z"),
        ("2026-07-01", "Europe/Lisbon", "2026-06-30T23:00Z"),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00Z"),  # 23:59:59 was followed by 01:00
        ("2018-11-03", "America/Sao_Paulo", "2018-11-03T03:00Z"),
        ("2018-02-18", "America/Sao_Paulo", "2018-02-18T03:00Z"),  # 23:00 to 24:00 came twice the day before
        ("2023-04-28", "Africa/Cairo", "2023-04-27T22:00Z"),
        ("2023-03-26", "Asia/Beirut", "2023-03-25T22:00Z"),
        ("2018-11-04", "America/Havana", "2018-11-04T04:00Z"),  # midnight came twice: the first
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00Z"),  # no such day: the next one begins it
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00Z"),
        ("2026-03-29", "Europe/London", "2026-03-29T00:00Z"),  # the gap is later that night
        ("2026-10-04", "Australia/Lord_Howe", "2026-10-03T13:30Z"),
    ],
)
def test_a_day_begins_at_its_first_existing_instant(day: str, zone: str, begins: str) -> None:
    assert first_instant(date.fromisoformat(day), zone) == at(begins)


@settings(max_examples=60)
@given(st.dates(date(1975, 1, 1), date(2036, 1, 1)), zones)
def test_nothing_of_a_day_happens_before_it_begins(day: date, zone: str) -> None:
    begins = first_instant(day, zone)
    where = ZoneInfo(zone)
    before = (begins - timedelta(seconds=1)).astimezone(where)
    assert before.date() < day <= begins.astimezone(where).date()


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2024-01-31", 1, "2024-02-29"),
        ("2026-01-31", 2, "2026-03-31"),  # the anchor is not worn down by February
        ("2026-01-30", 1, "2026-02-28"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2024-02-29", 48, "2028-02-29"),
        ("2026-12-31", 1, "2027-01-31"),
        ("2026-05-31", 1, "2026-06-30"),
        ("2026-05-31", 0, "2026-05-31"),
    ],
)
def test_the_same_day_some_months_on(start: str, months: int, expected: str) -> None:
    assert add_months(date.fromisoformat(start), months) == date.fromisoformat(expected)


@pytest.mark.parametrize(
    ("start", "zone", "weekly", "boundaries"),
    [
        (
            "2026-01-31T15:30Z",
            "UTC",
            False,
            ["2026-01-31T15:30Z", "2026-02-28T00:00Z", "2026-03-31T00:00Z", "2026-04-30T00:00Z"],
        ),
        ("2026-01-15T10:00Z", "UTC", True, ["2026-01-15T10:00Z", "2026-01-22T00:00Z", "2026-01-29T00:00Z"]),
        (  # 31 Jan in Tokyo is 1 Feb 00:30 there
            "2026-01-31T15:30Z",
            "Asia/Tokyo",
            False,
            ["2026-01-31T15:30Z", "2026-02-28T15:00Z", "2026-03-31T15:00Z"],
        ),
        (  # the offset changes between the boundaries, the local midnight does not
            "2026-03-01T12:00Z",
            "America/New_York",
            False,
            ["2026-03-01T12:00Z", "2026-04-01T04:00Z", "2026-05-01T04:00Z"],
        ),
    ],
)
def test_where_periods_begin(start: str, zone: str, weekly: bool, boundaries: list[str]) -> None:
    anchor = anchored(at(start), zone, weekly=weekly)
    assert [boundary(anchor, index, zone) for index in range(len(boundaries))] == list(map(at, boundaries))


def test_a_period_contains_its_start_and_not_its_end() -> None:
    january = P("2026-01-01/2026-02-01")
    assert at("2026-01-01") in january
    assert at("2026-01-31T23:59:59.999999Z") in january
    assert at("2026-02-01") not in january


spans = st.builds(
    lambda start, length: Period(start, start + length),
    instants,
    st.one_of(
        st.timedeltas(timedelta(0), timedelta(hours=5)),
        st.timedeltas(timedelta(0), timedelta(days=60)),
        st.integers(0, 100).map(lambda hours: timedelta(hours=hours)),
    ),
)


@given(st.one_of(spans, spans.map(lambda each: Period(hour_of(each.start), hour_of(each.end)))))
@example(P("2026-01-01T10:15Z/2026-01-01T10:45Z"))
@example(P("2026-01-01T10:15Z/2026-01-01T11:00Z"))
@example(P("2026-01-01T10:00Z/2026-01-01T10:45Z"))
@example(P("2026-01-01T10:59Z/2026-01-01T11:01Z"))
@example(P("2026-01-01T10:00Z/2026-01-01T10:00Z"))
def test_whole_hours_and_their_edges_tile_a_span(span: Period) -> None:
    hours, edges = whole_hours(span)
    pieces = sorted([*edges, *([hours] if hours else [])], key=lambda each: each.start)
    if span.start == span.end:
        assert pieces == []
        return
    assert pieces[0].start == span.start
    assert pieces[-1].end == span.end
    for one, following in pairwise(pieces):
        assert one.end == following.start
    assert all(each.start < each.end for each in pieces)
    if hours is not None:
        assert (hour_of(hours.start), hour_of(hours.end)) == (hours.start, hours.end)
    assert all(each.end - each.start < timedelta(hours=2) for each in edges)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T23:59Z", "2026-01-31T23:59Z"),
        ("2026-01-31T23:59:58Z", "2026-01-31T23:59:58Z"),
        ("2026-01-31T23:59:58.123Z", "2026-01-31T23:59:58.123Z"),
        ("2026-01-31T23:59:58.123456+02:00", "2026-01-31T21:59:58.123456Z"),
        ("2026-01-31T23:59:58-11:00", "2026-02-01T10:59:58Z"),
        ("2026-01-31 23:59:58", "2026-01-31T23:59:58Z"),  # no offset: UTC
        ("2026-01-31T23:59:58+05:45", "2026-01-31T18:14:58Z"),
    ],
)
def test_an_iso_date_and_time_is_an_instant(text: str, instant: str) -> None:
    assert parse_instant(text) == at(instant)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "1769900000",
        "2026-01-31T",
        "2026-01-31T24:30Z",
        "2026-02-30T00:00Z",
        "2026-13-01T00:00Z",
        "2026-01-31T23:59:60Z",
        "2026-01-31T23:59Z trailing",
        "31/01/2026 23:59:00",
        "Sat, 31 Jan 2026 23:59:00 GMT",
        "0001-01-01T00:00:00+05:00",  # before the year 1, in UTC
        "9999-12-31T23:59:59-05:00",  # after the year 9999
        "2026-01-31T23:59:59+99:00",
        "²026-01-31T23:59:59Z",
        "2026-01-31T23:59:59\0",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert parse_instant(text) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    found = parse_instant(text)
    assert found is None or found.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_shown_in_utc_with_milliseconds_and_read_back(instant: datetime) -> None:
    shown = show_instant(instant)
    assert len(shown) == len("2026-01-31T23:59:58.123Z")
    assert parse_instant(shown) == instant.replace(microsecond=instant.microsecond // 1000 * 1000)


@pytest.mark.parametrize(
    ("start", "end", "zone", "days"),
    [
        ("2026-01-01", "2026-02-01", "UTC", 31),
        ("2026-03-28T12:00Z", "2026-03-30T12:00Z", "Europe/London", 2),  # one of the days has 23 hours
        ("2026-01-15T03:00Z", "2026-01-15T06:00Z", "America/New_York", 1),  # midnight lies between
        ("2026-01-15T06:00Z", "2026-01-15T23:00Z", "America/New_York", 0),
    ],
)
def test_days_are_counted_as_people_there_count_them(start: str, end: str, zone: str, days: int) -> None:
    assert days_between(at(start), at(end), zone) == days


@pytest.mark.parametrize("name", ["UTC", "Europe/Lisbon", "America/Argentina/Buenos_Aires", "Asia/Calcutta"])
def test_any_iana_name_is_a_zone(name: str) -> None:
    assert is_zone(name)


def test_zone_data_is_the_wheels_and_not_the_hosts(tmp_path: Path) -> None:
    """A host whose Lisbon lies in Tokyo, and that has a zone of its own."""
    host = tmp_path / "zoneinfo"
    tokyo = resources.files("tzdata.zoneinfo.Asia").joinpath("Tokyo").read_bytes()
    for name in ("Europe/Lisbon", "localtime", "posix/Europe/Lisbon", "right/UTC", "Our/Own"):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_bytes(tokyo)
    asked = """
from datetime import date
from tallystick.core.times import first_instant, is_zone
print(first_instant(date(2026, 1, 15), "Europe/Lisbon"), is_zone("localtime"), is_zone("Our/Own"), is_zone("Asia/Tokyo"))
"""
    told = subprocess.run(
        [sys.executable, "-c", asked],
        env=os.environ | {"PYTHONTZPATH": str(host)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split("\n")[0] == "2026-01-15 00:00:00+00:00 False False True"


@pytest.mark.parametrize("name", ["localtime", "posixrules", "posix/Europe/Lisbon", "right/Europe/Lisbon"])
def test_a_name_that_only_the_host_gives_meaning_is_no_zone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "available_timezones", lambda: {name, "Europe/Lisbon"})
    times._zones.cache_clear()
    try:
        assert (is_zone(name), is_zone("Europe/Lisbon")) == (False, True)
    finally:
        times._zones.cache_clear()


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "europe/lisbon", "UTC\0", "+02:00"])
def test_anything_else_is_no_zone(name: str) -> None:
    assert not is_zone(name)


def test_a_new_zone_moves_only_what_has_not_begun() -> None:
    """From Paris to Los Angeles: the boundaries that were, stay; the next is midnight over there."""
    anchor = Anchor(
        at("2026-01-15T10:00Z"),
        date(2026, 1, 15),
        weekly=False,
        zones=((0, "Europe/Paris"), (3, "America/Los_Angeles")),
    )
    boundaries = [boundary(anchor, index, "America/Los_Angeles") for index in range(5)]
    assert boundaries[1:4] == [at("2026-02-14T23:00Z"), at("2026-03-14T23:00Z"), at("2026-04-15T07:00Z")]
    for index in range(4):
        assert index_at(anchor, boundaries[index], "America/Los_Angeles") == index
        assert (
            index_at(anchor, boundaries[index + 1] - timedelta(microseconds=1), "America/Los_Angeles")
            == index
        )
