"""Asking beforehand: check says what track would do, access what is left, and a subscription what its wallet holds."""

from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import httpx
import pytest

from tests.conftest import Organization, serving
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    hard_limit,
    overage,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
)

OpenAt = Callable[[str], Organization]
OPENED = "2026-01-15T10:00:00Z"


@pytest.fixture
def shop(open_at: OpenAt) -> Organization:
    """Features that are counted in every way, and a plan of each model; whatever they grant is soon used up."""
    shop = open_at(OPENED)
    add_feature(shop)
    add_feature(shop, "visits", eventCode="api_calls", aggregation="count")
    add_feature(shop, "eu_calls", eventCode="request", filters=[EU])
    add_feature(shop, "users", eventCode="request", aggregation="unique", aggregationProperty="user")
    add_feature(shop, "peak", aggregation="max")
    add_feature(shop, "level", aggregation="latest")
    add_feature(shop, "tokens")
    limited = {code: hard_limit(10) for code in ("api_calls", "visits", "users", "peak", "level")}
    add_plan(shop, "limited", promises=limited | {"eu_calls": hard_limit(4)})
    add_plan(shop, "open", promises={"api_calls": overage("0.01", included=10)})
    credits = {"api_calls": {"creditsPerUnit": 3}, "eu_calls": {"creditsPerUnit": 1}}
    add_plan(shop, "credits", promises=credits, model="credits", grants={"includedCredits": 30})
    twice = {"api_calls": {"creditsPerUnit": 2}, "visits": {"creditsPerUnit": 5}}
    add_plan(shop, "twice", promises=twice, model="credits", grants={"includedCredits": 30})
    for name, blocks in (("balance", True), ("overdraft", False)):
        money = {"api_calls": unit("0.25"), "eu_calls": unit("0"), "tokens": AI}
        add_plan(
            shop,
            name,
            promises=money,
            model="balance",
            grants={"includedBalance": 25_000},
            blockOnExhaustion=blocks,
        )
    add_plan(
        shop,
        "free",
        price=None,
        promises={"api_calls": unit("0.25")},
        model="balance",
        grants={"includedBalance": 10_000},
    )
    return shop


EU: Json = {"property": "region", "operator": "equals", "value": "eu"}
AI: Json = {"pricingMode": "ai_model", "margin": 2000}
CALL: Json = {"model": "gpt-4o", "inputTokens": 1000, "outputTokens": 500}


def unit(price: str) -> Json:
    return {"overage": {"enabled": True, "unitPriceDecimal": price}}


def ask(shop: Organization, customer: str = "ada", feature: str = "api_calls", **more: Any) -> httpx.Response:
    body = {"customerId": customer, "featureCode": feature, **more}
    return shop.http.post(f"{API}/usage/check", json=body)


def check(shop: Organization, customer: str = "ada", feature: str = "api_calls", **more: Any) -> Json:
    return done(ask(shop, customer, feature, **more))


def access(shop: Organization, feature: str = "api_calls", customer: str = "ada", **more: str) -> Json:
    query = {"customerId": customer, **more}
    return done(shop.http.get(f"{API}/feature-access/{feature}", params=query))


def active(shop: Organization, customer: str = "ada") -> Json:
    return done(shop.http.get(f"{API}/subscriptions/active", params={"customerId": customer}))


def part(whole: Json, expected: Json) -> Json:
    return {name: whole.get(name) for name in expected}


# --- check and track agree ---

SIZES = ("0.000000000001", "0.5", "1", "2.5", "3", "7", "10", "10.000000000001", "100")
"""In any order they fill what is granted, one of them exactly."""


