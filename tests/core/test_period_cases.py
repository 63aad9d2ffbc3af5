"""The published table of periods (`contract/cases/periods.json`): derived twice, and never far from the code.

The table is compared with a walk through the calendar that knows nothing of Tallystick, and the code with both.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallystick.core.subscriptions import Life, Status, periods_per_invoice
from tallystick.core.times import (
    MONTHS,
    Anchor,
    Period,
    boundary,
    days_between,
    first_instant,
    index_at,
    is_zone,
    local_day,
    period,
)
from tests.core import calendar_walk
from tests.core.calendar_walk import Case
from tests.literals import U, at

CASES = calendar_walk.load()
TICK = timedelta(microseconds=1)


def name_of(case: Case) -> str:
    return str(case["id"])


def anchored(start: datetime, zone: str, *, weekly: bool, moves: Sequence[tuple[int, str]] = ()) -> Anchor:
    """`moves`: from which period on the customer's periods are counted elsewhere."""
    zones = ((0, zone), *((period + 1, elsewhere) for period, elsewhere in moves)) if moves else ()
    return Anchor(start, local_day(start, zone), weekly, zones)


def anchor_of(given: Case) -> tuple[Anchor, str]:
    """The anchor, and the zone the customer lives in at last."""
    moves = [(each["fromPeriod"], each["timezone"]) for each in given.get("zoneChanges", ())]
    start, zone = at(given["start"]), given["timezone"]
    weekly = given["interval"] == "weekly"
    return anchored(start, zone, weekly=weekly, moves=moves), moves[-1][1] if moves else zone


def span(row: Case) -> Period:
    return Period(at(row["start"]), at(row["end"]))


# The table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_table_is_what_a_walk_through_the_calendar_finds(case: Case) -> None:
    assert calendar_walk.derived(case) == case["expected"]


def test_the_table_is_written_as_its_writer_writes_it() -> None:
    assert calendar_walk.FILE.read_text() == calendar_walk.layout(CASES)


def test_the_table_names_each_case_once_and_says_why() -> None:
    assert len({each["id"] for each in CASES}) == len(CASES)
    assert all(each["why"].endswith(".") for each in CASES)
    assert {each["given"]["interval"] for each in CASES} == {"weekly", "one_time", *MONTHS}
    named = {zone for each in CASES for zone in (each["given"]["timezone"], anchor_of(each["given"])[1])}
    assert [zone for zone in named if not is_zone(zone)] == []


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_periods_of_a_case(case: Case) -> None:
    anchor, zone = anchor_of(case["given"])
    for row in case["expected"]["periods"]:
        index, expected = row["index"], span(row)
        assert period(anchor, index, zone) == expected
        assert days_between(expected.start, expected.end, anchor.zone_at(index + 1, zone)) == row["days"]
        assert index_at(anchor, expected.start, zone) == index
        assert index_at(anchor, expected.end - TICK, zone) == index
        assert index_at(anchor, expected.end, zone) == index + 1


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_life_of_a_subscription_under_a_case(case: Case) -> None:
    anchor, zone = anchor_of(case["given"])
    life = Life(U(1), U(2), Status.ACTIVE, anchor, zone, ends_at=None)
    for row in case["expected"]["periods"]:
        whole = (row["index"], span(row))
        assert [life.period_at(each) for each in (whole[1].start, whole[1].end - TICK)] == [whole, whole]
    assert life.period_at(anchor.at - TICK) is None
    for row in case["expected"].get("contains", ()):
        found = life.period_at(at(row["at"]))
        assert (found and found[0]) == row["index"]


@pytest.mark.parametrize(
    "case", [each for each in CASES if "billing" in each["expected"]], ids=lambda case: case["id"]
)
def test_what_each_base_charge_of_a_case_pays_for(case: Case) -> None:
    anchor, zone = anchor_of(case["given"])
    usage_periods = periods_per_invoice(case["given"]["interval"])
    for row in case["expected"]["billing"]:
        first = row["index"] * (usage_periods or 1)
        following = first + (usage_periods or 1)
        assert Period(boundary(anchor, first, zone), boundary(anchor, following, zone)) == span(row)
    if usage_periods is None:
        assert len(case["expected"]["billing"]) == 1, "what is charged once has one charge"


