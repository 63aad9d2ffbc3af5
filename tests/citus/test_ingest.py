"""The cluster's own form of storing a batch keeps every promise of the one statement."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tallystick.core import ids
from tallystick.store import citus_ingest, db
from tallystick.store.db import INGEST_CONNECTION, Conn, connect, pipelined, rows
from tallystick.store.sheets import Inserted, StaleVersion
from tests.audit import audit, organization_id
from tests.citus.batches import NOON, batch_of
from tests.conftest import MakeOrganization, Organization
from tests.shop import API, done, open_shop

CUSTOMERS = [f"customer_{number}" for number in range(5)]


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    made = make_organization(clock="2025-01-15T00:00:00Z")
    open_shop(made, *CUSTOMERS)
    return made


def within(url: str, act: Callable[[Conn], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with await connect(url, INGEST_CONNECTION) as conn:
            await act(conn)

    asyncio.run(inside())


def customers_of(shop: Organization) -> list[UUID]:
    shown = [done(shop.http.get(f"{API}/customers/{each}"))["id"] for each in CUSTOMERS]
    return [found for each in shown if (found := ids.read(ids.CUSTOMER, each)) is not None]


async def meter_of(conn: Conn, organization: UUID) -> UUID:
    found = await rows(conn, "SELECT id FROM meters WHERE organization_id = %s", (organization,))
    meter: UUID = found[0][0]
    return meter


def test_what_is_new_is_stored_counted_and_notched_and_a_repeat_is_told(
    cluster_url: str, shop: Organization
) -> None:
    organization, customers = organization_id(shop), customers_of(shop)

    async def act(conn: Conn) -> None:
        meter = await meter_of(conn, organization)
        version = await db.version(conn, organization_id=organization)

        async def store(keys: list[str]) -> Inserted:
            sheet = batch_of(customers, meter_id=meter, keys=keys)
            told = await citus_ingest.insert(
                conn,
                sheet,
                organization_id=organization,
                version=version,
                generation=0,
                received_at=NOON,
                number=None,
            )
            kept = {each.key for each in sheet.events if each.id.int not in told.repeats}
            assert kept == set(keys) - met
            met.update(keys)
            return told

        met: set[str] = set()
        first = await store(["a", "b"])
        assert not first.repeats
        second = await store(["b", "c"])
        assert len(second.repeats) == len(customers)
        third = await store(["a", "c"])
        assert len(third.repeats) == 2 * len(customers)
        assert first.number < second.number < third.number
        assert await db.head_position(conn, organization_id=organization) == 2
        async with pipelined(conn):
            await store(["d"])

    within(cluster_url, act)
    assert audit(cluster_url, shop) == 4 * len(customers)


def test_judged_by_an_old_version_nothing_of_it_is_stored(cluster_url: str, shop: Organization) -> None:
    organization, customers = organization_id(shop), customers_of(shop)

    async def act(conn: Conn) -> None:
        sheet = batch_of(customers, meter_id=await meter_of(conn, organization), keys=["a"])
        version = await db.version(conn, organization_id=organization)
        with pytest.raises(StaleVersion):
            await citus_ingest.insert(
                conn,
                sheet,
                organization_id=organization,
                version=version - 1,
                generation=0,
                received_at=NOON,
                number=None,
            )
        for table in ("events", "event_keys", "usage_hours"):
            assert await rows(conn, f"SELECT FROM {table} WHERE customer_id = ANY(%s)", (customers,)) == []

    within(cluster_url, act)
