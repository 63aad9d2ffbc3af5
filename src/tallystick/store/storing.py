"""The one statement that makes a batch true: stored, counted in its hours, and notched into the chain."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from tallystick.core.events import StoredEvent
from tallystick.core.proof import leaf
from tallystick.core.wallets import Draw
from tallystick.store import columns
from tallystick.store.columns import Column
from tallystick.store.db import Conn, the


@dataclass(frozen=True, slots=True)
class Shares:
    """What the events of a sheet add to hourly rollups: by place of the event, meter, hour, and quantity."""

    places: list[int] = field(default_factory=list)
    meters: list[UUID] = field(default_factory=list)
    hours: list[datetime] = field(default_factory=list)
    quantities: list[Decimal] = field(default_factory=list)

    def add(self, place: int, meter: UUID, hour: datetime, quantity: Decimal) -> None:
        self.places.append(place)
        self.meters.append(meter)
        self.hours.append(hour)
        self.quantities.append(quantity)


class Sheet(NamedTuple):
    """A batch to store, by columns: its events, where their keys and their Idempotency-Keys live, what they count."""

    events: Sequence[StoredEvent]
    key_hashes: Sequence[bytes | None]
    header_hashes: Sequence[bytes | None]
    shares: Shares


class StaleVersion(Exception):
    """The organization's version moved: nothing of the batch was stored."""


@dataclass(frozen=True, slots=True)
class Inserted:
    number: int  # of the batch
    repeats: set[int]  # ids, as numbers, that were not stored because their key is taken


async def insert(
    conn: Conn,
    sheet: Sheet,
    *,
    organization_id: UUID,
    version: int,
    received_at: datetime,
    number: int | None = None,
) -> Inserted:
    """Make a batch true, in one statement: store what is new, count it in its hours, notch it into the chain.

    Keys are inserted in one order and with ON CONFLICT DO NOTHING: the unique index decides, and two batches
    cannot deadlock. What was not stored is looked up by a statement of its own (`events.holders`): only a new
    statement sees the row that won the race.

    The head row is locked last (`counted` is read before it is touched) and only if the version is still the
    one the batch was judged by; else the notch has no position, which its column refuses, and all is undone:
    StaleVersion. The digest is `core.proof.link`, computed where the row is locked; a test proves they agree.
    """
    (
        identities,
        customers,
        features,
        values,
        occurred,
        _,
        keys,
        timed,
        properties,
        adjusts,
        reasons,
        voids,
        _,
        draws,
    ) = zip(*sheet.events, strict=True)
    ids, owners, shares = columns.uuids(identities), columns.uuids(customers), sheet.shares
    one_each = len(shares.places) == len(identities) and shares.places == list(range(len(identities)))
    try:
        cursor = await conn.execute(
            _INSERT,
            {
                "ids": ids,
                "customers": owners,
                "key_hashes": columns.hashes(sheet.key_hashes),
                "header_hashes": columns.hashes(sheet.header_hashes) if any(sheet.header_hashes) else None,
                "occurred": columns.instants(occurred),
                "features": columns.texts(features),
                "values": columns.numbers(values),
                "keys": columns.texts(keys) if any(keys) else None,
                "timed": columns.flags(timed),
                "properties": columns.objects(properties) if any(properties) else None,
                "leaves": columns.hashes(map(leaf, sheet.events)),
                **(
                    _rare(adjusts, reasons, voids, draws)
                    if any(adjusts) or any(voids) or any(draws)
                    else _NOTHING_RARE
                ),
                "number": number,
                "hour_events": ids if one_each else columns.uuids(identities[each] for each in shares.places),
                "hour_customers": owners
                if one_each
                else columns.uuids(customers[each] for each in shares.places),
                "hour_meters": columns.uuids(shares.meters),
                "hours": columns.instants(shares.hours),
                "quantities": columns.numbers(shares.quantities),
                "organization": organization_id,
                "version": version,
                "received": received_at,
            },
            binary=True,
        )
        number, repeats, seen = await the(cursor)
    except psycopg.errors.NotNullViolation as error:
        if error.diag.table_name == "ingest_batches":
            raise StaleVersion from None
        raise
    if seen != version:
        raise StaleVersion
    return Inserted(number, {each.int for each in repeats})


