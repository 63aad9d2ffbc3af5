"""Organizations are apart: with B's key, nothing of A can be read, changed or even told to exist."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tallystick.api.operations import Operation
from tallystick.api.routes import OPERATIONS
from tests.conftest import MakeOrganization, Organization, Server, open_one
from tests.scenarios.prepaid import add_pack, add_prepaid_plan, buy, ledger, open_prepaid, top_up
from tests.scenarios.wire import everything, json_of, refusal
from tests.shop import API, add_customer, add_feature, done, open_shop, overage, subscribe, track

CLOCK = "2026-03-20T12:00:00Z"
NEVER_MADE = "0" * 26
SIMULATED = {"start": "2026-03-20T11:00:00Z", "end": CLOCK}


@dataclass
class Two:
    """`a` has everything there is; `b` a plan of its own with the same codes, and nobody on it."""

    a: Organization
    b: Organization
    ids: dict[str, str]


@pytest.fixture(scope="module")
def two(server: Server, database_url: str) -> Iterator[Two]:
    a = open_one(database_url, server.base_url, clock=CLOCK)
    b = open_one(database_url, server.base_url, clock=CLOCK)
    open_shop(a, "ada")
    add_feature(a, "only_a")
    subscribe(a, "eve")
    open_prepaid(a)
    held, pack = subscribe(a, "zoe", "credits"), add_pack(a)
    done(buy(a, held, pack))
    event = done(track(a, "ada", "secret", value=3))
    done(a.http.post(f"{API}/test-clock", json={"frozenTime": "2026-05-01T00:00:00Z"}))
    done(track(a, "ada", "late", timestamp="2026-03-21T00:00:00Z"))
    open_shop(b, terms=overage("0.01"))
    add_customer(b, "bob")
    plan = done(a.http.get(f"{API}/plans/pro"))
    invoices = done(a.http.get(f"{API}/invoices", params={"customerId": "ada"}))["data"]
    lines = [
        (invoice["id"], line["id"])
        for invoice in invoices
        for line in done(a.http.get(f"{API}/invoices/{invoice['id']}"))["lineItems"]
        if line["lineType"] == "feature_overage"
    ]
    ids = {
        "plan": plan["id"],
        "price": plan["prices"][0]["id"],
        "feature": done(a.http.get(f"{API}/features/api_calls"))["id"],
        "customer": done(a.http.get(f"{API}/customers/ada"))["id"],
        "subscription": invoices[0]["subscriptionId"],
        "event": event["id"],
        "invoice": lines[0][0],
        "line": lines[0][1],
        "transaction": done(a.http.get(f"{API}/transactions"))["data"][0]["id"],
        "key": done(a.http.get(f"{API}/api-keys"))["data"][0]["id"],
        "ai_price": done(a.http.post(f"{API}/ai/prices", json=PRICED | {"model": "only-as"}))["id"],
        "ai_alias": done(a.http.post(f"{API}/ai/aliases", json={"alias": "as-own", "model": "only-as"}))[
            "id"
        ],
        "correction": done(a.http.post(f"{API}/usage/corrections", json=CORRECTED | {"customerId": "ada"}))[
            "id"
        ],
        "pack": pack["id"],
        "reservation": done(
            a.http.post(
                f"{API}/usage/reservations",
                json={"customerId": "zoe", "featureCode": "api_calls", "quantity": 1},
            )
        )["id"],
        "entry": ledger(a, held)[0]["id"],
        "happened": done(a.http.get(f"{API}/domain-events"))["data"][0]["id"],
        "simulation": done(
            a.http.post(f"{API}/simulations", json=SIMULATED | {"end": "2026-05-01", "planId": plan["id"]})
        )["id"],
    }
    yield Two(a, b, ids)
    a.http.close()
    b.http.close()


@dataclass(frozen=True)
class Case:
    """How B reaches for what is A's: the path, the query, the body, and what B is told."""

    path: str
    code: str | None = None  # the refusal; None: an answer about B's own things only
    query: dict[str, str] | None = None
    body: dict[str, Any] | None = None
    status: int = 404


