"""Usage: partial folds by hour, sets of distinct values, and the counters of hard limits."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from tallystick.core.meters import NOTHING, Aggregation, Fold, Meter, Total
from tallystick.core.money import ZERO
from tallystick.core.times import Period
from tallystick.store import citus, columns
from tallystick.store.db import Conn, rows
from tallystick.store.meter_sql import contributions, latest_at, merged
from tallystick.store.places import within


@dataclass(frozen=True, slots=True)
class Addition:
    """What one stored event adds to a meter that does not simply add up."""

    customer_id: UUID
    feature_id: UUID
    meter_id: UUID
    hour: datetime
    quantity: Decimal
    distinct: bytes | None = None
    at: datetime | None = None


async def raise_maxima(conn: Conn, additions: list[Addition], *, number: int) -> None:
    await conn.execute(
        """INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, batch)
           SELECT customer_id, meter_id, hour, count(*), max(quantity), %s
             FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::numeric[])
               AS c (customer_id, meter_id, hour, quantity)
            GROUP BY customer_id, meter_id, hour ORDER BY customer_id, meter_id, hour
           ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
              SET events = u.events + excluded.events, batch = excluded.batch,
                  quantity = CASE WHEN u.events = 0 THEN excluded.quantity
                                  ELSE greatest(u.quantity, excluded.quantity) END""",
        (
            number,
            [each.customer_id for each in additions],
            [each.meter_id for each in additions],
            [each.hour for each in additions],
            [each.quantity for each in additions],
        ),
    )


async def renew_latest(conn: Conn, additions: list[Addition], *, number: int) -> None:
    """Of two events at one instant the larger counts, as `core.meters.merge` says."""
    await conn.execute(
        """INSERT INTO usage_hours AS u (customer_id, meter_id, hour, events, quantity, latest_at, batch)
           SELECT customer_id, meter_id, hour, count(*), (array_agg(quantity ORDER BY at DESC, quantity DESC))[1],
                  max(at), %s
             FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::numeric[], %s::timestamptz[])
               AS c (customer_id, meter_id, hour, quantity, at)
            GROUP BY customer_id, meter_id, hour ORDER BY customer_id, meter_id, hour
           ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
              SET events = u.events + excluded.events, batch = excluded.batch,
                  quantity = CASE WHEN u.latest_at IS NULL
                                    OR (excluded.latest_at, excluded.quantity) > (u.latest_at, u.quantity)
                                  THEN excluded.quantity ELSE u.quantity END,
                  latest_at = greatest(u.latest_at, excluded.latest_at)""",
        (
            number,
            [each.customer_id for each in additions],
            [each.meter_id for each in additions],
            [each.hour for each in additions],
            [each.quantity for each in additions],
            [each.at for each in additions],
        ),
    )


async def add_values(conn: Conn, additions: list[Addition]) -> None:
    """Number the values nobody has met before, and put all of them into the sets of their hours.

    The organization's head row must be locked: it is what keeps two batches from giving one number twice. (If
    it did not, the unique index on the numbers would refuse the second.)
    """
    if citus.is_citus(conn):
        await _add_values_apart(conn, additions)
        return
    await conn.execute(
        f"""WITH sent AS (
                SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[], %s::bytea[])
                    AS c (customer_id, feature_id, meter_id, hour, value_hash)
            ){_NUMBER_AND_COUNT}""",
        (
            columns.uuids(each.customer_id for each in additions),
            columns.uuids(each.feature_id for each in additions),
            columns.uuids(each.meter_id for each in additions),
            columns.instants(each.hour for each in additions),
            columns.hashes(each.distinct for each in additions),
        ),
    )


MEMBERS: Final = 2048
"""How many numbers a row of `usage_sets` has room for; the width of its column."""


def member(number: str) -> str:
    """The set of one number, within its block."""
    return f"set_bit(B'0'::bit({MEMBERS}), mod({number}, {MEMBERS}), 1)"


# Nothing here is joined but by probes of an index, a value each: what the plan was made from must not decide
# (docs/decisions/0009). Numbers are given in the order of first use: what is used together lies together, and an
# hour has few rows.
_NUMBER_AND_COUNT: Final = f""", numbered AS MATERIALIZED (
        SELECT v.*, d.number IS NULL AS fresh,
               coalesce(d.number, row_number() OVER (PARTITION BY v.customer_id, v.feature_id, d.number IS NULL
                                                     ORDER BY v.first_hour, v.value_hash)
                                  + coalesce((SELECT number FROM distinct_values l
                                               WHERE l.customer_id = v.customer_id AND l.feature_id = v.feature_id
                                               ORDER BY number DESC LIMIT 1), -1))::int AS number
          FROM (SELECT customer_id, feature_id, value_hash, min(hour) AS first_hour,
                       array_agg(meter_id) AS meters, array_agg(hour) AS hours
                  FROM sent GROUP BY customer_id, feature_id, value_hash) v
          LEFT JOIN LATERAL (
               SELECT number FROM distinct_values d
                WHERE d.customer_id = v.customer_id AND d.feature_id = v.feature_id
                  AND d.value_hash = v.value_hash OFFSET 0) d ON true
    ), kept AS (
        INSERT INTO distinct_values (customer_id, feature_id, value_hash, number)
        SELECT customer_id, feature_id, value_hash, number FROM numbered WHERE fresh
    )
    INSERT INTO usage_sets AS u (customer_id, meter_id, hour, block, members)
    SELECT n.customer_id, c.meter_id, c.hour, n.number / {MEMBERS}, bit_or({member("n.number")})
      FROM numbered n CROSS JOIN LATERAL unnest(n.meters, n.hours) AS c (meter_id, hour)
     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter_id, hour, block) DO UPDATE SET members = u.members | excluded.members
     WHERE (u.members | excluded.members) <> u.members"""


async def _add_values_apart(conn: Conn, additions: Sequence[Addition]) -> None:
    """The same in steps, where one statement cannot probe the shards of several customers for the newest number."""
    if not additions:
        return
    hours: dict[tuple[UUID, UUID, bytes], datetime] = {}
    for each in additions:
        value = (each.customer_id, each.feature_id, each.distinct or b"")
        hours[value] = min(hours.get(value, each.hour), each.hour)
    numbers = {
        (customer, feature, bytes(value)): number
        for customer, feature, value, number in await rows(
            conn,
            """SELECT d.customer_id, d.feature_id, d.value_hash, d.number
                 FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[]) AS t (customer_id, feature_id, value_hash)
                 JOIN distinct_values d USING (customer_id, feature_id, value_hash)""",
            tuple(map(list, zip(*hours, strict=True))),
        )
    }
    fresh = sorted(hours.keys() - numbers.keys(), key=lambda each: (each[0], each[1], hours[each], each[2]))
    newest: dict[tuple[UUID, UUID], int] = {}
    for customer, feature, value_hash in fresh:
        if (customer, feature) not in newest:
            found = await rows(
                conn,
                """SELECT number FROM distinct_values WHERE customer_id = %s AND feature_id = %s
                    ORDER BY number DESC LIMIT 1""",
                (customer, feature),
            )
            newest[customer, feature] = found[0][0] if found else -1
        newest[customer, feature] += 1
        numbers[customer, feature, value_hash] = newest[customer, feature]
    if fresh:
        await conn.execute(
            """INSERT INTO distinct_values (customer_id, feature_id, value_hash, number)
               SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[], %s::int[])
                   AS t (customer_id, feature_id, value_hash, number)""",
            (*map(list, zip(*fresh, strict=True)), [numbers[each] for each in fresh]),
        )
    await conn.execute(
        f"""INSERT INTO usage_sets AS u (customer_id, meter_id, hour, block, members)
            SELECT customer_id, meter_id, hour, number / {MEMBERS}, bit_or({member("number")})
              FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::int[]) AS t (customer_id, meter_id, hour, number)
             GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
            ON CONFLICT (customer_id, meter_id, hour, block) DO UPDATE SET members = u.members | excluded.members
             WHERE (u.members | excluded.members) <> u.members""",
        (
            [each.customer_id for each in additions],
            [each.meter_id for each in additions],
            [each.hour for each in additions],
            [numbers[each.customer_id, each.feature_id, each.distinct or b""] for each in additions],
        ),
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A fold that is asked for: whole hours of one meter, and the ragged edges beside them."""

    customer_id: UUID
    meter: Meter
    hours: Period | None
    edges: tuple[Period, ...]


