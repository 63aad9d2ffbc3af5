"""Closing many at once says what closing one by one says."""

import asyncio
from datetime import datetime
from typing import Any

import psycopg
import pytest
from bench.close_ceilings import check
from bench.portfolio import CLOSES_AT, Size, subscribe_everybody, use_everything

from tallystick.core import ids
from tallystick.core.times import parse_instant
from tallystick.flows import close_due as sweeps
from tallystick.flows import close_period as closes
from tallystick.flows.close_period import close_period, close_set
from tallystick.store import organizations, subscriptions
from tallystick.store.db import Database
from tallystick.store.migrate import migrate
from tests.audit import audit, organization_id, select
from tests.conftest import MakeOrganization, Organization
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    overage,
    own_id,
    set_clock,
    subscribe,
)

CUSTOMERS = ("ada", "bob", "cyd", "dan", "eve")
TIERS = [{"upTo": "10", "unitAmount": "1"}, {"upTo": None, "unitAmount": "0.5", "flatAmount": "2"}]
PROMISES: dict[str, Json] = {
    "calls": overage("0.01", included=3),
    "steps": {"price": {"model": "graduated", "tiers": TIERS}},
    "people": overage("2"),
    "from_eu": overage("0.1"),
    "sales": {"price": {"model": "percentage", "basisPoints": "130", "fixedAmount": "0.30"}},
    "least": {"price": {"model": "per_unit", "unitAmount": "0.01"}, "minimumAmount": "1.50"},
}


def open_shop(make_organization: MakeOrganization) -> Organization:
    """Five customers with a month of usage behind them; one lives where hours do not end on the hour."""
    shop = make_organization(clock="2026-01-10T09:17:00Z")
    add_feature(shop, "calls")
    add_feature(shop, "steps", eventCode="calls", aggregation="count")
    add_feature(shop, "people", eventCode="calls", aggregation="unique", aggregationProperty="user")
    eu = [{"property": "region", "operator": "equals", "value": "eu"}]
    add_feature(shop, "from_eu", eventCode="calls", filters=eu)
    add_feature(shop, "sales", eventCode="sold")
    add_feature(shop, "least", eventCode="calls")
    add_plan(shop, promises=PROMISES)
    done(shop.http.patch(f"{API}/plans/pro", json={"minimumAmount": "60"}))
    for name in CUSTOMERS:
        add_customer(shop, name, timezone="Asia/Kathmandu" if name == "cyd" else "Europe/Paris")
        subscribe(shop, name)
    done(shop.http.post(f"{API}/test-clock", json={"frozenTime": "2026-02-09T12:00:00Z"}))
    for number, name in enumerate(CUSTOMERS[:-1]):
        for day in range(10, 15 + 3 * number):
            properties = {"user": f"u{day % 4}", "region": "eu" if day % 2 else "us"}
            body = {
                "customerId": name,
                "timestamp": f"2026-01-{day}T09:{17 + number}:30Z",
                "properties": properties,
            }
            done(shop.http.post(f"{API}/usage/events", json={**body, "featureCode": "calls", "value": day}))
            done(
                shop.http.post(
                    f"{API}/usage/events", json={**body, "featureCode": "sold", "value": 100 * day}
                )
            )
    return shop


def at(text: str) -> datetime:
    found = parse_instant(text)
    assert found is not None
    return found


def close(database_url: str, shop: Organization, now: datetime, *, together: bool) -> list[Any]:
    """Close whatever is due, as the sweep would; the subscriptions in order."""

    async def act() -> list[Any]:
        database = Database(database_url, size=4)
        await database.open()
        try:
            organization = organization_id(shop)
            async with database.transaction() as conn:
                await organizations.set_clock(conn, organization_id=organization, to=now)
            held = [row[0] for row in await _held(database, organization)]
            closed: list[Any] = []
            if together:
                closed += await close_set(
                    database, organization_id=organization, subscription_ids=held, now=now
                )
            for each in held:
                if each not in {one.subscription_id for one in closed}:
                    one = await close_period(
                        database, organization_id=organization, subscription_id=each, now=now
                    )
                    closed += [one] if one is not None else []
            return closed
        finally:
            await database.close()

    return asyncio.run(act())


async def _held(database: Database, organization: Any) -> list[tuple[Any, ...]]:
    async with database.reading() as conn:
        cursor = await conn.execute(
            "SELECT id FROM subscriptions WHERE organization_id = %s ORDER BY id", (organization,)
        )
        return await cursor.fetchall()


def billed(shop: Organization) -> list[Any]:
    """Every invoice without what differs from world to world, and whether the sweep has charged it yet."""
    found = []
    for name in CUSTOMERS:
        for listed in done(shop.http.get(f"{API}/invoices?customerId={name}"))["data"]:
            invoice = done(shop.http.get(f"{API}/invoices/{listed['id']}"))
            lines = [{**line, "id": None} for line in invoice["lineItems"]]
            kept = {field: invoice[field] for field in ("invoiceType", "total", "periodStart", "periodEnd")}
            found.append((name, kept, lines))
            report = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
            assert (report["status"], report["firstDifference"]) == ("verified", None)
    return found