CORRECTED: dict[str, Any] = {
    "featureCode": "api_calls",
    "start": "2026-03-21T00:00:00Z",
    "end": "2026-03-22T00:00:00Z",
    "events": [{"timestamp": "2026-03-21T00:00:00Z", "value": 1}],
}
PRICED = {"inputPerMillion": "1", "outputPerMillion": "2"}
THEIR_EVENT = {"customerId": "{customer}", "featureCode": "api_calls"}
CASES: dict[str, Case] = {
    "customers.create": Case("/customers", body={"id": "ada", "email": "b@example.com"}),
    "customers.createBatch": Case("/customers/batch", body={"customers": [{"id": "eve", "email": "b@example.com"}]}),
    "customers.list": Case("/customers", query={"externalId": "nobody"}),
    "customers.get": Case("/customers/{customer}", "customer_not_found"),
    "customers.update": Case("/customers/{customer}", "customer_not_found", body={"email": "b@example.com"}),
    "features.create": Case("/features", body={"name": "Mine", "code": "mine", "type": "usage"}),
    "features.list": Case("/features", "customer_not_found", query={"customerId": "{customer}"}),
    "features.get": Case("/features/only_a", "feature_not_found"),
    "features.update": Case("/features/only_a", "feature_not_found", body={"name": "Taken"}),
    "features.delete": Case("/features/only_a", "feature_not_found"),
    "plans.create": Case("/plans", body={"name": "Mine", "code": "mine"}),
    "plans.list": Case("/plans", query={"includePrivate": "true"}),
    "plans.get": Case("/plans/{plan}", "plan_not_found"),
    "plans.update": Case("/plans/{plan}", "plan_not_found", body={"name": "Taken"}),
    "plans.delete": Case("/plans/{plan}", "plan_not_found"),
    "plans.setVisibility": Case("/plans/{plan}/visibility", "plan_not_found", body={"isPublic": False}),
    "plans.addPrice": Case("/plans/{plan}/prices", "plan_not_found", body={"billingInterval": "yearly", "price": 1}),
    "plans.updatePrice": Case("/plans/pro/prices/{price}", "price_not_found", body={"price": 1}),
    "plans.deletePrice": Case("/plans/pro/prices/{price}", "price_not_found"),
    "plans.setDefaultPrice": Case("/plans/pro/prices/{price}/default", "price_not_found", body={}),
    "plans.addFeature": Case("/plans/pro/features", "feature_not_found", body={"featureId": "{feature}"}),
    "plans.updateFeature": Case("/plans/pro/features/{feature}", "feature_not_found", body={"unlimited": True}),
    "plans.removeFeature": Case("/plans/pro/features/{feature}", "feature_not_found"),
    "subscriptions.create": Case(
        "/subscriptions", "plan_not_found", body={"customerId": "bob", "planId": "{plan}"}
    ),
    "subscriptions.getActive": Case("/subscriptions/active", "customer_not_found", query={"customerId": "{customer}"}),
    "subscriptions.list": Case("/subscriptions", "customer_not_found", query={"customerId": "{customer}"}),
    "subscriptions.get": Case("/subscriptions/{subscription}", "subscription_not_found"),
    "subscriptions.upcomingInvoice": Case(
        "/subscriptions/{subscription}/upcoming-invoice", "subscription_not_found"
    ),
    "subscriptions.cancel": Case(
        "/subscriptions/{subscription}/cancel", "subscription_not_found", body={"immediate": True}
    ),
    "subscriptions.uncancel": Case("/subscriptions/{subscription}/uncancel", "subscription_not_found", body={}),
    "creditPacks.create": Case("/credit-packs", body={"name": "Fifty", "credits": 1, "price": 1}),
    "creditPacks.list": Case("/credit-packs"),
    "creditPacks.update": Case("/credit-packs/{pack}", "credit_pack_not_found", body={"price": 1}),
    "creditPacks.delete": Case("/credit-packs/{pack}", "credit_pack_not_found"),
    "subscriptions.purchaseCredits": Case(
        "/subscriptions/{subscription}/credits", "subscription_not_found", body={"creditPackId": "{pack}"}
    ),
    "subscriptions.topupBalance": Case(
        "/subscriptions/{subscription}/balance/topup", "subscription_not_found", body={"amount": 100}
    ),
    "subscriptions.adjustBalance": Case(
        "/subscriptions/{subscription}/balance/adjust", "subscription_not_found", body={"amount": 100}
    ),
    "subscriptions.ledger": Case("/subscriptions/{subscription}/ledger", "subscription_not_found"),
    "customers.ledger": Case("/customers/{customer}/ledger", "customer_not_found"),
    "domainEvents.list": Case("/domain-events", query={"type": "credits.granted"}),
    "usage.check": Case(
        "/usage/check", "customer_not_found", body={"customerId": "{customer}", "featureCode": "api_calls"}
    ),
    "usage.set": Case(
        "/usage", "customer_not_found", body={"customerId": "{customer}", "featureCode": "api_calls", "value": 0}
    ),
    "usage.summary": Case(
        "/usage/summary",
        "customer_not_found",
        query={"customerId": "{customer}", "featureCode": "api_calls", "window": "day", "groupBy": "region"},
    ),
    "usage.list": Case("/usage/events", "customer_not_found", query={"customerId": "{customer}"}),
    "usage.get": Case("/usage/events/{event}", "not_found"),
    "usage.void": Case("/usage/events/{event}", "not_found", body={}),
    "usage.correct": Case(
        "/usage/corrections", "customer_not_found", body=CORRECTED | {"customerId": "{customer}"}
    ),
    "usage.listCorrections": Case("/usage/corrections", "customer_not_found", query={"customerId": "{customer}"}),
    "usage.getCorrection": Case("/usage/corrections/{correction}", "not_found"),
    "usage.revertCorrection": Case("/usage/corrections/{correction}/revert", "not_found", body={}),
    "usage.listLateEvents": Case("/usage/late-events", "customer_not_found", query={"customerId": "{customer}"}),
    "featureAccess.get": Case(
        "/feature-access/api_calls", "customer_not_found", query={"customerId": "{customer}"}
    ),
    "featureAccess.list": Case("/feature-access", "customer_not_found", query={"customerId": "{customer}"}),
    "invoices.list": Case("/invoices", "customer_not_found", query={"customerId": "{customer}"}),
    "invoices.get": Case("/invoices/{invoice}", "invoice_not_found"),
    "invoices.lineEvents": Case("/invoices/{invoice}/lines/{line}/events", "invoice_not_found"),
    "invoices.evidence": Case("/invoices/{invoice}/evidence", "invoice_not_found"),
    "invoices.verify": Case("/invoices/{invoice}/verify", "invoice_not_found", body={}),
    "invoices.explainLine": Case("/invoices/{invoice}/lines/{line}/explain", "invoice_not_found"),
    "simulations.create": Case(
        "/simulations", "validation_error", body=SIMULATED | {"planCode": "pro", "customers": ["{customer}"]}, status=400
    ),
    "simulations.list": Case("/simulations"),
    "simulations.get": Case("/simulations/{simulation}", "simulation_not_found"),
    "usage.reserve": Case(
        "/usage/reservations",
        "customer_not_found",
        body={"customerId": "{customer}", "featureCode": "api_calls", "quantity": 1},
    ),
    "usage.getReservation": Case("/usage/reservations/{reservation}", "reservation_not_found"),
    "usage.settleReservation": Case(
        "/usage/reservations/{reservation}/settle", "reservation_not_found", body={"value": 1}
    ),
    "usage.releaseReservation": Case(
        "/usage/reservations/{reservation}/release", "reservation_not_found", body={}
    ),
    "ai.costs": Case("/ai/costs", "customer_not_found", query={"customerId": "{customer}"}),
    "ai.listModels": Case("/ai/models", query={"search": "gpt-4o"}),
    "ai.getModel": Case("/ai/models/only-as", "model_not_found"),
    "ai.createPrice": Case("/ai/prices", body=PRICED | {"model": "mine"}),
    "ai.listPrices": Case("/ai/prices", query={"model": "only-as"}),
    "ai.deletePrice": Case("/ai/prices/{ai_price}", "price_not_found"),
    "ai.createAlias": Case("/ai/aliases", "model_not_found", body={"alias": "mine", "model": "only-as"}),
    "ai.listAliases": Case("/ai/aliases"),
    "ai.deleteAlias": Case("/ai/aliases/{ai_alias}", "not_found"),
    "rating.preview": Case(
        "/rating/preview", body={"price": {"model": "per_unit", "unitAmount": "0.01"}, "quantity": "5"}
    ),
    "transactions.list": Case("/transactions", query={"customerEmail": "ada@example.com"}),
    "transactions.get": Case("/transactions/{transaction}", "transaction_not_found"),
    "testClock.get": Case("/test-clock"),
    "testClock.advance": Case("/test-clock", body={"advanceDays": 1}, status=202),
    "testClock.processBilling": Case("/test-clock/process-billing", "endpoint_deprecated", body={}, status=410),
    "apiKeys.create": Case("/api-keys", body={"name": "Mine"}),
    "apiKeys.list": Case("/api-keys"),
    "apiKeys.delete": Case("/api-keys/{key}", "api_key_not_found"),
    "usage.track": Case(
        "/usage/events", "customer_not_found", body={"customerId": "{customer}", "featureCode": "api_calls"}
    ),
    "usage.trackBatch": Case("/usage/events/batch", body={"events": [THEIR_EVENT]}),
    "usage.trackBulk": Case("/usage/events/bulk", body={"events": [THEIR_EVENT]}),
    "usage.trackStream": Case("/usage/events/stream", body=THEIR_EVENT),
    "usage.trackCloudEvents": Case(
        "/events",
        "customer_not_found",
        body={"specversion": "1.0", "id": "1", "source": "b", "type": "api_calls", "subject": "{customer}"},
    ),
}  # fmt: skip
METHODS = {operation.name: operation.method for operation in OPERATIONS} | {
    "usage.track": "POST",
    "usage.trackBatch": "POST",
    "usage.trackBulk": "POST",
    "usage.trackStream": "POST",
    "usage.trackCloudEvents": "POST",
}
STREAMED = "usage.trackStream"
SEVERAL = ("usage.trackBatch", "usage.trackBulk")


