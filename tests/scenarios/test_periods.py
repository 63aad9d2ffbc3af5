"""Months lived through over HTTP with the test clock: boundaries, invoices, and the events behind each line."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from shutil import rmtree
from typing import Any

import httpx
import pytest

from tallystick.core import ids
from tallystick.core.events import StoredEvent
from tallystick.core.proof import leaf, set_digest
from tallystick.core.times import parse_instant
from tallystick.flows.close_period import Closed, close_period
from tallystick.store.db import Database
from tests.audit import organization_id, select
from tests.conftest import MakeOrganization, Organization, Server, free_port, private_dir
from tests.literals import at
from tests.shop import (
    API,
    DECLINED_LATER,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    every,
    hard_limit,
    invoices_of,
    open_shop,
    overage,
    own_id,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
    track_batch,
)


def instant(text: str) -> Any:
    found = parse_instant(text)
    assert found is not None
    return found


def lines(invoice: Json, kind: str | None = None) -> list[Json]:
    return [line for line in invoice["lineItems"] if kind in (None, line["lineType"])]


def shape(invoice: Json) -> tuple[str, str, list[tuple[str, int]]]:
    """(type, status, [(line type, amount)])."""
    told = [(line["lineType"], line["amount"]) for line in lines(invoice)]
    return invoice["invoiceType"], invoice["status"], told


# Boundaries -----------------------------------------------------------------------------------------------

ANCHOR = "2025-01-31T10:00:00.000Z"
A_YEAR: dict[str, list[str]] = {
    "Europe/Paris": [  # the clocks change on 30 March and 26 October
        "2025-02-27T23:00", "2025-03-30T22:00", "2025-04-29T22:00", "2025-05-30T22:00",
        "2025-06-29T22:00", "2025-07-30T22:00", "2025-08-30T22:00", "2025-09-29T22:00",
        "2025-10-30T23:00", "2025-11-29T23:00", "2025-12-30T23:00", "2026-01-30T23:00",
    ],
    "America/Los_Angeles": [  # on 9 March and 2 November
        "2025-02-28T08:00", "2025-03-31T07:00", "2025-04-30T07:00", "2025-05-31T07:00",
        "2025-06-30T07:00", "2025-07-31T07:00", "2025-08-31T07:00", "2025-09-30T07:00",
        "2025-10-31T07:00", "2025-11-30T08:00", "2025-12-31T08:00", "2026-01-31T08:00",
    ],
    "Asia/Kathmandu": [  # never, and 5:45 ahead
        "2025-02-27T18:15", "2025-03-30T18:15", "2025-04-29T18:15", "2025-05-30T18:15",
        "2025-06-29T18:15", "2025-07-30T18:15", "2025-08-30T18:15", "2025-09-29T18:15",
        "2025-10-30T18:15", "2025-11-29T18:15", "2025-12-30T18:15", "2026-01-30T18:15",
    ],
}  # fmt: skip


def test_a_year_from_31_january_ends_each_month_on_its_last_local_day(open_at: Any) -> None:
    shop = open_at(ANCHOR)
    open_shop(shop)
    for zone in A_YEAR:
        subscribe(shop, zone.rpartition("/")[2].lower(), customer={"timezone": zone})
    set_clock(shop, "2026-02-01T00:00:00Z")
    for zone, expected in A_YEAR.items():
        customer = zone.rpartition("/")[2].lower()
        starts = [ANCHOR, *(f"{each}:00.000Z" for each in expected)]
        told = invoices_of(shop, customer)
        assert [each["periodStart"] for each in told] == starts
        assert [each["periodEnd"] for each in told[:-1]] == starts[1:]
        assert [each["issueDate"] for each in told] == starts
        current = done(shop.http.get(f"{API}/subscriptions/active?customerId={customer}"))["currentPeriod"]
        assert current["start"] == starts[-1]


@pytest.mark.parametrize(
    ("zone", "interval", "anchor", "boundaries"),
    [
        ("UTC", "monthly", "2024-01-31T10:00:00Z", ["2024-02-29T00:00", "2024-03-31T00:00"]),  # a leap year
        (  # on 30 March there is no midnight: the clocks jump from 00:00 to 01:00
            "Asia/Beirut",
            "monthly",
            "2025-01-30T10:00:00Z",
            ["2025-02-27T22:00", "2025-03-29T22:00", "2025-04-29T21:00"],
        ),
        (  # weeks of 167 hours in spring
            "Europe/Paris",
            "weekly",
            "2025-03-19T10:00:00Z",
            ["2025-03-25T23:00", "2025-04-01T22:00", "2025-04-08T22:00"],
        ),
        (  # and of 169 in autumn; it is Tuesday there already
            "Pacific/Auckland",
            "weekly",
            "2025-03-24T12:00:00Z",
            ["2025-03-31T11:00", "2025-04-07T12:00", "2025-04-14T12:00"],
        ),
        ("America/New_York", "quarterly", "2024-11-30T12:00:00Z", ["2025-02-28T05:00", "2025-05-30T04:00"]),
        ("UTC", "semiannual", "2024-08-31T12:00:00Z", ["2025-02-28T00:00", "2025-08-31T00:00"]),
        ("UTC", "yearly", "2024-02-29T12:00:00Z", ["2025-02-28T00:00", "2026-02-28T00:00"]),
    ],
)
def test_boundaries_are_local_midnights_of_the_anchor_day(
    open_at: Any, zone: str, interval: str, anchor: str, boundaries: list[str]
) -> None:
    shop = open_at(anchor)
    add_feature(shop)
    add_plan(shop, interval=interval, promises={"api_calls": overage("0.01")})
    subscribe(shop, "ada", customer={"timezone": zone})
    expected = [f"{each}:00.000Z" for each in boundaries]
    set_clock(shop, expected[-1])
    told = invoices_of(shop, "ada")
    assert [each["periodStart"] for each in told[1:]] == expected
    assert [each["periodEnd"] for each in told[:-1]] == expected
    assert [shape(each)[2] for each in told] == [[("plan_base", 2900)]] * len(told)


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/Los_Angeles", "Asia/Kathmandu"])
def test_a_boundary_belongs_to_the_next_period_and_the_instant_before_to_the_closed_one(
    open_at: Any, zone: str
) -> None:
    """Seven at the last millisecond, five at the boundary; the ragged hour of Kathmandu changes nothing."""
    shop = open_at(ANCHOR)
    open_shop(shop)
    subscribe(shop, "ada", customer={"timezone": zone})
    first, second = (instant(f"{each}:00Z") for each in A_YEAR[zone][:2])
    set_clock(shop, (first - timedelta(minutes=30)).isoformat())
    done(track(shop, value=2, timestamp=ANCHOR))  # the anchor itself is in the first period
    done(track(shop, value=7, timestamp=(first - timedelta(milliseconds=1)).isoformat()))
    done(track(shop, value=5, timestamp=first.isoformat()))
    done(track(shop, value=11, timestamp=(first + timedelta(minutes=20)).isoformat()))
    set_clock(shop, (first - timedelta(milliseconds=1)).isoformat())
    assert len(invoices_of(shop, "ada")) == 1
    set_clock(shop, first.isoformat())
    set_clock(shop, second.isoformat())
    used = [
        [line["usedAmount"] for line in lines(each, "feature_overage")] for each in invoices_of(shop, "ada")
    ]
    assert used == [[], [9], [16]]


def test_a_new_time_zone_counts_from_the_next_period(open_at: Any) -> None:
    shop = open_at(ANCHOR)
    open_shop(shop)
    subscribe(shop, "ada", customer={"timezone": "Europe/Paris"})
    set_clock(shop, "2025-02-10T00:00:00Z")
    done(shop.http.patch(f"{API}/customers/ada", json={"timezone": "America/Los_Angeles"}))
    set_clock(shop, "2025-05-02T00:00:00Z")
    starts = [each["periodStart"] for each in invoices_of(shop, "ada")]
    assert starts[1] == "2025-02-27T23:00:00.000Z"  # what was promised when this period began
    assert starts[2:] == ["2025-03-31T07:00:00.000Z", "2025-04-30T07:00:00.000Z"]


# Invoices -------------------------------------------------------------------------------------------------


def test_a_renewal_has_the_next_base_in_advance_and_the_overage_of_the_closed_period(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    add_feature(shop)
    add_feature(shop, "storage", unitName="GB")
    add_feature(shop, "seats_used")
    add_plan(
        shop,
        promises={
            "api_calls": overage("0.01", included=1000),
            "storage": overage("0.25", included=10),
            "seats_used": {"unlimited": True},
        },
    )
    subscribe(shop, "ada")
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(track(shop, value=1500))
    done(track(shop, value=10, feature="storage"))  # all of it included
    done(track(shop, value=99, feature="seats_used"))
    set_clock(shop, "2025-02-20T00:00:00Z")
    done(track(shop, value=999))
    set_clock(shop, "2025-03-15T00:00:00Z")
    first, second, third = invoices_of(shop, "ada")
    assert shape(first) == ("recurring", "paid", [("plan_base", 2900)])
    assert shape(second) == ("recurring", "paid", [("plan_base", 2900), ("feature_overage", 500)])
    assert shape(third) == ("recurring", "paid", [("plan_base", 2900)])
    assert [each["total"] for each in (first, second, third)] == [2900, 3400, 2900]
    assert (second["periodStart"], second["periodEnd"]) == (
        "2025-02-15T00:00:00.000Z",
        "2025-03-15T00:00:00.000Z",
    )
    base, usage = lines(second)
    assert (base["chargeType"], usage["chargeType"]) == ("advance", "standard")
    assert (usage["includedAmount"], usage["usedAmount"], usage["overageAmount"]) == (1000, 1500, 500)
    assert (usage["quantityDecimal"], usage["unitAmountDecimal"], usage["unitAmount"]) == ("500", "0.01", 100)
    paid = list(every(shop, f"{API}/transactions"))
    assert sorted(each["grossAmount"] for each in paid if each["status"] == "succeeded") == [2900, 2900, 3400]


def test_a_year_paid_in_advance_bills_overage_by_the_month_and_only_where_there_is_any(open_at: Any) -> None:
    shop = open_at("2024-03-10T08:00:00Z")
    add_feature(shop)
    add_plan(shop, price=30000, interval="yearly", promises={"api_calls": overage("0.10", included=100)})
    subscribe(shop, "ada")
    for moment, value in (
        ("2024-03-20", 150),  # month 0: 50 over
        ("2024-04-20", 100),  # month 1: all included
        ("2024-06-20", 101),  # month 3: 1 over; in month 2 nothing
        ("2025-03-01", 110),  # month 11: 10 over, with the renewal
    ):
        set_clock(shop, f"{moment}T00:00:00Z")
        done(track(shop, value=value))
    set_clock(shop, "2025-03-10T00:00:00Z")
    told = invoices_of(shop, "ada")
    assert [shape(each) for each in told] == [
        ("recurring", "paid", [("plan_base", 30000)]),
        ("overage", "paid", [("feature_overage", 500)]),
        ("overage", "paid", [("feature_overage", 10)]),
        ("recurring", "paid", [("plan_base", 30000), ("feature_overage", 100)]),
    ]
    assert [(each["periodStart"][:10], each["periodEnd"][:10]) for each in told] == [
        ("2024-03-10", "2025-03-10"),
        ("2024-03-10", "2024-04-10"),
        ("2024-06-10", "2024-07-10"),
        ("2025-03-10", "2026-03-10"),
    ]


def test_a_year_canceled_half_way_runs_to_its_end(open_at: Any) -> None:
    """And what is used in its months is billed to the last one."""
    shop = open_at("2024-03-10T08:00:00Z")
    add_feature(shop)
    add_plan(shop, price=30000, interval="yearly", promises={"api_calls": overage("0.10")})
    held = subscribe(shop, "ada")
    set_clock(shop, "2024-09-01T00:00:00Z")
    ended = done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    assert ended["cancellation"]["effectiveAt"] == "2025-03-10T00:00:00.000Z"
    done(track(shop, value=10))
    set_clock(shop, "2025-03-09T12:00:00Z")
    done(track(shop, value=20))
    set_clock(shop, "2025-06-01T00:00:00Z")
    assert [shape(each)[2] for each in invoices_of(shop, "ada")] == [
        [("plan_base", 30000)],
        [("feature_overage", 100)],
        [("feature_overage", 200)],
    ]
    assert done(shop.http.get(f"{API}/subscriptions/{held['id']}"))["status"] == "canceled"


def test_canceled_at_the_periods_end_the_last_usage_is_billed_and_no_base(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop)
    held = subscribe(shop, "ada")
    done(track(shop, value=300))
    told = done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"reason": "too dear"}))
    assert (told["status"], told["cancelAtPeriodEnd"]) == ("active", True)
    set_clock(shop, "2025-02-14T23:59:59.999Z")
    done(track(shop, value=200))
    set_clock(shop, "2025-02-15T00:00:00Z")
    refused(track(shop), 404, "no_active_subscription")
    done(track(shop, value=1, timestamp="2025-02-14T12:00:00Z"))  # it happened while it lasted (ruling 7)
    set_clock(shop, "2025-07-01T00:00:00Z")
    first, last, late = invoices_of(shop, "ada")
    assert shape(first) == ("recurring", "paid", [("plan_base", 2900)])
    assert shape(last) == ("overage", "paid", [("feature_overage", 500)])
    assert shape(late) == ("adjustment", "paid", [("feature_overage", 1)])  # no next invoice is to come
    ended = done(shop.http.get(f"{API}/subscriptions/{held['id']}"))
    assert (ended["status"], ended["endDate"]) == ("canceled", "2025-02-15T00:00:00.000Z")


def test_a_cancellation_taken_back_changes_nothing(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop)
    held = subscribe(shop, "ada")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/uncancel", json={}))
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert len(invoices_of(shop, "ada")) == 2
    done(track(shop))


def test_canceled_at_once_what_was_used_until_then_is_billed(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop)
    held = subscribe(shop, "ada")
    set_clock(shop, "2025-01-20T17:25:43.210Z")
    done(track(shop, value=300, timestamp="2025-01-20T17:25:43.209Z"))
    done(track(shop, value=40, timestamp="2025-01-20T17:25:43.210Z"))  # the end is excluded
    ended = done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    assert (ended["status"], ended["endDate"]) == ("canceled", "2025-01-20T17:25:43.210Z")
    refused(track(shop), 404, "no_active_subscription")
    set_clock(shop, "2025-04-01T00:00:00Z")
    first, last = invoices_of(shop, "ada")
    assert shape(last) == ("overage", "paid", [("feature_overage", 300)])
    assert (last["periodStart"], last["periodEnd"]) == (first["periodStart"], ended["endDate"])


def test_a_free_plan_canceled_at_once_closes_its_last_period_as_any_other(
    open_at: Any, database_url: str
) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    add_feature(shop)
    add_plan(shop, "free", price=None, promises={"api_calls": {"includedAmount": 1000}})
    add_customer(shop, "ada")
    held = done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "free"}))
    set_clock(shop, "2025-02-20T17:25:43.210Z")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    set_clock(shop, "2025-04-01T00:00:00Z")
    closed = select(
        database_url,
        "SELECT period_start, period_end FROM closed_periods WHERE subscription_id = %s ORDER BY period_index",
        own_id(ids.SUBSCRIPTION, held["id"]),
    )
    assert closed == [
        (at("2025-01-15T10:00:00Z"), at("2025-02-15T00:00:00Z")),
        (at("2025-02-15T00:00:00Z"), at("2025-02-20T17:25:43.210Z")),
    ]
    assert invoices_of(shop, "ada") == []


def test_what_is_bought_once_has_no_period_end_to_cancel_at(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    add_plan(shop, "lifetime", interval="one_time")
    add_customer(shop, "ada")
    body = {"customerId": "ada", "planCode": "lifetime", "cancelAtPeriodEnd": True}
    error = refused(shop.http.post(f"{API}/subscriptions", json=body), 400, "validation_error")
    assert error["details"][0]["field"] == "cancelAtPeriodEnd"
    held = subscribe(shop, "eve", "lifetime")
    set_clock(shop, "2025-06-01T00:00:00Z")
    assert done(shop.http.get(f"{API}/subscriptions/{held['id']}"))["status"] == "active"
    refused(
        shop.http.post(f"{API}/subscriptions/{held['id']}/cancel"),
        409,
        "one_time_subscription_not_cancelable",
    )


def test_who_comes_back_begins_anew(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop)
    held = subscribe(shop, "ada")
    done(track(shop, value=100))
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    again = subscribe(shop, "ada")
    assert again["id"] != held["id"]
    done(track(shop, value=7))
    set_clock(shop, "2025-02-20T00:00:00Z")
    by_subscription: dict[str, list[Any]] = {}
    for invoice in invoices_of(shop, "ada"):
        by_subscription.setdefault(invoice["subscriptionId"], []).append(shape(invoice)[2])
    assert by_subscription == {
        held["id"]: [[("plan_base", 2900)], [("feature_overage", 100)]],
        again["id"]: [[("plan_base", 2900)], [("plan_base", 2900), ("feature_overage", 7)]],
    }


def test_a_declined_renewal_leaves_the_invoice_outstanding_and_the_attempt_on_record(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop)
    subscribe(shop, "ada", card=DECLINED_LATER)
    done(track(shop, value=100))
    run = set_clock(shop, "2025-02-15T00:00:00Z")
    first, second = invoices_of(shop, "ada")
    assert (first["status"], second["status"], second["total"]) == ("paid", "outstanding", 3000)
    assert [(each["invoiceNumber"], each["detail"]) for each in run["items"]] == [
        (second["invoiceNumber"], "charge declined")
    ]
    attempts = [each for each in every(shop, f"{API}/transactions") if each["invoiceId"] == second["id"]]
    told = [(each["status"], each["grossAmount"], each["failureCode"], each["paidAt"]) for each in attempts]
    assert told == [("failed", 3000, "card_declined", None)]
    done(track(shop))  # access goes on


@pytest.mark.parametrize(
    ("price", "used", "exact", "amount"),
    [
        ("0.0007", "12345", "8.6415", 864),
        ("0.0007", "12350", "8.645", 865),  # half a cent goes up
        ("0.0007", "12349.999999999999", "8.6449999999999993", 864),
        ("0.0007", "7", "0.0049", 0),
        ("0.005", "1", "0.005", 1),
        ("0.000000000001", "99999999999999999999", "99999999.999999999999", 10_000_000_000),
        ("0.1", "0.3", "0.03", 3),  # 0.030000000000000002 in binary
        ("19.99", "0.5", "9.995", 1000),
    ],
)
def test_a_line_is_rounded_once_and_half_up(
    open_at: Any, price: str, used: str, exact: str, amount: int
) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada", terms=overage(price), price=0)
    body = f'{{"featureCode": "api_calls", "customerId": "ada", "value": {used}}}'
    done(shop.http.post(f"{API}/usage/events", content=body, headers={"content-type": "application/json"}))
    set_clock(shop, "2025-02-15T00:00:00Z")
    invoice = invoices_of(shop, "ada")[-1]
    (line,) = lines(invoice, "feature_overage")
    assert (line["amount"], line["unitAmountDecimal"], line["usedDecimal"]) == (amount, price, used)
    assert (invoice["total"], invoice["status"]) == (amount, "paid")
    evidence = done(shop.http.get(f"{API}/invoices/{invoice['id']}/evidence"))["lines"][-1]["evidence"]
    assert evidence["exact"] == exact


def test_many_small_events_are_summed_before_they_are_rounded(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada", terms=overage("0.0007"))
    for _ in range(3):
        sent = [{"featureCode": "api_calls", "customerId": "ada", "value": 3.3} for _ in range(100)]
        assert track_batch(shop, sent)["failed"] == []
    set_clock(shop, "2025-02-15T00:00:00Z")
    (line,) = lines(invoices_of(shop, "ada")[-1], "feature_overage")
    assert (line["usedDecimal"], line["amount"]) == ("990", 69)  # 0.693, where 300 × 0.00 would be nothing


# Once and only once ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second_server(server: Server, database_url: str) -> Iterator[Server]:
    folder = private_dir("tallystick-second-")
    port = free_port()
    running = Server(f"http://127.0.0.1:{port}", port, folder / "data", database_url)
    running.start()
    yield running
    running.stop()
    rmtree(folder, ignore_errors=True)


def test_two_servers_that_move_the_clock_at_once_close_each_period_once(
    open_at: Any, second_server: Server
) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    customers = [f"customer_{number}" for number in range(6)]
    open_shop(shop, *customers)
    for customer in customers:
        done(track(shop, customer, value=100))
    ready = threading.Barrier(6)

    def advance(number: int) -> httpx.Response:
        base_url = (shop.base_url, second_server.base_url)[number % 2]
        ready.wait(30)
        return httpx.post(
            f"{base_url}{API}/test-clock",
            json={"frozenTime": "2025-04-20T00:00:00Z"},
            headers={"x-api-key": shop.api_key},
            timeout=60,
        )

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(advance, range(6)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "clock_run_in_progress"
    }
    runs = [answer.json() for answer in answers if answer.status_code == 202]
    assert {run["status"] for run in runs} == {"completed"}
    assert sum(len(run["items"]) for run in runs) == 18
    set_clock(shop, "2025-04-20T00:00:00Z")  # again, to where it stands
    for customer in customers:
        told = [shape(each)[2] for each in invoices_of(shop, customer)]
        assert told == [
            [("plan_base", 2900)],
            [("plan_base", 2900), ("feature_overage", 100)],
            [("plan_base", 2900)],
            [("plan_base", 2900)],
        ]
    charged = list(every(shop, f"{API}/transactions"))
    assert len(charged) == len({each["invoiceId"] for each in charged}) == 4 * len(customers)


def test_many_organizations_may_move_their_clocks_at_once(make_organization: MakeOrganization) -> None:
    """More than there are connections, each needing several: they wait for one another, and nobody starves."""
    shops = [make_organization(clock="2025-01-15T10:00:00Z") for _ in range(16)]
    for shop in shops:
        open_shop(shop, "ada")
    with ThreadPoolExecutor(len(shops)) as pool:
        runs = list(pool.map(lambda shop: set_clock(shop, "2025-03-20T00:00:00Z"), shops))
    assert [len(run["items"]) for run in runs] == [2] * len(shops)
    assert [len(invoices_of(shop, "ada")) for shop in shops] == [3] * len(shops)


def test_a_short_move_is_answered_as_completed_whoever_performs_it(
    make_organization: MakeOrganization,
) -> None:
    """Every few seconds a sweeper looks for runs that nobody finished, and may find one that has just begun."""
    shops = [make_organization(clock="2025-01-15T10:00:00Z") for _ in range(4)]
    over = time.monotonic() + 6

    def move(shop: Organization) -> None:
        to = instant("2025-01-15T10:00:00Z")
        while time.monotonic() < over:
            to += timedelta(seconds=1)
            set_clock(shop, to.isoformat())

    with ThreadPoolExecutor(len(shops)) as pool:
        list(pool.map(move, shops))


def test_a_close_that_is_repeated_does_nothing(open_at: Any, database_url: str) -> None:
    """After a crash nobody knows whether it was done: doing it again, or thrice at once, is the answer."""
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada")
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    done(track(shop, value=100))
    due = instant("2025-02-15T00:00:00Z")

    async def close(database: Database, now: Any) -> Closed | None:
        return await close_period(
            database,
            organization_id=organization_id(shop),
            subscription_id=own_id(ids.SUBSCRIPTION, held["id"]),
            now=now,
        )

    async def act() -> list[Closed | None]:
        database = Database(database_url, size=4)
        await database.open()
        try:
            early = await close(database, due - timedelta(milliseconds=1))
            at_once = await asyncio.gather(*(close(database, due) for _ in range(4)))
            return [early, *at_once, await close(database, due), await close(database, due)]
        finally:
            await database.close()

    early, *at_once, again, once_more = asyncio.run(act())
    assert (early, again, once_more) == (None, None, None)
    (closed,) = [each for each in at_once if each is not None]
    assert closed.outcome == "invoiced"
    assert [shape(each)[2] for each in invoices_of(shop, "ada")] == [
        [("plan_base", 2900)],
        [("plan_base", 2900), ("feature_overage", 100)],
    ]
    set_clock(shop, "2025-02-16T00:00:00Z")
    assert len(invoices_of(shop, "ada")) == 2


@pytest.mark.parametrize("ends", ["renews", "is canceled", "moves to another zone"])
def test_periods_close_while_events_pour_in(open_at: Any, ends: str) -> None:
    """None of the events is in two periods, and none stops a close."""
    shop = open_at("2025-01-15T10:00:00Z")
    customers = [f"customer_{number}" for number in range(10)]
    open_shop(shop, "bob", *customers)
    for customer in customers:
        held = done(shop.http.get(f"{API}/subscriptions/active?customerId={customer}"))
        if ends == "is canceled":
            done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
        if ends == "moves to another zone":
            done(shop.http.patch(f"{API}/customers/{customer}", json={"timezone": "Asia/Tokyo"}))
        done(track(shop, customer, value=5))
    enough = threading.Event()

    def pour(number: int) -> int:
        sent = 0
        headers = {"x-api-key": shop.api_key}
        with httpx.Client(base_url=shop.base_url, headers=headers, timeout=30) as http:
            while not enough.is_set():
                body = {"featureCode": "api_calls", "customerId": "bob"}
                answer = http.post(f"{API}/usage/events/batch", json={"events": [body] * 5})
                assert done(answer)["failed"] == []
                sent += 5
        return sent

    with ThreadPoolExecutor(4) as pool:
        pouring = [pool.submit(pour, number) for number in range(4)]
        try:
            enough.wait(0.3)
            for month in ("02", "03"):
                set_clock(shop, f"2025-{month}-20T00:00:00Z")
        finally:
            enough.set()
        sent = sum(each.result() for each in pouring)
    set_clock(shop, "2025-04-20T00:00:00Z")
    used = [
        line["usedAmount"] for each in invoices_of(shop, "bob") for line in lines(each, "feature_overage")
    ]
    late = sent - sum(used)  # stamped just before a close and stored just after it
    assert 0 <= late < sent
    for customer in customers:
        told = [shape(each)[2] for each in invoices_of(shop, customer)]
        assert told[1][-1] == ("feature_overage", 5)
        assert len(told) == (2 if ends == "is canceled" else 4)


def test_customers_may_pay_while_the_clock_closes_periods(open_at: Any, second_server: Server) -> None:
    """Both number invoices and both move the organization's version: neither may stop the other."""
    shop = open_at("2025-01-15T10:00:00Z")
    leaving = [f"leaving_{number}" for number in range(12)]
    open_shop(shop, *leaving)
    for customer in leaving:
        held = done(shop.http.get(f"{API}/subscriptions/active?customerId={customer}"))
        done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
        done(track(shop, customer, value=100))
    coming = [f"coming_{number}" for number in range(12)]
    for customer in coming:
        add_customer(shop, customer)

    def come(customer: str) -> str:
        status: str = subscribe(Organization(shop.id, shop.api_key, http, shop.base_url), customer)["status"]
        return status

    with (
        httpx.Client(
            base_url=second_server.base_url, headers={"x-api-key": shop.api_key}, timeout=30
        ) as http,
        ThreadPoolExecutor(4) as pool,
    ):
        arriving = pool.map(come, coming)
        set_clock(shop, "2025-02-15T00:00:00Z")
        assert set(arriving) == {"active"}
    for customer in leaving:
        told = [shape(each)[2] for each in invoices_of(shop, customer)]
        assert told == [[("plan_base", 2900)], [("feature_overage", 100)]]