def test_a_set_is_closed_as_its_members_would_be(
    make_organization: MakeOrganization, database_url: str
) -> None:
    together, alone = open_shop(make_organization), open_shop(make_organization)
    for shop in (together, alone):
        closed = close(database_url, shop, at("2026-02-11T00:00:00Z"), together=shop is together)
        assert len(closed) == len(CUSTOMERS)
    assert billed(together) == billed(alone)
    for shop in (together, alone):  # something late, for one of them
        body = {"customerId": "bob", "featureCode": "calls", "value": 7, "timestamp": "2026-01-20T00:00:00Z"}
        done(shop.http.post(f"{API}/usage/events", json=body))
        close(database_url, shop, at("2026-03-11T00:00:00Z"), together=shop is together)
    assert billed(together) == billed(alone)
    numbers = select(
        database_url,
        "SELECT number FROM invoices WHERE organization_id = %s ORDER BY 1",
        organization_id(together),
    )
    assert [each[0] for each in numbers] == list(range(1, len(numbers) + 1)), "no gaps"
    audit(database_url, together)


def test_a_set_leaves_out_what_is_late_or_not_due(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = open_shop(make_organization)
    assert close(database_url, shop, at("2026-02-09T12:00:00Z"), together=True) == []
    close(database_url, shop, at("2026-02-11T00:00:00Z"), together=True)
    body = {"customerId": "bob", "featureCode": "calls", "timestamp": "2026-01-20T00:00:00Z"}
    done(shop.http.post(f"{API}/usage/events", json=body))
    bob = done(shop.http.get(f"{API}/subscriptions/active?customerId=bob"))["id"]

    async def act() -> set[Any]:
        database = Database(database_url, size=4)
        await database.open()
        try:
            held = [row[0] for row in await _held(database, organization_id(shop))]
            done_together = await close_set(
                database,
                organization_id=organization_id(shop),
                subscription_ids=held,
                now=at("2026-03-11T00:00:00Z"),
            )
            return set(held) - {each.subscription_id for each in done_together}
        finally:
            await database.close()

    assert asyncio.run(act()) == {own_id(ids.SUBSCRIPTION, bob)}


def test_what_changed_meanwhile_is_left_out(
    make_organization: MakeOrganization, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody cancels between the look and the lock."""
    shop = open_shop(make_organization)
    ada = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))["id"]
    prove = closes.prove

    async def meanwhile(conn: Any, prepared: Any) -> None:
        await prove(conn, prepared)
        database = Database(database_url, size=1)
        await database.open()
        async with database.transaction() as other:
            held = await subscriptions.get(
                other,
                organization_id=organization_id(shop),
                subscription_id=own_id(ids.SUBSCRIPTION, ada),
                lock=True,
            )
            assert held is not None
            await other.execute("UPDATE subscriptions SET cancel_reason = 'moved' WHERE id = %s", (held.id,))
        await database.close()
        monkeypatch.setattr(closes, "prove", prove)

    monkeypatch.setattr(closes, "prove", meanwhile)
    closed = close(database_url, shop, at("2026-02-11T00:00:00Z"), together=True)
    assert len(closed) == len(CUSTOMERS)
    assert len(billed(shop)) == 2 * len(CUSTOMERS)


def test_a_test_clock_closes_in_sets_and_in_order(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Invoices are numbered as they are listed, also where somebody in the middle has to be closed alone."""
    shop = open_shop(make_organization)
    set_clock(shop, "2026-02-11T00:00:00Z")
    together = select(
        database_url,
        "SELECT count(*) FROM closed_periods WHERE organization_id = %s GROUP BY xmin ORDER BY 1",
        organization_id(shop),
    )
    assert together == [(1,), (4,)], "one lives in Kathmandu; four are closed in one transaction"

    body = {"customerId": "bob", "featureCode": "calls", "value": 7, "timestamp": "2026-01-20T00:00:00Z"}
    done(shop.http.post(f"{API}/usage/events", json=body))
    dan = done(shop.http.get(f"{API}/subscriptions/active?customerId=dan"))["id"]
    done(shop.http.post(f"{API}/subscriptions/{dan}/cancel", json={}))
    items = set_clock(shop, "2026-03-11T00:00:00Z")["items"]
    assert [item["customerName"] for item in items] == ["cyd", "ada", "bob", "dan", "eve"]
    assert [item["outcome"] for item in items] == ["invoiced", "invoiced", "invoiced", "canceled", "invoiced"]
    assert {item["detail"] for item in items} == {"paid"}
    numbers = [int(item["invoiceNumber"].rpartition("-")[2]) for item in items]
    assert numbers == list(range(numbers[0], numbers[0] + len(items)))
    audit(database_url, shop)


def test_sets_beside_each_other_close_each_period_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month of a business in a database of its own; eleven subscriptions in sets of two, several looks."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS closed_here")
        conn.execute("CREATE DATABASE closed_here")
    conninfo = psycopg.conninfo.make_conninfo(database_url, dbname="closed_here")
    migrate(conninfo)
    size = Size(subscriptions=11, features=5, events_per_feature=4, percentage=True)
    monkeypatch.setattr(sweeps, "CLOSES_PER_CLAIM", 2)
    monkeypatch.setattr(sweeps, "CLOSES_PER_LOOK", 6)
    heard: list[int] = []

    async def act() -> None:
        database = Database(conninfo, size=4)
        await database.open()
        try:
            organization = await subscribe_everybody(database, size)
            await use_everything(conninfo, organization, size, lambda stored: None)
            await sweeps.close_due(database, now=CLOSES_AT, closed=heard.append)
        finally:
            await database.close()

    asyncio.run(act())
    assert check(conninfo, size).is_right
    assert heard.count(2) == 5, "five sets of two"
    assert sum(heard) == size.subscriptions
    numbers = select(conninfo, "SELECT number FROM invoices ORDER BY 1")
    assert [each[0] for each in numbers] == list(range(1, size.subscriptions + 1)), "no gaps"