def filled(value: Any, ids: dict[str, str]) -> Any:
    match value:
        case str():
            return value.format(**ids)
        case dict():
            return {name: filled(each, ids) for name, each in value.items()}
        case list():
            return [filled(each, ids) for each in value]
    return value


def reach(caller: httpx.Client, name: str, case: Case, ids: dict[str, str]) -> httpx.Response:
    return caller.request(
        METHODS[name],
        API + filled(case.path, ids),
        params=filled(case.query, ids),
        json=filled(case.body, ids) if case.body is not None else None,
    )


def test_every_operation_has_a_case() -> None:
    assert CASES.keys() == METHODS.keys(), "say what another organization's key is told"


@pytest.mark.parametrize("name", CASES)
def test_another_organizations_key_reaches_nothing(two: Two, name: str) -> None:
    case = CASES[name]
    before = everything(two.a)
    answer = reach(two.b.http, name, case, two.ids)
    if case.code is not None:
        refusal(answer, case.status, case.code)
    else:
        assert answer.status_code in (200, 201, 202), answer.text
        if name != STREAMED:
            json_of(answer)
        echoed = (
            {two.ids["customer"]} if name in SEVERAL or name == STREAMED else set()
        )  # what was sent comes back
        assert not [each for each in two.ids.values() if each in answer.text and each not in echoed]
    assert everything(two.a) == before


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.code and case.status in (400, 404)]
)
def test_what_is_anothers_is_told_from_what_never_was_by_nothing(two: Two, name: str) -> None:
    """A guess at an id must not say whether it was a good one."""
    case = CASES[name]
    never = {kind: identity[: identity.index("_") + 1] + NEVER_MADE for kind, identity in two.ids.items()}
    theirs, nobodys = (reach(two.b.http, name, case, ids) for ids in (two.ids, never))

    def said(answer: httpx.Response, ids: dict[str, str]) -> str:
        text = answer.text
        for identity in ids.values():
            text = text.replace(identity, "<id>")
        return text

    assert said(theirs, two.ids) == said(nobodys, never)
    assert theirs.status_code == nobodys.status_code