async def folds(conn: Conn, asked: Sequence[Asked]) -> list[Total]:
    """Many folds at once, in the order asked: of sums and counts that read no property (`reads_all`)."""
    whole = [(place, each.hours) for place, each in enumerate(asked) if each.hours is not None]
    ragged = [(place, edge) for place, each in enumerate(asked) for edge in each.edges]
    found = [NOTHING] * len(asked)
    if whole:
        for nth, events, quantity in await rows(
            conn,
            f"""SELECT t.nth, u.events, u.quantity
                 FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::timestamptz[])
                      WITH ORDINALITY AS t (customer_id, meter_id, start_at, end_at, nth)
                CROSS JOIN LATERAL (
                      SELECT sum(events)::bigint AS events, sum(quantity) AS quantity FROM usage_hours h
                       WHERE h.customer_id = t.customer_id AND h.meter_id = t.meter_id
                         AND h.hour >= t.start_at AND h.hour < t.end_at
                       {citus.grouped_by(conn, "h.customer_id")} OFFSET 0) u
                WHERE u.events > 0""",
            (
                columns.uuids(asked[place].customer_id for place, _ in whole),
                columns.uuids(asked[place].meter.id for place, _ in whole),
                columns.instants(span.start for _, span in whole),
                columns.instants(span.end for _, span in whole),
            ),
        ):
            found[whole[nth - 1][0]] = Total(events, quantity)
    if ragged:
        for nth, events, quantity in await rows(
            conn,
            f"""SELECT t.nth, e.events, e.quantity
                 FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::bool[], %s::timestamptz[], %s::timestamptz[])
                      WITH ORDINALITY AS t (customer_id, code, feature_id, counts, start_at, end_at, nth)
                CROSS JOIN LATERAL (
                      SELECT count(*) AS events,
                             sum(CASE WHEN t.counts AND e.adjusts IS NULL THEN 1 ELSE e.value END) AS quantity
                        FROM events e
                       WHERE e.customer_id = t.customer_id AND e.feature_code = t.code
                         AND {within("t.start_at", "t.end_at")}
                         AND e.voids IS NULL AND e.voided IS NULL
                         AND (e.adjusts IS NULL OR e.adjusts = t.feature_id)
                       {citus.grouped_by(conn, "e.customer_id")} OFFSET 0) e
                WHERE e.events > 0""",
            (
                columns.uuids(asked[place].customer_id for place, _ in ragged),
                columns.texts(asked[place].meter.event_code for place, _ in ragged),
                columns.uuids(asked[place].meter.feature_id for place, _ in ragged),
                columns.flags(asked[place].meter.aggregation is Aggregation.COUNT for place, _ in ragged),
                columns.instants(span.start for _, span in ragged),
                columns.instants(span.end for _, span in ragged),
            ),
        ):
            place, _ = ragged[nth - 1]
            found[place] = Total(found[place].events + events, found[place].quantity + quantity)
    return found