# Laws -----------------------------------------------------------------------------------------------------

starts = st.integers(0, 250 * 365 * 86_400_000_000).map(
    lambda microseconds: datetime(1850, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
ends_of_months = st.builds(
    lambda year, month, days, minutes: (
        datetime(year, month, 1, tzinfo=UTC) + timedelta(days, minutes=minutes)
    ),
    st.integers(1970, 2060),
    st.integers(1, 12),
    st.integers(27, 31),
    st.integers(0, 24 * 60 - 1),
)
anywhere = st.sampled_from(sorted(available_timezones()))
movings = st.lists(st.tuples(st.integers(1, 12), anywhere), max_size=3, unique_by=lambda move: move[0]).map(
    sorted
)
lives = st.fixed_dictionaries(
    {
        "start": st.one_of(starts, ends_of_months),
        "zone": anywhere,
        "weekly": st.booleans(),
        "moves": movings,
    }
)


def life(start: str, zone: str, *moves: tuple[int, str], weekly: bool = False) -> dict[str, Any]:
    return {"start": at(start), "zone": zone, "weekly": weekly, "moves": moves}


def anchor_and_zone(lived: dict[str, Any]) -> tuple[Anchor, str]:
    anchor = anchored(lived["start"], lived["zone"], weekly=lived["weekly"], moves=lived["moves"])
    return anchor, lived["moves"][-1][1] if lived["moves"] else lived["zone"]


@given(lives)
@example(life("2025-06-02", "Pacific/Kiritimati", (1, "Etc/GMT+12"), (2, "Pacific/Kiritimati"), weekly=True))
@example(life("2011-12-23T18:00Z", "Pacific/Apia", (1, "Pacific/Kiritimati"), weekly=True))
def test_periods_tile_the_line_wherever_the_customer_moves(lived: dict[str, Any]) -> None:
    anchor, zone = anchor_and_zone(lived)
    periods = [period(anchor, index, zone) for index in range(16)]
    assert periods[0].start == lived["start"]
    assert all(each.start < each.end for each in periods)
    assert all(one.end == following.start for one, following in pairwise(periods))


@given(lives, st.timedeltas(timedelta(0), timedelta(days=400)))
@example(life("2010-10-07T12:00Z", "America/St_Johns"), timedelta(days=30, hours=14, minutes=31))
def test_every_moment_is_in_exactly_one_period_wherever_the_customer_moves(
    lived: dict[str, Any], later: timedelta
) -> None:
    anchor, zone = anchor_and_zone(lived)
    moment = lived["start"] + later
    index = index_at(anchor, moment, zone)
    known = range(index + 3)
    assert [each for each in known if moment in period(anchor, each, zone)] == [index]


@given(lives, st.integers(0, 14))
def test_a_boundary_belongs_to_the_later_period_wherever_the_customer_moves(
    lived: dict[str, Any], index: int
) -> None:
    anchor, zone = anchor_and_zone(lived)
    begins = boundary(anchor, index, zone)
    assert index_at(anchor, begins, zone) == index
    assert index_at(anchor, begins - TICK, zone) == index - 1


@given(lives)
def test_the_code_finds_what_the_walk_finds_wherever_the_customer_moves(lived: dict[str, Any]) -> None:
    anchor, zone = anchor_and_zone(lived)
    told: Case = {
        "start": lived["start"].isoformat(),
        "timezone": lived["zone"],
        "interval": "weekly" if lived["weekly"] else "monthly",
        "zoneChanges": [{"fromPeriod": index, "timezone": zone} for index, zone in lived["moves"]],
    }
    walked = calendar_walk.boundaries(told, 8)
    assert [boundary(anchor, index, zone) for index in range(9)] == walked


@given(st.dates(date(1850, 1, 1), date(2100, 1, 1)), anywhere)
@example(at("1867-10-19").date(), "America/Juneau")  # a day that came twice
@example(at("1844-12-31").date(), "Asia/Manila")  # and one that never came
def test_a_day_begins_where_the_walk_first_meets_it(day: date, zone: str) -> None:
    assert first_instant(day, zone) == calendar_walk.begins(day, zone)
