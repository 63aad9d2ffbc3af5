"""The one statement that makes a batch true: stored, counted in its hours, and notched into the chain.

It pays too, for prepaid events whose wallets have plenty (`Costs`): then it locks the wallets before anything else.
"""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncRawCursor

from tallystick.core.events import StoredEvent
from tallystick.core.proof import leaves
from tallystick.core.rows import Table
from tallystick.core.wallets import LOW_SHARE, Draw, Model
from tallystick.store import citus, citus_ingest, columns
from tallystick.store.columns import Column
from tallystick.store.db import Conn, new_ids, the
from tallystick.store.event_keys import Held
from tallystick.store.key_generations import table
from tallystick.store.sheets import Costs, Feeds, Inserted, NoPlenty, Shares, Sheet, StaleVersion


async def insert(
    conn: Conn,
    sheet: Sheet,
    *,
    organization_id: UUID,
    version: int,
    generation: int,
    received_at: datetime,
    number: int | None = None,
) -> Inserted:
    """Make a batch true: store what is new, count it in its hours, notch it into the chain; in one statement, or, on a
    Citus cluster, in a handful (`citus_ingest`), where no wallet has plenty.

    Raises StaleVersion when the organization's version is another one by now, and NoPlenty: nothing is stored then.
    """
    form = citus_ingest.insert if citus.is_citus(conn) else in_one_statement
    return await form(
        conn,
        sheet,
        organization_id=organization_id,
        version=version,
        generation=generation,
        received_at=received_at,
        number=number,
    )


async def in_one_statement(
    conn: Conn,
    sheet: Sheet,
    *,
    organization_id: UUID,
    version: int,
    generation: int,
    received_at: datetime,
    number: int | None,
) -> Inserted:
    """Keys are inserted in one order and with ON CONFLICT DO NOTHING: the unique index decides, and two batches
    cannot deadlock. Who holds the key of what was not stored is told with it, except where that was a race: only a new
    statement sees the row that won it. They go into the generation that was open when the organization had this
    version: another one is opened only together with another version (`key_generations.freeze`).

    The head row is locked last (`counted` is read before it is touched) and only if the version is still the
    one the batch was judged by; else the notch has no position, which its column refuses, and all is undone.
    The digest is `core.proof.link`, computed where the row is locked; a test proves they agree.
    """
    events = Table.of(StoredEvent, sheet.events)
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
    ) = events.columns
    shares, payers = sheet.shares, _in_order(sheet.costs)
    given: dict[str, object] = {
        "ids": columns.uuids(identities),
        "customers": columns.uuids(customers),
        "key_hashes": columns.digests(sheet.key_hashes),
        "header_marks": None
        if sheet.header_marks.count(None) == len(identities)
        else columns.integers(sheet.header_marks),
        **columns.same("occurred", columns.INSTANT, occurred),
        **columns.same("features", columns.CODE, features),
        **columns.same("values", columns.NUMBER, values),
        "keys": columns.texts(keys) if any(keys) else None,
        "timed": columns.flags(each or None for each in timed) if any(timed) else None,
        "properties": columns.objects(properties) if any(properties) else None,
        "leaves": columns.digests(leaves(events)),
        **(
            _rare(adjusts, reasons, voids, draws)
            if any(adjusts) or any(voids) or any(draws)
            else _NOTHING_RARE
        ),
        "older": columns.uuids(sheet.older) if sheet.older else None,
        "number": number,
        **(_fed(shares) if isinstance(shares, Feeds) else _shared(shares, identities, customers)),
        "organization": organization_id,
        "version": version,
        "received": received_at,
        **(_paid(sheet.costs, payers, len(identities)) if payers else {}),
    }
    statement, names = _numbered(
        pays=bool(payers), by_feature=isinstance(shares, Feeds), generation=generation
    )
    cursor = AsyncRawCursor(conn)
    try:
        async with conn.pipeline() if payers else nullcontext():
            if payers:
                await conn.execute(_IN_TURN, (organization_id.int & _LOCK_MAX,))
            await cursor.execute(statement, [given[name] for name in names], binary=True)
            number, repeats, *held, seen, levels = await the(cursor)
    except psycopg.errors.DivisionByZero:
        raise NoPlenty from None
    except psycopg.errors.NotNullViolation as error:
        if error.diag.table_name == "ingest_batches":
            raise StaleVersion from None
        raise
    if seen != version:
        raise StaleVersion
    by_number = [level for _, level in sorted(zip(payers, levels or (), strict=True))]
    return Inserted(number, _holders(repeats, *held) if repeats else {}, by_number)


