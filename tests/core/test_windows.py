"""Windows tile a span as people in a zone count hours, days and months; periods are those that are billed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallystick.core.meters import Aggregation, Meter
from tallystick.core.subscriptions import Life, Status
from tallystick.core.times import Anchor, Period, local_day, whole_hours
from tallystick.core.windows import Ruled, Window, billed_by, ruled, windows, with_whole_hours
from tests.core.test_times import ZONES
from tests.literals import P, U, at

CLOCKS = [Window.HOUR, Window.DAY, Window.MONTH]
zones = st.sampled_from(ZONES)
instants = st.integers(0, 60 * 365 * 86_400_000).map(lambda ms: at("1975-01-01") + timedelta(milliseconds=ms))
days = st.integers(1, 40 * 86_400_000).map(lambda ms: timedelta(milliseconds=ms))


def cut(text: str, window: str, zone: str) -> list[Period]:
    return list(windows(P(text), Window(window), zone, ()))


def hours(found: Sequence[Period]) -> list[float]:
    return [(each.end - each.start) / timedelta(hours=1) for each in found]


@given(instants, days, zones, st.sampled_from(CLOCKS))
@example(at("2011-12-29T00:00Z"), timedelta(days=3), "Pacific/Apia", Window.DAY)
@example(at("2018-11-03T00:00Z"), timedelta(days=3), "America/Sao_Paulo", Window.DAY)
@example(at("2010-11-07T02:00Z"), timedelta(days=1), "America/St_Johns", Window.DAY)
def test_windows_tile_the_span(start: datetime, length: timedelta, zone: str, window: Window) -> None:
    span = Period(start, start + length)
    found = list(windows(span, window, zone, ()))
    assert (found[0].start, found[-1].end) == (span.start, span.end)
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(each.start < each.end for each in found)


@given(instants, zones)
@example(at("2011-11-06T02:00Z"), "America/St_Johns")
@example(at("2018-11-04T03:00Z"), "America/Havana")
@example(at("2026-04-04T14:00Z"), "Australia/Lord_Howe")
@example(at("2026-10-03T14:00Z"), "Australia/Lord_Howe")
@example(at("2026-10-25T00:00Z"), "Europe/London")
def test_an_hour_is_what_the_clock_on_the_wall_calls_one(start: datetime, zone: str) -> None:
    """Minute by minute: within a window the wall shows one hour, and a new window begins where it shows another."""
    where = ZoneInfo(zone)
    start = start.replace(second=0, microsecond=0)
    span = Period(start, start + timedelta(hours=5))
    found = list(windows(span, Window.HOUR, zone, ()))
    starts = {each.start for each in found}
    minute = timedelta(minutes=1)
    for number in range(1, 300):
        now = (start + number * minute).astimezone(where)
        before = (start + (number - 1) * minute).astimezone(where)
        another = (now.date(), now.hour) != (before.date(), before.hour) or now.minute == 0
        assert (start + number * minute in starts) is another, now


@given(instants, days, zones, st.sampled_from([Window.DAY, Window.MONTH]))
def test_a_day_is_one_date_on_the_wall(start: datetime, length: timedelta, zone: str, window: Window) -> None:
    length_of_date = 10 if window is Window.DAY else 7
    if zone == "America/St_Johns":
        return  # its clocks were set back after midnight, and showed the end of yesterday once more
    for each in windows(Period(start, start + length), window, zone, ()):
        first, last = (
            instant.astimezone(ZoneInfo(zone)).isoformat()[:length_of_date]
            for instant in (each.start, each.end - timedelta(microseconds=1))
        )
        assert first == last


@pytest.mark.parametrize(
    ("span", "window", "zone", "expected"),
    [
        ("2026-01-01/2026-01-03", "day", "UTC", [24, 24]),
        ("2026-03-29T00:00+01:00/2026-03-31T00:00+02:00", "day", "Europe/Berlin", [23, 24]),
        ("2026-10-25T00:00+02:00/2026-10-27T00:00+01:00", "day", "Europe/Berlin", [25, 24]),
        ("2026-10-25T00:00+02:00/2026-10-26T00:00+01:00", "hour", "Europe/Berlin", [1] * 25),
        ("2026-03-29T00:00+01:00/2026-03-30T00:00+02:00", "hour", "Europe/Berlin", [1] * 23),
        ("2026-01-01/2026-01-02", "day", "Asia/Kathmandu", [18.25, 5.75]),
        ("2026-01-01/2026-01-01T03:00", "hour", "Asia/Kathmandu", [0.25, 1, 1, 0.75]),
        ("2026-01-01/2026-01-01T02:00", "hour", "Asia/Kolkata", [0.5, 1, 0.5]),
        # Half an hour of daylight saving: from 02:00 to 02:30, and from 02:00 back to 01:30.
        ("2026-10-03T14:30/2026-10-03T17:00", "hour", "Australia/Lord_Howe", [1, 0.5, 1]),
        ("2026-04-04T13:00/2026-04-04T16:30", "hour", "Australia/Lord_Howe", [1, 1.5, 1]),
        ("2011-12-29T10:00/2012-01-01T10:00", "day", "Pacific/Apia", [24, 24, 24]),
        ("2026-02-10/2026-04-10", "month", "UTC", [19 * 24, 31 * 24, 9 * 24]),
        ("2026-01-31T12:00/2026-02-01T12:00", "month", "UTC", [12, 12]),
        ("2026-01-01T00:30/2026-01-01T00:45", "hour", "UTC", [0.25]),
        ("2026-01-01T00:30/2026-01-01T00:45", "month", "UTC", [0.25]),
    ],
)
def test_where_windows_are_cut(span: str, window: str, zone: str, expected: list[float]) -> None:
    assert hours(cut(span, window, zone)) == expected


def test_months_begin_at_local_midnight() -> None:
    found = cut("2026-01-15/2026-04-15", "month", "America/New_York")
    assert [each.start for each in found[1:]] == [
        at("2026-02-01T05:00"),
        at("2026-03-01T05:00"),
        at("2026-04-01T04:00"),
    ]


def test_windows_are_made_only_as_far_as_somebody_looks() -> None:
    found = islice(windows(P("0100-01-01/8999-01-01"), Window.HOUR, "Asia/Kathmandu", ()), 5)
    assert len(list(found)) == 5


# Periods --------------------------------------------------------------------------------------------------


def life(start: str, end: str | None = None, zone: str = "UTC", *, weekly: bool = False) -> Life:
    anchor = Anchor(at(start), local_day(at(start), zone), weekly)
    status = Status.CANCELED if end else Status.ACTIVE
    return Life(U(1), U(2), status, anchor, zone, at(end) if end else None)


def periods(span: str, *lives: Life) -> list[str]:
    return [
        f"{each.start.astimezone(UTC):%m-%dT%H}/{each.end.astimezone(UTC):%m-%dT%H}"
        for each in windows(P(span), Window.PERIOD, "Asia/Tokyo", lives)
    ]


def test_periods_are_the_subscriptions_own_and_clipped_to_the_span() -> None:
    assert periods("2026-01-20/2026-03-20", life("2026-01-15T10:00")) == [
        "01-20T00/02-15T00",
        "02-15T00/03-15T00",
        "03-15T00/03-20T00",
    ]
    assert periods("2026-01-01/2026-02-01", life("2026-01-15T10:00")) == ["01-15T10/02-01T00"]


def test_a_life_that_ended_ends_its_last_period() -> None:
    first, second = life("2026-01-15", "2026-02-20T08:00"), life("2026-03-01", weekly=True)
    assert periods("2026-01-01/2026-03-10", first, second) == [
        "01-15T00/02-15T00",
        "02-15T00/02-20T08",
        "03-01T00/03-08T00",
        "03-08T00/03-10T00",
    ]
    assert periods("2026-02-21/2026-02-25", first, second) == []


# Which version measures -----------------------------------------------------------------------------------


def meter(version: int) -> Meter:
    return Meter(U(version), U(100), "api_calls", version, "api_calls", Aggregation.SUM)


VERSIONS = [(at("2025-06-01"), meter(1)), (at("2026-02-20"), meter(2)), (at("2026-03-15"), meter(3))]


def measured_by(span: str, *lives: Life, versions: Sequence[tuple[datetime, Meter]] = VERSIONS) -> list[str]:
    return [
        f"{which.version}: {part.start:%m-%d}/{part.end:%m-%d}"
        for which, part in billed_by(versions, lives, P(span))
    ]


@pytest.mark.parametrize(
    ("span", "lives", "expected"),
    [
        # A change counts from the next period on; one at the very start of a period, from there.
        ("2026-01-20/2026-04-20", [life("2026-01-15")], ["1: 01-20/03-15", "3: 03-15/04-20"]),
        ("2026-01-20/2026-05-20", [life("2026-01-10")], ["1: 01-20/03-10", "2: 03-10/04-10", "3: 04-10/05-20"]),
        ("2026-02-21/2026-03-01", [life("2026-01-10")], ["1: 02-21/03-01"]),
        # Before there was a subscription: as its first period.
        ("2026-01-01/2026-03-01", [life("2026-02-25")], ["2: 01-01/03-01"]),
        # After the last one: as its last period.
        ("2026-01-20/2026-05-01", [life("2026-01-10", "2026-03-12")], ["1: 01-20/03-10", "2: 03-10/05-01"]),
        # Between two of them: as the next.
        ("2026-01-20/2026-05-01", [life("2026-01-10", "2026-02-01"), life("2026-04-01")], ["1: 01-20/02-01", "3: 02-01/05-01"]),
        # Without any: the newest.
        ("2026-01-20/2026-05-01", [], ["3: 01-20/05-01"]),
        ("2026-01-20/2026-05-01", [life("2026-01-15", "2026-01-15")], ["1: 01-20/05-01"]),
    ],
)  # fmt: skip
def test_each_part_is_measured_by_the_version_that_bills_it(
    span: str, lives: list[Life], expected: list[str]
) -> None:
    assert measured_by(span, *lives) == expected


def test_one_version_measures_everything() -> None:
    one = VERSIONS[:1]
    assert measured_by("2000-01-01/2030-01-01", life("2026-01-15"), versions=one) == ["1: 01-01/01-01"]


@given(st.lists(instants, max_size=4), instants, days.map(lambda each: each * 10), zones)
def test_the_parts_tile_the_span_and_agree_with_every_period(
    changes: list[datetime], start: datetime, length: timedelta, zone: str
) -> None:
    versions = [(valid_from, meter(number)) for number, valid_from in enumerate(sorted(changes), start=2)]
    versions.insert(0, (at("1970-01-01"), meter(1)))
    anchor = Anchor(start, local_day(start, zone), weekly=True)
    lived = Life(U(1), U(2), Status.ACTIVE, anchor, zone, None)
    span = Period(start, start + length)
    parts = billed_by(versions, [lived], span)
    assert (parts[0][1].start, parts[-1][1].end) == (span.start, span.end)
    assert all(one[1].end == other[1].start and one[0] != other[0] for one, other in pairwise(parts))
    for each in windows(span, Window.PERIOD, zone, [lived]):
        (which,) = [which for which, part in parts if each.start in part]
        assert which.version == max(
            meter.version for valid_from, meter in versions if meter.version == 1 or valid_from <= each.start
        )


# Pieces ---------------------------------------------------------------------------------------------------


@given(instants, st.lists(days, max_size=6), zones)
def test_whole_hours_and_edges_of_the_pieces_tile_the_span(
    start: datetime, lengths: list[timedelta], zone: str
) -> None:
    cuts = sorted({start, start + timedelta(hours=3), *(start + each for each in lengths)})
    part = Ruled(meter(1), tuple(cuts))
    wholes = [whole for _, piece in part.pieces if (whole := whole_hours(piece)[0]) is not None]
    spans = sorted([*wholes, *part.edges()], key=lambda each: each.start)
    assert (spans[0].start, spans[-1].end) == (cuts[0], cuts[-1])
    assert all(one.end == other.start for one, other in pairwise(spans))
    assert with_whole_hours([part]) == {
        number for number, piece in part.pieces if whole_hours(piece)[0] is not None
    }


def test_edges_that_touch_are_one() -> None:
    part = Ruled(meter(1), (at("2026-01-01T00:15"), at("2026-01-01T01:15"), at("2026-01-01T04:00")), first=7)
    assert [number for number, _ in part.pieces] == [7, 8]
    assert part.edges() == [P("2026-01-01T00:15/2026-01-01T02:00")]
    assert part.edges({8}) == [P("2026-01-01T01:15/2026-01-01T02:00")]
    assert with_whole_hours([part]) == {8}


def test_a_piece_that_two_versions_share_is_in_both() -> None:
    parts = [(meter(1), P("2026-01-01/2026-01-10")), (meter(2), P("2026-01-10/2026-02-01"))]
    one, other = ruled(parts, [at(each) for each in ("2026-01-01", "2026-01-05", "2026-01-20", "2026-02-01")])
    assert [number for number, _ in one.pieces] == [0, 1]
    assert [number for number, _ in other.pieces] == [1, 2]
    assert (one.span.end, other.span.start) == (at("2026-01-10"), at("2026-01-10"))
