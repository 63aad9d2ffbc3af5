"""A batch made true on a Citus cluster: what `events.insert` does in one statement, in a handful.

Citus takes that one statement too. But an upsert that reads from unnest it carries out through a file for each shard,
one after the other; rows that are written out it sends to their shards as they are.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.pq import PipelineStatus, TransactionStatus

from tallystick.core.money import ZERO
from tallystick.core.proof import leaf
from tallystick.store import columns, db
from tallystick.store.db import Conn, row, the
from tallystick.store.events import HourShare, Inserted, New, StaleVersion

_ROWS_AT_ONCE: Final = 1_000
_ADD: Final[Callable[[Decimal, Decimal], Decimal]] = Context(prec=100).add


async def insert(
    conn: Conn,
    batch: Sequence[New],
    shares: Sequence[HourShare],
    *,
    organization_id: UUID,
    version: int,
    received_at: datetime,
    number: int | None = None,
) -> Inserted:
    """As `events.insert`, in every respect; a transaction of its own where none is open. Raises StaleVersion."""
    begun = (
        conn.info.transaction_status is not TransactionStatus.IDLE
        or conn.pgconn.pipeline_status != PipelineStatus.OFF
    )
    async with nullcontext() if begun else conn.transaction():
        if number is None:
            number = int((await the(await conn.execute("SELECT nextval('ingest_batch_numbers')")))[0])
        fresh = await _take_keys(conn, batch)
        stored = [each for each in batch if each.key_hash is None or each.event.id in fresh]
        repeats = {each.event.id.int for each in batch if each.key_hash is not None} - {
            each.int for each in fresh
        }
        if not stored:  # no head is locked; who was judged by an old version is told so by this one
            return Inserted(number, repeats, await db.version(conn, organization_id=organization_id))
        await _store(conn, stored, organization_id=organization_id, received_at=received_at, number=number)
        await _count(conn, [each for each in shares if each.event_id.int not in repeats], number=number)
        await _notch(conn, stored, organization_id=organization_id, version=version, number=number)
        return Inserted(number, repeats, version)


async def _take_keys(conn: Conn, batch: Sequence[New]) -> set[UUID]:
    """In one order; which events have theirs now."""
    keyed = sorted(
        (each for each in batch if each.key_hash is not None),
        key=lambda each: (each.event.customer_id, each.key_hash or b"", each.event.id),
    )
    given = [
        (each.event.customer_id, each.key_hash, each.event.id, each.event.occurred_at, each.header_hash)
        for each in keyed
    ]
    found = await _written_out(
        conn,
        "INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at, header_hash) VALUES ",
        given,
        " ON CONFLICT DO NOTHING RETURNING event_id",
    )
    return {each[0] for each in found}


async def _store(
    conn: Conn, stored: Sequence[New], *, organization_id: UUID, received_at: datetime, number: int
) -> None:
    """Without a conflict to look for, unnest is sent to the shards by COPY."""
    events = [each.event for each in stored]
    draws = [each.draw for each in events]
    await conn.execute(
        """INSERT INTO events (customer_id, occurred_at, id, organization_id, received_at, batch, feature_code,
                               value, event_key, timed, adjusts, properties, reason, voids, leaf,
                               drew_on, deducted, remaining, blocked)
           SELECT customer_id, occurred_at, id, %(organization)s, %(received)s, %(number)s, feature_code,
                  value::numeric, event_key, timed, adjusts, properties::jsonb, reason, voids, leaf,
                  drew_on, deducted::numeric, remaining::numeric, blocked
             FROM unnest(%(ids)s::uuid[], %(customers)s::uuid[], %(occurred)s::timestamptz[], %(features)s::text[],
                         %(values)s::text[], %(keys)s::text[], %(timed)s::bool[], %(properties)s::text[],
                         %(adjusts)s::uuid[], %(reasons)s::text[], %(voids)s::uuid[], %(leaves)s::bytea[],
                         %(drew_on)s::text[], %(deducted)s::text[], %(remaining)s::text[], %(blocked)s::bool[])
               AS t (id, customer_id, occurred_at, feature_code, value, event_key, timed, properties, adjusts, reason,
                     voids, leaf, drew_on, deducted, remaining, blocked)""",
        {
            "organization": organization_id,
            "received": received_at,
            "number": number,
            "ids": columns.uuids(each.id for each in events),
            "customers": columns.uuids(each.customer_id for each in events),
            "occurred": columns.instants(each.occurred_at for each in events),
            "features": columns.texts(each.feature for each in events),
            "values": columns.numbers(each.value for each in events),
            "keys": columns.texts(each.key for each in events),
            "timed": columns.flags(each.timed for each in events),
            "properties": columns.objects(each.properties for each in events),
            "adjusts": columns.uuids(each.adjusts for each in events),
            "reasons": columns.texts(each.reason for each in events),
            "voids": columns.uuids(each.voids for each in events),
            "leaves": columns.hashes(map(leaf, events)),
            "drew_on": columns.texts(each and each.model for each in draws),
            "deducted": columns.numbers(each and each.deducted for each in draws),
            "remaining": columns.numbers(each and each.remaining for each in draws),
            "blocked": columns.flags(each and each.blocked for each in draws),
        },
    )


async def _count(conn: Conn, shares: Sequence[HourShare], *, number: int) -> None:
    """In one order."""
    hours: dict[tuple[UUID, UUID, datetime], tuple[int, Decimal]] = {}
    for each in shares:
        place = (each.customer_id, each.meter_id, each.hour)
        events, quantity = hours.get(place, (0, ZERO))
        hours[place] = events + 1, _ADD(quantity, each.quantity)
    await _written_out(
        conn,
        "INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, batch) VALUES ",
        [(*place, *hours[place], number) for place in sorted(hours)],
        """ ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
               SET events = u.events + excluded.events, quantity = u.quantity + excluded.quantity,
                   batch = excluded.batch RETURNING 1""",
    )


async def _notch(
    conn: Conn, stored: Sequence[New], *, organization_id: UUID, version: int, number: int
) -> None:
    """The head last, and only if the version is still the one the batch was judged by."""
    events = sorted((each.event for each in stored), key=lambda each: each.id)
    leaves = b"".join(map(leaf, events))
    head = await row(
        conn,
        """UPDATE organization_heads
              SET position = position + 1, digest = sha256(digest || int8send(position + 1) || %(leaves)s)
            WHERE organization_id = %(organization)s AND version = %(version)s RETURNING position, digest""",
        {"organization": organization_id, "version": version, "leaves": leaves},
    )
    if head is None:
        raise StaleVersion
    await conn.execute(
        """INSERT INTO ingest_batches (organization_id, position, batch, first_event_id, events, leaves, digest)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (organization_id, head[0], number, events[0].id, len(events), leaves, head[1]),
    )


async def _written_out(
    conn: Conn, into: LiteralString, given: Sequence[tuple[Any, ...]], then: LiteralString
) -> list[tuple[Any, ...]]:
    """A statement with every row in it; what it returns."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(given), _ROWS_AT_ONCE):
        some = given[start : start + _ROWS_AT_ONCE]
        places: LiteralString = ", ".join(["(" + ", ".join(["%s"] * len(some[0])) + ")"] * len(some))
        cursor = await conn.execute(  # unlike the last one: not worth remembering
            into + places + then, [value for each in some for value in each], prepare=False
        )
        found += await cursor.fetchall()
    return found
