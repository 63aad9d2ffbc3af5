"""Hard limits: what is included may be used to the last unit, and not one more, however many ask at once."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.audit import audit, organization_id, select, stored_keys
from tests.conftest import MakeOrganization, Organization
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    hard_limit,
    invoices_of,
    overage,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED = "2026-03-10T09:00:00Z"
NOW = "2026-03-10T12:00:00Z"
NEXT = "2026-04-10T12:00:00Z"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """Nothing on offer yet; when the test is over, counters, rollups and events must agree."""
    made = make_organization(clock=OPENED)
    yield made
    audit(database_url, made)


def limit_to(
    shop: Organization, included: float, *customers: str, price: int | None = 2900, **meter: Any
) -> Json:
    """The plan `pro`, which includes so many `api_calls` and no more."""
    add_feature(shop, **meter)
    plan = add_plan(shop, price=price, promises={"api_calls": hard_limit(included)})
    for customer in customers or ("ada",):
        subscribe(shop, customer)
    set_clock(shop, NOW)
    return plan


def counters(database_url: str, shop: Organization) -> list[Decimal]:
    """What the counters say, by period; `audit` compares each with the events."""
    found = select(
        database_url,
        """SELECT l.used FROM limit_counters l JOIN features f ON f.id = l.feature_id
            WHERE f.organization_id = %s ORDER BY l.period_start, l.customer_id""",
        organization_id(shop),
    )
    return [each[0] for each in found]


def access(shop: Organization, customer: str = "ada", feature: str = "api_calls") -> Json:
    shown: Json = done(shop.http.get(f"{API}/feature-access/{feature}?customerId={customer}"))["consumption"]
    return shown


def set_usage(shop: Organization, value: float, customer: str = "ada") -> httpx.Response:
    body = {"customerId": customer, "featureCode": "api_calls", "value": value}
    return shop.http.put(f"{API}/usage", json=body)


def codes(answer: Json) -> dict[int, str]:
    return {each["index"]: each["code"] for each in answer["failed"]}


@pytest.mark.parametrize("price", [2900, None])
def test_the_eleventh_of_ten_is_refused_with_the_numbers(
    shop: Organization, database_url: str, price: int | None
) -> None:
    limit_to(shop, 10, price=price)
    for number in range(10):
        done(track(shop, key=f"k{number}"))
    error = refused(track(shop, key="k10"), 402, "included_limit_reached")
    assert error["type"] == "billing_error"
    assert error["details"] == {"current": 10, "included": 10, "remaining": 0}
    assert counters(database_url, shop) == [10]
    shown = access(shop)
    assert (shown["unitsUsed"], shown["remainingUnits"], shown["overage"]["enabled"]) == (10, 0, False)


def test_an_event_that_does_not_fit_is_refused_whole_and_a_smaller_one_fits(shop: Organization) -> None:
    limit_to(shop, 10)
    done(track(shop, key="a", value=7.5))
    details = refused(track(shop, key="b", value=2.6), 402, "included_limit_reached")["details"]
    assert details == {"current": 7.5, "included": 10, "remaining": 2.5}
    assert access(shop)["unitsUsed"] == 7.5
    done(track(shop, key="b", value=2.5))  # its key was left free
    refused(track(shop, value=0.000000000001), 402, "included_limit_reached")
    done(track(shop, value=0))
    assert access(shop)["unitsUsed"] == 10


def test_at_the_limit_a_repeat_is_told_that_it_is_one(shop: Organization) -> None:
    limit_to(shop, 2)
    first = done(track(shop, key="a", header="h", value=2))
    assert refused(track(shop, key="a", value=2), 409, "duplicate")["details"]["id"] == first["id"]
    assert refused(track(shop, key="a", value=9), 409, "duplicate")["details"]["identical"] is False
    assert done(track(shop, key="a", header="h", value=2)) == first
    assert codes(track_batch(shop, [event("a"), event("b")])) == {
        0: "duplicate",
        1: "included_limit_reached",
    }


def event(key: str | None = None, **more: object) -> Json:
    body: Json = {"featureCode": "api_calls", "customerId": "ada", **more}
    return body if key is None else {**body, "eventId": key}


def test_of_a_batch_the_first_that_fit_are_accepted(shop: Organization, database_url: str) -> None:
    limit_to(shop, 10)
    done(track(shop, value=5))
    answer = track_batch(shop, [event(f"k{number}") for number in range(20)])
    assert [each["eventId"] for each in answer["successful"]] == [f"k{number}" for number in range(5)]
    assert codes(answer) == dict.fromkeys(range(5, 20), "included_limit_reached")
    assert counters(database_url, shop) == [10]


def test_in_a_batch_order_decides_and_repeats_take_nothing(shop: Organization) -> None:
    limit_to(shop, 10, "ada", "bob")
    sent = [
        event("a", value=6),
        event("a", value=6),  # the same again draws nothing
        event("b", value=5),  # too much by one
        event("c", value=3),
        event("b", value=1),  # b was left free
        event("d", value=1),
        event("d", customerId="bob", value=10),
    ]
    answer = track_batch(shop, sent)
    assert codes(answer) == {1: "duplicate", 2: "included_limit_reached", 5: "included_limit_reached"}
    assert (access(shop)["unitsUsed"], access(shop, "bob")["unitsUsed"]) == (10, 10)


@pytest.mark.parametrize("keyed", [True, False])
def test_fifty_at_once_share_a_hundred_exactly(shop: Organization, database_url: str, keyed: bool) -> None:
    limit_to(shop, 100)

    async def client(number: int, http: httpx.AsyncClient) -> list[int]:
        answers = []
        for turn in range(4):
            body = event(f"k{number}-{turn}" if keyed else None)
            answers.append((await http.post(f"{API}/usage/events", json=body)).status_code)
        return answers

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(
            base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=60
        ) as http:
            return [
                status
                for statuses in await asyncio.gather(*(client(number, http) for number in range(50)))
                for status in statuses
            ]

    statuses = asyncio.run(crowd())
    assert {status: statuses.count(status) for status in set(statuses)} == {201: 100, 402: 100}
    assert counters(database_url, shop) == [100]
    assert len(stored_keys(database_url, shop)) == (100 if keyed else 0)


def test_limits_of_different_customers_do_not_meet(shop: Organization, database_url: str) -> None:
    limit_to(shop, 3, "ada", "bob")
    assert len(track_batch(shop, [event() for _ in range(5)])["successful"]) == 3
    assert len(track_batch(shop, [event(customerId="bob") for _ in range(5)])["successful"]) == 3
    assert counters(database_url, shop) == [3, 3]


def test_distinct_values_are_limited_and_seen_ones_are_free(shop: Organization, database_url: str) -> None:
    limit_to(shop, 2, aggregation="unique", aggregationProperty="user")

    def seen(user: str) -> httpx.Response:
        return track(shop, properties={"user": user})

    done(seen("u1"))
    done(seen("u2"))
    error = refused(seen("u3"), 402, "included_limit_reached")
    assert error["details"] == {"current": 2, "included": 2, "remaining": 0}
    done(seen("u1"))
    done(track(shop))  # without a user it adds nothing
    answer = track_batch(
        shop,
        [event(properties={"user": user}) for user in ("u2", "u4", "u1")],
    )
    assert codes(answer) == {1: "included_limit_reached"}
    assert counters(database_url, shop) == [2]


def test_a_batch_may_not_bring_more_distinct_values_than_fit(shop: Organization) -> None:
    limit_to(shop, 3, aggregation="unique", aggregationProperty="user")
    users = ("u1", "u1", "u2", "u3", "u4", "u2", "u5")
    answer = track_batch(shop, [event(properties={"user": user}) for user in users])
    assert codes(answer) == {4: "included_limit_reached", 6: "included_limit_reached"}


def test_a_maximum_is_limited_by_height_and_not_by_number(shop: Organization, database_url: str) -> None:
    limit_to(shop, 10, aggregation="max")
    for value in (4, 10, 10, 7):
        done(track(shop, value=value))
    error = refused(track(shop, value=10.5), 402, "included_limit_reached")
    assert error["details"] == {"current": 10, "included": 10, "remaining": 0}
    done(track(shop, value=1))
    assert counters(database_url, shop) == [10]


def test_counted_events_are_limited_whatever_their_value(shop: Organization) -> None:
    limit_to(shop, 2, aggregation="count")
    done(track(shop, value=1000))
    done(track(shop, value=0))
    refused(track(shop, value=0), 402, "included_limit_reached")


def test_what_a_filter_leaves_out_draws_on_nothing(shop: Organization) -> None:
    limit_to(shop, 1, filters=[{"property": "region", "operator": "equals", "value": "eu"}])
    done(track(shop, properties={"region": "eu"}))
    refused(track(shop, properties={"region": "eu"}), 402, "included_limit_reached")
    done(track(shop, properties={"region": "us"}))
    done(track(shop))
    assert access(shop)["unitsUsed"] == 1


def test_an_event_that_feeds_two_features_fits_into_both_or_counts_for_neither(shop: Organization) -> None:
    add_feature(shop, "small", eventCode="calls")
    add_feature(shop, "large", eventCode="calls")
    add_feature(shop, "open", eventCode="calls")
    add_plan(
        shop, promises={"small": hard_limit(2), "large": hard_limit(5), "open": overage("0.01", included=1)}
    )
    subscribe(shop, "ada")
    done(track(shop, feature="calls", value=2))
    refused(track(shop, feature="calls", value=1), 402, "included_limit_reached")
    used = {code: access(shop, feature=code)["unitsUsed"] for code in ("small", "large", "open")}
    assert used == {"small": 2, "large": 2, "open": 2}


def test_a_new_period_begins_with_the_full_allowance(shop: Organization, database_url: str) -> None:
    limit_to(shop, 3)
    done(track(shop, value=3))
    refused(track(shop), 402, "included_limit_reached")
    set_clock(shop, "2026-04-09T23:59:59.999Z")
    refused(track(shop), 402, "included_limit_reached")
    set_clock(shop, "2026-04-10T00:00:00Z")
    assert access(shop)["remainingUnits"] == 3
    done(track(shop, value=3))
    refused(track(shop), 402, "included_limit_reached")
    assert counters(database_url, shop) == [3, 3]


def test_a_late_event_draws_on_the_limit_of_its_own_period(shop: Organization, database_url: str) -> None:
    limit_to(shop, 3)
    done(track(shop, value=2))
    set_clock(shop, NEXT)
    done(track(shop, value=3))
    late = "2026-04-09T23:59:59.999Z"
    details = refused(track(shop, value=2, timestamp=late), 402, "included_limit_reached")["details"]
    assert details == {"current": 2, "included": 3, "remaining": 1}
    done(track(shop, value=1, timestamp=late))
    refused(track(shop, value=1, timestamp=late), 402, "included_limit_reached")
    refused(track(shop, value=1, timestamp="2026-04-10T00:00:00Z"), 402, "included_limit_reached")
    assert counters(database_url, shop) == [3, 3]


def test_what_happened_before_the_subscription_touches_no_limit(
    shop: Organization, database_url: str
) -> None:
    limit_to(shop, 1)
    done(track(shop, value=50, timestamp="2026-03-10T08:59:59.999Z"))
    assert access(shop)["unitsUsed"] == 0
    assert counters(database_url, shop) == []
    done(track(shop, timestamp=OPENED))
    refused(track(shop, timestamp=OPENED), 402, "included_limit_reached")


def test_a_limit_that_begins_later_knows_what_was_used_before(shop: Organization, database_url: str) -> None:
    add_feature(shop, "open", eventCode="api_calls")
    plan = add_plan(shop, promises={"open": {"unlimited": True}})
    subscribe(shop, "ada")
    done(track(shop, value=8))
    set_clock(shop, NOW)
    add_feature(shop)
    promise(shop, plan, "api_calls", **hard_limit(10))
    details = refused(track(shop, value=3), 402, "included_limit_reached")["details"]
    assert details == {"current": 8, "included": 10, "remaining": 2}
    done(track(shop, value=2))
    assert counters(database_url, shop) == [10]


def test_a_limit_that_replaces_an_open_end_waits_for_the_next_period(shop: Organization) -> None:
    add_feature(shop)
    plan = add_plan(shop, promises={"api_calls": {"unlimited": True}})
    subscribe(shop, "ada")
    set_clock(shop, NOW)
    feature = done(shop.http.get(f"{API}/features/api_calls"))["id"]
    path = f"{API}/plans/{plan['id']}/features/{feature}"
    done(shop.http.patch(path, json={"unlimited": False, "includedAmount": 10}))
    done(track(shop, value=50))
    set_clock(shop, NEXT)
    done(track(shop, value=10))
    refused(track(shop), 402, "included_limit_reached")
    done(track(shop, value=50, timestamp=NOW))


def test_a_total_can_be_set_within_the_limit_and_not_beyond(shop: Organization, database_url: str) -> None:
    limit_to(shop, 10)
    done(track(shop, value=8))
    told = done(set_usage(shop, 4))
    assert (told["previousValue"], told["adjustment"], told["value"]) == (8, -4, 4)
    assert counters(database_url, shop) == [4]
    done(track(shop, value=6))
    refused(track(shop), 402, "included_limit_reached")
    refused(set_usage(shop, 11), 402, "included_limit_reached")
    assert access(shop)["unitsUsed"] == 10
    done(set_usage(shop, 0))
    done(set_usage(shop, 10))
    refused(track(shop), 402, "included_limit_reached")
    assert counters(database_url, shop) == [10]


def test_a_total_set_and_events_at_once_never_pass_the_limit(shop: Organization, database_url: str) -> None:
    limit_to(shop, 30)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(
            base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=60
        ) as http:
            body = {"customerId": "ada", "featureCode": "api_calls", "value": 20}
            calls = [http.post(f"{API}/usage/events", json=event()) for _ in range(60)]
            calls[10:10] = [http.put(f"{API}/usage", json=body) for _ in range(5)]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    statuses = asyncio.run(crowd())
    assert set(statuses) <= {200, 201, 402}
    (used,) = counters(database_url, shop)
    assert used <= 30
    assert access(shop)["unitsUsed"] == used


def test_what_is_kinder_counts_at_once_and_what_is_harsher_next_period(shop: Organization) -> None:
    plan = limit_to(shop, 3)
    feature = done(shop.http.get(f"{API}/features/api_calls"))["id"]
    done(track(shop, value=3))
    refused(track(shop), 402, "included_limit_reached")
    done(shop.http.patch(f"{API}/plans/{plan['id']}/features/{feature}", json={"includedAmount": 5}))
    done(track(shop, value=2))
    done(shop.http.patch(f"{API}/plans/{plan['id']}/features/{feature}", json={"includedAmount": 1}))
    refused(track(shop), 402, "included_limit_reached")
    assert access(shop)["includedUnits"] == 5
    set_clock(shop, NEXT)
    assert access(shop)["includedUnits"] == 1
    done(track(shop))
    refused(track(shop), 402, "included_limit_reached")


def test_a_limit_lifted_in_its_period_lets_everything_through(shop: Organization) -> None:
    plan = limit_to(shop, 3)
    feature = done(shop.http.get(f"{API}/features/api_calls"))["id"]
    done(track(shop, value=3))
    done(shop.http.patch(f"{API}/plans/{plan['id']}/features/{feature}", json={"unlimited": True}))
    done(track(shop, value=100))
    assert access(shop)["unlimited"] is True


def test_a_limit_lifted_and_set_again_in_its_period_knows_what_was_used_meanwhile(
    shop: Organization, database_url: str
) -> None:
    plan = limit_to(shop, 10)
    feature = done(shop.http.get(f"{API}/features/api_calls"))["id"]
    path = f"{API}/plans/{plan['id']}/features/{feature}"
    done(track(shop, value=5))
    done(shop.http.patch(path, json={**overage("0.10", 10), "validFrom": "2026-03-11T00:00:00Z"}))
    done(shop.http.patch(path, json={**hard_limit(30), "validFrom": "2026-03-13T00:00:00Z"}))
    set_clock(shop, "2026-03-12T00:00:00Z")
    done(track(shop, value=20))
    set_clock(shop, "2026-03-14T00:00:00Z")
    details = refused(track(shop, value=6), 402, "included_limit_reached")["details"]
    assert details == {"current": 25, "included": 30, "remaining": 5}
    done(track(shop, value=2, timestamp="2026-03-12T12:00:00Z"))
    done(track(shop, value=2))
    refused(track(shop, value=2), 402, "included_limit_reached")
    done(track(shop))
    refused(track(shop), 402, "included_limit_reached")
    assert access(shop)["unitsUsed"] == 30


def test_what_is_within_a_hard_limit_is_never_billed(shop: Organization) -> None:
    limit_to(shop, 3)
    done(track(shop, value=3))
    set_clock(shop, NEXT)
    assert [[line["lineType"] for line in each["lineItems"]] for each in invoices_of(shop, "ada")] == [
        ["plan_base"],
        ["plan_base"],
    ]


def test_a_free_plan_has_no_overage(shop: Organization) -> None:
    add_feature(shop)
    plan = add_plan(shop, "free", price=None)
    wrong = {"featureId": "api_calls", **overage("0.01", included=2)}
    refused(shop.http.post(f"{API}/plans/{plan['id']}/features", json=wrong), 400, "validation_error")
    promise(shop, plan, "api_calls", **hard_limit(2))
    feature = done(shop.http.get(f"{API}/features/api_calls"))["id"]
    refused(
        shop.http.patch(f"{API}/plans/{plan['id']}/features/{feature}", json={"overage": {"enabled": True}}),
        400,
        "validation_error",
    )
    assert subscribe(shop, "ada", "free")["status"] == "active"
    done(track(shop, value=2))
    refused(track(shop), 402, "included_limit_reached")
    set_clock(shop, NEXT)
    done(track(shop, value=2))
    assert invoices_of(shop, "ada") == []


@pytest.mark.parametrize("limited_first", [True, False])
def test_one_key_for_a_limited_and_a_free_feature_in_one_batch(
    shop: Organization, limited_first: bool
) -> None:
    """Whichever comes first has the key; the batch is not torn between them."""
    plan = limit_to(shop, 10)
    add_feature(shop, "free_calls")
    promise(shop, plan, "free_calls", **overage("0.01"))
    set_clock(shop, NEXT)
    codes = ["api_calls", "free_calls"] if limited_first else ["free_calls", "api_calls"]
    answer = track_batch(shop, [{"customerId": "ada", "featureCode": code, "eventId": "k"} for code in codes])
    assert [each["featureCode"] for each in answer["successful"]] == codes[:1]
    assert [each["code"] for each in answer["failed"]] == ["duplicate"]