# The events behind a line ---------------------------------------------------------------------------------


def line_events(shop: Organization, invoice: Json, line: Json, limit: int = 100) -> tuple[list[Json], Json]:
    """Every event of a line, page by page, and the summary, which is the same on each page."""
    path = f"{API}/invoices/{invoice['id']}/lines/{line['id']}/events"
    found: list[Json] = []
    cursor: str | None = None
    summaries: list[Json] = []
    while True:
        query = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page = done(shop.http.get(path, params=query))
        found += page["data"]
        summaries.append(page["summary"])
        if not page["hasMore"]:
            break
        assert len(page["data"]) == limit
        cursor = page["nextCursor"]
    assert all(each == summaries[0] for each in summaries)
    return found, summaries[0]


def as_stored(shop: Organization, shown: Json, customer: Json, *, timed: bool) -> StoredEvent:
    """What an outsider knows of an event, put together again."""
    return StoredEvent(
        id=own_id(ids.EVENT, shown["id"]),
        customer_id=own_id(ids.CUSTOMER, customer["id"]),
        feature=shown["featureCode"],
        value=Decimal(shown["valueDecimal"]),
        occurred_at=instant(shown["ts"]),
        received_at=instant(shown["createdAt"]),
        key=shown["eventId"],
        timed=timed,
        properties={each["property"]: each["value"] for each in shown["properties"]},
    )