@dataclass(frozen=True, slots=True, order=True)
class HourPlace:
    """One hourly rollup."""

    customer_id: UUID
    meter_id: UUID
    hour: datetime


async def lock_hours(conn: Conn, places: list[HourPlace]) -> None:
    """Hold rollups, in one order: until this transaction ends nothing is counted there."""
    for each in sorted(places):
        await conn.execute(
            "SELECT FROM usage_hours WHERE customer_id = %s AND meter_id = %s AND hour = %s FOR UPDATE",
            (each.customer_id, each.meter_id, each.hour),
        )


async def rewrite_hour(conn: Conn, place: HourPlace, counted: Fold, *, meter: Meter, number: int) -> None:
    """Make a held rollup what its events now say. The head row must be locked, as for whatever writes sets."""
    where = (place.customer_id, place.meter_id, place.hour)
    unique = meter.aggregation is Aggregation.UNIQUE
    await conn.execute(
        """UPDATE usage_hours SET events = %s, quantity = %s, latest_at = %s, batch = %s
            WHERE customer_id = %s AND meter_id = %s AND hour = %s""",
        (counted.events, ZERO if unique else counted.quantity, counted.at, number, *where),
    )
    if unique:
        await conn.execute(
            "DELETE FROM usage_sets WHERE customer_id = %s AND meter_id = %s AND hour = %s", where
        )
        await add_values(
            conn,
            [
                Addition(place.customer_id, meter.feature_id, meter.id, place.hour, ZERO, value)
                for value in counted.values
            ],
        )


async def counting(conn: Conn, *, customers: Collection[UUID]) -> None:
    """Whoever draws on counters says so before, and waits for whoever takes something back (`recounting`)."""
    await conn.execute(
        "SELECT pg_advisory_xact_lock_shared(%s, bucket) FROM unnest(%s::int[]) AS t (bucket)",
        (_COUNTERS_LOCK, _buckets(customers)),
    )


async def recounting(conn: Conn, *, customers: Collection[UUID]) -> None:
    """Wait for all who draw on counters of these customers, and let nobody begin: neither on a counter that is to
    be forgotten, nor on one that does not exist yet and would be counted without seeing what is taken back.
    """
    await conn.execute(
        "SELECT pg_advisory_xact_lock(%s, bucket) FROM unnest(%s::int[]) AS t (bucket)",
        (_COUNTERS_LOCK, _buckets(customers)),
    )


_COUNTERS_LOCK: Final = 1
"""The advisory locks that are ours: by this number, and a bucket of customers, of whom a batch may have thousands."""


def _buckets(customers: Collection[UUID]) -> list[int]:
    """In one order."""
    return sorted({each.int & 0xFF for each in customers})


async def forget_counters(conn: Conn, *, customer_id: UUID, feature_ids: list[UUID]) -> None:
    """Counters of hard limits that are to be counted anew when next asked."""
    await conn.execute(
        "DELETE FROM limit_counters WHERE customer_id = %s AND feature_id = ANY(%s)",
        (customer_id, feature_ids),
    )