@pytest.mark.parametrize("name", SEVERAL)
def test_a_batch_for_anothers_customer_stores_nothing(two: Two, name: str) -> None:
    answer = json_of(reach(two.b.http, name, CASES[name], two.ids))
    assert answer["successful"] == []
    assert [each["code"] for each in answer["failed"]] == ["customer_not_found"]


def test_a_stream_for_anothers_customer_stores_nothing(two: Two) -> None:
    answer = reach(two.b.http, STREAMED, CASES[STREAMED], two.ids)
    (line,) = map(json.loads, answer.text.splitlines())
    assert (line["line"], line["error"]["code"]) == (1, "customer_not_found")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"planId": "{plan}"}, "planId"),
        ({"planCode": "pro", "customers": ["bob", "{customer}"]}, "customers[1]"),
        ({"planFeatures": [{"planId": "{plan}", "featureCode": "api_calls", "unlimited": True}]}, "planFeatures[0].planId"),
        ({"planFeatures": [{"planCode": "pro", "featureId": "{feature}", "unlimited": True}]}, "planFeatures[0].featureId"),
        ({"planFeatures": [{"planCode": "pro", "featureCode": "only_a", "unlimited": True}]}, "planFeatures[0].featureCode"),
    ],
)  # fmt: skip
def test_nothing_of_anothers_can_be_simulated(two: Two, asked: dict[str, Any], field: str) -> None:
    before = everything(two.b)
    answer = two.b.http.post(f"{API}/simulations", json=filled(SIMULATED | asked, two.ids))
    assert "there is no" in refusal(answer, 400, "validation_error", field)["message"]
    assert everything(two.b) == before


