"""Who waits for whom: events, voids and wallets at once go round in no circle; if somebody does, nobody is told."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tallystick.core import ids
from tallystick.flows.correct_usage import void_event
from tallystick.store import organizations
from tallystick.store.db import CONNECTION, Conn, Database, connect
from tests.audit import audit, organization_id, select
from tests.conftest import MakeOrganization, Organization, beside_the_server
from tests.flows.test_limits import counters, limit_to
from tests.literals import at
from tests.scenarios.purses import balance_shop, pools
from tests.shop import API, Json, add_feature, add_plan, done, hard_limit, own_id, subscribe, track

OPENED = "2026-03-10T09:00:00Z"
NOW = "2026-03-10T12:00:00Z"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    made = make_organization(clock=OPENED)
    yield made
    audit(database_url, made)


def circles(database_url: str) -> int:
    """How often PostgreSQL had to undo a transaction for others to pass; told once its sessions have reported."""
    ((found,),) = select(
        database_url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(found)


def test_voids_lock_what_events_lock_in_their_order(shop: Organization, database_url: str) -> None:
    """One event feeds limited meters of every kind; four report and take back at once."""
    add_feature(shop, "jobs")
    add_feature(shop, "people", aggregation="unique", aggregationProperty="user", eventCode="jobs")
    for kind in ("max", "latest"):
        add_feature(shop, kind, aggregation=kind, eventCode="jobs")
    terms = {code: hard_limit(1_000_000) for code in ("jobs", "people", "max", "latest")}
    add_plan(shop, promises=terms)
    subscribe(shop, "ada")
    before = circles(database_url)

    def act(worker: int) -> int:
        with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http:
            for number in range(60):
                body: Json = {"customerId": "ada", "featureCode": "jobs", "value": number}
                user = {"user": f"u{(worker + number) % 7}"}
                event = done(http.post(f"{API}/usage/events", json={**body, "properties": user}))
                if number % 2:
                    done(http.request("DELETE", f"{API}/usage/events/{event['id']}", json={}))
        return 60

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(act, range(4))) == 240
    assert circles(database_url) == before


def test_a_new_counter_sees_what_is_taken_back_meanwhile(shop: Organization, database_url: str) -> None:
    """There is no counter to wait for, so the event counts what a void that is not yet done is taking away."""
    limit_to(shop, 30)
    first, second = (done(track(shop, value=10)) for _ in range(2))
    done(shop.http.request("DELETE", f"{API}/usage/events/{second['id']}", json={}))
    assert counters(database_url, shop) == [], "it is counted anew when next asked"

    async def act(database: Database) -> Json:
        async with database.transaction() as conn:
            owner = await organizations.get(conn, organization_id=organization_id(shop))
            assert owner is not None
            await void_event(conn, owner, event_id=own_id(ids.EVENT, first["id"]), reason=None, now=at(NOW))
            meanwhile = asyncio.create_task(asyncio.to_thread(track, shop, value=5))
            await somebody_waits(database_url)
        return done(await meanwhile)

    beside_the_server(database_url, act)
    assert counters(database_url, shop) == [5]


def test_an_event_that_was_undone_for_others_to_pass_is_stored_after_them(
    shop: Organization, database_url: str
) -> None:
    """A batch holds one wallet and wants another, whose holder wants the first and will not give way."""
    balance_shop(shop, 1_000, "ada", "bob")
    before = circles(database_url)
    wallets = select(
        database_url,
        "SELECT customer_id FROM wallets WHERE organization_id = %s ORDER BY customer_id",
        organization_id(shop),
    )
    first, last = (each[0] for each in wallets)
    sent = [{"customerId": each, "featureCode": "call", "value": 1} for each in ("ada", "bob")]

    async def act() -> Json:
        async with await connect(database_url, CONNECTION) as conn:
            await conn.execute("SET deadlock_timeout = '1 h'")  # of two that wait, the other one notices
            async with conn.transaction():
                await hold(conn, last)
                batch = asyncio.create_task(
                    asyncio.to_thread(shop.http.post, f"{API}/usage/events/batch", json={"events": sent})
                )
                await somebody_waits(database_url)
                await hold(conn, first)
        return done(await batch)

    answer = asyncio.run(act())
    assert (len(answer["successful"]), answer["failed"]) == (2, [])
    assert (
        circles(database_url) > before
    )  # a batch that tries again may be the quicker one, and then meets them again
    assert [pools(database_url, shop, each) for each in ("ada", "bob")] == [(900, 0)] * 2


async def hold(conn: Conn, customer: object) -> None:
    await conn.execute("SELECT FROM wallets WHERE customer_id = %s FOR UPDATE", (customer,))


async def somebody_waits(database_url: str) -> None:
    """Until a session of the server waits for a lock."""
    for _ in range(200):
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        ((found,),) = await asyncio.to_thread(select, database_url, waiting)
        if found:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits")
