"""Closes of prepaid subscriptions cut short after each statement, or two at once, or while events pour in.

Afterwards wallets, ledger, invoices and what was told are those of one quiet run.
"""

import asyncio
from collections import Counter
from decimal import Decimal
from uuid import UUID

import pytest

from tallystick.core import ids
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Status
from tallystick.flows.close_period import close_period, close_set
from tallystick.flows.subscribe import cancel
from tallystick.store import organizations, subscriptions
from tallystick.store.db import Database
from tests.audit import audit, let_time_pass, organization_id
from tests.conftest import MakeOrganization, Organization
from tests.flows.test_settle_races import (
    LATER,
    OPENED,
    SECOND,
    THIRD,
    close,
    customer_id,
    die_after_each,
    nobody_sweeps,
    numbered_without_gaps,
    opened,
    same_books,
    subscribe,
)
from tests.literals import at
from tests.scenarios.purses import billed, ledger_of, pools, proved
from tests.shop import API, add_feature, add_plan, done, set_clock, track_batch

__all__ = ["nobody_sweeps"]

BASE = ("recurring", [("plan_base", 1000)])
INCLUDED = 100_000
OVERDRAWN = ("balance_overage", 101)  # 100.5 cents, rounded once
CROWD = 28


def open_shop(shop: Organization, model: str) -> None:
    add_feature(shop, "call")
    terms = {"creditsPerUnit": 100} if model == "credits" else {"overage": {"unitPriceDecimal": "0.01"}}
    grants = {"includedCredits" if model == "credits" else "includedBalance": INCLUDED}
    add_plan(shop, price=1000, model=model, grants=grants, promises={"call": terms})


def use(shop: Organization, customers: list[str], value: float, happened: str | None = None) -> None:
    """A call is 100 of the wallet."""
    for start in range(0, len(customers), 100):
        sent = [
            {"customerId": each, "featureCode": "call", "value": value, "timestamp": happened}
            for each in customers[start : start + 100]
        ]
        assert track_batch(shop, sent)["failed"] == []


def a_second_month(shop: Organization, model: str, customers: list[str]) -> dict[str, UUID]:
    """Each used all but a tenth in January; in February half a call more than there is, where that may be."""
    open_shop(shop, model)
    held = subscribe(shop, customers)
    use(shop, customers, 900)
    set_clock(shop, LATER)
    use(shop, customers, 999.5)
    if model == "balance":
        use(shop, customers, 101)
    return held


async def close_in_a_set(database: Database, shop: Organization, subscription: UUID, _: UUID) -> object:
    return await close_set(
        database, organization_id=organization_id(shop), subscription_ids=[subscription], now=at(SECOND)
    )


async def cancel_and_close(database: Database, shop: Organization, subscription: UUID, _: UUID) -> object:
    """At once, in the middle of the period; the close has what it left to invoice."""
    organization = organization_id(shop)
    async with database.transaction() as conn:
        owner = await organizations.get(conn, organization_id=organization)
        held = await subscriptions.get(
            conn, organization_id=organization, subscription_id=subscription, lock=True
        )
        assert owner is not None and held is not None
        if held.state is not Status.CANCELED:
            await cancel(
                conn, organization=owner, subscription=held, reason=None, immediate=True, now=at(LATER)
            )
    return await close_period(
        database, organization_id=organization, subscription_id=subscription, now=at(LATER)
    )


ACTS = {"close": close, "close in a set": close_in_a_set, "cancel and close": cancel_and_close}


@pytest.mark.parametrize("model", ["credits", "balance"])
@pytest.mark.parametrize("act", [*ACTS, "close at the end"])
def test_a_prepaid_close_may_die_after_any_statement(
    make_organization: MakeOrganization, database_url: str, act: str, model: str
) -> None:
    shop = make_organization(clock=OPENED)
    held = a_second_month(shop, model, [f"customer_{place}" for place in range(CROWD)])
    if act == "close at the end":
        for each in held.values():
            path = f"{API}/subscriptions/{ids.show(ids.SUBSCRIPTION, each)}/cancel"
            done(shop.http.post(path, json={}))
    crowd = die_after_each(database_url, shop, held, ACTS.get(act, close))
    assert crowd.statements >= 8
    same_books(database_url, shop, crowd)
    set_clock(shop, THIRD)
    same_books(database_url, shop, crowd)
    renews = act in ("close", "close in a set")
    overdrawn = [OVERDRAWN] if model == "balance" else []
    last = [("plan_base", 1000)] * renews + overdrawn
    expected = [BASE, BASE, *([("recurring" if renews else "overage", last)] if last else [])]
    for customer in (crowd.names[0], crowd.names[1], crowd.names[-1]):
        assert billed(shop, customer) == expected + [BASE] * renews
        proved(shop, customer)
        left = INCLUDED if renews else 0
        assert pools(database_url, shop, customer) == (left, 0)
    audit(database_url, shop)