def _holders(
    repeats: Sequence[UUID],
    events: Sequence[UUID | None],
    occurred: Sequence[datetime | None],
    header_marks: Sequence[int | None],
) -> dict[int, Held | None]:
    return {
        repeat.int: None if event is None or at is None else Held(event, at, mark)
        for repeat, event, at, mark in zip(repeats, events, occurred, header_marks, strict=True)
    }


def _fed(feeds: Feeds) -> dict[str, Column]:
    return {
        "fed_features": columns.texts(feeds.features),
        "fed_meters": columns.uuids(feeds.meters),
        "fed_counts": columns.flags(feeds.counts),
    }


def _shared(shares: Shares, identities: Sequence[UUID], customers: Sequence[UUID]) -> dict[str, Column]:
    return {
        "hour_events": columns.uuids(identities[each] for each in shares.places),
        "hour_customers": columns.uuids(customers[each] for each in shares.places),
        "hour_meters": columns.uuids(shares.meters),
        "hours": columns.instants(shares.hours),
        "quantities": columns.numbers(shares.quantities),
    }


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


def _in_order(costs: Costs) -> list[int]:
    """Wallets by their numbers, in the order in which they are locked."""
    customers = [each.int for each in costs.customers]
    return sorted(range(len(customers)), key=customers.__getitem__)


def _paid(costs: Costs, payers: Sequence[int], events: int) -> dict[str, object]:
    """What each event costs, and the wallets in the order in which they are locked."""
    place_of = dict(zip(payers, range(1, len(payers) + 1), strict=True))
    tariffs = [costs.tariffs[each] for each in payers]
    models: list[str | None] = [None] * events
    amounts: list[Decimal | None] = [None] * events
    places: list[int | None] = [None] * events
    for place, amount, payer in zip(costs.places, costs.amounts, costs.payers, strict=True):
        models[place], amounts[place], places[place] = costs.tariffs[payer].model, amount, place_of[payer]
    return {
        "drew_on": columns.texts(models),
        "deducted": columns.numbers(amounts),
        "wallets": columns.integers(places),
        "payers": columns.uuids(costs.customers[each] for each in payers),
        "purses": columns.uuids(each.subscription_id for each in tariffs),
        "periods": columns.integers(each.period_index for each in tariffs),
        "credits": columns.flags(each.model is Model.CREDITS for each in tariffs),
        "entries": columns.uuids(new_ids(len(payers))),
        "wallets_asked": len(payers),
        "low_share": LOW_SHARE,
    }


_IN_TURN: Final = "SELECT pg_advisory_xact_lock(%s)"
"""Who pays from wallets of an organization does so in turn. Whoever waited for a wallet inside the statement would have
looked at too old a one, and PostgreSQL looks at such rows again one by one."""
_LOCK_MAX: Final = (1 << 63) - 1

_NOTHING_RARE: Final[dict[str, Column | None]] = dict.fromkeys(
    ("adjusts", "reasons", "voids", "drew_on", "deducted", "remaining", "blocked")
)


@lru_cache(maxsize=16)
def _numbered(*, pays: bool, by_feature: bool, generation: int) -> tuple[bytes, tuple[str, ...]]:
    """The statement as PostgreSQL wants it, and its parameters in their order. psycopg would read so long a text anew
    each time."""
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(
        r"%\((\w+)\)s", numbered, _statement(pays=pays, by_feature=by_feature, generation=generation)
    )
    return text.encode(), tuple(names)


