"""Prepaid businesses, and what can be seen of a wallet behind the API: its pools, its ledger, and what was told of it."""

from decimal import Decimal
from typing import Any

from tallystick.core import ids
from tests.audit import organization_id, select
from tests.conftest import Organization
from tests.scenarios.prepaid import add_pack, buy, top_up
from tests.shop import API, Json, add_feature, add_plan, done, invoices_of, own_id, subscribe

CREDITS = {"lookup": {"creditsPerUnit": 1}, "document": {"creditsPerUnit": 20}}


def unit_price(price: str) -> Json:
    """Terms of a balance plan, in major units."""
    return {"overage": {"enabled": True, "unitPriceDecimal": price}}


def credits_shop(shop: Organization, included: int = 100, *customers: str, **more: Any) -> Json:
    """The plan `pro`: a lookup is a credit, a document twenty."""
    for code in CREDITS:
        add_feature(shop, code)
    plan = add_plan(shop, model="credits", grants={"includedCredits": included}, promises=CREDITS, **more)
    for customer in customers or ("ada",):
        subscribe(shop, customer)
    return plan


def balance_shop(
    shop: Organization, included: int | None = 100_000, *customers: str, price: int | None = 1000, **more: Any
) -> Json:
    """The plan `pro`: a call is a cent, 100 rate units of the balance; `included` in rate units."""
    add_feature(shop, "call")
    grants = {} if included is None else {"includedBalance": included}
    plan = add_plan(
        shop, model="balance", price=price, grants=grants, promises={"call": unit_price("0.01")}, **more
    )
    for customer in customers or ("ada",):
        subscribe(shop, customer)
    return plan


def wallet_of(database_url: str, shop: Organization, customer: str = "ada") -> Json:
    """The newest wallet of a customer, and the period it stands in."""
    found = select(
        database_url,
        """SELECT period_index, plan, purchased, held, refill FROM wallets
            WHERE customer_id = %s ORDER BY subscription_id DESC LIMIT 1""",
        _customer(shop, customer),
    )
    return dict(zip(("period", "plan", "purchased", "held", "refill"), found[0], strict=True))


def pools(
    database_url: str, shop: Organization, customer: str = "ada"
) -> tuple[Decimal | int, Decimal | int]:
    """(what each period fills anew, what stays)."""
    found = wallet_of(database_url, shop, customer)
    return found["plan"], found["purchased"]


def ledger_of(database_url: str, shop: Organization, customer: str = "ada") -> list[tuple[str, int, Decimal]]:
    """(cause, period, amount) of every movement, oldest first."""
    return [
        (each[0], each[1], each[2])
        for each in select(
            database_url,
            "SELECT cause, period_index, amount FROM ledger_entries WHERE customer_id = %s ORDER BY id",
            _customer(shop, customer),
        )
    ]


def everything_prepaid(database_url: str, shop: Organization) -> list[Any]:
    """All that usage could have moved, to be compared before and after what must move nothing."""
    ours = "organization_id = %s"
    of_our_customers = f"customer_id IN (SELECT id FROM customers WHERE {ours})"
    return [
        select(
            database_url,
            f"SELECT * FROM {table} WHERE {of_our_customers if table == 'events' else ours} ORDER BY 1, 2",
            organization_id(shop),
        )
        for table in ("wallets", "ledger_entries", "domain_events", "events", "ingest_batches")
    ]


def told_of(database_url: str, shop: Organization, customer: str = "ada") -> list[tuple[str, Json]]:
    """The domain events of a customer about a wallet, oldest first, without whom they are about."""
    found = select(
        database_url,
        """SELECT type, data FROM domain_events
            WHERE customer_id = %s AND type ~ '^(credits|balance)' ORDER BY id""",
        _customer(shop, customer),
    )
    for _, data in found:
        assert data["customerId"] == customer
        assert ids.read(ids.SUBSCRIPTION, data["subscriptionId"]) is not None
    return [
        (kind, {name: told for name, told in data.items() if name not in ("customerId", "subscriptionId")})
        for kind, data in found
    ]


def sell_credits(shop: Organization, credits: int, customer: str = "ada") -> None:
    """A cent a credit, charged to the saved card."""
    pack = add_pack(shop, f"{credits} credits", credits=credits, price=credits)
    done(buy(shop, _held(shop, customer), pack))


def fill(shop: Organization, cents: int, customer: str = "ada") -> None:
    """A top-up of the balance, charged to the saved card."""
    done(top_up(shop, _held(shop, customer), cents))


def _customer(shop: Organization, customer: str) -> Any:
    return own_id(ids.CUSTOMER, done(shop.http.get(f"{API}/customers/{customer}"))["id"])


def _held(shop: Organization, customer: str) -> Json:
    return done(shop.http.get(f"{API}/subscriptions/active", params={"customerId": customer}))


def cancel(shop: Organization, customer: str = "ada", **more: Any) -> Json:
    held = _held(shop, customer)
    return done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json=more))


def billed(shop: Organization, customer: str = "ada") -> list[tuple[str, list[tuple[str, int]]]]:
    """(type, [(line type, cents)]) of every invoice, oldest first."""
    return [
        (each["invoiceType"], [(line["lineType"], line["amount"]) for line in each["lineItems"]])
        for each in invoices_of(shop, customer)
    ]


def proved(shop: Organization, customer: str = "ada") -> None:
    """Every invoice derives itself again and can say in words what it asks for."""
    for invoice in invoices_of(shop, customer):
        report = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
        assert (report["status"], report["firstDifference"]) == ("verified", None), report
        for line in invoice["lineItems"]:
            path = f"{API}/invoices/{invoice['id']}/lines/{line['id']}"
            told = done(shop.http.get(f"{path}/explain"))
            assert f"{Decimal(line['amount']).scaleb(-2):.2f} {invoice['currency']}" in told["text"]
            paid = done(shop.http.get(f"{path}/events"))["data"]
            if line["lineType"] == "balance_overage":
                assert {each["consumption"]["model"] for each in paid} == {"balance"}
            else:
                assert paid == []


def consumption(deducted: str, remaining: str, model: str = "credits", *, blocked: bool = False) -> Json:
    """What an answer says an event took."""
    return {
        "model": model,
        "deducted": int(Decimal(deducted)),
        "deductedDecimal": deducted,
        "remaining": int(Decimal(remaining)),
        "remainingDecimal": remaining,
        "blocked": blocked,
    }
