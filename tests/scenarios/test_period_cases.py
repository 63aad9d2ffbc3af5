"""The published table of periods (`contract/cases/periods.json`), lived through over HTTP with the test clock."""

from datetime import datetime, timedelta
from itertools import count, takewhile
from typing import Any

import pytest

from tallystick.core.times import show_instant
from tests.conftest import Organization
from tests.core import calendar_walk
from tests.core.calendar_walk import MONTHS_PAID_FOR, Case
from tests.literals import at
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    invoices_of,
    overage,
    pay,
    set_clock,
    subscribe,
    track,
)

CASES = {case["id"]: case for case in calendar_walk.load()}
TICK = timedelta(microseconds=1)

LIVED = [
    "monthly.anchor_31.leap_year",
    "monthly.december_to_january",
    "quarterly.anchor_30",
    "one_time.anchor_31",
    "weekly.autumn",
    "start.last_microsecond_of_the_day",
    "start.in_a_repeated_hour",
    "no_midnight.beirut",
    "no_midnight.azores",
    "two_midnights.st_johns",
    "two_evenings.santiago",
    "offset.lord_howe",
    "offset.chatham",
    "offset.seconds",
    "no_day.apia.weekly",
    "zone_change.westwards",
    "zone_change.eastwards",
    "zone_change.there_and_back",
    "zone_change.weekly.across_the_date_line",
    "zone_change.to_a_day_without_midnight",
]
YEARS = ["yearly.twelve_usage_periods", "yearly.anchor_31.new_zealand", "zone_change.yearly"]


def shown(instant: str) -> str:
    """As the wire shows it."""
    return show_instant(at(instant))


def ends(row: Case) -> tuple[str, str]:
    return shown(row["start"]), shown(row["end"])


def consecutive(case: Case) -> list[Case]:
    """The periods of a case that follow one another from the first."""
    numbered = zip(case["expected"]["periods"], count(), strict=False)
    return [row for row, _ in takewhile(lambda pair: pair[0]["index"] == pair[1], numbered)]


def current(shop: Organization, customer: str) -> tuple[str, str]:
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId={customer}"))["currentPeriod"]
    return held["start"], held["end"]


def covers(invoice: Json) -> tuple[str, str]:
    return invoice["periodStart"], invoice["periodEnd"]


def months_paid_for(given: Case) -> int:
    """Usage periods to a base charge; of a one-time price, the first."""
    return MONTHS_PAID_FOR.get(given["interval"], 1)


def live_through(shop: Organization, case: Case, customers: dict[str, tuple[int, int]]) -> None:
    """From one boundary to the next: so many units in each period's first instant, and so many in its last.

    Both are sent while the period before the boundary is open. The customer moves where the case says so.
    """
    moves = {each["fromPeriod"]: each["timezone"] for each in case["given"].get("zoneChanges", ())}
    paid_by_the_period = months_paid_for(case["given"]) == 1

    def use(place: int, moment: datetime) -> None:
        for customer, units in customers.items():
            if units[place]:
                done(track(shop, customer, value=units[place], timestamp=moment.isoformat()))

    for row in consecutive(case):
        start, end = at(row["start"]), at(row["end"])
        if row["index"] == 0:
            use(0, start)
        if paid_by_the_period:
            assert {current(shop, each) for each in customers} == {ends(row)}
        if zone := moves.get(row["index"] + 1):
            for customer in customers:
                done(shop.http.patch(f"{API}/customers/{customer}", json={"timezone": zone}))
        set_clock(shop, (end - TICK).isoformat())
        if paid_by_the_period:
            assert {current(shop, each) for each in customers} == {ends(row)}, (
                "no move changes what has begun"
            )
        use(0, end)
        use(1, end - TICK)
        set_clock(shop, end.isoformat())


def evidence_of(shop: Organization, invoice: Json) -> Json:
    """What the one usage line of an invoice froze."""
    told = done(shop.http.get(f"{API}/invoices/{invoice['id']}/evidence"))["lines"]
    (usage,) = [each["evidence"] for each in told if "instants" in each["evidence"]]
    return dict(usage)


def check_usage_line(shop: Organization, invoice: Json, case: Case, row: Case, used: str) -> None:
    """The line is of this period, to the microsecond."""
    evidence = evidence_of(shop, invoice)
    assert [datetime.fromisoformat(each) for each in evidence["instants"]] == [
        at(row["start"]),
        at(row["end"]),
    ]
    assert evidence["period"] == {
        "index": row["index"],
        "start": shown(row["start"]),
        "end": shown(row["end"]),
        "timezone": calendar_walk.zone_of(case["given"], row["index"]),
    }
    assert evidence["used"] == used


@pytest.mark.parametrize("case", [CASES[each] for each in LIVED], ids=LIVED)
def test_a_case_is_lived_as_the_table_says(open_at: Any, case: Case) -> None:
    given, expected = case["given"], case["expected"]
    shop = open_at(given["start"])
    add_feature(shop)
    add_plan(shop, interval=given["interval"], promises={"api_calls": overage("0.01")})
    subscribe(shop, "ada", customer={"timezone": given["timezone"]})
    live_through(shop, case, {"ada": (1, 10)})

    rows = consecutive(case)
    paid_for = {row["index"]: row for row in expected.get("billing", rows)}
    months = months_paid_for(given)
    first, *closings = invoices_of(shop, "ada")
    assert (first["invoiceType"], covers(first)) == ("recurring", ends(paid_for[0]))
    for invoice, row in zip(closings, rows, strict=True):
        check_usage_line(shop, invoice, case, row, used="11")
        next_base, within = divmod(row["index"] + 1, months)
        if within or given["interval"] == "one_time":
            assert (invoice["invoiceType"], covers(invoice)) == ("overage", ends(row))
            assert [each["lineType"] for each in invoice["lineItems"]] == ["feature_overage"]
        else:
            assert (invoice["invoiceType"], invoice["periodStart"]) == ("recurring", shown(row["end"]))
            assert [each["lineType"] for each in invoice["lineItems"]] == ["plan_base", "feature_overage"]
            if next_base in paid_for:
                assert covers(invoice) == ends(paid_for[next_base])
        assert invoice["issueDate"] == shown(row["end"])