def test_every_line_is_exactly_its_events(open_at: Any) -> None:
    """Out of order, over several pages, with others in between: the list, the sum, the count, the digest."""
    shop = open_at("2025-01-15T10:00:00Z")
    add_feature(shop)
    add_feature(shop, "eu_calls", eventCode="api_calls", filters=[
        {"property": "region", "operator": "equals", "value": "eu"}
    ])  # fmt: skip
    add_feature(shop, "storage")
    add_plan(
        shop,
        promises={
            "api_calls": overage("0.01", included=50),
            "eu_calls": overage("0.003"),
            "storage": overage("1"),
        },
    )
    subscribe(shop, "ada", customer={"timezone": "Asia/Kathmandu"})
    subscribe(shop, "bob")
    set_clock(shop, "2025-02-10T00:00:00Z")
    began = instant("2025-01-15T10:00:00Z")
    step = timedelta(hours=2, minutes=7, milliseconds=3)
    sent = [
        {
            "featureCode": "storage" if number % 11 == 0 else "api_calls",
            "customerId": "bob" if number % 7 == 0 else "ada",
            "eventId": f"k{number}",
            "value": number / 4,
            "timestamp": (began + (number * 37 % 290) * step).isoformat(),
            "properties": {"region": "eu" if number % 3 else "us"},
        }
        for number in range(290)
    ]
    for start in range(0, len(sent), 100):
        assert track_batch(shop, sent[start : start + 100])["failed"] == []
    set_clock(shop, "2025-02-15T00:00:00Z")
    ada = done(shop.http.get(f"{API}/customers/ada"))
    invoice = invoices_of(shop, "ada")[-1]
    evidence = {each["lineId"]: each["evidence"] for each in done(
        shop.http.get(f"{API}/invoices/{invoice['id']}/evidence")
    )["lines"]}  # fmt: skip
    matches = {
        "api_calls": lambda each: each["featureCode"] == "api_calls",
        "eu_calls": lambda each: each["featureCode"] == "api_calls" and each["properties"]["region"] == "eu",
        "storage": lambda each: each["featureCode"] == "storage",
    }
    usage = lines(invoice, "feature_overage")
    assert {line["featureName"] for line in usage} == set(matches)
    for line in usage:
        expected = [
            each for each in sent if each["customerId"] == "ada" and matches[line["featureName"]](each)
        ]
        expected.sort(key=lambda each: str(each["timestamp"]))
        found, summary = line_events(shop, invoice, line)
        assert [each["eventId"] for each in found] == [each["eventId"] for each in expected]
        total = sum((Decimal(each["valueDecimal"]) for each in found), Decimal(0))
        assert (Decimal(line["usedDecimal"]), Decimal(summary["quantity"])) == (total, total)
        assert (summary["events"], summary["firstAt"], summary["lastAt"]) == (
            len(found),
            found[0]["ts"],
            found[-1]["ts"],
        )
        assert line_events(shop, invoice, line, limit=7)[0] == found
        kept = evidence[line["id"]]
        leaves = [leaf(as_stored(shop, each, ada, timed=True)) for each in found]
        assert kept["events"] == {"count": len(found), "digest": set_digest(leaves)}
        assert Decimal(kept["used"]) == total
        amounts = [Decimal(each["quantity"]) * Decimal(each["unitAmount"]) for each in kept["components"]]
        assert [Decimal(each["amount"]) for each in kept["components"]] == amounts
        assert Decimal(kept["exact"]) == sum(amounts, Decimal(0))
        assert (kept["period"]["start"], kept["period"]["timezone"]) == (
            "2025-01-15T10:00:00.000Z",
            "Asia/Kathmandu",
        )