@pytest.mark.parametrize(
    ("plan", "feature", "sent"),
    [
        ("limited", "api_calls", {}),
        ("limited", "peak", {}),
        ("limited", "level", {}),
        ("open", "api_calls", {}),
        ("credits", "api_calls", {}),
        ("twice", "api_calls", {}),  # of which the count of events is paid too
        ("balance", "api_calls", {}),
        ("balance", "eu_calls", {}),  # free
        ("overdraft", "api_calls", {}),
        ("free", "api_calls", {}),
    ],
)
def test_check_allows_what_track_accepts(shop: Organization, plan: str, feature: str, sent: Json) -> None:
    subscribe(shop, "ada", plan)
    code = "request" if feature == "eu_calls" else feature
    verdicts = set()
    for size in (*SIZES, *reversed(SIZES), *SIZES):
        said = check(shop, feature=feature, quantity=float(size))
        tracked = track(shop, feature=code, value=float(size), properties={"region": "eu"})
        assert tracked.is_success == said["allowed"], f"{size}: {said} {tracked.text}"
        if not said["allowed"]:
            error = tracked.json()["error"]
            assert (said["reason"], said["message"]) == (error["code"], error["message"])
        elif "consumption" in tracked.json():
            spent = tracked.json()["consumption"]["deductedDecimal"]
            assert said.get("estimatedCreditsDecimal", said.get("estimatedAmountDecimal")) == spent
        verdicts.add(said["allowed"])
    never_refused = plan in ("open", "overdraft") or feature == "eu_calls"
    assert verdicts == ({True} if never_refused else {True, False})


@pytest.mark.parametrize("plan", ["balance", "overdraft"])
def test_check_allows_the_calls_of_a_model_that_track_accepts(shop: Organization, plan: str) -> None:
    subscribe(shop, "ada", plan)
    verdicts = []
    for step in range(12):
        call = CALL | {"inputTokens": 40_000 * (step % 4 + 1), "outputTokens": 1000 * step}
        said = check(shop, feature="tokens", **call)
        tracked = track(shop, feature="tokens", **call)
        assert tracked.is_success == said["allowed"], f"{said} {tracked.text}"
        if said["allowed"]:
            spent = tracked.json()["consumption"]["deducted"]
            assert said["estimatedAmount"] == spent > 0
        assert said["quantity"] == call["inputTokens"] + call["outputTokens"]
        verdicts.append(said["allowed"])
    assert set(verdicts) == ({True} if plan == "overdraft" else {True, False})


def test_an_event_with_properties_is_judged_as_it_is(shop: Organization) -> None:
    subscribe(shop, "ada", "limited")
    numbers = count()
    for user, region in ((user, region) for region in ("eu", "us", "eu") for user in "abcdefghijkl"):
        event: Json = {"properties": {"user": user, "region": region}}
        said = [check(shop, feature=feature, **event) for feature in ("users", "eu_calls")]
        tracked = track(shop, key=f"key_{next(numbers)}", feature="request", **event)
        assert {each["allowed"] for each in said} == {tracked.is_success}, f"{said} {tracked.text}"
    assert access(shop, "users")["consumption"]["unitsUsed"] == 10
    assert access(shop, "eu_calls")["consumption"]["unitsUsed"] == 4


def test_without_properties_units_of_the_feature_are_meant(shop: Organization) -> None:
    subscribe(shop, "ada", "limited")
    for user in "abc":
        done(track(shop, feature="request", properties={"user": user, "region": "eu"}))
    for feature, fits in (("eu_calls", 1), ("users", 7), ("visits", 10), ("peak", 10)):
        assert check(shop, feature=feature, quantity=fits)["allowed"], feature
        beyond = check(shop, feature=feature, quantity=fits + 1)
        assert (beyond["allowed"], beyond["reason"]) == (False, "included_limit_reached"), feature


def test_what_happened_in_an_earlier_period_is_held_against_that_one(shop: Organization) -> None:
    subscribe(shop, "ada", "limited")
    done(track(shop, value=10))
    set_clock(shop, "2026-02-20T00:00:00Z")
    assert check(shop)["allowed"]
    then = check(shop, timestamp="2026-02-01T00:00:00Z")
    refused(track(shop, timestamp="2026-02-01T00:00:00Z"), 402, then["reason"])


# --- what each model answers ---


def test_a_metered_check_says_what_is_included(shop: Organization) -> None:
    subscribe(shop, "ada", "open")
    done(track(shop, value=8.5))
    expected = {
        "object": "usage_check",
        "allowed": True,
        "subscriptionStatus": "active",
        "featureCode": "api_calls",
        "quantity": 1,
        "consumptionModel": "metered",
        "current": 8.5,
        "remaining": 1.5,
        "unlimited": False,
        "included": 10,
        "overageEnabled": True,
        "overageUnitPrice": 100,
        "livemode": False,
    }
    assert check(shop) == expected


