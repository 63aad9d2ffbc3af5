"""Bad requests: each is refused by name, stores nothing, and leaves the connection as it was."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tallystick.api.routes import OPERATIONS
from tallystick.core import limits
from tests.conftest import Organization, Server, open_one
from tests.scenarios.prepaid import add_pack, open_prepaid
from tests.scenarios.wire import (
    CHUNKED,
    Json,
    Wire,
    chunked,
    everything,
    head,
    json_of,
    line,
    refusal,
    still_works,
)
from tests.shop import API, add_customer, add_feature, add_plan, done, hard_limit, open_shop, subscribe

JSON = {"content-type": "application/json"}
TRACK, BATCH = f"{API}/usage/events", f"{API}/usage/events/batch"


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    """`ada` holds the plan `pro`, `bob` holds nothing; the clock stands still.

    The plan `team` promises all there is to measure, the plan `free` what it can.
    """
    made = open_one(database_url, server.base_url, clock="2026-03-20T12:00:00Z")
    open_shop(made, "ada")
    add_customer(made, "bob")
    promises: dict[str, Json] = {"amounts": {}, "peaks": {}, "levels": {}, "visits": {}, "people": {}}
    for code, aggregation in zip(promises, ("sum", "max", "latest", "count", "unique"), strict=True):
        grouped = {"aggregationProperty": "user"} if aggregation == "unique" else {}
        add_feature(made, code, aggregation=aggregation, **grouped)
    done(made.http.post(f"{API}/features", json={"name": "SSO", "code": "sso", "type": "boolean"}))
    add_feature(made, "payments")
    add_plan(made, "team", promises=promises | {"sso": {}, "payments": {"price": PERCENTAGE}})
    add_plan(made, "free", price=None, promises={"amounts": {"includedAmount": 10}})
    open_prepaid(made, credits=10)
    prepaid = {plan: subscribe(made, f"{plan}_customer", plan)["id"] for plan in ("credits", "balance")}
    pack, _ = add_pack(made), add_pack(made, "Taken")
    plan = done(made.http.get(f"{API}/plans/pro"))
    held = done(made.http.get(f"{API}/subscriptions/active", params={"customerId": "ada"}))
    (paid,) = done(made.http.get(f"{API}/invoices", params={"customerId": "ada"}))["data"]
    event = done(
        made.http.post(f"{API}/usage/events", json={"customerId": "ada", "featureCode": "api_calls"})
    )
    corrected = GOOD["usage.correct"][1] | {"dryRun": False}
    correction = done(made.http.post(f"{API}/usage/corrections", json=corrected))
    made.made |= {"price": plan["prices"][0]["id"], "subscription": held["id"], "invoice": paid["id"]}
    asked = {"customerId": "credits_customer", "featureCode": "api_calls", "quantity": 1}
    reservation = done(made.http.post(f"{API}/usage/reservations", json=asked))
    made.made |= {**prepaid, "pack": pack["id"], "reservation": reservation["id"]}
    made.made |= {"event": event["id"], "correction": correction["id"]}
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def before(shop: Organization) -> Json:
    return everything(shop)


@pytest.fixture
def untouched(shop: Organization, before: Json) -> Iterator[None]:
    """Whatever the test sent, nothing is stored and nothing is changed."""
    yield
    after, expected = everything(shop), dict(before)
    before.update(after)  # whoever changes something fails alone
    assert after == expected


pytestmark = pytest.mark.usefixtures("untouched")


# What would be accepted, for every operation that takes a body or changes something.
GOOD: dict[str, tuple[str, Json]] = {
    "customers.create": ("/customers", {"email": "eve@example.com"}),
    "customers.createBatch": ("/customers/batch", {"customers": [{"email": "eve@example.com"}]}),
    "customers.update": ("/customers/ada", {"email": "eve@example.com"}),
    "features.create": ("/features", {"name": "Storage", "code": "storage", "type": "usage"}),
    "features.update": ("/features/api_calls", {"name": "Calls"}),
    "plans.create": ("/plans", {"name": "Team", "code": "team"}),
    "plans.update": ("/plans/pro", {"name": "Professional"}),
    "plans.setVisibility": ("/plans/pro/visibility", {"isPublic": False}),
    "plans.addPrice": ("/plans/pro/prices", {"billingInterval": "yearly", "price": 29000}),
    "plans.updatePrice": ("/plans/pro/prices/{price}", {"price": 3900}),
    "plans.setDefaultPrice": ("/plans/pro/prices/{price}/default", {}),
    "plans.addFeature": ("/plans/pro/features", {"featureId": "api_calls"}),
    "plans.updateFeature": ("/plans/pro/features/api_calls", {"includedAmount": 5}),
    "subscriptions.create": ("/subscriptions", {"customerId": "bob", "planCode": "pro"}),
    "subscriptions.cancel": ("/subscriptions/{subscription}/cancel", {}),
    "subscriptions.uncancel": ("/subscriptions/{subscription}/uncancel", {}),
    "creditPacks.create": ("/credit-packs", {"name": "Ten", "credits": 10, "price": 100}),
    "creditPacks.update": ("/credit-packs/{pack}", {"price": 100}),
    "subscriptions.purchaseCredits": (
        "/subscriptions/{credits}/credits",
        {"creditPackId": "cpk_" + "0" * 26},
    ),
    "subscriptions.topupBalance": ("/subscriptions/{balance}/balance/topup", {"amount": 100}),
    "subscriptions.adjustBalance": ("/subscriptions/{credits}/balance/adjust", {"amount": 5}),
    "usage.check": ("/usage/check", {"customerId": "ada", "featureCode": "api_calls"}),
    "usage.set": ("/usage", {"customerId": "ada", "featureCode": "api_calls", "value": 5}),
    "testClock.advance": ("/test-clock", {"advanceDays": 1}),
    "testClock.processBilling": ("/test-clock/process-billing", {}),
    "apiKeys.create": ("/api-keys", {"name": "Another"}),
    "rating.preview": (
        "/rating/preview",
        {"price": {"model": "per_unit", "unitAmount": "0.01"}, "quantity": "5"},
    ),
    "ai.createPrice": (
        "/ai/prices",
        {
            "model": "gpt-4o",
            "inputPerMillion": "2.5",
            "outputPerMillion": "10",
            "validFrom": "2026-03-20T12:00:00Z",
        },
    ),
    "ai.createAlias": ("/ai/aliases", {"alias": "fast", "model": "gpt-4o-mini"}),
    "usage.reserve": (
        "/usage/reservations",
        {"customerId": "credits_customer", "featureCode": "api_calls", "quantity": 1},
    ),
    "usage.settleReservation": ("/usage/reservations/{reservation}/settle", {"value": 1}),
    "usage.releaseReservation": ("/usage/reservations/{reservation}/release", {}),
    "invoices.verify": ("/invoices/{invoice}/verify", {}),
    "usage.void": ("/usage/events/{event}", {}),
    "usage.correct": (
        "/usage/corrections",
        {
            "customerId": "ada",
            "featureCode": "api_calls",
            "start": "2026-03-19T00:00:00Z",
            "end": "2026-03-20T00:00:00Z",
            "events": [{"timestamp": "2026-03-19T01:00:00Z", "value": 1}],
            "dryRun": True,
        },
    ),
    "usage.revertCorrection": ("/usage/corrections/{correction}/revert", {}),
    "simulations.create": (  # as soon as some time has passed since `ada` subscribed
        "/simulations",
        {
            "planFeatures": [
                {
                    "planCode": "pro",
                    "featureCode": "api_calls",
                    "price": {"model": "per_unit", "unitAmount": "0.02"},
                }
            ],
            "start": "2026-02-20",
            "end": "2026-03-20T12:00:00Z",
        },
    ),
}
METHODS = {operation.name: operation.method for operation in OPERATIONS}
WITH_BODY = {operation.name for operation in OPERATIONS if operation.body is not None}
GONE = object()
"""In place of a value: the field is left out."""

NOT_TEXT: list[Any] = [5, True, [], {}]
NOT_AMOUNT: list[Any] = ["5", True, [], {}, -1, 0.5, 10**40]
NOT_NUMBER: list[Any] = ["5", " 5 ", "NaN", True, [], {}, -1, 10**40]
NOT_FLAG: list[Any] = ["true", 1, 0, [], {}]
NOT_DECIMAL: list[Any] = [
    *NOT_TEXT[1:],
    -1,
    10**40,
    "",
    " 5 ",
    "five",
    "-1",
    "NaN",
    "Infinity",
    "1_0",
    "1E+99",
    "0.0000000000001",
]
NOT_PRICE: list[Any] = [*NOT_TEXT, "0.01", {"model": None}, {"model": "free"}, {"unitAmount": "1"}]
NOT_MODEL: list[Any] = [*NOT_TEXT, None, "", "gpt 4o", "gpt-4ö", "m" * 201, "m\n"]
NOT_CODE: list[Any] = [*NOT_TEXT, "", "Api-Calls", "a b", "ä", "c" * 101, "a\n"]

# Values that make a good body bad, field by field: always 400, and the field is named.
WRONG: dict[str, dict[str, list[Any]]] = {
    "customers.create": {
        "email": [*NOT_TEXT, None, GONE, "", "nobody", "a b@c.d", "a@b@c", "e" * 200 + "@x.y", "a@b.c\n"],
        "id": [*NOT_TEXT, "", "i" * 101, "cus_mine"],
        "externalId": [*NOT_TEXT, "", "i" * 101],
        "fullName": [*NOT_TEXT, "n" * 201],
        "timezone": [*NOT_TEXT, "Mars/Olympus", "+02:00", ""],
        "metadata": ["text", 5, True, [], {"k": "v" * 17_000}],
        "address": ["text", [], {}, {"line1": "a", "city": "b", "postalCode": "c", "country": "USA"}, {"line1": "a", "city": "b", "postalCode": "c", "country": "US\n"}],
    },
    "customers.createBatch": {
        "customers": [GONE, None, {}, "text", [], [{"email": "a@b.c"}] * 101],
    },
    "customers.update": {
        "email": [*NOT_TEXT, None, "nobody"],
        "externalId": [*NOT_TEXT, "", "i" * 101, "cus_mine"],
        "timezone": [*NOT_TEXT, "Mars/Olympus"],
        "metadata": ["text", 5, [], {"k": "v" * 17_000}],
    },
    "features.create": {
        "name": [*NOT_TEXT, None, GONE, "", "n" * 201],
        "code": [*NOT_CODE, None, GONE],
        "type": [*NOT_TEXT, None, GONE, "", "metered", "seats", "quota"],
        "description": [*NOT_TEXT, "d" * 2001],
        "eventCode": NOT_CODE,
        "aggregation": [*NOT_TEXT, "average"],
        "aggregationProperty": [*NOT_TEXT, "", "p" * 101],
        "lateEventPolicy": [*NOT_TEXT, "never"],
        "filters": [
            "text",
            {},
            [{}],
            [{"property": "a", "operator": "like", "value": "b"}],
            [{"property": "a", "operator": "equals", "value": 5}],
            [{"property": "a", "operator": "equals", "value": "b"}] * 21,
        ],
    },
    "features.update": {
        "name": [*NOT_TEXT, None, "", "n" * 201],
        "aggregation": [*NOT_TEXT, None, "average"],
        "eventCode": NOT_CODE,
        "filters": ["text", {}, [{}]],
    },
    "plans.create": {
        "name": [*NOT_TEXT, None, GONE, ""],
        "code": [*NOT_CODE, None, GONE],
        "consumptionModel": [*NOT_TEXT, "prepaid"],
        "isPublic": NOT_FLAG,
        "isFree": NOT_FLAG,
        "metadata": ["text", 5, []],
        "planGroupId": [*NOT_TEXT, "plg_1"],
    },
    "plans.update": {"name": [*NOT_TEXT, None, ""], "isPublic": [*NOT_FLAG, None], "metadata": ["text", 5, []]},
    "plans.setVisibility": {"isPublic": [*NOT_FLAG, None, GONE]},
    "plans.addPrice": {
        "billingInterval": [*NOT_TEXT, None, GONE, "", "daily"],
        "price": [*NOT_AMOUNT, None, GONE, 10**15 + 1],
        "isDefault": NOT_FLAG,
        "trialDays": ["5", True, -1, 0.5, 14],
        "metadata": ["text", 5, []],
    },
    "plans.updatePrice": {"price": [*NOT_AMOUNT, None], "isDefault": NOT_FLAG, "metadata": ["text", None]},
    "plans.addFeature": {
        "featureId": [*NOT_TEXT, None, GONE],
        "includedAmount": NOT_NUMBER,
        "unlimited": NOT_FLAG,
        "overage": ["text", [], 5],
        "pricingMode": [*NOT_TEXT, "free"],
        "price": NOT_PRICE,
        "minimumAmount": NOT_DECIMAL,
        "maximumAmount": NOT_DECIMAL,
        "validFrom": [*NOT_TEXT, "", "tomorrow", "2026-04-01", "2026-04-31T00:00:00Z"],
    },
    "plans.updateFeature": {
        "pricingMode": [*NOT_TEXT, "ai_model", "free"],
        "creditsPerUnit": [*NOT_NUMBER, 5],
        "margin": [*NOT_NUMBER, 5],
        "includedAmount": NOT_NUMBER,
        "unlimited": NOT_FLAG,
        "overage": ["text", [], 5],
        "price": NOT_PRICE,
        "minimumAmount": NOT_DECIMAL,
        "maximumAmount": NOT_DECIMAL,
        "validFrom": [*NOT_TEXT, "", "tomorrow", "2026-03-20T11:59:59.999Z", "0001-01-01T00:00:00Z"],
    },
    "subscriptions.create": {
        "customerId": [*NOT_TEXT, "", GONE, "c" * 201],
        "planCode": [*NOT_TEXT, GONE],
        "billingInterval": [*NOT_TEXT, "daily"],
        "successUrl": [*NOT_TEXT, "ftp://x", "javascript:alert(1)", "https://" + "x" * 2000],
        "initialSeats": ["text", [], {"seat": "two"}, {"seat": 2}],
    },
    "subscriptions.cancel": {"reason": [*NOT_TEXT, "r" * 2001], "immediate": NOT_FLAG},
    "usage.check": {
        "customerId": [*NOT_TEXT, "", GONE, "c" * 201],
        "featureCode": [*NOT_CODE, None, GONE],
        "quantity": [*NOT_NUMBER, 0, 1e-13],
        "externalId": [*NOT_TEXT, "", "bob"],
        "timestamp": [*NOT_TEXT, "", "soon", "2099-01-01T00:00:00Z"],
        "properties": ["text", 5, True],
        "model": [*NOT_TEXT, ""],
        "inputTokens": ["5", True, -1, 0.5],
    },
    "usage.set": {
        "customerId": [*NOT_TEXT, "", GONE, "c" * 201],
        "featureCode": [*NOT_CODE, None, GONE],
        "value": [*NOT_NUMBER, None, GONE, 1e-13],
        "reason": [*NOT_TEXT, "r" * 2001],
    },
    "testClock.advance": {
        "advanceDays": ["1", True, [], {}, GONE, 0, -1, 0.5, 3661, 10**40],
        "frozenTime": [*NOT_TEXT, "2026-05-01T00:00:00Z"],  # together with advanceDays
    },
    "apiKeys.create": {
        "name": [*NOT_TEXT, None, GONE, ""],
        "expiresInDays": ["5", True, 0, -1, 3651, 0.5],
        "permissions": ["all", [], {"usage": "write"}, {"usage": ["execute"]}],
    },
    "rating.preview": {
        "price": [*NOT_PRICE, None, GONE],
        "quantity": [*NOT_DECIMAL, None, GONE],
        "amounts": ["5", 5, True, {}, ["five"], ["1", None], ["1", "-1"], ["1"] * 10_001],
        "included": NOT_DECIMAL,
        "minimum": NOT_DECIMAL,
        "maximum": NOT_DECIMAL,
        "currency": [*NOT_TEXT, "", "usd", "XXX", "US\n"],
    },
    "creditPacks.create": {
        "name": [*NOT_TEXT, None, GONE, "", "n" * 201],
        "credits": [*NOT_AMOUNT, None, GONE, 0, 10.5],
        "price": [*NOT_AMOUNT, None, GONE],
        "description": [*NOT_TEXT, "d" * 2001],
        "isActive": [*NOT_FLAG, None],
    },
    "creditPacks.update": {
        "name": [*NOT_TEXT, None, "", "n" * 201],
        "credits": [*NOT_AMOUNT, None, 0, 10.5],
        "price": [*NOT_AMOUNT, None],
        "description": [*NOT_TEXT, "d" * 2001],
        "isActive": [*NOT_FLAG, None],
    },
    "usage.reserve": {
        "customerId": [*NOT_TEXT, None, GONE, "", "c" * 201],
        "featureCode": [*NOT_CODE, None, GONE],
        "quantity": [*NOT_NUMBER[:-2], 10**40, GONE],
        "expiresIn": [*NOT_AMOUNT, 0, 86_401],
        "model": NOT_TEXT,
        "inputTokens": ["5", True, 0.5],
        "maxOutputTokens": ["5", True, 0.5],
        "properties": ["text", 5, True],
    },
    "usage.settleReservation": {
        "value": [*NOT_NUMBER, 1e-13],
        "timestamp": [*NOT_TEXT, "", "soon"],
        "properties": ["text", 5, True],
        "allowOverrun": [*NOT_FLAG, None],
        "inputTokens": ["5", True, 0.5],
    },
    "subscriptions.purchaseCredits": {"creditPackId": [*NOT_TEXT, None, GONE]},
    "subscriptions.topupBalance": {"amount": [*NOT_AMOUNT, None, GONE, 0]},
    "subscriptions.adjustBalance": {
        "amount": ["5", True, [], {}, None, GONE, 0, 0.5, 10**40, -(10**40)],
        "reason": [*NOT_TEXT, "r" * 2001],
        "type": [*NOT_TEXT, "", "plan_credits", "balance"],
    },
    "ai.createPrice": {
        "model": NOT_MODEL,
        "inputPerMillion": [*NOT_DECIMAL, None, GONE, "1000000.1"],
        "outputPerMillion": [*NOT_DECIMAL, None, GONE],
        "cacheReadPerMillion": NOT_DECIMAL,
        "cacheWritePerMillion": NOT_DECIMAL,
        "validFrom": [*NOT_TEXT, "", "tomorrow", "2026-04-01", "2026-04-31T00:00:00Z"],
        "validUntil": [*NOT_TEXT, "", "tomorrow", "2026-04-01", "2026-03-20T12:00:00Z"],
    },
    "ai.createAlias": {"alias": NOT_MODEL, "model": [*NOT_MODEL, "fast"]},
    "usage.void": {"reason": [*NOT_TEXT, "r" * 2001]},
    "usage.correct": {
        "customerId": [*NOT_TEXT, None, GONE],
        "featureCode": [*NOT_TEXT, None, GONE, "sso"],
        "start": [*NOT_TEXT, None, GONE, "", "soon", "2026-02-30T00:00:00Z"],
        "end": [*NOT_TEXT, None, GONE, "", "soon", "2026-03-19T00:00:00Z", "2026-03-20T12:00:00.001Z"],
        "events": ["text", 5, True, {}, [5], [None], [{}], [{"timestamp": "2026-03-20T00:00:00Z"}], [{"timestamp": "2026-03-19T00:00:00Z", "value": -1}], [{}] * 1001],
        "reason": [*NOT_TEXT, "r" * 2001],
        "dryRun": NOT_FLAG,
    },
    "usage.revertCorrection": {"reason": [*NOT_TEXT, "r" * 2001], "dryRun": NOT_FLAG},
    "simulations.create": {
        "planFeatures": ["text", 5, True, {}, [], None, GONE, [5], [None], [{}], [{"planCode": "pro"}], [{"planCode": "pro", "featureCode": "api_calls"}]],
        "planId": [*NOT_TEXT, "", "pln_1"],
        "planCode": [*NOT_TEXT, "", "none"],
        "start": [*NOT_TEXT, None, GONE, "", "soon", "2026-02-30", "2026-02", "2020-01-01"],
        "end": [*NOT_TEXT, None, GONE, "", "soon", "2026-02-20", "2026-02-19", "2026-03-20T12:00:00.001Z", "9999-12-31"],
        "customers": ["ada", 5, {}, [], [5], [""], ["c" * 201], ["nobody"], ["ada", "cus_1"], ["ada"] * (limits.SIMULATION_CUSTOMERS_MAX + 1)],
    },
}  # fmt: skip
BODYLESS = {
    "plans.setDefaultPrice",
    "subscriptions.uncancel",
    "testClock.processBilling",
    "invoices.verify",
    "usage.releaseReservation",
}


def send(shop: Organization, name: str, body: Json | bytes, **headers: str) -> httpx.Response:
    path, _ = GOOD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return shop.http.request(
        METHODS[name], API + path.format(**shop.made), content=content, headers=JSON | headers
    )


def test_every_operation_that_writes_has_bad_requests() -> None:
    writing = {each.name for each in OPERATIONS if each.method in ("POST", "PUT", "PATCH") or each.body}
    assert writing == GOOD.keys() == WRONG.keys() | BODYLESS


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in WRONG.items() for field in fields]
)
def test_a_wrong_field_is_named(shop: Organization, name: str, field: str) -> None:
    for value in WRONG[name][field]:
        body = {**GOOD[name][1], field: value}
        if value is GONE:
            del body[field]
        answer = send(shop, name, body)
        assert answer.status_code == 400, f"{value!r}: {answer.text}"
        error = refusal(answer, 400, "validation_error")
        guilty = [each["field"].partition(".")[0].partition("[")[0] for each in error["details"]]
        # Fields that exclude each other are refused under either name.
        either = guilty in (["id"], ["advanceDays"], ["aggregationProperty"])
        assert field in guilty or either, f"{value!r}: {error['details']}"


# Refusals that need more than one field, or that are about what is (not) there.
@pytest.mark.parametrize(
    ("name", "changes", "status", "code", "field"),
    [
        ("customers.create", {"id": "eve", "externalId": "mallory"}, 400, "validation_error", "externalId"),
        ("customers.update", {"externalId": "bob"}, 409, "duplicate", None),
        ("features.create", {"code": "api_calls"}, 409, "feature_already_exists", None),
        ("features.create", {"aggregation": "unique"}, 400, "validation_error", "aggregationProperty"),
        ("features.create", {"type": "boolean", "aggregation": "count"}, 400, "validation_error", "aggregation"),
        ("plans.create", {"code": "pro"}, 409, "duplicate", None),
        ("plans.addPrice", {"billingInterval": "monthly"}, 409, "duplicate", None),
        ("plans.addFeature", {}, 409, "feature_already_exists", None),
        ("plans.addFeature", {"featureId": "unheard_of"}, 404, "feature_not_found", None),
        (
            "plans.updateFeature",
            {"overage": {"unitPrice": 100, "unitPriceDecimal": "0.02"}},
            400,
            "validation_error",
            "overage.unitPrice",
        ),
        *[
            (
                "plans.updateFeature",
                {"overage": {"unitPriceDecimal": each}},
                400,
                "validation_error",
                "overage.unitPriceDecimal",
            )
            for each in ("", " 5 ", "five", "-1", "NaN", "Infinity", "1_0", "٣", "1E+999999999", "0.0000000000001")
        ],
        ("subscriptions.create", {"customerId": "nobody"}, 404, "customer_not_found", None),
        ("subscriptions.create", {"planCode": "none"}, 404, "plan_not_found", None),
        ("subscriptions.create", {"planId": "pln_1"}, 400, "validation_error", "planCode"),
        ("subscriptions.create", {"priceId": "pp_1"}, 404, "price_not_found", None),
        ("subscriptions.create", {"billingInterval": "yearly"}, 409, "no_prices_configured", None),
        ("subscriptions.uncancel", {}, 409, "not_scheduled_for_cancellation", None),
        ("creditPacks.create", {"name": "Taken"}, 409, "duplicate", None),
        ("creditPacks.update", {"name": "Taken"}, 409, "duplicate", None),
        ("subscriptions.purchaseCredits", {}, 404, "credit_pack_not_found", None),
        ("subscriptions.purchaseCredits", {"creditPackId": "pack"}, 404, "credit_pack_not_found", None),
        ("subscriptions.adjustBalance", {"amount": -11}, 402, "insufficient_credits", None),
        ("usage.check", {"customerId": "nobody"}, 404, "customer_not_found", None),
        ("usage.check", {"customerId": "bob"}, 404, "no_active_subscription", None),
        ("usage.check", {"featureCode": "unheard_of"}, 404, "feature_not_found", None),
        ("usage.set", {"customerId": "nobody"}, 404, "customer_not_found", None),
        ("usage.set", {"customerId": "bob"}, 404, "no_active_subscription", None),
        ("usage.set", {"featureCode": "unheard_of"}, 404, "feature_not_found", None),
        ("testClock.advance", {"advanceDays": None, "frozenTime": "soon"}, 400, "validation_error", "frozenTime"),
        ("testClock.advance", {"advanceDays": None, "frozenTime": "2026-03-01T00:00:00Z"}, 400, "validation_error", "frozenTime"),
        ("testClock.advance", {"advanceDays": None, "frozenTime": "9999-12-31T23:59:59Z"}, 400, "validation_error", "frozenTime"),
        ("testClock.processBilling", {}, 410, "endpoint_deprecated", None),
        ("apiKeys.create", {"permissions": {"moon": ["read"]}}, 400, "validation_error", "permissions.moon"),
        ("apiKeys.create", {"permissions": {"usage": ["write"]}}, 400, "validation_error", "permissions.usage"),
        ("ai.createAlias", {"model": "gpt-4oo"}, 404, "model_not_found", None),
        ("ai.createPrice", {"validFrom": None, "validUntil": "2026-03-20T12:00:00Z"}, 400, "validation_error", "validUntil"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_done(
    shop: Organization, name: str, changes: Json, status: int, code: str, field: str | None
) -> None:
    answer = send(shop, name, {**GOOD[name][1], **changes})
    refusal(answer, status, code, field)
    still_works(shop, answer)


# Prices ---------------------------------------------------------------------------------------------------

PER_UNIT: Json = {"model": "per_unit", "unitAmount": "0.01"}
PERCENTAGE: Json = {"model": "percentage", "basisPoints": "290"}


def tiers(*steps: tuple[Any, ...], model: str = "graduated") -> Json:
    """A price of steps: (upTo, unitAmount, flatAmount)."""
    names = ("upTo", "unitAmount", "flatAmount")
    return {"model": model, "tiers": [dict(zip(names, step, strict=False)) for step in steps]}


# What is wrong with a price, wherever it is sent: the price, the field, and a word of the reason.
BAD_PRICES: list[tuple[Json, str, str]] = [
    (tiers(("100", "1"), ("100", "2"), (None, "3")), "price.tiers[1].upTo", "more than 100"),
    (tiers(("100", "1"), ("50", "2"), (None, "3")), "price.tiers[1].upTo", "more than 100"),
    (tiers(("100", "1"), ("50", "2"), ("75", "3"), (None, "4")), "price.tiers[1].upTo", "more than 100"),
    (tiers(("0", "1"), (None, "2")), "price.tiers[0].upTo", "more than 0"),
    (tiers(("-5", "1"), (None, "2")), "price.tiers[0].upTo", "0 or more"),
    (tiers(("100", "1"), ("200", "2")), "price.tiers[1].upTo", "open"),
    (tiers(("100", "1")), "price.tiers[0].upTo", "open"),
    (tiers((None, "1"), ("100", "2")), "price.tiers[0].upTo", "open"),
    (tiers((None, "1"), (None, "2")), "price.tiers[0].upTo", "open"),
    (tiers(("100", "1"), ("100", "2"), (None, "3"), model="volume"), "price.tiers[1].upTo", "more than 100"),
    (tiers(("100", "1"), model="volume"), "price.tiers[0].upTo", "open"),
    (tiers(), "price.tiers", "1 to 100"),
    (tiers(*((str(step), "1") for step in range(1, 101)), (None, "1")), "price.tiers", "1 to 100"),
    (tiers((None,)), "price.tiers[0].unitAmount", "flatAmount"),
    (tiers((None, "-1")), "price.tiers[0].unitAmount", "0 or more"),
    (tiers((None, "1", "one")), "price.tiers[0].flatAmount", "0 or more"),
    ({"model": "graduated", "tiers": [{"unitAmount": "1"}]}, "price.tiers[0].upTo", "required"),
    ({"model": "graduated", "tiers": [{"upTo": None, "unitAmount": "1", "flatFee": "1"}]}, "price.tiers[0].flatFee", "not a field"),
    ({"model": "graduated", "tiers": ["100"]}, "price.tiers[0]", "object"),
    ({"model": "graduated"}, "price.tiers", "list"),
    ({**tiers((None, "1")), "chargeFlatAtZero": "yes"}, "price.chargeFlatAtZero", "true or false"),
    ({"model": "per_unit"}, "price.unitAmount", "required"),
    ({"model": "per_unit", "unitAmount": "-0.01"}, "price.unitAmount", "0 or more"),
    ({"model": "per_unit", "unitAmount": True}, "price.unitAmount", "0 or more"),
    ({**PER_UNIT, "tiers": []}, "price.tiers", "not a field"),
    ({**PER_UNIT, "amount": "5"}, "price.amount", "not a field"),
    ({"model": "flat"}, "price.amount", "required"),
    ({"model": "flat", "amount": "five"}, "price.amount", "0 or more"),
    ({"model": "package", "packageAmount": "25"}, "price.packageSize", "required"),
    ({"model": "package", "packageSize": "0", "packageAmount": "25"}, "price.packageSize", "more than 0"),
    ({"model": "package", "packageSize": "1000"}, "price.packageAmount", "required"),
    ({"model": "package", "packageSize": "1000", "packageAmount": "25", "freeUnits": "-1"}, "price.freeUnits", "0 or more"),
    ({"model": "percentage"}, "price.basisPoints", "required"),
    ({"model": "percentage", "basisPoints": "10001"}, "price.basisPoints", "at most 10000"),
    ({**PERCENTAGE, "minAmount": "5", "maxAmount": "1"}, "price.minAmount", "more than maxAmount"),
    ({**PERCENTAGE, "freeEvents": "1.5"}, "price.freeEvents", "whole"),
    ({**PERCENTAGE, "freeEvents": -1}, "price.freeEvents", "0 or more"),
    ({**PERCENTAGE, "freeAmount": "lots"}, "price.freeAmount", "0 or more"),
]  # fmt: skip


def told(answer: httpx.Response, field: str, reason: str) -> None:
    error = refusal(answer, 400, "validation_error", field)
    messages = [each["message"] for each in error["details"] if each["field"] == field]
    assert any(reason in each for each in messages), error["details"]


@pytest.mark.parametrize(("price", "field", "reason"), BAD_PRICES)
def test_a_bad_price_is_refused_wherever_it_is_sent(
    shop: Organization, price: Json, field: str, reason: str
) -> None:
    asked = {"amounts": ["5"]} if price["model"] == "percentage" else {"quantity": "5"}
    answers = [
        send(shop, "rating.preview", {"price": price, **asked}),
        send(shop, "plans.updateFeature", {"price": price}),
        shop.http.post(f"{API}/plans/free/features", json={"featureId": "peaks", "price": price}),
    ]
    for answer in answers:
        told(answer, field, reason)
        still_works(shop, answer)
    change = {"planCode": "pro", "featureCode": "api_calls", "price": price}
    body = {**GOOD["simulations.create"][1], "planFeatures": [change]}
    told(send(shop, "simulations.create", body), f"planFeatures[0].{field}", reason)


def test_all_that_is_wrong_with_a_price_is_told_at_once(shop: Organization) -> None:
    price = {"model": "percentage", "basisPoints": "-1", "minAmount": "x", "freeEvents": "0.5", "cap": "1"}
    error = refusal(send(shop, "plans.updateFeature", {"price": price}), 400, "validation_error")
    named = {each["field"] for each in error["details"]}
    assert named == {"price.basisPoints", "price.minAmount", "price.freeEvents", "price.cap"}


@pytest.mark.parametrize(
    ("path", "body", "field", "reason"),
    [
        # What the plan, the feature or its meter cannot bear.
        ("team/features/people", {"price": PERCENTAGE}, "price.model", "sum"),
        ("team/features/visits", {"price": PERCENTAGE}, "price.model", "sum"),
        ("team/features/peaks", {"price": PERCENTAGE}, "price.model", "sum"),
        ("team/features/levels", {"price": PERCENTAGE}, "price.model", "sum"),
        ("team/features/amounts", {"price": PERCENTAGE, "includedAmount": 10}, "includedAmount", "freeEvents"),
        ("team/features/sso", {"price": PER_UNIT}, "price", "boolean"),
        ("team/features/sso", {"overage": {"unitPriceDecimal": "0.01"}}, "overage.unitPrice", "boolean"),
        ("team/features/sso", {"minimumAmount": "5"}, "minimumAmount", "boolean"),
        ("team/features/sso", {"maximumAmount": "5"}, "maximumAmount", "boolean"),
        ("free/features/amounts", {"price": PER_UNIT}, "price", "free plan"),
        ("free/features/amounts", {"price": tiers((None, "0.01"))}, "price", "free plan"),
        ("free/features/amounts", {"overage": {"enabled": True, "unitPrice": 100}}, "overage.unitPrice", "free plan"),
        ("free/features/amounts", {"overage": {"enabled": True}}, "overage.enabled", "free plan"),
        ("free/features/amounts", {"overageEnabled": True}, "overage.enabled", "free plan"),
        ("free/features/amounts", {"minimumAmount": "5"}, "minimumAmount", "price"),
        # Minimum and maximum.
        ("pro/features/api_calls", {"minimumAmount": "50.01", "maximumAmount": "50"}, "minimumAmount", "more than maximumAmount"),
        ("team/features/amounts", {"minimumAmount": "5"}, "minimumAmount", "overage is off"),
        ("team/features/amounts", {"maximumAmount": "5"}, "maximumAmount", "overage is off"),
        ("team/features/amounts", {"maximumAmount": "0"}, "maximumAmount", "overage is off"),
        ("pro/features/api_calls", {"minimumAmount": "5", "overage": {"enabled": False}}, "minimumAmount", "overage is off"),
        # The same thing said twice, or both ways.
        ("pro/features/api_calls", {"price": PER_UNIT, "overage": {"unitPrice": 100}}, "overage.unitPrice", "twice"),
        ("pro/features/api_calls", {"price": PER_UNIT, "overage": {"unitPriceDecimal": "0.01"}}, "overage.unitPrice", "twice"),
        ("pro/features/api_calls", {"price": PER_UNIT, "overageUnitPrice": 100}, "overage.unitPrice", "twice"),
        ("pro/features/api_calls", {"price": PER_UNIT, "overage": {"enabled": False}}, "overage.enabled", "there is a price"),
        ("pro/features/api_calls", {"price": PER_UNIT, "overageEnabled": False}, "overage.enabled", "there is a price"),
        # When.
        ("pro/features/api_calls", {"price": PER_UNIT, "validFrom": "2026-03-20T11:59:59Z"}, "validFrom", "past"),
    ],
)  # fmt: skip
def test_a_promise_that_cannot_be_kept_is_not_given(
    shop: Organization, path: str, body: Json, field: str, reason: str
) -> None:
    answer = shop.http.patch(f"{API}/plans/{path}", json=body)
    told(answer, field, reason)
    still_works(shop, answer)


@pytest.mark.parametrize(
    ("feature", "body", "field"),
    [
        ("people", {"price": PERCENTAGE}, "price.model"),
        ("amounts", {"price": PERCENTAGE, "includedAmount": 1}, "includedAmount"),
        ("amounts", {"price": PER_UNIT, "minimumAmount": "2", "maximumAmount": "1"}, "minimumAmount"),
        ("amounts", {"minimumAmount": "2"}, "minimumAmount"),
        ("amounts", {"price": PER_UNIT, "validFrom": "2026-03-01T00:00:00Z"}, "validFrom"),
    ],
)
def test_nor_is_it_given_to_begin_with(shop: Organization, feature: str, body: Json, field: str) -> None:
    answer = shop.http.post(f"{API}/plans/pro/features", json={"featureId": feature, **body})
    refusal(answer, 400, "validation_error", field)


@pytest.mark.parametrize("aggregation", ["count", "max", "latest", "unique"])
def test_what_a_plan_takes_a_share_of_stays_a_sum(shop: Organization, aggregation: str) -> None:
    body = {"aggregation": aggregation} | ({"aggregationProperty": "user"} if aggregation == "unique" else {})
    told(shop.http.patch(f"{API}/features/payments", json=body), "aggregation", "percentage")


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"amounts": ["5"]}, "quantity", "not amounts"),
        ({"amounts": ["5"], "quantity": GONE}, "quantity", "not amounts"),
        ({"amounts": []}, "quantity", "not amounts"),
        ({"price": PERCENTAGE}, "amounts", "not quantity"),
        ({"price": PERCENTAGE, "quantity": GONE}, "amounts", "not quantity"),
        ({"price": PERCENTAGE, "quantity": "5", "amounts": ["5"]}, "quantity", "amounts"),
        (
            {"price": PERCENTAGE, "quantity": GONE, "amounts": ["5"], "included": "1"},
            "included",
            "freeEvents",
        ),
        ({"minimum": "2", "maximum": "1"}, "minimum", "more than maximum"),
        ({"price": PERCENTAGE, "quantity": GONE, "amounts": ["1", "two"]}, "amounts[1]", "decimal"),
    ],
)
def test_a_preview_that_makes_no_sense_is_refused(
    shop: Organization, changes: Json, field: str, reason: str
) -> None:
    body = {**GOOD["rating.preview"][1], **changes}
    body = {name: value for name, value in body.items() if value is not GONE}
    told(send(shop, "rating.preview", body), field, reason)


NO_JSON: dict[str, bytes] = {
    "cut off": b'{"email": "a@b.c"',
    "one brace": b"{",
    "only a space": b" ",
    "a word": b"hello",
    "single quotes": b"{'email': 'a@b.c'}",
    "a comma too many": b'{"email": "a@b.c",}',
    "a comment": b'{"email": "a@b.c"} // eve',
    "two values": b"{}{}",
    "NaN": b'{"value": NaN}',
    "Infinity": b'{"value": -Infinity}',
    "a leading zero": b'{"value": 01}',
    "a plus": b'{"value": +1}',
    "no digit after the point": b'{"value": 1.}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "invalid UTF-8": b'{"email": "\xff@b.c"}',
    "an overlong NUL": b'{"email": "\xc0\x80"}',
    "a surrogate as UTF-8": b'{"email": "\xed\xa0\x80"}',
    "half a surrogate pair": b'{"email": "\\ud83d@b.c"}',
    "the other half": b'{"email": "\\ude00@b.c"}',
    "halves swapped": b'{"email": "\\ude00\\ud83d@b.c"}',
    "a raw NUL": b'{"email": "a\x00@b.c"}',
    "a raw line break": b'{"email": "a\n@b.c"}',
    "only a NUL": b"\x00",
    "UTF-16": '{"email": "a@b.c"}'.encode("utf-16"),
    "lists too deep": b"[" * 200_000,
    "lists too deep, closed": b"[" * 100_000 + b"]" * 100_000,
    "objects too deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "5000 digits": b'{"value": ' + b"9" * 5000 + b"}",
}
NO_OBJECT = [b"[]", b"[{}]", b"1", b"0.5", b'"text"', b"null", b"true"]


@pytest.mark.parametrize("path", [TRACK, BATCH, f"{API}/customers", f"{API}/test-clock/process-billing"])
def test_what_is_no_json_is_refused(shop: Organization, path: str) -> None:
    for kind, body in NO_JSON.items():
        answer = shop.http.post(path, content=body, headers=JSON)
        assert answer.status_code == 400, f"{kind}: {answer.text}"
        refusal(answer, 400, "invalid_json")
        still_works(shop, answer)


@pytest.mark.parametrize("name", GOOD)
def test_no_operation_takes_broken_json(shop: Organization, name: str) -> None:
    refusal(send(shop, name, b'{"name": '), 400, "invalid_json")
    refusal(send(shop, name, b"[" * 200_000), 400, "invalid_json")


@pytest.mark.parametrize("name", sorted(WITH_BODY))
def test_a_body_is_an_object(shop: Organization, name: str) -> None:
    for body in NO_OBJECT:
        refusal(send(shop, name, body), 400, "validation_error", "")


@pytest.mark.parametrize("body", [b"", *NO_OBJECT])
def test_an_event_is_an_object(shop: Organization, body: bytes) -> None:
    refusal(shop.http.post(TRACK, content=body, headers=JSON), 400, "validation_error")
    refusal(shop.http.post(BATCH, content=body, headers=JSON), 400, "validation_error", "events")


@pytest.mark.parametrize("name", sorted(WITH_BODY - {"customers.update", "features.update", "plans.update", "plans.updatePrice", "plans.updateFeature", "creditPacks.update", "subscriptions.cancel", "usage.void", "usage.revertCorrection", "usage.settleReservation"}))  # fmt: skip
def test_an_empty_body_is_an_empty_object(shop: Organization, name: str) -> None:
    refusal(send(shop, name, b""), 400, "validation_error")


@pytest.mark.parametrize("name", sorted(WITH_BODY - {"usage.check"}))  # which reads no more than it knows
def test_no_body_may_hold_a_nul(shop: Organization, name: str) -> None:
    error = refusal(send(shop, name, b'{"what": {"ever": ["a\\u0000b"]}}'), 400, "validation_error")
    assert error["details"] == [{"field": "what.ever[0]", "message": "must not contain a NUL character"}]
    refusal(send(shop, name, b'{"a\\u0000b": 1}'), 400, "validation_error")


@pytest.mark.parametrize("name", [*sorted(WITH_BODY), "track", "trackBatch"])
def test_a_body_of_ten_megabytes_is_too_large(shop: Organization, name: str) -> None:
    body = b'{"pad": "' + b"x" * 10_000_000 + b'"}'
    if name in GOOD:
        answer = send(shop, name, body)
    else:
        answer = shop.http.post(TRACK if name == "track" else BATCH, content=body, headers=JSON)
    refusal(answer, 413, "payload_too_large")
    still_works(shop, answer)


@pytest.mark.parametrize(("size", "status"), [(0, 400), (1, 413)])
def test_the_limit_of_a_body_is_exact(shop: Organization, size: int, status: int) -> None:
    body = b'{"pad": "' + b"x" * (limits.BODY_BYTES_MAX - 11 + size) + b'"}'
    assert shop.http.post(TRACK, content=body, headers=JSON).status_code == status


@pytest.mark.parametrize(
    "number", ["1E+101", "1E-101", "1E+999999999", "1E+99999999999999999999", "0." + "1" * 101]
)
def test_a_number_nobody_can_keep_is_refused_in_metadata_too(shop: Organization, number: str) -> None:
    body = b'{"email": "a@b.c", "metadata": {"deep": [%s]}}' % number.encode()
    refusal(send(shop, "customers.create", body), 400, "validation_error", "metadata.deep[0]")
    body = b'{"customerId": "ada", "featureCode": "api_calls", "quantity": %s}' % number.encode()
    refusal(send(shop, "usage.check", body), 400, "validation_error", "quantity")


@pytest.mark.parametrize("depth", [100, 400, 700, 900, 950, 980, 995])
def test_metadata_however_deep_is_taken_or_refused(shop: Organization, depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    answer = send(shop, "customers.create", b'{"email": "nobody", "metadata": ' + nested + b"}")
    assert answer.status_code == 400, answer.text
    refusal(answer, 400, answer.json()["code"])


# Events ---------------------------------------------------------------------------------------------------

EVENT = {"customerId": '"ada"', "featureCode": '"api_calls"', "eventId": '"k"', "value": "1"}


def spelled(**fields: str | None) -> str:
    """A good event with fields replaced by raw JSON (None: left out)."""
    merged = {**EVENT, **fields}
    return "{" + ",".join(f'"{name}":{raw}' for name, raw in merged.items() if raw is not None) + "}"


def properties(*pairs: tuple[str, str]) -> str:
    return json.dumps([{"property": name, "value": value} for name, value in pairs])


BAD_EVENTS: list[tuple[Any, int, str, Any]] = [
    *[({"customerId": raw}, 400, "validation_error", "customerId") for raw in (None, "null", "5", "true", "[]", "{}", '""')],
    ({"customerId": json.dumps("c" * 201)}, 400, "validation_error", "customerId"),
    ({"customerId": '"a\\u0000"'}, 400, "validation_error", "customerId"),
    ({"customerId": '"nobody"'}, 404, "customer_not_found", None),
    ({"customerId": '"cus_nothing"'}, 404, "customer_not_found", None),
    ({"customerId": '"bob"'}, 404, "no_active_subscription", None),
    ({"externalId": '"bob"'}, 400, "validation_error", "externalId"),
    ({"externalId": '"nobody"'}, 400, "validation_error", "externalId"),
    *[({"featureCode": raw}, 400, "validation_error", "featureCode") for raw in (None, "null", "5", "true", "[]", "{}", '""')],
    *[({"featureCode": json.dumps(raw)}, 400, "validation_error", "featureCode") for raw in ("Api-Calls", "a b", "ä", "f" * 101, "a\n", "a\0")],
    ({"featureCode": '"unheard_of"'}, 404, "feature_not_found", None),
    ({"feature": '"other"'}, 400, "validation_error", "feature"),
    *[({"eventId": raw}, 400, "validation_error", "eventId") for raw in ("5", "true", "[]", "{}", '""', '"a\\u0000"')],
    ({"eventId": json.dumps("k" * 201)}, 400, "validation_error", "eventId"),
    ({"idempotencyKey": '"other"'}, 400, "validation_error", "idempotencyKey"),
    *[({"value": raw}, 400, "validation_error", "value") for raw in ('"1"', '""', "true", "false", "[]", "{}", "-1", "-0.000000000001", "1E+20", "1E+999999999")],
    *[({"value": raw}, 400, "validation_error", "value") for raw in ("1E+99999999999999999999", "-1E+99999999999999999999", "1E-99999999999999999999")],
    *[({"value": raw}, 400, "validation_error", "value") for raw in ("1" * 40, "1" * 21, "0.0000000000001", "1.1234567890123")],
    ({"quantity": "2"}, 400, "validation_error", "quantity"),
    *[({"timestamp": raw}, 400, "validation_error", "timestamp") for raw in ("5", "true", "[]", "{}", '""', "1769900000000")],
    *[
        ({"timestamp": json.dumps(raw)}, 400, "validation_error", "timestamp")
        for raw in ("yesterday", "2026-01-31", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2026-01-01T00:00:00Z\0")
    ],
    *[({"timestamp": json.dumps(raw)}, 400, "validation_error", "timestamp") for raw in ("2199-01-01T00:00:00Z", "9999-12-31T23:59:59Z")],
    *[({"properties": raw}, 400, "validation_error", "properties") for raw in ("5", "true", '"text"')],
    ({"properties": '["region"]'}, 400, "validation_error", "properties[0]"),
    ({"properties": '[{"property": "region", "value": 5}]'}, 400, "validation_error", "properties[0]"),
    ({"properties": '[{"property": "region", "value": "a\\u0000"}]'}, 400, "validation_error", "properties[0]"),
    ({"properties": '{"region": {}}'}, 400, "validation_error", "properties.region"),
    ({"properties": properties(("a", "1"), ("b", "2"), ("a", "1"))}, 400, "validation_error", "properties[2]"),
    ({"properties": properties(*((f"p{each}", "v") for each in range(51)))}, 400, "validation_error", "properties"),
    ({"properties": properties(("p" * 101, "v"))}, 400, "validation_error", "properties[0]"),
    ({"properties": properties(("p", "v" * 1001))}, 400, "validation_error", "properties[0]"),
    *[({name: "5"}, 400, "validation_error", "model") for name in ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens")],
    ({"model": '"gpt-4o"'}, 400, "validation_error", "inputTokens"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "code", "field"), BAD_EVENTS)
def test_a_bad_event_is_refused(
    shop: Organization, fields: dict[str, str | None], status: int, code: str, field: str | None
) -> None:
    answer = shop.http.post(TRACK, content=spelled(**fields).encode(), headers=JSON)
    refusal(answer, status, code, field)
    still_works(shop, answer)


@pytest.fixture(scope="module")
def busy(server: Server, database_url: str) -> Iterator[Organization]:
    """An organization where events do get stored."""
    made = open_one(database_url, server.base_url, clock="2026-03-20T12:00:00Z")
    open_shop(made, "ada")
    add_customer(made, "bob")
    yield made
    made.http.close()


def used(shop: Organization) -> float:
    access = done(shop.http.get(f"{API}/feature-access/api_calls", params={"customerId": "ada"}))
    found: float = access["consumption"]["unitsUsed"]
    return found


def test_a_bad_event_never_sinks_its_batch(busy: Organization) -> None:
    good = spelled(eventId=None)
    for fields, _, code, field in BAD_EVENTS:
        so_far = used(busy)
        batch = f'{{"events": [{good}, {spelled(**fields)}, {good}]}}'
        answer = busy.http.post(BATCH, content=batch.encode(), headers=JSON)
        assert answer.status_code == 200, f"{fields}: {answer.text}"
        body = json_of(answer)
        assert len(body["successful"]) == 2
        (failed,) = body["failed"]
        assert (failed["index"], failed["code"]) == (1, code), fields
        assert failed["error"].startswith(f"{code}: ")
        if field is not None:
            assert field in [each["field"] for each in failed["details"]]
        assert used(busy) == so_far + 2, fields


def test_every_kind_of_bad_event_fails_in_one_batch(busy: Organization) -> None:
    so_far, sent = used(busy), BAD_EVENTS[:90]
    batch = ",".join(spelled(**fields) for fields, *_ in sent)
    body = json_of(busy.http.post(BATCH, content=f'{{"events": [{batch}]}}'.encode(), headers=JSON))
    assert [(each["index"], each["code"]) for each in body["failed"]] == [
        (index, code) for index, (_, _, code, _) in enumerate(sent)
    ]
    assert used(busy) == so_far


def test_nothing_in_a_batch_need_be_good(busy: Organization) -> None:
    so_far = used(busy)
    batch = '{"events": [null, 1, "event", [], {}, true, 1E+99999999999999999999]}'
    body = json_of(busy.http.post(BATCH, content=batch.encode(), headers=JSON))
    assert body["successful"] == []
    assert [each["index"] for each in body["failed"]] == [0, 1, 2, 3, 4, 5, 6]
    assert {each["code"] for each in body["failed"]} == {"validation_error"}
    assert used(busy) == so_far


@pytest.mark.parametrize("events", ["[]", "null", "{}", '"text"', "5"])
def test_a_batch_is_a_list_of_events(shop: Organization, events: str) -> None:
    answer = shop.http.post(BATCH, content=f'{{"events": {events}}}'.encode(), headers=JSON)
    refusal(answer, 400, "validation_error", "events")


def test_a_batch_of_a_hundred_and_one_is_refused_whole(shop: Organization) -> None:
    batch = f'{{"events": [{",".join([spelled(eventId=None)] * 101)}]}}'
    answer = shop.http.post(BATCH, content=batch.encode(), headers=JSON)
    refusal(answer, 400, "validation_error", "events")
    still_works(shop, answer)


def test_of_equal_keys_in_an_object_the_last_counts(busy: Organization) -> None:
    sent = (
        b'{"customerId": "nobody", "customerId": "ada", "featureCode": "api_calls", "value": 7, "value": 2}'
    )
    stored = done(busy.http.post(TRACK, content=sent, headers=JSON))
    assert (stored["customerId"], stored["value"]) == ("ada", 2)


@pytest.mark.parametrize(
    "value", ["99999999999999999999.999999999999", "0.000000000001", "1e0", "1.50", "-0", "0E+5", "12E-1"]
)
def test_the_largest_and_smallest_numbers_are_kept_to_the_last_digit(busy: Organization, value: str) -> None:
    stored = done(busy.http.post(TRACK, content=spelled(value=value, eventId=None).encode(), headers=JSON))
    expected = {"1e0": "1", "1.50": "1.5", "-0": "0", "0E+5": "0", "12E-1": "1.2"}.get(value, value)
    assert stored["valueDecimal"] == expected
    assert done(busy.http.get(f"{TRACK}/{stored['id']}"))["valueDecimal"] == expected


@pytest.mark.parametrize(
    "instant", ["0001-01-01T00:00:00Z", "0999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z"]
)  # fmt: skip
def test_any_past_time_is_kept(busy: Organization, instant: str) -> None:
    fields = {"timestamp": json.dumps(instant), "eventId": None}
    stored = done(busy.http.post(TRACK, content=spelled(**fields).encode(), headers=JSON))
    assert stored["ts"].rstrip("Z").ljust(23, "0")[:19] == instant[:19]
    assert done(busy.http.get(f"{TRACK}/{stored['id']}"))["ts"] == stored["ts"]


def test_a_full_limit_refuses_and_stays_full(server: Server, database_url: str) -> None:
    small = open_one(database_url, server.base_url, clock="2026-03-20T12:00:00Z")
    open_shop(small, "ada", terms=hard_limit(10))
    assert small.http.post(TRACK, content=spelled(value="10").encode(), headers=JSON).status_code == 201
    answer = small.http.post(TRACK, content=spelled(eventId='"k2"').encode(), headers=JSON)
    error = refusal(answer, 402, "included_limit_reached")
    assert error["details"] == {"current": 10, "included": 10, "remaining": 0}
    assert used(small) == 10
    small.http.close()


# Addresses, queries, headers ------------------------------------------------------------------------------

PAGED = [
    "customers",
    "usage/events",
    "usage/late-events",
    "invoices",
    "transactions",
    "api-keys",
    "simulations",
    "ai/models",
    "ai/prices",
]
BAD_LIMITS = ["0", "-1", "101", "1.5", "ten", "", " 5", "1e1", "²", "00000000199", "9" * 400]
BAD_CURSORS = ["", "next", "1", "ftr_" + "0" * 26, "cus_", "2026-01-01T00:00:00Z", "a\0"]


@pytest.mark.parametrize("path", PAGED)
def test_a_bad_limit_or_cursor_is_refused(shop: Organization, path: str) -> None:
    for name, values in (("limit", BAD_LIMITS), ("cursor", BAD_CURSORS)):
        for value in values:
            refusal(shop.http.get(f"{API}/{path}", params={name: value}), 400, "validation_error", name)


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("plans", {"includePrivate": "maybe"}, "includePrivate"),
        ("subscriptions", {"status": "happy"}, "status"),
        ("invoices", {"status": "happy"}, "status"),
        ("transactions", {"status": "happy"}, "status"),
        ("invoices", {"subscriptionId": "1"}, "subscriptionId"),
        ("ai/models", {"search": "m" * 201}, "search"),
        ("feature-access", {}, "customerId"),
        ("feature-access", {"customerId": ""}, "customerId"),
        ("feature-access/api_calls", {}, "customerId"),
        ("subscriptions/active", {}, "customerId"),
    ],
)
def test_a_bad_query_is_refused(shop: Organization, path: str, query: dict[str, str], field: str) -> None:
    refusal(shop.http.get(f"{API}/{path}", params=query), 400, "validation_error", field)


@pytest.mark.parametrize(
    "path", ["usage/events", "usage/late-events", "invoices", "subscriptions", "feature-access"]
)
def test_a_list_of_nobody_is_refused(shop: Organization, path: str) -> None:
    answer = shop.http.get(f"{API}/{path}", params={"customerId": "nobody"})
    refusal(answer, 404, "customer_not_found")


WITH_PATH = [operation for operation in OPERATIONS if "{" in operation.path]
ROUTES = sorted({operation.path for operation in OPERATIONS})


def address(path: str, value: str) -> str:
    """The route with every parameter of its path replaced."""
    for name in ("id", "code", "priceId", "featureId", "lineId", "model"):
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, path
    return API + path


@pytest.mark.parametrize("operation", WITH_PATH, ids=lambda each: each.name)
def test_no_address_may_hold_a_nul(shop: Organization, operation: Any) -> None:
    answer = shop.http.request(operation.method, address(operation.path, "a%00b"), content=b"{}")
    refusal(answer, 400, "validation_error")
    still_works(shop, answer)


STRANGE = ["%zz", "%", "%f", "%ff%fe", "%c0%80", "%ed%a0%80", "%F0%9F%8E%88", "%2e%2e", "%2F", "x" * 5000]
STRANGE += ["'", "%22", "%25s", "*", "%0a", "%09"]


@pytest.mark.parametrize("operation", WITH_PATH, ids=lambda each: each.name)
def test_a_strange_address_names_nothing(shop: Organization, operation: Any) -> None:
    body = {name: good for name, (_, good) in GOOD.items()}.get(operation.name, {})
    for text in STRANGE:
        answer = shop.http.request(operation.method, address(operation.path, text), json=body)
        assert 400 <= answer.status_code < 500, f"{text}: {answer.text}"
        refusal(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize(
    ("path", "name"),
    [(each.path, name) for each in OPERATIONS if each.method == "GET" and "{" not in each.path for name in each.query],
)  # fmt: skip
def test_no_query_may_hold_a_nul(shop: Organization, path: str, name: str) -> None:
    answer = shop.http.get(f"{API}{path}?{name}=a%00b")
    refusal(answer, 400, "validation_error", name)
    still_works(shop, answer)


@pytest.mark.parametrize(
    "query", ["?%00=1", "?limit=%ff", "?cursor=%zz", "?search=%ed%a0%80", "?&&==&%", "?limit=5&limit=0"]
)
def test_a_strange_query_is_no_error_of_ours(shop: Organization, query: str) -> None:
    answer = shop.http.get(f"{API}/customers{query}")
    assert answer.status_code in (200, 400), answer.text
    json_of(answer)


@pytest.mark.parametrize("path", ROUTES)
def test_a_method_that_a_route_does_not_know_is_405(shop: Organization, path: str) -> None:
    known = {each.method for each in OPERATIONS if each.path == path} | {
        method for each in OPERATIONS for method, also in each.also if also == path
    }
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - known:
        answer = shop.http.request(method, address(path, "x"))
        if method == "POST" and path == "/usage/events":
            continue  # the hot route
        if answer.status_code == 404:  # the path is one of another route as well: /features/manage
            continue
        refusal(answer, 405, "method_not_allowed")
        assert known & set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1", "/api/v1/", "/api/v2/customers", "/nothing", f"{API}/nothing", f"{API}/customers/", f"{API}/customers/ada/x", f"{API}//customers", f"{API}/usage/events/", "/API/V1/customers", "/%00"],
)  # fmt: skip
def test_a_route_there_is_not_is_404(shop: Organization, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = shop.http.request(method, path)
        refusal(answer, 404, "not_found")
        still_works(shop, answer)


@pytest.mark.parametrize("version", ["banana", "", "2026", "2026-8-27", "2026-08-27T00:00:00Z", "v1"])
def test_a_version_is_a_date(shop: Organization, version: str) -> None:
    headers = JSON | {"commet-version": version}
    for method, path in (
        ("GET", "customers"),
        ("POST", "customers"),
        ("POST", "usage/events"),
        ("POST", "usage/events/batch"),
        ("POST", "usage/events/bulk"),
        ("POST", "usage/events/stream"),
        ("POST", "events"),
    ):
        answer = shop.http.request(method, f"{API}/{path}", content=spelled().encode(), headers=headers)
        refusal(answer, 400, "validation_error", "commet-version")


@pytest.mark.parametrize("name", [*sorted(GOOD), "track", "trackBatch"])
def test_an_idempotency_key_has_1_to_255_characters(shop: Organization, name: str) -> None:
    for key in ("", "k" * 256):
        if name in GOOD:
            answer = send(shop, name, GOOD[name][1], **{"Idempotency-Key": key})
        else:
            path = TRACK if name == "track" else BATCH
            answer = shop.http.post(path, content=spelled().encode(), headers=JSON | {"Idempotency-Key": key})
        refusal(answer, 400, "validation_error", "Idempotency-Key")


# Connections ----------------------------------------------------------------------------------------------


def test_one_connection_lives_through_all_of_it(shop: Organization) -> None:
    with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}) as caller:
        first = line(caller.get(f"{API}/features"))
        for body in NO_JSON.values():
            for path in (TRACK, BATCH, f"{API}/customers"):
                assert line(caller.post(path, content=body, headers=JSON)) == first
        for path in ("/nothing", f"{API}/customers/%00", f"{API}/customers/"):
            assert line(caller.get(path)) == first
        assert line(caller.delete(f"{API}/customers")) == first
        assert line(caller.get(f"{API}/features")) == first


def test_a_connection_survives_413_with_a_length_and_in_chunks(shop: Organization, wire: Wire) -> None:
    for path in (TRACK, f"{API}/customers"):
        wire.socket.sendall(head(shop, "POST", path, "content-length: 3000000") + b"x" * 3_000_000)
        assert wire.answer()[0] == 413
        wire.socket.sendall(head(shop, "POST", path, *CHUNKED) + chunked(*[b"x" * 100_000] * 30))
        assert wire.answer()[0] == 413
        wire.socket.sendall(head(shop, "GET", f"{API}/features"))
        status, headers, body = wire.answer()
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(body)["object"] == "list"


def test_whoever_hangs_up_half_way_disturbs_nobody(shop: Organization, server: Server) -> None:
    for path in (TRACK, f"{API}/customers"):
        gone = Wire(server)
        gone.socket.sendall(head(shop, "POST", path, "content-length: 100") + b'{"email"')
        gone.close()
    assert shop.http.get(f"{API}/features").status_code == 200


@pytest.mark.parametrize("fields", ["content-length: -1", "content-length: x", "transfer-encoding: nonsense"])
def test_a_broken_head_is_refused_and_the_server_lives_on(
    shop: Organization, wire: Wire, fields: str
) -> None:
    wire.socket.sendall(head(shop, "POST", TRACK, fields) + b"{}")
    assert wire.reader.readline().split()[1] == b"400"
    assert shop.http.get(f"{API}/features").status_code == 200


def test_a_key_of_strange_bytes_is_no_key(server: Server, wire: Wire) -> None:
    for method, path in (("GET", f"{API}/features"), ("POST", TRACK)):
        request = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nx-api-key: ck_".encode()
        wire.socket.sendall(request + b"\xff\xfe\x80\r\n\r\n{}")
        status, headers, body = wire.answer()
        assert (status, json.loads(body)["code"]) == (401, "unauthorized")
        assert headers["www-authenticate"] == "Bearer"