def test_what_comes_after_the_close_is_not_in_the_closed_line(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada")
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(track(shop, key="early", value=3))
    done(track(shop, value=4, timestamp="2025-01-19T00:00:00Z"))
    set_clock(shop, "2025-02-20T00:00:00Z")
    closed = invoices_of(shop, "ada")[-1]
    (line,) = lines(closed, "feature_overage")
    before = line_events(shop, closed, line)
    proof = done(shop.http.get(f"{API}/invoices/{closed['id']}/evidence"))
    for number in range(3):
        done(track(shop, key=f"late{number}", value=100, timestamp="2025-01-19T00:00:00Z"))
    assert line_events(shop, closed, line) == before
    assert [each["valueDecimal"] for each in before[0]] == ["4", "3"]
    set_clock(shop, "2025-03-20T00:00:00Z")
    assert line_events(shop, closed, line) == before
    assert done(shop.http.get(f"{API}/invoices/{closed['id']}/evidence")) == proof
    assert invoices_of(shop, "ada")[1] == closed  # what is issued never changes


def test_an_adjustment_is_among_the_events_of_its_line(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada")
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(track(shop, value=30))
    body = {"customerId": "ada", "featureCode": "api_calls", "value": 12, "reason": "counted twice"}
    done(shop.http.put(f"{API}/usage", json=body))
    set_clock(shop, "2025-02-15T00:00:00Z")
    invoice = invoices_of(shop, "ada")[-1]
    (line,) = lines(invoice, "feature_overage")
    found, summary = line_events(shop, invoice, line)
    assert (line["usedDecimal"], line["amount"]) == ("12", 12)
    assert [(each["kind"], each["valueDecimal"]) for each in found] == [
        ("event", "30"),
        ("adjustment", "-18"),
    ]
    assert found[1]["reason"] == "counted twice"
    assert (summary["events"], summary["quantity"]) == (2, "12")


def test_an_adjustment_counts_where_its_code_is_listened_to(open_at: Any) -> None:
    """A meter that listens elsewhere from the next period on has not heard it: the audit folds its events anew."""
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada")
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(track(shop, value=30))
    done(shop.http.patch(f"{API}/features/api_calls", json={"eventCode": "requests"}))
    done(shop.http.put(f"{API}/usage", json={"customerId": "ada", "featureCode": "api_calls", "value": 12}))
    set_clock(shop, "2025-02-15T00:00:00Z")
    (line,) = lines(invoices_of(shop, "ada")[-1], "feature_overage")
    assert line["usedDecimal"] == "12"


def test_a_meter_that_changes_counts_from_the_next_period(open_at: Any) -> None:
    """The closed line keeps the meter it was made with, and its events by that meter."""
    shop = open_at("2025-01-15T10:00:00Z")
    open_shop(shop, "ada")
    set_clock(shop, "2025-01-20T00:00:00Z")
    done(track(shop, value=30))
    done(shop.http.patch(f"{API}/features/api_calls", json={"aggregation": "count"}))
    done(track(shop, value=20))
    set_clock(shop, "2025-02-20T00:00:00Z")
    for value in (100, 200, 300):
        done(track(shop, value=value))
    set_clock(shop, "2025-03-20T00:00:00Z")
    used = [
        line["usedDecimal"] for each in invoices_of(shop, "ada") for line in lines(each, "feature_overage")
    ]
    assert used == ["50", "3"]
    closed = invoices_of(shop, "ada")[1]
    found, summary = line_events(shop, closed, lines(closed, "feature_overage")[0])
    assert ([each["valueDecimal"] for each in found], summary["quantity"]) == (["30", "20"], "50")


def test_other_aggregations_are_billed_and_traced(open_at: Any) -> None:
    shop = open_at("2025-01-15T10:00:00Z")
    meters: dict[str, Json] = {
        "calls": {"aggregation": "count"},
        "peak": {"aggregation": "max"},
        "users": {"aggregation": "unique", "aggregationProperty": "user"},
        "bytes": {"aggregationProperty": "size"},
    }
    plan = add_plan(shop)
    for code, meter in meters.items():
        add_feature(shop, code, eventCode="request", **meter)
        promise(shop, plan, code, **overage("1"))
    subscribe(shop, "ada")
    set_clock(shop, "2025-02-10T00:00:00Z")
    sent = [
        ("2025-01-15T10:00:00Z", 3, {"user": "u1", "size": "10.5"}),
        ("2025-01-16T23:59:59Z", 9, {"user": "u2"}),
        ("2025-01-17T00:00:00Z", 4, {"user": "u1", "size": "much"}),
        ("2025-01-17T05:00:00Z", 1, {"size": "0.25"}),
    ]
    for timestamp, value, properties in sent:
        done(track(shop, feature="request", value=value, timestamp=timestamp, properties=properties))
    set_clock(shop, "2025-02-15T00:00:00Z")
    invoice = invoices_of(shop, "ada")[-1]
    told = {}
    for line in lines(invoice, "feature_overage"):
        found, summary = line_events(shop, invoice, line)
        told[line["featureName"]] = (line["usedDecimal"], summary["events"], len(found))
    assert told == {"calls": ("4", 4, 4), "peak": ("9", 4, 4), "users": ("2", 3, 3), "bytes": ("10.75", 2, 2)}


def test_a_limit_follows_the_period_that_is_billed_when_the_zone_changes(open_at: Any) -> None:
    """Between the old zone's midnight and the new one's, the new period has begun: for the limit, too."""
    shop = open_at("2025-01-31T10:00:00Z")
    add_feature(shop)
    add_plan(shop, promises={"api_calls": hard_limit(10)})
    subscribe(shop, "ada", customer={"timezone": "Europe/Paris"})
    done(track(shop, value=10))
    set_clock(shop, "2025-02-10T00:00:00Z")
    done(shop.http.patch(f"{API}/customers/ada", json={"timezone": "America/Los_Angeles"}))
    set_clock(shop, "2025-02-27T23:30:00Z")
    assert invoices_of(shop, "ada")[-1]["periodStart"] == "2025-02-27T23:00:00.000Z"
    done(track(shop, value=10))
