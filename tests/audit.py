"""Look behind the API: is the database what the events alone would make of it?

Every check reads the events back and derives the rest anew, by SQL where our own folds are on trial.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.catalog import stops_throughout, stretches
from tallystick.core.events import StoredEvent
from tallystick.core.meters import in_force, measure
from tallystick.core.proof import GENESIS, LEAF_BYTES, leaf, link
from tallystick.core.subscriptions import Life, Status
from tallystick.flows import reconcile
from tallystick.flows.books import load_catalogue
from tallystick.flows.measure_usage import measure_usage
from tallystick.flows.rules import RULES, Found
from tallystick.store import events, organizations, subscriptions
from tallystick.store.db import CONNECTION, Conn, Database, bump, connect, rows
from tests.audit_wallets import wallets_equal_their_ledger
from tests.conftest import Organization, beside_the_server
from tests.literals import at

T = TypeVar("T")
_LOOKED_UP = 100  # events that are also read back one by one


def ask(database_url: str, question: Callable[[Conn], Awaitable[T]]) -> T:
    """Put a question to the database on a connection of its own, in one snapshot."""

    async def act() -> T:
        async with await connect(database_url, CONNECTION) as conn, conn.transaction():
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return await question(conn)

    return asyncio.run(act())


def organization_id(shop: Organization) -> UUID:
    found = ids.read(ids.ORGANIZATION, shop.id)
    assert found is not None
    return found


def select(database_url: str, query: Any, *params: object) -> list[tuple[Any, ...]]:
    async def act(conn: Conn) -> list[tuple[Any, ...]]:
        return list(await rows(conn, query, params))

    return ask(database_url, act)


def let_time_pass(database_url: str, shop: Organization, to: str) -> None:
    """The clock moves, and nothing that falls due on the way has been done yet."""

    async def act(database: Database) -> None:
        async with database.transaction() as conn:
            await organizations.set_clock(conn, organization_id=organization_id(shop), to=at(to))
            await bump(conn, organization_id=organization_id(shop))

    beside_the_server(database_url, act)


def stored_keys(database_url: str, shop: Organization) -> dict[str, int]:
    """How many events each key of the organization has: never more than one."""
    found = select(
        database_url,
        """SELECT event_key, count(*) FROM events
            WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND event_key IS NOT NULL GROUP BY event_key""",
        organization_id(shop),
    )
    return dict(found)


def count_events(database_url: str, shop: Organization) -> int:
    found = select(
        database_url,
        "SELECT count(*) FROM events WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s)",
        organization_id(shop),
    )
    return int(found[0][0])


def audit(database_url: str, shop: Organization) -> int:
    """Everything below; returns how many events there are."""
    organization = organization_id(shop)

    async def act(conn: Conn) -> int:
        await _rollups_equal_events(conn, organization)
        await _limit_counters_equal_usage(conn, organization)
        await _rules_are_kept(conn, organization)
        await wallets_equal_their_ledger(conn, organization)
        return await _chain_verifies(conn, organization)

    return ask(database_url, act)


Hours = dict[tuple[UUID, UUID, datetime], tuple[int, Decimal]]


_FOLDS = {"max": "max(value)", "latest": "(array_agg(value ORDER BY occurred_at DESC, value DESC))[1]"}


async def _rollups_equal_events(conn: Conn, organization: UUID) -> None:
    """Each meter's hours, by GROUP BY over raw events where it has no filters, else event by event."""
    catalogue = await load_catalogue(conn, organization)
    expected: Hours = {}
    values: set[tuple[UUID, UUID, datetime, bytes]] = set()
    for code, meters in catalogue.meters.items():
        for meter in meters:
            if meter.filters or meter.property_name is not None or meter.aggregation == "count":
                await _fold_one_by_one(conn, organization, code, meter, expected, values)
                continue
            found = await rows(
                conn,
                f"""SELECT customer_id, date_trunc('hour', occurred_at), count(*),
                           {_FOLDS.get(meter.aggregation.value, "sum(value)")}
                      FROM events
                     WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND feature_code = %s AND (adjusts IS NULL OR (adjusts = %s AND %s))
                       AND voids IS NULL AND voided IS NULL
                     GROUP BY 1, 2""",
                (organization, code, meter.feature_id, meter.adds_up),
            )
            expected.update({(each[0], meter.id, each[1]): (each[2], each[3]) for each in found})
    kept = await rows(
        conn,
        """SELECT u.customer_id, u.meter_id, u.hour, u.events, u.quantity
             FROM usage_hours u JOIN meters m ON m.id = u.meter_id
            WHERE m.organization_id = %s AND u.events > 0""",
        (organization,),
    )
    assert {(each[0], each[1], each[2]): (each[3], each[4]) for each in kept} == expected
    distinct = await rows(
        conn,
        """SELECT u.customer_id, u.meter_id, u.hour, d.value_hash
             FROM usage_sets u JOIN meters m ON m.id = u.meter_id
             JOIN distinct_values d ON d.customer_id = u.customer_id AND d.feature_id = m.feature_id
                                   AND d.number / 2048 = u.block
            WHERE m.organization_id = %s AND get_bit(u.members, mod(d.number, 2048)) = 1""",
        (organization,),
    )
    assert {(each[0], each[1], each[2], bytes(each[3])) for each in distinct} == values
    members = await rows(
        conn,
        """SELECT coalesce(sum(bit_count(u.members)), 0)
             FROM usage_sets u JOIN meters m ON m.id = u.meter_id WHERE m.organization_id = %s""",
        (organization,),
    )
    assert members[0][0] == len(distinct), "every member has a value"