def _statement(*, pays: bool, by_feature: bool, generation: int) -> LiteralString:
    """With the parts that pay, or without them; with what is counted by feature, or by event; the generation's table by its
    name, which routes no row and plans no other.

    Wallets are found locked and in order before a key is inserted; what they are asked for is what was stored. One that
    is in another period, has something set aside, or would come near its end divides by zero.
    """
    return f"""
    WITH numbered AS (
        SELECT coalesce(%(number)s::bigint, nextval('ingest_batch_numbers')) AS batch
    ), sent AS (
        SELECT id, customer_id, key_hash, header_mark,
               coalesce(occurred_at, %(occurred_all)s::timestamptz) AS occurred_at,
               coalesce(feature_code, %(features_all)s::text) AS feature_code,
               coalesce(value, %(values_all)s::text)::numeric AS value,
               event_key, timed, properties, adjusts, reason, voids, leaf, drew_on, deducted, remaining, blocked
               {", wallet" if pays else ""}
          FROM unnest(
            %(ids)s::uuid[], %(customers)s::uuid[], %(key_hashes)s::uuid[], %(header_marks)s::bigint[],
            %(occurred)s::timestamptz[], %(features)s::text[], %(values)s::text[], %(keys)s::text[],
            %(timed)s::bool[], %(properties)s::text[], %(adjusts)s::uuid[], %(reasons)s::text[],
            %(voids)s::uuid[], %(leaves)s::uuid[], %(drew_on)s::text[], %(deducted)s::text[], %(remaining)s::text[],
            %(blocked)s::bool[]{", %(wallets)s::bigint[]" if pays else ""})
        AS t (id, customer_id, key_hash, header_mark, occurred_at, feature_code, value,
              event_key, timed, properties, adjusts, reason, voids, leaf, drew_on, deducted, remaining, blocked
              {", wallet" if pays else ""}){_HELD if pays else ""}
    ), fresh AS (
        INSERT INTO {table(generation)} (generation, customer_id, key_hash, event_id, occurred_at, header_mark)
        SELECT {generation:d}, customer_id, key_hash, id, occurred_at, header_mark FROM sent
         WHERE key_hash IS NOT NULL AND id NOT IN (SELECT unnest(%(older)s::uuid[]))
           {"AND (SELECT wallets FROM found) >= 0" if pays else ""}
         ORDER BY key_hash, id
        ON CONFLICT DO NOTHING RETURNING event_id
    ), stored AS (
        INSERT INTO events (customer_id, occurred_at, id, received_at, batch, feature_code, value,
                            event_key, timed, adjusts, properties, reason, voids, leaf,
                            drew_on, deducted, remaining, blocked)
        SELECT customer_id, occurred_at, id, nullif(%(received)s, occurred_at), batch, feature_code, value,
               event_key, timed, adjusts, properties::jsonb, reason, voids, leaf,
               drew_on, deducted::numeric, {_REMAINING if pays else "remaining::numeric, blocked"}
          FROM sent, numbered WHERE key_hash IS NULL OR id IN (SELECT event_id FROM fresh)
        RETURNING id, customer_id, occurred_at, feature_code, value, leaf{_PAYING if pays else ""}
    ), counted AS (
        INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, batch)
        {_BY_FEATURE if by_feature else _BY_EVENT}
         GROUP BY customer_id, meter_id, hour, batch ORDER BY customer_id, meter_id, hour
        ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
           SET events = u.events + excluded.events, quantity = u.quantity + excluded.quantity,
               batch = excluded.batch
        RETURNING 1
    ), notched AS (
        SELECT count(*) AS events, (array_agg(id ORDER BY id))[1] AS first_event_id,
               string_agg(uuid_send(leaf), ''::bytea ORDER BY id) AS leaves
          FROM stored
    ), head AS (
        UPDATE organization_heads o
           SET position = o.position + 1, digest = sha256(o.digest || int8send(o.position + 1) || n.leaves)
          FROM notched n
         WHERE o.organization_id = %(organization)s AND o.version = %(version)s AND n.events > 0
           AND (SELECT count(*) FROM counted) >= 0 {"AND (SELECT 1 / enough FROM plenty) = 1" if pays else ""}
        RETURNING o.position, o.digest
    ), notch AS (
        INSERT INTO ingest_batches (organization_id, position, batch, first_event_id, events, leaves, digest)
        SELECT %(organization)s, head.position, batch, n.first_event_id, n.events, n.leaves, head.digest
          FROM notched n CROSS JOIN numbered LEFT JOIN head ON true WHERE n.events > 0
    )
    SELECT batch, r.ids, r.holders, r.occurred, r.header_marks,
           (SELECT version FROM organization_heads WHERE organization_id = %(organization)s),
           {"(SELECT levels FROM found)" if pays else "NULL::numeric[]"}
      FROM numbered, (
           SELECT array_agg(s.id) AS ids, array_agg(k.event_id) AS holders, array_agg(k.occurred_at) AS occurred,
                  array_agg(k.header_mark) AS header_marks
             FROM sent s
             LEFT JOIN LATERAL (
                  SELECT * FROM {table(generation)} k
                   WHERE k.customer_id = s.customer_id AND k.key_hash = s.key_hash OFFSET 0) k ON true
            WHERE s.key_hash IS NOT NULL AND s.id NOT IN (SELECT event_id FROM fresh)) r"""