@dataclass(frozen=True, slots=True, order=True)
class CounterKey:
    customer_id: UUID
    subscription_id: UUID
    feature_id: UUID
    period_start: datetime


async def lock_counters(conn: Conn, *, keys: list[CounterKey]) -> dict[CounterKey, Decimal | None]:
    """Lock the counters in one order; None for one that did not exist and must be counted first."""
    ordered = sorted(keys)
    found = await rows(
        conn,
        """INSERT INTO limit_counters AS l (customer_id, subscription_id, feature_id, period_start, used)
           SELECT *, 0 FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[])
             AS k (customer_id, subscription_id, feature_id, period_start)
            ORDER BY customer_id, subscription_id, feature_id, period_start
           ON CONFLICT (customer_id, subscription_id, feature_id, period_start) DO UPDATE SET used = l.used
           RETURNING customer_id, subscription_id, feature_id, period_start, used, xmax = 0""",
        (
            [key.customer_id for key in ordered],
            [key.subscription_id for key in ordered],
            [key.feature_id for key in ordered],
            [key.period_start for key in ordered],
        ),
    )
    return {CounterKey(*each[:4]): None if each[5] else each[4] for each in found}


async def counted(conn: Conn, *, keys: list[CounterKey]) -> dict[CounterKey, Decimal]:
    """What those of some counters that are there say; nothing is locked."""
    found = await rows(
        conn,
        """SELECT l.customer_id, l.subscription_id, l.feature_id, l.period_start, l.used
             FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[])
               AS k (customer_id, subscription_id, feature_id, period_start)
             JOIN limit_counters l USING (customer_id, subscription_id, feature_id, period_start)""",
        (
            [key.customer_id for key in keys],
            [key.subscription_id for key in keys],
            [key.feature_id for key in keys],
            [key.period_start for key in keys],
        ),
    )
    return {CounterKey(*each[:4]): each[4] for each in found}


async def set_counters(conn: Conn, *, used: dict[CounterKey, Decimal]) -> None:
    await conn.execute(
        """UPDATE limit_counters AS l SET used = k.used
             FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[], %s::numeric[])
               AS k (customer_id, subscription_id, feature_id, period_start, used)
            WHERE (l.customer_id, l.subscription_id, l.feature_id, l.period_start)
                = (k.customer_id, k.subscription_id, k.feature_id, k.period_start)""",
        (
            [key.customer_id for key in used],
            [key.subscription_id for key in used],
            [key.feature_id for key in used],
            [key.period_start for key in used],
            list(used.values()),
        ),
    )


_VALUES_AT_ONCE: Final = 10_000
_EVERYBODY: Final = (
    "customers c JOIN events e ON e.customer_id = c.id WHERE c.organization_id = %(organization)s"
)


async def backfill(conn: Conn, *, organization_id: UUID, meter: Meter) -> None:
    """The rollups of a meter that is younger than the events it measures. The head row must be locked."""
    counts = contributions(meter)
    params = {
        "organization": organization_id,
        "feature": meter.feature_id,
        "meter": meter.id,
        **counts.params,
    }
    await conn.execute(
        f"""INSERT INTO usage_hours (customer_id, meter_id, hour, events, quantity, latest_at, batch)
            SELECT customer_id, %(meter)s, hour, count(*), {merged(meter)}, {latest_at(meter)}, 0
              FROM (SELECT e.customer_id, hour_of(e.occurred_at) AS hour,
                           {counts.quantity} AS quantity, e.occurred_at AS at
                      FROM {_EVERYBODY} AND {counts.matches}) AS measured
             GROUP BY customer_id, hour ORDER BY customer_id, hour""",
        params,
    )
    if counts.value is not None and citus.is_citus(conn):
        met = await rows(
            conn,
            f"""SELECT DISTINCT e.customer_id, hour_of(e.occurred_at) AS hour, {counts.value_hash}
                  FROM {_EVERYBODY} AND {counts.matches}""",
            params,
        )
        for start in range(0, len(met), _VALUES_AT_ONCE):
            some = met[start : start + _VALUES_AT_ONCE]
            await add_values(
                conn,
                [
                    Addition(customer, meter.feature_id, meter.id, hour, ZERO, bytes(value))
                    for customer, hour, value in some
                ],
            )
    elif counts.value is not None:
        await conn.execute(
            f"""WITH sent AS (
                    SELECT DISTINCT e.customer_id, %(feature)s::uuid AS feature_id, %(meter)s::uuid AS meter_id,
                           hour_of(e.occurred_at) AS hour, {counts.value_hash} AS value_hash
                      FROM {_EVERYBODY} AND {counts.matches}
                ){_NUMBER_AND_COUNT}""",
            params,
        )
