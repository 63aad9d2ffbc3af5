"""A business that sells beforehand: plans of credits and of a balance, packs, and what a wallet comes to."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import httpx

from tallystick.core import ids
from tests.audit import select
from tests.conftest import Organization
from tests.shop import API, Json, add_plan, done, every, own_id

POOLS = {"plan_credits", "purchased_credits", "balance", "held"}


TERMS: Final[dict[str, Json]] = {
    "credits": {"creditsPerUnit": 1},
    "balance": {"overage": {"unitPriceDecimal": "0.01"}},
}


def add_prepaid_plan(
    shop: Organization, code: str, model: str, grants: Json, *, price: int | None = 2900, **more: Any
) -> Json:
    """`api_calls` at 1 credit, or 0.01 of the balance, a unit."""
    promises = {"api_calls": TERMS[model]}
    return add_plan(shop, code, price=price, model=model, grants=grants, promises=promises, **more)


def open_prepaid(shop: Organization, *, credits: int = 100, balance: int = 100_000) -> None:
    """The plans `credits` and `balance` (in rate units), blocking, of `api_calls` that is there already."""
    add_prepaid_plan(shop, "credits", "credits", {"includedCredits": credits})
    add_prepaid_plan(shop, "balance", "balance", {"includedBalance": balance}, blockOnExhaustion=True)


def add_pack(shop: Organization, name: str = "Fifty", *, credits: int = 50, price: int = 500) -> Json:
    return done(
        shop.http.post(f"{API}/credit-packs", json={"name": name, "credits": credits, "price": price})
    )


def buy(shop: Organization, held: Json, pack: Json, key: str | None = None) -> httpx.Response:
    return post(shop, held, "credits", {"creditPackId": pack["id"]}, key)


def top_up(shop: Organization, held: Json, amount: int, key: str | None = None) -> httpx.Response:
    return post(shop, held, "balance/topup", {"amount": amount}, key)


def adjust(shop: Organization, held: Json, amount: int, **more: Any) -> httpx.Response:
    return post(shop, held, "balance/adjust", {"amount": amount, **more})


def post(shop: Organization, held: Json, path: str, body: Json, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return shop.http.post(f"{API}/subscriptions/{held['id']}/{path}", json=body, headers=headers)


def wallet(database_url: str, held: Json) -> tuple[Any, ...]:
    """(the pool that each period fills, purchased credits) of a subscription, as they stand."""
    (found,) = select(
        database_url,
        "SELECT plan, purchased FROM wallets WHERE subscription_id = %s",
        own_id(ids.SUBSCRIPTION, held["id"]),
    )
    return found


def ledger(shop: Organization, held: Json) -> list[Json]:
    """Oldest first."""
    return list(every(shop, f"{API}/subscriptions/{held['id']}/ledger"))[::-1]


def told(shop: Organization, type_: str) -> list[Json]:
    """The data of what was recorded of a type, oldest first."""
    return [each["data"] for each in every(shop, f"{API}/domain-events?type={type_}")][::-1]


def sums(entries: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    """What every account comes to."""
    found: dict[str, Decimal] = {}
    for each in entries:
        amount = Decimal(each["amountDecimal"])
        found[each["from"]] = found.get(each["from"], Decimal(0)) - amount
        found[each["to"]] = found.get(each["to"], Decimal(0)) + amount
    return found


def books_balance(database_url: str, shop: Organization) -> None:
    """Every pool of every wallet is the sum of its entries, and all accounts together come to nothing."""
    wallets = select(
        database_url,
        """SELECT customer_id, subscription_id, model, plan, purchased, held FROM wallets
            WHERE organization_id = %s""",
        own_id(ids.ORGANIZATION, shop.id),
    )
    assert wallets
    for customer, subscription, model, plan, purchased, reserved in wallets:
        shown = {"id": ids.show(ids.SUBSCRIPTION, subscription)}
        entries = ledger(shop, shown)
        accounts = sums(entries)
        pool = "plan_credits" if model == "credits" else "balance"
        expected = {pool: plan, "purchased_credits": purchased, "held": reserved}
        assert {name: accounts.get(name, Decimal(0)) for name in expected} == expected
        assert {name for name in accounts if name in POOLS} <= set(expected)
        assert sum(accounts.values()) == 0
        of_customer = every(shop, f"{API}/customers/{ids.show(ids.CUSTOMER, customer)}/ledger")
        mine = [each for each in of_customer if each["subscriptionId"] == shown["id"]]
        assert mine[::-1] == entries