@pytest.mark.parametrize(
    "path",
    [
        "customers",
        "usage/events",
        "usage/late-events",
        "invoices",
        "transactions",
        "subscriptions",
        "simulations",
        "credit-packs",
        "domain-events",
        "ai/prices",
        "ai/aliases",
    ],
)
def test_lists_hold_only_what_is_ones_own(two: Two, path: str) -> None:
    theirs = {each["id"] for each in done(two.a.http.get(f"{API}/{path}"))["data"]}
    ours = {each["id"] for each in done(two.b.http.get(f"{API}/{path}"))["data"]}
    assert theirs
    assert not theirs & ours


@pytest.mark.parametrize(
    ("path", "name"),
    [("invoices", "invoice"), ("usage/events", "event"), ("usage/late-events", "event"), ("customers", "customer"), ("transactions", "transaction"), ("api-keys", "key"), ("simulations", "simulation"), ("usage/corrections", "correction"), ("domain-events", "happened"), ("ai/prices", "ai_price")],
)  # fmt: skip
def test_anothers_cursor_opens_nothing(two: Two, path: str, name: str) -> None:
    listed = done(two.b.http.get(f"{API}/{path}", params={"cursor": two.ids[name]}))
    assert not {each["id"] for each in listed["data"]} & set(two.ids.values())