def test_a_credits_check_says_what_it_would_burn(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    done(track(shop, value=0.5))
    expected = {
        "object": "usage_check",
        "allowed": True,
        "subscriptionStatus": "active",
        "featureCode": "api_calls",
        "quantity": 2.5,
        "consumptionModel": "credits",
        "creditsPerUnit": 3,
        "estimatedCredits": 7,
        "estimatedCreditsDecimal": "7.5",
        "planCredits": 28,
        "purchasedCredits": 0,
        "totalCredits": 28,
        "totalCreditsDecimal": "28.5",
        "livemode": False,
    }
    assert check(shop, quantity=2.5) == expected
    refusal = check(shop, quantity=10)
    assert part(refusal, {"allowed": False, "reason": "insufficient_credits"}) == {
        "allowed": False,
        "reason": "insufficient_credits",
    }
    assert refusal["message"] == "It takes 30 credits; 28.5 remain."


def test_a_balance_check_says_what_it_would_cost(shop: Organization) -> None:
    subscribe(shop, "ada", "balance")
    done(track(shop, value=0.0001))
    expected = {
        "object": "usage_check",
        "allowed": True,
        "subscriptionStatus": "active",
        "featureCode": "api_calls",
        "quantity": 0.5,
        "consumptionModel": "balance",
        "unitPrice": 2500,
        "unitPriceDecimal": "0.25",
        "estimatedAmount": 1250,
        "estimatedAmountDecimal": "1250",
        "currentBalance": 24_999,
        "currentBalanceDecimal": "24999.75",
        "blockOnExhaustion": True,
        "currency": "USD",
        "livemode": False,
    }
    assert check(shop, quantity=0.5) == expected
    assert check(shop, quantity=10)["reason"] == "insufficient_balance"


def test_where_debts_are_allowed_a_check_allows_them(shop: Organization) -> None:
    subscribe(shop, "ada", "overdraft")
    done(track(shop, value=100))
    said = check(shop, quantity=1_000_000)
    expected = {"allowed": True, "blockOnExhaustion": False, "currentBalance": -225_000}
    assert part(said, expected) == expected


def test_tokens_are_estimated_with_their_model_and_gated_without(shop: Organization) -> None:
    subscribe(shop, "ada", "balance")
    bare = check(shop, feature="tokens")
    expected = {"allowed": True, "unitPrice": 0, "estimatedAmount": 0, "currentBalance": 25_000}
    assert part(bare, expected) == expected
    assert "model" in bare["message"]
    refused(ask(shop, **CALL), 422, "pricing_mode_mismatch")
    refused(ask(shop, feature="tokens", **CALL | {"model": "no-such-model"}), 404, "model_not_found")
    refused(ask(shop, feature="tokens", **CALL, quantity=5), 400, "validation_error")
    done(track(shop, value=10))  # all of it
    empty = check(shop, feature="tokens")
    assert (empty["allowed"], empty["reason"]) == (False, "insufficient_balance")


def test_a_new_period_is_seen_before_anything_touches_it(shop: Organization) -> None:
    held = subscribe(shop, "ada", "credits")
    subscribe(shop, "bob", "balance")
    for customer in ("ada", "bob"):
        done(track(shop, customer, value=10))
        assert not check(shop, customer)["allowed"]
        assert not access(shop, customer=customer)["allowed"]
    set_clock(shop, "2026-02-15T00:00:00Z")
    assert part(check(shop), {"allowed": 0, "planCredits": 0}) == {"allowed": True, "planCredits": 30}
    assert check(shop, "bob")["currentBalance"] == 25_000
    assert access(shop)["consumption"]["availableUnits"] == 10
    assert active(shop)["credits"]["remaining"] == 30
    assert held["credits"]["remaining"] == 30


def test_what_is_set_aside_is_not_there_until_it_is_given_back(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    body = {"customerId": "ada", "featureCode": "api_calls", "quantity": 8, "expiresIn": 60}
    done(shop.http.post(f"{API}/usage/reservations", json=body))
    held = check(shop, quantity=3)
    assert (held["allowed"], held["totalCredits"]) == (False, 6)
    assert access(shop)["consumption"]["availableUnits"] == 2
    set_clock(shop, "2026-01-15T10:02:00Z")
    assert check(shop, quantity=3)["totalCredits"] == 30
    assert active(shop)["credits"]["remaining"] == 30


# --- access ---


def test_access_to_credits_says_how_far_they_reach(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    done(track(shop, value=2.5))
    shown = access(shop)
    period = {"start": "2026-01-15T10:00:00.000Z", "end": "2026-02-15T00:00:00.000Z"}
    assert (shown["allowed"], shown["type"]) == (True, "usage")
    assert shown["consumption"] == {
        "model": "credits",
        "period": period,
        "unitsUsed": 2.5,
        "creditsPerUnit": 3,
        "creditsConsumed": 7.5,
        "availableUnits": 7,
    }
    assert access(shop, action="canUse")["willBeCharged"] is False
    done(track(shop, value=7))  # 1.5 credits are left, half a unit
    last = access(shop, action="canUse")
    assert (last["allowed"], last["reason"]) == (False, "insufficient_credits")
    assert last["consumption"]["availableUnits"] == 0
    assert check(shop)["allowed"] is False


def test_access_to_a_balance_says_what_was_spent(shop: Organization) -> None:
    subscribe(shop, "ada", "balance")
    done(track(shop, value=0.5))
    shown = access(shop)
    assert shown["allowed"] is True
    consumption = shown["consumption"]
    del consumption["period"]
    assert consumption == {
        "model": "balance",
        "unitsUsed": 0.5,
        "spent": {"amount": 13, "amountDecimal": "0.125", "currency": "USD"},
        "availableUnits": 9,
        "unitPrice": {"amount": 2500, "amountDecimal": "0.25", "currency": "USD", "scale": 10_000},
    }
    free = access(shop, "eu_calls")["consumption"]
    assert "availableUnits" not in free
    assert free["unitPrice"]["amount"] == 0
    done(track(shop, value=9.5))
    last = access(shop, action="canUse")
    assert (last["allowed"], last["reason"], last["willBeCharged"]) == (False, "insufficient_balance", False)
    assert access(shop, "eu_calls")["allowed"] is True


def test_access_to_tokens_tells_what_the_calls_cost(shop: Organization) -> None:
    subscribe(shop, "ada", "balance")
    deducted = sum(done(track(shop, feature="tokens", **CALL))["consumption"]["deducted"] for _ in range(3))
    consumption = access(shop, "tokens")["consumption"]
    assert consumption["unitsUsed"] == 4500
    assert Decimal(consumption["spent"]["amountDecimal"]) == Decimal(deducted) / 10_000
    assert {"unitPrice", "availableUnits"}.isdisjoint(consumption)


def test_beyond_the_balance_the_next_unit_is_charged(shop: Organization) -> None:
    subscribe(shop, "ada", "overdraft")
    assert access(shop, action="canUse")["willBeCharged"] is False
    done(track(shop, value=10))
    beyond = access(shop, action="canUse")
    assert (beyond["allowed"], beyond["willBeCharged"]) == (True, True)


def test_what_was_spent_stays_as_it_was_when_a_price_falls(shop: Organization) -> None:
    subscribe(shop, "ada", "balance")
    done(track(shop, value=2))
    body = {"overage": {"unitPriceDecimal": "0.1"}}
    done(shop.http.patch(f"{API}/plans/balance/features/api_calls", json=body))
    done(track(shop, value=2))
    consumption = access(shop)["consumption"]
    assert consumption["spent"]["amountDecimal"] == "0.7"
    assert consumption["unitPrice"]["amount"] == 1000
    assert check(shop)["currentBalance"] == 18_000


def test_the_first_wire_has_flat_access(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    done(track(shop, value=2))
    old = {"commet-version": "2026-07-11"}
    query = {"customerId": "ada"}
    shown = done(shop.http.get(f"{API}/feature-access/api_calls", params=query, headers=old))["data"]
    assert part(shown, {"current": 2, "remaining": 8, "allowed": True}) == {
        "current": 2,
        "remaining": 8,
        "allowed": True,
    }
    assert "consumption" not in shown
    body = {"customerId": "ada", "feature": "api_calls"}
    asked = done(shop.http.post(f"{API}/usage/check", json=body, headers=old))["data"]
    assert (asked["feature"], asked["totalCredits"]) == ("api_calls", 24)


# --- subscriptions ---


def test_a_subscription_shows_its_credits(shop: Organization) -> None:
    held = subscribe(shop, "ada", "credits")
    done(track(shop, value=2.5))
    for shown in (active(shop), done(shop.http.get(f"{API}/subscriptions/{held['id']}"))):
        assert (shown["consumptionModel"], shown["balance"]) == ("credits", None)
        assert shown["credits"] == {
            "remaining": 22,
            "remainingDecimal": "22.5",
            "included": 30,
            "purchased": 0,
            "purchasedDecimal": "0",
        }
        usage = {each["code"]: each["usage"] for each in shown["features"]}
        assert usage["api_calls"] == {"current": 2.5, "included": 0, "overageQuantity": 0, "unlimited": False}


def test_a_subscription_shows_its_balance(shop: Organization) -> None:
    subscribe(shop, "ada", "overdraft")
    done(track(shop, value=15))
    shown = active(shop)
    assert (shown["consumptionModel"], shown["credits"]) == ("balance", None)
    assert shown["balance"] == {
        "remaining": -12_500,
        "remainingDecimal": "-12500",
        "included": 25_000,
        "currency": "USD",
    }
    usage = {each["code"]: each["usage"] for each in shown["features"]}
    paid = {"current": 15, "included": 0, "overageQuantity": 0, "overageUnitPrice": 2500, "unlimited": False}
    assert usage["api_calls"] == paid
    assert "overageUnitPrice" not in usage["tokens"]


def test_before_and_after_its_life_a_subscription_shows_the_wallet_it_has(shop: Organization) -> None:
    add_customer(shop, "ada")
    choice = {"customerId": "ada", "planCode": "balance"}
    pending = done(shop.http.post(f"{API}/subscriptions", json=choice))
    shown = done(shop.http.get(f"{API}/subscriptions/{pending['id']}"))
    assert (shown["consumptionModel"], shown["balance"], shown["credits"]) == ("balance", None, None)
    held = subscribe(shop, "bob", "credits")
    done(track(shop, "bob", value=1))
    ended = done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    assert ended["credits"]["remaining"] == 0
    refused(ask(shop, "bob"), 404, "no_active_subscription")


def test_a_plan_shows_what_it_grants(shop: Organization) -> None:
    plans = {each["code"]: each for each in done(shop.http.get(f"{API}/plans"))["data"]}
    assert plans["credits"]["prices"][0]["includedCredits"] == 30
    assert plans["balance"]["prices"][0]["includedBalance"] == 25_000
    assert plans["free"]["includedBalance"] == 10_000
    assert [plans[code]["blockOnExhaustion"] for code in ("balance", "overdraft", "credits")] == [
        True,
        False,
        None,
    ]
    per_unit = {each["code"]: each["creditsPerUnit"] for each in plans["credits"]["features"]}
    assert per_unit == {"api_calls": 3, "eu_calls": 1}
    (tokens,) = (each for each in plans["balance"]["features"] if each["code"] == "tokens")
    assert (tokens["pricingMode"], tokens["margin"]) == ("ai_model", 2000)


def test_a_check_names_what_stands_against_it(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    refused(ask(shop, "nobody"), 404, "customer_not_found")
    refused(ask(shop, feature="unheard_of"), 404, "feature_not_found")
    refused(ask(shop, feature="peak"), 403, "feature_not_in_plan")
    plan = {"id": "credits"}
    promise(shop, plan, "tokens", creditsPerUnit=1, enabled=False)
    refused(ask(shop, feature="tokens"), 403, "feature_disabled")
    add_customer(shop, "bob")
    refused(ask(shop, "bob"), 404, "no_active_subscription")
    refused(ask(shop, externalId="bob"), 400, "validation_error")


def test_another_process_answers_by_what_is_true_now(shop: Organization, database_url: str) -> None:
    subscribe(shop, "ada", "credits")
    with (
        serving(database_url) as beside,
        httpx.Client(base_url=beside.base_url, headers=shop.http.headers) as there,
    ):

        def asked() -> httpx.Response:
            return there.post(f"{API}/usage/check", json={"customerId": "ada", "featureCode": "api_calls"})

        assert done(asked())["creditsPerUnit"] == 3
        body = {"creditsPerUnit": 2}
        done(shop.http.patch(f"{API}/plans/credits/features/api_calls", json=body))
        done(track(shop, value=1))
        assert part(done(asked()), {"creditsPerUnit": 0, "totalCredits": 0}) == {
            "creditsPerUnit": 2,
            "totalCredits": 28,
        }
        held = active(shop)
        done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
        refused(asked(), 404, "no_active_subscription")
        key = next(iter(done(shop.http.get(f"{API}/api-keys"))["data"]))
        done(shop.http.delete(f"{API}/api-keys/{key['id']}"))
        refused(asked(), 401, "unauthorized")
