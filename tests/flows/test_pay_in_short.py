"""A batch whose wallets have plenty is paid by the statement that stores it; any other, wallet in hand. Nobody can tell.

Twins live the same life: what the one sends, the other sends in the company of an event that is refused, for which all
of its batch is looked at closely.
"""

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import pytest

from tallystick.core import ids
from tests.audit import audit, select
from tests.conftest import MakeOrganization, Organization
from tests.scenarios.prepaid import books_balance, ledger, open_prepaid, told, top_up, wallet
from tests.shop import (
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    overage,
    own_id,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED = "2026-03-01T00:00:00Z"
STRANGER = {"featureCode": "api_calls", "customerId": "nobody"}
SAME = ("deducted", "deductedDecimal", "remaining", "remainingDecimal", "blocked", "model")


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """When the test is over, the books must balance."""
    made = make_organization(clock=OPENED)
    add_feature(made)
    open_prepaid(made, credits=1_000, balance=100_000)
    yield made
    books_balance(database_url, made)
    audit(database_url, made)


def twins(shop: Organization, plan: str) -> tuple[Json, Json]:
    """The subscriptions of `short` and `long`."""
    found = []
    for name in ("short", "long"):
        add_customer(shop, name)
        found.append(subscribe(shop, name, plan))
    return found[0], found[1]


def sent(shop: Organization, name: str, events: list[Json], *, closely: bool) -> list[Any]:
    """What became of each event, in order, as far as the twins can have it in common."""
    mine = [{"featureCode": "api_calls", "customerId": name, **each} for each in events]
    answer = track_batch(shop, [*mine, STRANGER] if closely else mine)
    taken = {
        each["eventId"]: {field: each["consumption"][field] for field in SAME}
        for each in answer["successful"]
    }
    failed = {
        each["data"].get("eventId"): (each["code"], each["details"].get("remaining"))
        for each in answer["failed"]
        if each["data"]["customerId"] == name
    }
    return [taken.get(each["eventId"]) or failed.get(each["eventId"]) for each in events]


def prime(shop: Organization) -> None:
    """A clock that moves makes a server forget whom it has seen."""
    for name in ("short", "long"):
        assert track(shop, name, value=1).status_code in (201, 402, 409)


def made(dice: Random, keys: Iterator[int], seen: list[str]) -> Json:
    again = seen and dice.random() < 0.2
    seen.append(dice.choice(seen) if again else f"k{next(keys)}")
    return {"eventId": seen[-1], "value": dice.choice([0, 1, 3, 8, 40])}


@pytest.mark.parametrize("plan", ["balance", "credits"])
@pytest.mark.parametrize("seed", range(4))
def test_twins_come_to_the_same(shop: Organization, database_url: str, plan: str, seed: int) -> None:
    dice, keys = Random(seed), count()
    short, long = twins(shop, plan)
    seen: list[str] = []
    for day in range(2, 12):
        set_clock(shop, f"2026-03-{day:02}T00:00:00Z" if day < 8 else f"2026-04-{day:02}T00:00:00Z")
        if plan == "balance" and day == 6:
            for each in (short, long):
                done(top_up(shop, each, 50_000))
        prime(shop)
        for _ in range(3):
            events = [made(dice, keys, seen) for _ in range(dice.randrange(1, 8))]
            one, other = sent(shop, "short", events, closely=False), sent(shop, "long", events, closely=True)
            assert one == other, day
            assert wallet(database_url, short) == wallet(database_url, long), day
    assert [_plainly(each) for each in ledger(shop, short)] == [_plainly(each) for each in ledger(shop, long)]
    for type_ in (f"{plan}.low", f"{plan}.depleted", "credits.granted", "credits.expired"):
        heard = [each["customerId"] for each in told(shop, type_)]
        assert heard.count("short") == heard.count("long"), type_
    rows = """SELECT e.event_key, e.drew_on, e.deducted, e.remaining, e.blocked FROM events e
                JOIN customers c ON c.id = e.customer_id WHERE c.external_id = %s AND c.organization_id = %s AND e.event_key IS NOT NULL
               ORDER BY e.event_key"""
    whose = own_id(ids.ORGANIZATION, shop.id)
    assert select(database_url, rows, "short", whose) == select(database_url, rows, "long", whose)


def _plainly(entry: Json) -> tuple[Any, ...]:
    return entry["from"], entry["to"], entry["amountDecimal"], entry["cause"], entry["periodIndex"]


def test_prepaid_and_metered_customers_share_a_batch(shop: Organization, database_url: str) -> None:
    add_plan(shop, "metered", promises={"api_calls": overage("0.01")})
    one, _ = twins(shop, "balance")
    prime(shop)
    add_customer(shop, "ada")
    subscribe(shop, "ada", "metered")
    for _ in range(2):  # the first time, ada is looked at closely
        answer = track_batch(
            shop,
            [
                {"featureCode": "api_calls", "customerId": name, "value": 2}
                for name in ("short", "ada", "short")
            ],
        )
        drawn = [each.get("consumption") for each in answer["successful"]]
        assert drawn[1] is None
        assert drawn[0]["remaining"] - drawn[2]["remaining"] == drawn[2]["deducted"] == 200
    assert wallet(database_url, one) == (100_000 - 100 - 4 * 200, 0)
