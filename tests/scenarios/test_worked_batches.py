"""The published worked examples about batches and limits (`contract/cases/worked.json`), over HTTP."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeOrganization
from tests.scenarios.purses import balance_shop
from tests.shop import (
    API,
    add_feature,
    add_plan,
    done,
    hard_limit,
    invoices_of,
    overage,
    refused,
    set_clock,
    subscribe,
    track,
)

CASES = json.loads((Path(__file__).parents[2] / "contract/cases/worked.json").read_text())


BATCHES = [each for each in CASES if each["kind"] == "batch"]
FREE_PLANS = [each for each in CASES if each["kind"] == "free_plan"]
FREE_RAISES = [each for each in CASES if each["kind"] == "free_raise"]
BASE_PRICES = [each for each in CASES if each["kind"] == "base_price"]


def name_of(case: dict[str, Any]) -> str:
    return str(case["id"])


@pytest.mark.parametrize("case", BATCHES, ids=name_of)
def test_what_a_batch_leaves_behind(case: dict[str, Any], make_organization: MakeOrganization) -> None:
    shop = make_organization()
    add_feature(shop, "api_calls")
    add_feature(shop, "storage_gb")
    add_plan(shop, promises={"api_calls": overage("0.01"), "storage_gb": overage("0.10")})
    for customer in ("user_123", "user_456"):
        subscribe(shop, customer)
    sent = [
        f'{{"customerId":"{customer}","featureCode":"{feature}","value":{value},"eventId":{json.dumps(key)}}}'
        for customer, feature, value, key in case["given"]
    ]
    answer = done(shop.http.post(f"{API}/usage/events/batch", content=f'{{"events":[{",".join(sent)}]}}'))
    assert {str(each["index"]): each["code"] for each in answer["failed"]} == case["expected"]["refused"]
    for place, total in case["expected"]["totals"].items():
        customer, feature = place.split(".")
        access = done(shop.http.get(f"{API}/feature-access/{feature}", params={"customerId": customer}))
        assert Decimal(str(access["consumption"]["unitsUsed"])) == Decimal(total)


@pytest.mark.parametrize("case", FREE_PLANS, ids=name_of)
def test_a_free_plan_blocks_at_its_limit(case: dict[str, Any], make_organization: MakeOrganization) -> None:
    shop, given = make_organization(), case["given"]
    add_feature(shop)
    add_plan(shop, "free", price=None, promises={"api_calls": hard_limit(int(given["included"]))})
    subscribe(shop, "ada", "free")
    assert track(shop, value=int(given["used"])).status_code == 201
    refused(track(shop, value=int(given["track"])), 402, case["expected"])


@pytest.mark.parametrize("case", FREE_RAISES, ids=name_of)
def test_a_free_plan_that_grants_more_does_so_from_the_next_reset(
    case: dict[str, Any], make_organization: MakeOrganization
) -> None:
    given = case["given"]
    shop = make_organization(clock=f"{given['began']}T00:00:00Z")
    balance_shop(shop, given["included"], price=None)
    set_clock(shop, f"{given['raised_at']}T00:00:00Z")
    done(shop.http.patch(f"{API}/plans/pro", json={"includedBalance": given["raised"]}))
    for moment in ("before", "after"):
        set_clock(shop, f"{given[moment]}T00:00:00Z")
        left = done(track(shop, feature="call", value=0))["consumption"]["remaining"]
        assert left == case["expected"][moment]


@pytest.mark.parametrize("case", BASE_PRICES, ids=name_of)
def test_a_base_price_that_changes_is_paid_from_the_renewal_on(
    case: dict[str, Any], make_organization: MakeOrganization
) -> None:
    """What each customer paid, in the order they subscribed; on one day the price changes first."""
    given = case["given"]
    (first, cents), *changes = given["prices"]
    shop = make_organization(clock=f"{first}T00:00:00Z")
    plan = add_plan(shop, price=cents)
    (price,) = done(shop.http.get(f"{API}/plans/{plan['id']}"))["prices"]
    told = dict(changes)
    customers = {day: f"user_{number}" for number, day in enumerate(given["subscribed"])}
    for day in sorted({*told, *customers, given["until"]}):
        if day != first:
            set_clock(shop, f"{day}T00:00:00Z")
        if day in told:
            path = f"{API}/plans/{plan['id']}/prices/{price['id']}"
            done(shop.http.patch(path, json={"price": told[day]}))
        if day in customers:
            subscribe(shop, customers[day])
    paid = [[each["total"] for each in invoices_of(shop, customer)] for customer in customers.values()]
    assert paid == case["expected"]