_BY_FEATURE: Final = """
        SELECT customer_id, meter_id, hour_of(occurred_at) AS hour, count(*),
               sum(CASE WHEN counts THEN 1 ELSE value END), batch
          FROM stored
          JOIN unnest(%(fed_features)s::text[], %(fed_meters)s::uuid[], %(fed_counts)s::bool[])
            AS f (feature_code, meter_id, counts) USING (feature_code), numbered"""

_BY_EVENT: Final = """
        SELECT customer_id, meter_id, hour, count(*), sum(quantity::numeric), batch
          FROM unnest(%(hour_events)s::uuid[], %(hour_customers)s::uuid[], %(hour_meters)s::uuid[],
                      %(hours)s::timestamptz[], %(quantities)s::text[])
            AS c (event_id, customer_id, meter_id, hour, quantity), numbered
         WHERE event_id IN (SELECT id FROM stored)"""

_HELD: Final = """
    ), held AS MATERIALIZED (
        SELECT a.nth, w.*
          FROM unnest(%(payers)s::uuid[], %(purses)s::uuid[], %(periods)s::bigint[])
               WITH ORDINALITY AS a (customer_id, subscription_id, period_index, nth)
         CROSS JOIN LATERAL (
               SELECT plan, plan + purchased AS level,
                      CASE WHEN told_low THEN 0 ELSE refill * %(low_share)s::numeric END AS low FROM wallets w
                WHERE w.customer_id = a.customer_id AND w.subscription_id = a.subscription_id
                  AND w.period_index = a.period_index AND w.held = 0
                  FOR NO KEY UPDATE) w
    ), found AS MATERIALIZED (
        SELECT count(*) AS wallets, array_agg(level ORDER BY nth) AS levels, array_agg(plan ORDER BY nth) AS plans,
               array_agg(level - low ORDER BY nth) AS spare
          FROM held"""

_REMAINING: Final = """
               (SELECT levels FROM found)[wallet] - sum(deducted::numeric) OVER (PARTITION BY wallet ORDER BY id),
               CASE WHEN wallet IS NOT NULL THEN false END"""

_PAYING: Final = """
    ), spent AS (
        SELECT wallet, sum(deducted::numeric) AS cost
          FROM sent WHERE wallet IS NOT NULL AND id IN (SELECT id FROM stored) GROUP BY wallet
    ), plenty AS (
        SELECT CASE WHEN (SELECT wallets FROM found) = %(wallets_asked)s::int
                     AND coalesce(bool_and(cost <= (SELECT plans FROM found)[wallet]
                                           AND cost < (SELECT spare FROM found)[wallet]), true)
                    THEN 1 ELSE 0 END AS enough
          FROM spent
    ), debited AS (
        -- Never inserted: `plenty` has found them all. `excluded.plan` is what the wallet is to pay.
        INSERT INTO wallets AS w (customer_id, subscription_id, organization_id, model, period_index, plan,
                                  purchased, held, held_purchased, refill, told_low)
        SELECT (%(payers)s::uuid[])[wallet], (%(purses)s::uuid[])[wallet], %(organization)s, 'balance', 0, cost,
               0, 0, 0, 0, false
          FROM spent WHERE cost > 0 ORDER BY wallet
        ON CONFLICT (customer_id, subscription_id) DO UPDATE SET plan = w.plan - excluded.plan
    ), posted AS (
        INSERT INTO ledger_entries (customer_id, id, organization_id, subscription_id, period_index, source, target,
                                    amount, cause, batch, created_at)
        SELECT (%(payers)s::uuid[])[wallet], (%(entries)s::uuid[])[wallet], %(organization)s,
               (%(purses)s::uuid[])[wallet], (%(periods)s::bigint[])[wallet]::int,
               CASE WHEN (%(credits)s::bool[])[wallet] THEN 'plan_credits' ELSE 'balance' END, 'used',
               cost, 'usage', batch, %(received)s
          FROM spent, numbered WHERE cost > 0"""
