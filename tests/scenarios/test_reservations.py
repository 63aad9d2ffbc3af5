"""Reserve, then settle: what is set aside is neither there to be spent nor gone, and what was used is paid once."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tallystick.flows.reserve import release_due
from tallystick.store import reservations
from tallystick.store.db import Database
from tests.audit import organization_id
from tests.conftest import Organization, beside_the_server
from tests.literals import at
from tests.scenarios.purses import balance_shop, cancel, fill, wallet_of
from tests.shop import API, Json, add_feature, add_plan, done, promise, refused, set_clock, subscribe, track

OPENED = "2025-06-15T10:00:00Z"
Open = Callable[[str], Organization]


@pytest.fixture
def shop(open_at: Open) -> Organization:
    """Ada has 100 credits a month, a call burns 2; Bob has 10.00, a call takes 0.01, and tokens what they cost."""
    opened = open_at(OPENED)
    for code in ("calls", "chat"):
        add_feature(opened, code)
    credits = add_plan(opened, "credits", price=1000, model="credits", grants={"includedCredits": 100})
    promise(opened, credits, "calls", creditsPerUnit=2)
    balance = add_plan(opened, "balance", price=1000, model="balance", blockOnExhaustion=True)
    promise(opened, balance, "calls", overage={"unitPrice": 100})
    promise(opened, balance, "chat", pricingMode="ai_model", margin=2000)
    own = {"model": "our-model", "inputPerMillion": "3", "outputPerMillion": "15"}
    done(opened.http.post(f"{API}/ai/prices", json={**own, "validFrom": "2020-01-01T00:00:00Z"}))
    subscribe(opened, "ada", "credits")
    subscribe(opened, "bob", "balance")
    return opened


def ask(shop: Organization, customer: str = "ada", feature: str = "calls", **more: Any) -> httpx.Response:
    body = {"customerId": customer, "featureCode": feature, **more}
    return shop.http.post(f"{API}/usage/reservations", json=body)


def settle(shop: Organization, held: Json, **used: Any) -> httpx.Response:
    return shop.http.post(f"{API}/usage/reservations/{held['id']}/settle", json=used)


def release(shop: Organization, held: Json) -> httpx.Response:
    return shop.http.post(f"{API}/usage/reservations/{held['id']}/release")


def balances(shop: Organization, customer: str = "ada") -> dict[str, int]:
    """Every account by the ledger; all of them together are always zero."""
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId={customer}"))
    found: dict[str, int] = {}
    for each in done(shop.http.get(f"{API}/subscriptions/{held['id']}/ledger?limit=100"))["data"]:
        amount = each["amount"]
        found[each["from"]] = found.get(each["from"], 0) - amount
        found[each["to"]] = found.get(each["to"], 0) + amount
    assert sum(found.values()) == 0
    return found


def test_settling_charges_what_was_used_and_gives_back_the_rest(shop: Organization) -> None:
    held = done(ask(shop, quantity=40))
    assert (held["amount"], held["status"], held["quantity"]) == (80, "held", "40")
    assert (balances(shop)["plan_credits"], balances(shop)["held"]) == (20, 80)
    error = refused(track(shop, "ada", "x", feature="calls", value=11), 402, "insufficient_credits")
    assert error["details"] == {"required": 22, "remaining": 20}
    done(track(shop, "ada", "y", feature="calls", value=10))

    settled = done(settle(shop, held, value=15))
    assert (settled["status"], settled["event"]["eventId"]) == ("settled", held["id"])
    assert (settled["event"]["consumption"]["deducted"], settled["event"]["consumption"]["remaining"]) == (
        30,
        50,
    )
    now = balances(shop)
    assert (now["plan_credits"], now["held"], now["used"]) == (50, 0, 50)
    assert refused(settle(shop, held, value=15), 409, "reservation_not_open")["details"] == {
        "status": "settled"
    }
    refused(release(shop, held), 409, "reservation_not_open")
    assert balances(shop) == now


def test_the_same_request_again_is_the_same_settlement(shop: Organization) -> None:
    held = done(ask(shop, quantity=10))
    path, headers = f"{API}/usage/reservations/{held['id']}/settle", {"Idempotency-Key": "once"}
    first = shop.http.post(path, json={"value": 3}, headers=headers)
    again = shop.http.post(path, json={"value": 3}, headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content) == (200, first.content)
    assert balances(shop)["used"] == 6


def test_tokens_are_held_by_the_most_they_may_come_to(shop: Organization) -> None:
    held = done(ask(shop, "bob", "chat", model="our-model", inputTokens=1000, maxOutputTokens=2000))
    assert held["amount"] == 396  # (30 + 300) and 20 %
    settled = done(settle(shop, held, inputTokens=1000, outputTokens=500))
    assert settled["event"]["consumption"]["deducted"] == 126
    assert balances(shop, "bob")["balance"] == 100_000 - 126


def test_released_it_is_all_there_again(shop: Organization) -> None:
    held = done(ask(shop, quantity=50))
    refused(ask(shop, quantity=1), 402, "insufficient_credits")
    assert done(release(shop, held))["status"] == "released"
    assert (balances(shop)["plan_credits"], balances(shop)["held"]) == (100, 0)
    refused(settle(shop, held, value=1), 409, "reservation_not_open")


def test_more_than_was_held_is_charged_only_when_that_is_allowed(shop: Organization) -> None:
    held = done(ask(shop, quantity=10))
    before = balances(shop)
    assert refused(settle(shop, held, value=11), 402, "reservation_exceeded")["param"] == "allowOverrun"
    assert balances(shop) == before
    refused(settle(shop, held, value=51, allowOverrun=True), 402, "insufficient_credits")
    assert balances(shop) == before
    assert done(settle(shop, held, value=50, allowOverrun=True))["event"]["consumption"]["remaining"] == 0


def test_what_nobody_settles_comes_back_by_itself(shop: Organization) -> None:
    held = done(ask(shop, quantity=50, expiresIn=60))
    set_clock(shop, "2025-06-15T10:00:59Z")
    refused(track(shop, "ada", "x", feature="calls"), 402, "insufficient_credits")
    set_clock(shop, "2025-06-15T10:01:00Z")
    assert done(track(shop, "ada", "x", feature="calls"))["consumption"]["remaining"] == 98
    assert done(shop.http.get(f"{API}/usage/reservations/{held['id']}"))["status"] == "expired"
    refused(settle(shop, held, value=1), 409, "reservation_not_open")
    assert balances(shop)["held"] == 0


@pytest.mark.parametrize("used", [0, 5, 20])
def test_a_hold_that_is_open_at_a_reset_is_held_anew(shop: Organization, used: int) -> None:
    done(track(shop, "ada", "early", feature="calls", value=10))
    set_clock(shop, "2025-07-14T23:00:00Z")
    held = done(ask(shop, quantity=20, expiresIn=7200))
    set_clock(shop, "2025-07-15T00:30:00Z")
    done(track(shop, "ada", "later", feature="calls", value=1))
    now = balances(shop)
    assert (now["plan_credits"], now["held"], now["expired"]) == (58, 40, 80)
    done(settle(shop, held, value=used))
    now = balances(shop)
    assert (now["plan_credits"], now["held"]) == (98 - 2 * used, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 1, "expiresIn": 0}, "expiresIn"),
        ({"quantity": 1, "expiresIn": 86401}, "expiresIn"),
        ({"quantity": 1, "model": "gpt-4o", "maxOutputTokens": 1}, "quantity"),
        ({"model": "gpt-4o", "inputTokens": 1}, "maxOutputTokens"),
        ({"model": "gpt-4o", "maxOutputTokens": 1}, "inputTokens"),
    ],
)
def test_a_reservation_that_makes_no_sense(shop: Organization, body: Json, field: str) -> None:
    before = balances(shop, "bob")
    assert refused(ask(shop, "bob", **body), 400, "validation_error")["param"] == field
    assert balances(shop, "bob") == before


def test_tokens_and_values_are_held_where_they_belong(shop: Organization) -> None:
    refused(ask(shop, "bob", "chat", quantity=1), 422, "pricing_mode_mismatch")
    refused(
        ask(shop, "bob", "calls", model="our-model", inputTokens=1, maxOutputTokens=1),
        422,
        "pricing_mode_mismatch",
    )
    refused(ask(shop, "bob", "chat", model="none", inputTokens=1, maxOutputTokens=1), 404, "model_not_found")
    refused(ask(shop, "nobody", quantity=1), 404, "customer_not_found")
    refused(
        shop.http.get(f"{API}/usage/reservations/rsv_00000000000000000000000000"),
        404,
        "reservation_not_found",
    )


def test_a_metered_plan_has_nothing_to_set_aside(shop: Organization) -> None:
    plan = add_plan(shop, "metered")
    promise(shop, plan, "calls", overage={"enabled": True, "unitPrice": 100})
    subscribe(shop, "cyd", "metered")
    assert refused(ask(shop, "cyd", quantity=1), 400, "validation_error")["param"] == "customerId"


def test_whose_pool_was_too_small_after_a_reset_gives_back_nothing_of_anothers(
    open_at: Open, database_url: str
) -> None:
    """The older one holds less than it asked for, since the new period grants nothing; the newer one holds all."""
    shop = open_at("2025-06-15T10:00:00Z")
    plan = balance_shop(shop, 10_000, blocks=True)
    set_clock(shop, "2025-07-14T23:59:00Z")
    older = done(ask(shop, feature="call", quantity=80, expiresIn=600))
    (price,) = done(shop.http.get(f"{API}/plans/{plan['id']}"))["prices"]
    done(shop.http.put(f"{API}/plans/{plan['id']}/prices/{price['id']}", json={"includedBalance": 0}))
    set_clock(shop, "2025-07-15T00:01:00Z")
    fill(shop, 60)
    newer = done(ask(shop, feature="call", quantity=60, expiresIn=3600))
    set_clock(shop, "2025-07-15T00:20:00Z")
    assert wallet_of(database_url, shop)["held"] == 6_000
    refused(track(shop, feature="call", value=1), 402, "insufficient_balance")
    assert done(shop.http.get(f"{API}/usage/reservations/{older['id']}"))["status"] == "expired"
    assert done(settle(shop, newer, value=60))["status"] == "settled"
    assert wallet_of(database_url, shop)["held"] == 0


def test_what_nobody_settled_expires_although_its_subscription_has_ended(
    shop: Organization, database_url: str
) -> None:
    held = done(ask(shop, quantity=10, expiresIn=60))
    cancel(shop, immediate=True)
    set_clock(shop, "2025-06-16T00:00:00Z")

    async def act(database: Database) -> list[Any]:
        await release_due(database, wall=at("2025-06-16"))
        async with database.reading() as conn:
            due = await reservations.expired(conn, wall=at("2025-06-16"), limit=100)
        return [each for each in due if each[0] == organization_id(shop)]

    assert beside_the_server(database_url, act) == []
    assert done(shop.http.get(f"{API}/usage/reservations/{held['id']}"))["status"] == "expired"
