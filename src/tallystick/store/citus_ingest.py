"""A batch made true on a Citus cluster: what `storing` does in one statement, in a handful.

Citus takes that one statement too. But an upsert that reads from unnest it carries out through a file for each shard,
one after the other; rows that are written out it sends to their shards as they are.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.pq import PipelineStatus, TransactionStatus

from tallystick.core.events import StoredEvent
from tallystick.core.money import ZERO
from tallystick.core.proof import leaves
from tallystick.store import columns, db
from tallystick.store.db import Conn, row, the
from tallystick.store.sheets import Feeds, Inserted, NoPlenty, Shares, Sheet, StaleVersion

_ROWS_AT_ONCE: Final = 1_000
_ADD: Final[Callable[[Decimal, Decimal], Decimal]] = Context(prec=100).add


async def insert(
    conn: Conn,
    sheet: Sheet,
    *,
    organization_id: UUID,
    version: int,
    generation: int,
    received_at: datetime,
    number: int | None,
) -> Inserted:
    """As `storing.in_one_statement`, in every respect; a transaction of its own where none is open. Raises StaleVersion, and
    NoPlenty for whatever is to be paid."""
    if sheet.costs.tariffs:
        raise NoPlenty
    begun = (
        conn.info.transaction_status is not TransactionStatus.IDLE
        or conn.pgconn.pipeline_status != PipelineStatus.OFF
    )
    sheet = sheet._replace(events=[*sheet.events])  # each is looked at by itself
    async with nullcontext() if begun else conn.transaction():
        if number is None:
            number = int((await the(await conn.execute("SELECT nextval('ingest_batch_numbers')")))[0])
        keyed = {
            event.id
            for event, key_hash in zip(sheet.events, sheet.key_hashes, strict=True)
            if key_hash is not None
        }
        repeats = dict.fromkeys(each.int for each in keyed - await _take_keys(conn, sheet, generation))
        stored = [each for each in sheet.events if each.id.int not in repeats]
        if stored:
            await _store(conn, stored, received_at=received_at, number=number)
            shares = sheet.shares
            if isinstance(shares, Feeds):
                shares = shares.shares(sheet.events)
            await _count(conn, sheet.events, shares, repeats, number=number)
            await _notch(conn, stored, organization_id=organization_id, version=version, number=number)
        elif await db.version(conn, organization_id=organization_id) != version:  # no head is locked
            raise StaleVersion
        return Inserted(number, repeats, ())


async def _take_keys(conn: Conn, sheet: Sheet, generation: int) -> set[UUID]:
    """In one order; which events have theirs now."""
    given = sorted(
        (event.customer_id, UUID(bytes=key_hash), event.id, event.occurred_at, mark, generation)
        for event, key_hash, mark in zip(sheet.events, sheet.key_hashes, sheet.header_marks, strict=True)
        if key_hash is not None and event.id not in sheet.older
    )
    found = await _written_out(
        conn,
        "INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at, header_mark, generation) VALUES ",
        given,
        " ON CONFLICT DO NOTHING RETURNING event_id",
    )
    return {each[0] for each in found}


async def _store(conn: Conn, events: Sequence[StoredEvent], *, received_at: datetime, number: int) -> None:
    """Without a conflict to look for, unnest is sent to the shards by COPY."""
    draws = [each.draw for each in events]
    await conn.execute(
        """INSERT INTO events (customer_id, occurred_at, id, received_at, batch, feature_code, value,
                               event_key, timed, adjusts, properties, reason, voids, leaf,
                               drew_on, deducted, remaining, blocked)
           SELECT customer_id, occurred_at, id, nullif(%(received)s, occurred_at), %(number)s, feature_code,
                  value::numeric, event_key, timed, adjusts, properties::jsonb, reason, voids, leaf,
                  drew_on, deducted::numeric, remaining::numeric, blocked
             FROM unnest(%(ids)s::uuid[], %(customers)s::uuid[], %(occurred)s::timestamptz[], %(features)s::text[],
                         %(values)s::text[], %(keys)s::text[], %(timed)s::bool[], %(properties)s::text[],
                         %(adjusts)s::uuid[], %(reasons)s::text[], %(voids)s::uuid[], %(leaves)s::uuid[],
                         %(drew_on)s::text[], %(deducted)s::text[], %(remaining)s::text[], %(blocked)s::bool[])
               AS t (id, customer_id, occurred_at, feature_code, value, event_key, timed, properties, adjusts, reason,
                     voids, leaf, drew_on, deducted, remaining, blocked)""",
        {
            "received": received_at,
            "number": number,
            "ids": columns.uuids(each.id for each in events),
            "customers": columns.uuids(each.customer_id for each in events),
            "occurred": columns.instants(each.occurred_at for each in events),
            "features": columns.texts(each.feature for each in events),
            "values": columns.numbers(each.value for each in events),
            "keys": columns.texts(each.key for each in events),
            "timed": columns.flags(each.timed or None for each in events),
            "properties": columns.objects(each.properties for each in events),
            "adjusts": columns.uuids(each.adjusts for each in events),
            "reasons": columns.texts(each.reason for each in events),
            "voids": columns.uuids(each.voids for each in events),
            "leaves": columns.digests(leaves(events)),
            "drew_on": columns.texts(each and each.model for each in draws),
            "deducted": columns.numbers(each and each.deducted for each in draws),
            "remaining": columns.numbers(each and each.remaining for each in draws),
            "blocked": columns.flags(each and each.blocked for each in draws),
        },
    )


async def _count(
    conn: Conn, events: Sequence[StoredEvent], shares: Shares, repeats: Collection[int], *, number: int
) -> None:
    """In one order."""
    hours: dict[tuple[UUID, UUID, datetime], tuple[int, Decimal]] = {}
    for place, meter, hour, quantity in zip(
        shares.places, shares.meters, shares.hours, shares.quantities, strict=True
    ):
        event = events[place]
        if event.id.int not in repeats:
            where = (event.customer_id, meter, hour)
            count, sum_of = hours.get(where, (0, ZERO))
            hours[where] = count + 1, _ADD(sum_of, quantity)
    await _written_out(
        conn,
        "INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, batch) VALUES ",
        [(*where, *hours[where], number) for where in sorted(hours)],
        """ ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
               SET events = u.events + excluded.events, quantity = u.quantity + excluded.quantity,
                   batch = excluded.batch RETURNING 1""",
    )


async def _notch(
    conn: Conn, stored: Sequence[StoredEvent], *, organization_id: UUID, version: int, number: int
) -> None:
    """The head last, and only if the version is still the one the batch was judged by."""
    events = sorted(stored, key=lambda each: each.id)
    digests = b"".join(leaves(events))
    head = await row(
        conn,
        """UPDATE organization_heads
              SET position = position + 1, digest = sha256(digest || int8send(position + 1) || %(leaves)s)
            WHERE organization_id = %(organization)s AND version = %(version)s RETURNING position, digest""",
        {"organization": organization_id, "version": version, "leaves": digests},
    )
    if head is None:
        raise StaleVersion
    await conn.execute(
        """INSERT INTO ingest_batches (organization_id, position, batch, first_event_id, events, leaves, digest)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (organization_id, head[0], number, events[0].id, len(events), digests, head[1]),
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