@pytest.mark.parametrize("case", [CASES[each] for each in YEARS], ids=YEARS)
def test_a_year_bills_overage_by_the_month_and_the_last_month_with_the_renewal(
    open_at: Any, case: Case
) -> None:
    """Ada passes her allowance each month, Bob uses just all of his, Cy nothing."""
    given = case["given"]
    shop = open_at(given["start"])
    add_feature(shop)
    add_plan(shop, price=30000, interval="yearly", promises={"api_calls": overage("0.10", included=100)})
    used = {"ada": (50, 100), "bob": (40, 60), "cy": (0, 0)}
    for customer in used:
        subscribe(shop, customer, customer={"timezone": given["timezone"]})
    year = case["expected"]["billing"][0]
    unmoved = {"start": given["start"], "end": show_instant(walked_without_moves(given, 12)[12])}
    assert current(shop, "ada") == ends(unmoved)
    twelve: Case = {"given": given, "expected": {"periods": case["expected"]["periods"][:12]}}
    live_through(shop, twelve, used)
    assert current(shop, "ada")[0] == shown(year["end"])

    first, *overages, renewal = invoices_of(shop, "ada")
    assert (first["invoiceType"], first["total"]) == ("recurring", 30000)
    assert covers(first) == ends(unmoved), "what is issued keeps what it said, wherever its customer moves"
    assert [(each["invoiceType"], each["total"]) for each in overages] == [("overage", 500)] * 11
    assert [covers(each) for each in overages] == [ends(row) for row in consecutive(case)[:11]]
    assert (renewal["invoiceType"], renewal["total"]) == ("recurring", 30500)
    assert renewal["periodStart"] == shown(year["end"])
    for row in case["expected"]["billing"][1:]:
        assert covers(renewal) == ends(row)
    for invoice, row in zip([*overages, renewal], consecutive(case), strict=False):
        check_usage_line(shop, invoice, case, row, used="150")
    for quiet in ("bob", "cy"):
        told = invoices_of(shop, quiet)
        assert [(each["invoiceType"], each["total"]) for each in told] == [("recurring", 30000)] * 2
        assert [covers(each) for each in told] == [covers(first), covers(renewal)]


def walked_without_moves(given: Case, periods: int) -> list[datetime]:
    return calendar_walk.boundaries({**given, "zoneChanges": []}, periods)


# What a move touches besides --------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Honolulu"])
def test_a_year_canceled_before_a_move_ends_with_the_year_and_is_not_renewed(open_at: Any, zone: str) -> None:
    """To the east the year's last boundary comes before the instant that was told when it was canceled."""
    shop = open_at("2024-03-10T18:00:00Z")
    add_feature(shop)
    add_plan(shop, price=30000, interval="yearly", promises={"api_calls": overage("0.10")})
    held = subscribe(shop, "ada", customer={"timezone": "America/Los_Angeles"})
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    done(shop.http.patch(f"{API}/customers/ada", json={"timezone": zone}))
    set_clock(shop, "2025-03-01T00:00:00Z")
    last = {"Asia/Tokyo": "2025-03-09T15:00:00.000Z", "Pacific/Honolulu": "2025-03-10T10:00:00.000Z"}[zone]
    told = done(shop.http.get(f"{API}/subscriptions/{held['id']}"))
    assert (told["currentPeriod"]["end"], told["endDate"]) == (last, last)
    assert told["cancellation"]["effectiveAt"] == last
    done(track(shop, value=7, timestamp="2025-02-28T00:00:00Z"))
    set_clock(shop, "2025-05-01T00:00:00Z")
    assert [each["total"] for each in invoices_of(shop, "ada")] == [30000, 70]
    ended = done(shop.http.get(f"{API}/subscriptions/{held['id']}"))
    assert (ended["status"], ended["endDate"]) == ("canceled", last)


def test_who_moves_before_paying_is_counted_where_they_live_when_they_pay(open_at: Any) -> None:
    shop = open_at("2026-01-31T15:30:00Z")
    add_feature(shop)
    add_plan(shop, promises={"api_calls": overage("0.01")})
    add_customer(shop, "ada", timezone="Europe/London")
    held = done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "pro"}))
    done(shop.http.patch(f"{API}/customers/ada", json={"timezone": "Asia/Tokyo"}))
    pay(held["checkoutUrl"])
    row, following = CASES["start.local_day_is_tomorrow"]["expected"]["periods"][:2]
    assert current(shop, "ada") == ends(row)
    assert done(shop.http.get(f"{API}/subscriptions/{held['id']}"))["billingDayOfMonth"] == 1
    set_clock(shop, row["end"])
    assert [covers(each) for each in invoices_of(shop, "ada")] == [ends(row), ends(following)]