def test_anothers_pack_is_not_sold_and_anothers_key_buys_nothing(
    make_organization: MakeOrganization,
) -> None:
    """Packs, cursors and Idempotency-Keys are each organization's own, for customers of the same name too."""
    one, other = make_organization(), make_organization()
    held = {}
    for each in (one, other):
        add_feature(each)
        open_prepaid(each)
        held[each.id] = subscribe(each, "ada", "balance")
        done(top_up(each, held[each.id], 100, "same"))
        assert [entry["cause"] for entry in ledger(each, held[each.id])] == ["grant", "topup"]
    refusal(top_up(other, held[one.id], 100), 404, "subscription_not_found")
    theirs = ledger(one, held[one.id])[-1]["id"]
    page = done(
        other.http.get(f"{API}/customers/ada/ledger", params={"cursor": theirs})
    )  # older than a moment of somebody else's: still only one's own
    assert {entry["subscriptionId"] for entry in page["data"]} <= {held[other.id]["id"]}
    add_prepaid_plan(other, "free", "credits", {"includedCredits": 5}, price=None)
    free = subscribe(other, "bob", "free")
    refusal(buy(other, free, add_pack(one)), 404, "credit_pack_not_found")


def test_a_filter_by_anothers_subscription_finds_nothing(two: Two) -> None:
    listed = done(two.b.http.get(f"{API}/invoices", params={"subscriptionId": two.ids["subscription"]}))
    assert listed["data"] == []


def test_the_same_names_live_side_by_side(make_organization: MakeOrganization) -> None:
    """The same customer id, feature code, plan code and event key in two organizations are strangers."""
    one, other = make_organization(), make_organization()
    for each in (one, other):
        open_shop(each, "ada")
    assert track(one, "ada", "req_1", value=3).status_code == 201
    assert track(other, "ada", "req_1", value=5).status_code == 201
    for each, used in ((one, 3), (other, 5)):
        access = done(each.http.get(f"{API}/feature-access/api_calls", params={"customerId": "ada"}))
        assert access["consumption"]["unitsUsed"] == used


def test_the_same_idempotency_key_in_two_organizations_is_two_requests(
    make_organization: MakeOrganization,
) -> None:
    one, other = make_organization(), make_organization()
    made = [
        done(each.http.post(f"{API}/customers", json={"email": "a@b.c"}, headers={"Idempotency-Key": "same"}))
        for each in (one, other)
    ]
    assert made[0]["id"] != made[1]["id"]
    assert len(done(other.http.get(f"{API}/customers"))["data"]) == 1


def test_sandbox_and_live_are_separate(make_organization: MakeOrganization) -> None:
    sandbox, live = make_organization(), make_organization(mode="live")
    assert sandbox.api_key.startswith("ck_sandbox_")
    assert live.api_key.startswith("ck_live_")
    for each, is_live in ((sandbox, False), (live, True)):
        feature = add_feature(each)
        customer = add_customer(each, "ada")
        assert (feature["livemode"], customer["livemode"]) == (is_live, is_live)
        assert done(each.http.get(f"{API}/customers/ada"))["id"] == customer["id"]
        assert len(done(each.http.get(f"{API}/customers"))["data"]) == 1
    for method in ("GET", "POST"):
        answer = live.http.request(method, f"{API}/test-clock", json={"advanceDays": 1})
        refusal(answer, 403, "sandbox_only")


def fits_path(operation: Operation) -> str:
    path = operation.path
    for name in ("id", "code", "priceId", "featureId", "lineId", "model"):
        path = path.replace(f"{{{name}}}", "x")
    return API + path


ADDRESSES = [(each.method, fits_path(each)) for each in OPERATIONS] + [
    ("POST", f"{API}/usage/events"),
    ("POST", f"{API}/usage/events/batch"),
    ("POST", f"{API}/usage/events/stream"),
]


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_without_a_key_nothing_answers(server: Server, method: str, path: str) -> None:
    with httpx.Client(base_url=server.base_url) as stranger:
        for headers in (
            {},
            {"x-api-key": ""},
            {"x-api-key": "ck_sandbox_guess"},
            {"authorization": "Basic eDp5"},
        ):
            for body in (b"", b"{}", b"{"):
                answer = stranger.request(method, path, headers=headers, content=body)
                refusal(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.also], ids=lambda each: each.name)
def test_older_spellings_of_a_route_need_a_key_as_well(server: Server, operation: Operation) -> None:
    for method, path in operation.also:
        answer = httpx.request(method, server.base_url + API + path.replace("{", "").replace("}", ""))
        refusal(answer, 401, "unauthorized")