@pytest.mark.parametrize("model", ["credits", "balance"])
def test_two_closes_at_once_reset_a_wallet_once(
    make_organization: MakeOrganization, database_url: str, model: str
) -> None:
    shop = make_organization(clock=OPENED)
    held = a_second_month(shop, model, [f"customer_{place}" for place in range(8)])
    identities = {each: customer_id(shop, each) for each in held}

    async def run() -> None:
        async with opened(Database(database_url, size=12)) as database:
            await asyncio.gather(
                *(
                    act(database, shop, held[each], identities[each])
                    for each in held
                    for act in (close, close_in_a_set, close)
                )
            )

    asyncio.run(run())
    set_clock(shop, THIRD)
    numbered_without_gaps(database_url, shop)
    overdrawn = [OVERDRAWN] if model == "balance" else []
    for customer in held:
        assert billed(shop, customer) == [
            BASE,
            BASE,
            ("recurring", [("plan_base", 1000), *overdrawn]),
            BASE,
        ]
        causes = Counter(cause for cause, *_ in ledger_of(database_url, shop, customer))
        assert (causes["grant"], causes["reset"]) == (1, 3)
        assert causes["expiry"] + causes["overdraft"] == 3
    audit(database_url, shop)


@pytest.mark.parametrize("clock", [LATER, SECOND], ids=["judged before", "judged after"])
def test_events_pour_in_while_a_prepaid_period_is_closed(
    make_organization: MakeOrganization, database_url: str, clock: str
) -> None:
    """Whichever period's wallet each is paid from, all of them are paid, and what is overdrawn is invoiced once."""
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(6)]
    held = a_second_month(shop, "balance", customers)
    identities = {each: customer_id(shop, each) for each in held}
    let_time_pass(database_url, shop, clock)
    poured = 0

    async def run() -> None:
        nonlocal poured
        async with opened(Database(database_url, size=12)) as database:
            enough = asyncio.Event()

            async def pour() -> None:
                nonlocal poured
                while not enough.is_set():
                    await asyncio.to_thread(use, shop, customers, 30)
                    poured += 1

            pouring = [asyncio.create_task(pour()) for _ in range(2)]
            try:
                for _ in range(3):
                    await asyncio.sleep(0.05)
                    await asyncio.gather(
                        *(
                            act(database, shop, held[each], identities[each])
                            for each in held
                            for act in (close, close_in_a_set)
                        )
                    )
            finally:
                enough.set()
            await asyncio.gather(*pouring)

    asyncio.run(run())
    set_clock(shop, "2025-05-15T00:00:00Z")
    numbered_without_gaps(database_url, shop)
    calls = Decimal("2000.5") + 30 * poured
    for customer in customers:
        moved = ledger_of(database_url, shop, customer)
        assert sum(amount for cause, _, amount in moved if cause == "usage") == calls * 100
        over = sum((amount for cause, _, amount in moved if cause == "overdraft"), ZERO)
        invoiced = [
            cents for _, lines in billed(shop, customer) for kind, cents in lines if kind == "balance_overage"
        ]
        assert abs(sum(invoiced) * 100 - over) <= 50 * len(invoiced), "rounded once a line"
        assert over >= 10_050
        proved(shop, customer)
    audit(database_url, shop)


def test_one_event_turns_the_wallet_that_a_close_is_about_to_turn(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """The first touch of a new period and the close of the old one meet, customer by customer."""
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(12)]
    held = a_second_month(shop, "balance", customers)
    identities = {each: customer_id(shop, each) for each in held}
    let_time_pass(database_url, shop, SECOND)

    async def run() -> None:
        async with opened(Database(database_url, size=12)) as database:
            await asyncio.gather(
                *(asyncio.to_thread(use, shop, [each], 7) for each in customers),
                *(close(database, shop, held[each], identities[each]) for each in customers),
            )

    asyncio.run(run())
    set_clock(shop, THIRD)
    for customer in customers:
        assert billed(shop, customer) == [
            BASE,
            BASE,
            ("recurring", [("plan_base", 1000), OVERDRAWN]),
            BASE,
        ]
    audit(database_url, shop)