async def _fold_one_by_one(
    conn: Conn,
    organization: UUID,
    code: str,
    meter: Any,
    expected: Hours,
    values: set[tuple[UUID, UUID, datetime, bytes]],
) -> None:
    newest: dict[tuple[UUID, UUID, datetime], tuple[datetime, Decimal]] = {}
    found = await rows(
        conn,
        """SELECT customer_id, occurred_at, value, coalesce(properties, '{}'), adjusts FROM events
            WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND feature_code = %s AND voids IS NULL AND voided IS NULL""",
        (organization, code),
    )
    for customer_id, occurred_at, value, properties, adjusts in found:
        hour = occurred_at.replace(minute=0, second=0, microsecond=0)
        place = (customer_id, meter.id, hour)
        count, quantity = expected.get(place, (0, Decimal(0)))
        if adjusts is not None:
            if adjusts == meter.feature_id and meter.adds_up:
                expected[place] = (count + 1, quantity + value)
            continue
        measured = measure(meter, value, properties, occurred_at)
        if measured is None:
            continue
        if measured.distinct is not None:
            values.add((*place, measured.distinct))
            expected[place] = (count + 1, quantity)
        elif meter.aggregation == "max":
            expected[place] = (
                count + 1,
                max(quantity, measured.quantity) if count else measured.quantity,
            )
        elif meter.aggregation == "latest":  # of one instant the larger counts
            newest[place] = max(
                (occurred_at, measured.quantity),
                newest.get(place, (occurred_at, measured.quantity)),
            )
            expected[place] = (count + 1, newest[place][1])
        else:
            expected[place] = (count + 1, quantity + measured.quantity)


async def _limit_counters_equal_usage(conn: Conn, organization: UUID) -> None:
    """The counter of a hard limit is what the events of its period amount to."""
    catalogue = await load_catalogue(conn, organization)
    found = await rows(
        conn,
        """SELECT l.customer_id, l.subscription_id, l.feature_id, l.period_start, l.used
             FROM limit_counters l JOIN features f ON f.id = l.feature_id WHERE f.organization_id = %s""",
        (organization,),
    )
    for customer_id, subscription_id, feature_id, start, used in found:
        held = await subscriptions.get(conn, organization_id=organization, subscription_id=subscription_id)
        assert held is not None and held.anchor is not None
        life = Life(subscription_id, held.plan_id, Status(held.status), held.anchor, held.timezone, None)
        where = life.period_at(start)
        assert where is not None and where[1].start == start
        ruled = stretches(catalogue.plans[held.plan_id][feature_id], where[1])
        if not stops_throughout(ruled, where[1]):
            continue  # the limit was lifted while the period ran: nobody counted then
        included = max(terms.included for _, terms in ruled)
        meter = in_force(catalogue.versions[feature_id], start)
        usage = await measure_usage(conn, customer_id=customer_id, meter=meter, span=where[1])
        assert (usage.quantity, used <= included) == (used, True)


async def _rules_are_kept(conn: Conn, organization: UUID) -> None:
    """What `tallystick reconcile` would say; but what is due may be waiting for the next sweep."""
    found = broken(await reconcile.ask(conn, organization, wall=wall()))
    found.pop("due", None)
    assert not found, found


def broken(found: Sequence[Found]) -> dict[str, Found]:
    """The rules that are not kept, by name."""
    return {rule.name: each for rule, each in zip(RULES, found, strict=True) if each.offenders}


async def _chain_verifies(conn: Conn, organization: UUID) -> int:
    """Every stored row gives its leaf, every batch its digest, and the last one is the head."""
    stored: dict[UUID, StoredEvent] = {}
    numbers = await rows(conn, "SELECT batch FROM ingest_batches WHERE organization_id = %s", (organization,))
    for kept in (
        await events.of_batches(
            conn, organization_id=organization, numbers=[each[0] for each in numbers], lowest=UUID(int=0)
        )
    ).values():
        stored |= {event.id: event for event in kept}
    for identity in sorted(stored)[:_LOOKED_UP]:
        assert await events.get(conn, organization_id=organization, event_id=identity) == stored[identity]
    members: dict[int, list[UUID]] = dict(
        await rows(
            conn,
            "SELECT batch, array_agg(id ORDER BY id) FROM events WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) GROUP BY batch",
            (organization,),
        )
    )
    digest, position, total = GENESIS, 0, 0
    for number, batch, first, count, leaves, recorded in await rows(
        conn,
        """SELECT position, batch, first_event_id, events, leaves, digest FROM ingest_batches
            WHERE organization_id = %s ORDER BY position""",
        (organization,),
    ):
        position += 1
        identities = members[batch]
        assert (number, count, first) == (position, len(identities), identities[0])
        assert len(leaves) == count * LEAF_BYTES
        for place, identity in enumerate(identities):
            assert leaf(stored[identity]) == leaves[place * LEAF_BYTES : (place + 1) * LEAF_BYTES], identity
        digest = link(digest, position, leaves)
        assert bytes(recorded) == digest
        total += count
    head = await rows(
        conn, "SELECT position, digest FROM organization_heads WHERE organization_id = %s", (organization,)
    )
    assert (head[0][0], bytes(head[0][1])) == (position, digest)
    assert len(stored) == total
    return total