def _rare(
    adjusts: Sequence[UUID | None],
    reasons: Sequence[str | None],
    voids: Sequence[UUID | None],
    draws: Sequence[Draw | None],
) -> dict[str, Column | None]:
    """Of corrections, voids and prepaid events. A column that is NULL as a whole is NULL in every row."""
    prepaid = any(draws)
    return {
        "adjusts": columns.uuids(adjusts),
        "reasons": columns.texts(reasons),
        "voids": columns.uuids(voids),
        "drew_on": columns.texts(each and each.model for each in draws) if prepaid else None,
        "deducted": columns.numbers(each and each.deducted for each in draws) if prepaid else None,
        "remaining": columns.numbers(each and each.remaining for each in draws) if prepaid else None,
        "blocked": columns.flags(each and each.blocked for each in draws) if prepaid else None,
    }


_NOTHING_RARE: Final[dict[str, Column | None]] = dict.fromkeys(
    ("adjusts", "reasons", "voids", "drew_on", "deducted", "remaining", "blocked")
)


_INSERT: Final = """
    WITH numbered AS (
        SELECT coalesce(%(number)s::bigint, nextval('ingest_batch_numbers')) AS batch
    ), sent AS (
        SELECT * FROM unnest(
            %(ids)s::uuid[], %(customers)s::uuid[], %(key_hashes)s::bytea[], %(header_hashes)s::bytea[],
            %(occurred)s::timestamptz[], %(features)s::text[], %(values)s::text[], %(keys)s::text[],
            %(timed)s::bool[], %(properties)s::text[], %(adjusts)s::uuid[], %(reasons)s::text[],
            %(voids)s::uuid[], %(leaves)s::bytea[], %(drew_on)s::text[], %(deducted)s::text[], %(remaining)s::text[],
            %(blocked)s::bool[])
        AS t (id, customer_id, key_hash, header_hash, occurred_at, feature_code, value,
              event_key, timed, properties, adjusts, reason, voids, leaf, drew_on, deducted, remaining, blocked)
    ), fresh AS (
        INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at, header_hash)
        SELECT customer_id, key_hash, id, occurred_at, header_hash FROM sent
         WHERE key_hash IS NOT NULL ORDER BY customer_id, key_hash, id
        ON CONFLICT DO NOTHING RETURNING event_id
    ), stored AS (
        INSERT INTO events (customer_id, occurred_at, id, organization_id, received_at, batch, feature_code,
                            value, event_key, timed, adjusts, properties, reason, voids, leaf,
                            drew_on, deducted, remaining, blocked)
        SELECT customer_id, occurred_at, id, %(organization)s, %(received)s, batch, feature_code,
               value::numeric, event_key, timed, adjusts, properties::jsonb, reason, voids, leaf,
               drew_on, deducted::numeric, remaining::numeric, blocked
          FROM sent, numbered WHERE key_hash IS NULL OR id IN (SELECT event_id FROM fresh)
        RETURNING id
    ), counted AS (
        INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, batch)
        SELECT customer_id, meter_id, hour, count(*), sum(quantity::numeric), batch
          FROM unnest(%(hour_events)s::uuid[], %(hour_customers)s::uuid[], %(hour_meters)s::uuid[],
                      %(hours)s::timestamptz[], %(quantities)s::text[])
            AS c (event_id, customer_id, meter_id, hour, quantity), numbered
         WHERE event_id IN (SELECT id FROM stored)
         GROUP BY customer_id, meter_id, hour, batch ORDER BY customer_id, meter_id, hour
        ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
           SET events = u.events + excluded.events, quantity = u.quantity + excluded.quantity,
               batch = excluded.batch
        RETURNING 1
    ), notched AS (
        SELECT count(*) AS events, (array_agg(id ORDER BY id))[1] AS first_event_id,
               string_agg(leaf, ''::bytea ORDER BY id) AS leaves
          FROM sent WHERE id IN (SELECT id FROM stored)
    ), head AS (
        UPDATE organization_heads o
           SET position = o.position + 1, digest = sha256(o.digest || int8send(o.position + 1) || n.leaves)
          FROM notched n
         WHERE o.organization_id = %(organization)s AND o.version = %(version)s AND n.events > 0
           AND (SELECT count(*) FROM counted) >= 0
        RETURNING o.position, o.digest
    ), notch AS (
        INSERT INTO ingest_batches (organization_id, position, batch, first_event_id, events, leaves, digest)
        SELECT %(organization)s, head.position, batch, n.first_event_id, n.events, n.leaves, head.digest
          FROM notched n CROSS JOIN numbered LEFT JOIN head ON true WHERE n.events > 0
    )
    SELECT batch,
           ARRAY(SELECT id FROM sent WHERE key_hash IS NOT NULL AND id NOT IN (SELECT event_id FROM fresh)),
           (SELECT version FROM organization_heads WHERE organization_id = %(organization)s)
      FROM numbered"""
