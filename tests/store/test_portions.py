"""Portions leave out nothing, overlap nowhere, and are about as large as was asked for."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Final

import pytest
from tests.literals import U, at

from tallystick.store import db
from tallystick.store.db import PROOF_CONNECTION, Conn
from tallystick.store.portions import Place, Portion, portions

SHOP, OTHERS = U(1), U(2)
START, HOUR = at("2026-01-01"), timedelta(hours=1)
MOST: Final = 1_000
HELD: Final[Mapping[int, Mapping[int, int]]] = {
    11: {},  # who never did anything
    12: {0: 3, 1: 5},
    # More hours than are asked for at once:
    13: {hour: Random(hour).randrange(2, 90) for hour in range(5_000)},
    14: {0: 2, 1: 5 * MOST, 2: 2},
    **{customer: {customer % 7: customer} for customer in range(20, 300)},
}
"""Events of customers by hour."""
PLACES: Final = [
    (Place(U(customer), START + hour * HOUR), events)
    for customer, hours in sorted(HELD.items())
    for hour, events in sorted(hours.items())
]


async def fill(conn: Conn) -> None:
    await conn.execute("SET LOCAL session_replication_role = replica")  # nobody asks for the organizations
    owners = dict.fromkeys(HELD, SHOP) | {15: OTHERS}
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """INSERT INTO customers (id, organization_id, email, created_at, updated_at)
               VALUES (%s, %s, '', now(), now())""",
            [(U(customer), owner) for customer, owner in owners.items()],
        )
        await cursor.executemany(
            """INSERT INTO usage_hours (customer_id, meter_id, hour, events, quantity, batch)
               VALUES (%s, %s, %s, %s, 0, 1)""",
            [
                (U(customer), U(meter), START + hour * HOUR, events // meter)
                for customer, hours in [*HELD.items(), (15, {0: 100 * MOST})]
                for hour, events in hours.items()
                for meter in (1, 2)  # the second counts half of them
            ],
        )


@pytest.fixture(scope="module", params=[False, True], ids=["anywhere", "whole customers"])
def found(request: pytest.FixtureRequest, database_url: str) -> list[Portion]:
    async def act() -> list[Portion]:
        connecting = await db.connect(database_url, PROOF_CONNECTION)
        async with connecting as conn, conn.transaction(force_rollback=True):
            await fill(conn)
            whole = request.param
            return [each async for each in portions(conn, SHOP, whole_customers=whole, events=MOST)]

    return asyncio.run(act())


def held(portion: Portion) -> list[tuple[Place, int]]:
    return [(place, events) for place, events in PLACES if portion.low <= place < portion.high]


def test_each_begins_where_the_one_before_ends(found: list[Portion]) -> None:
    assert all(one.high == next_one.low for one, next_one in pairwise(found))
    assert all(each.low < each.high for each in found)


def test_everything_there_can_be_is_in_one(found: list[Portion]) -> None:
    never = datetime.min.replace(tzinfo=START.tzinfo), datetime.max.replace(tzinfo=START.tzinfo)
    assert found[0].low <= Place(U(0), never[0])
    assert found[-1].high > Place(U((1 << 128) - 2), never[1] - HOUR)
    assert [place for each in found for place in held(each)] == PLACES


def test_none_is_larger_than_was_asked_for_unless_it_is_one(found: list[Portion]) -> None:
    """One hour, or where those are not parted, one customer."""
    whole = all(each.low.hour == found[0].low.hour for each in found)
    for portion in found:
        there = held(portion)
        units = {place.customer_id if whole else place for place, events in there if events}
        assert sum(events for _, events in there) <= MOST or len(units) == 1
    assert len(found) < 2 * sum(events for _, events in PLACES) / MOST + 3, "nor are they crumbs"
