"""What must be true of the books, asked of the database: each function counts who breaks a rule and shows the first.

All are to be asked under one snapshot. They read whole tables, in sets: what does not fit into memory PostgreSQL
sorts on disk, and nothing but offenders comes here.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from tallystick.core.meters import Aggregation, Meter
from tallystick.store.db import Conn, rows
from tallystick.store.meter_sql import contributions, latest_at, merged
from tallystick.store.usage import MEMBERS, member

FIRST_MAX: Final = 10
"""So many offenders are shown of each rule; the rest is counted."""


class Offenders(NamedTuple):
    """How many there are, and the first of them: the values that say who and how."""

    count: int
    first: list[tuple[Any, ...]]


NONE: Final = Offenders(0, [])


def _offenders(found: Sequence[tuple[Any, ...]]) -> Offenders:
    """Of rows whose first column counts them all."""
    return Offenders(found[0][0], [each[1:] for each in found]) if found else NONE


async def settle_in(conn: Conn) -> None:
    """For the transaction that asks: room to sort in, and plans for what is there now."""
    await conn.execute("SET LOCAL work_mem = '64MB'")
    await conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")


# Usage ----------------------------------------------------------------------------------------------------


async def wrong_hours(conn: Conn, *, organization_id: UUID, meters: Sequence[Meter]) -> Offenders:
    """Hourly rollups that are not what the events of their hour fold to; of meters that fold alike.

    (customer, meter, hour, (events, quantity) by the events, (events, quantity) by the rollup; either may be None.)
    Reads every event and every rollup of these meters once.
    """
    params: dict[str, Any] = {
        "organization": organization_id,
        "codes": list({each.event_code for each in meters}),
        "meters": [each.id for each in meters],
        "first": FIRST_MAX,
    }
    measured: list[str] = []
    for number, meter in enumerate(meters):
        counts = contributions(meter, str(number))
        params |= {**counts.params, f"meter{number}": meter.id}
        measured.append(f"(%(meter{number})s::uuid, {counts.matches}, {counts.quantity})")
    found = await rows(
        conn,
        f"""WITH told AS (
                SELECT customer_id, meter_id, hour, count(*) AS events, {merged(meters[0])} AS quantity,
                       {latest_at(meters[0])} AS latest
                  FROM (SELECT e.customer_id, m.meter_id, date_trunc('hour', e.occurred_at, 'UTC') AS hour,
                               e.occurred_at AS at, m.quantity
                          FROM events e
                         CROSS JOIN LATERAL (VALUES {", ".join(measured)}) AS m (meter_id, matches, quantity)
                         WHERE e.organization_id = %(organization)s AND e.feature_code = ANY(%(codes)s)
                           AND m.matches) AS measured
                 GROUP BY 1, 2, 3
            ), kept AS (
                SELECT customer_id, meter_id, hour, events, quantity, latest_at AS latest
                  FROM usage_hours WHERE meter_id = ANY(%(meters)s) AND events > 0
            )
            SELECT count(*) OVER (), customer_id, meter_id, hour, t.events, t.quantity, k.events, k.quantity
              FROM told t FULL JOIN kept k USING (customer_id, meter_id, hour)
             WHERE (t.events, t.quantity, t.latest) IS DISTINCT FROM (k.events, k.quantity, k.latest)
             ORDER BY customer_id, meter_id, hour LIMIT %(first)s""",
        params,
    )
    return _offenders(found)


async def wrong_sets(conn: Conn, *, organization_id: UUID, meter: Meter) -> Offenders:
    """Hours whose set of distinct values is not that of their events: (customer, hour).

    Reads every event of the meter's code, and every set of the meter, once.
    """
    counts = contributions(meter)
    found = await rows(
        conn,
        f"""WITH met AS (
                SELECT DISTINCT e.customer_id, date_trunc('hour', e.occurred_at, 'UTC') AS hour,
                       {counts.value_hash} AS value_hash
                  FROM events e WHERE e.organization_id = %(organization)s AND {counts.matches}
            ), told AS (
                SELECT m.customer_id, m.hour, d.number / {MEMBERS} AS block, bit_or({member("d.number")}) AS members
                  FROM met m LEFT JOIN distinct_values d ON d.customer_id = m.customer_id
                                   AND d.feature_id = %(feature)s AND d.value_hash = m.value_hash
                 GROUP BY 1, 2, 3
            ), wrong AS (
                SELECT DISTINCT customer_id, hour
                  FROM told t FULL JOIN (SELECT customer_id, hour, block, members FROM usage_sets
                                          WHERE meter_id = %(meter)s AND bit_count(members) > 0) k
                 USING (customer_id, hour, block)
                 WHERE t.members IS DISTINCT FROM k.members OR block IS NULL
            )
            SELECT count(*) OVER (), customer_id, hour FROM wrong ORDER BY 2, 3 LIMIT %(first)s""",
        {
            "organization": organization_id,
            "feature": meter.feature_id,
            "meter": meter.id,
            "first": FIRST_MAX,
            **counts.params,
        },
    )
    return _offenders(found)


def folds_alike(meters: Sequence[Meter]) -> list[list[Meter]]:
    """Meters by how their quantities merge: each group is one statement."""
    groups: dict[str, list[Meter]] = {}
    for each in meters:
        alike = "sum" if each.adds_up or each.aggregation is Aggregation.UNIQUE else each.aggregation.value
        groups.setdefault(alike, []).append(each)
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Counter:
    """The counter of a hard limit, as it stands."""

    customer_id: UUID
    subscription_id: UUID
    feature_id: UUID
    period_start: datetime
    used: Decimal


async def counters(conn: Conn, *, organization_id: UUID, page: int = 500) -> AsyncIterator[Counter]:
    """Of subscriptions that go on: of one that has ended nobody asks any more. Needs an open transaction."""
    async with conn.cursor(name="limit_counters") as cursor:
        cursor.itersize = page
        await cursor.execute(
            """SELECT l.customer_id, l.subscription_id, l.feature_id, l.period_start, l.used
                 FROM limit_counters l JOIN subscriptions s ON s.id = l.subscription_id
                WHERE s.organization_id = %s AND s.status <> 'canceled'
                ORDER BY l.subscription_id, l.feature_id, l.period_start""",
            (organization_id,),
        )
        async for found in cursor:
            yield Counter(*found)


async def unsettled_periods(conn: Conn, *, organization_id: UUID) -> Offenders:
    """Closed periods in which something happened after they were last rated, and nobody is to decide of it.

    (subscription, index, position it was rated at.) An event that was judged while its period was still open and
    committed just after the close had looked carries no mark: the customer's next close finds it by the rollups of
    the newest closed period, so that one is no offender as long as a close is to come. Looks at every rollup of
    every closed period, and at the events of the hours that a boundary cuts.
    """
    found = await rows(
        conn,
        """SELECT count(*) OVER (), p.subscription_id, p.period_index, p.position
             FROM (SELECT c.*, date_trunc('hour', period_start + interval '59 minutes 59.999999 seconds', 'UTC') AS first_hour,
                          date_trunc('hour', period_end, 'UTC') AS last_hour
                     FROM closed_periods c WHERE organization_id = %(organization)s) p
            WHERE NOT EXISTS (SELECT FROM late_events l
                               WHERE l.customer_id = p.customer_id AND l.due_at IS NOT NULL
                                 AND l.occurred_at >= p.period_start AND l.occurred_at < p.period_end)
              AND (EXISTS (SELECT FROM usage_hours u JOIN ingest_batches b ON b.batch = u.batch
                            WHERE u.customer_id = p.customer_id AND u.hour >= p.first_hour AND u.hour < p.last_hour
                              AND b.position > p.position)
                   OR EXISTS (SELECT FROM events e JOIN ingest_batches b ON b.batch = e.batch
                               WHERE e.customer_id = p.customer_id
                                 AND e.occurred_at >= p.period_start AND e.occurred_at < least(p.first_hour, p.period_end)
                                 AND b.position > p.position)
                   OR EXISTS (SELECT FROM events e JOIN ingest_batches b ON b.batch = e.batch
                               WHERE e.customer_id = p.customer_id
                                 AND e.occurred_at >= greatest(p.last_hour, p.period_start) AND e.occurred_at < p.period_end
                                 AND b.position > p.position))
              AND NOT (p.period_end = (SELECT max(period_end) FROM closed_periods o WHERE o.customer_id = p.customer_id)
                       AND EXISTS (SELECT FROM subscriptions s
                                    WHERE s.customer_id = p.customer_id AND s.closes_at IS NOT NULL))
            ORDER BY p.subscription_id, p.period_index LIMIT %(first)s""",
        {"organization": organization_id, "first": FIRST_MAX},
    )
    return _offenders(found)


# Invoices -------------------------------------------------------------------------------------------------


async def wrong_totals(conn: Conn, *, organization_id: UUID) -> Offenders:
    """Invoices that are not the sum of their lines: (id, subtotal, total, sum of the lines). Reads every line."""
    found = await rows(
        conn,
        """SELECT count(*) OVER (), i.id, i.subtotal, i.total, coalesce(l.amount, 0)::bigint
             FROM invoices i
             LEFT JOIN (SELECT invoice_id, sum(amount) AS amount FROM invoice_lines GROUP BY 1) l ON l.invoice_id = i.id
            WHERE i.organization_id = %(organization)s
              AND (i.subtotal <> coalesce(l.amount, 0)
                   OR i.total <> i.subtotal - i.discount - i.credit_applied + i.tax)
            ORDER BY i.id LIMIT %(first)s""",
        {"organization": organization_id, "first": FIRST_MAX},
    )
    return _offenders(found)


class UsageLine(NamedTuple):
    """As much of a line as its own arithmetic needs."""

    id: UUID
    invoice_id: UUID
    part: str
    feature_id: UUID | None
    usage_period: int | None
    amount: int
    currency: str
    evidence: Any


async def usage_lines(conn: Conn, *, organization_id: UUID, page: int = 200) -> AsyncIterator[UsageLine]:
    """Lines of usage and of features' minimums, invoice by invoice. Needs an open transaction."""
    async with conn.cursor(name="usage_lines") as cursor:
        cursor.itersize = page
        await cursor.execute(
            """SELECT l.id, l.invoice_id, l.part, l.feature_id, l.usage_period, l.amount, i.currency, l.evidence
                 FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id
                WHERE i.organization_id = %s AND l.part IN ('usage', 'minimum')
                ORDER BY i.id, l.position""",
            (organization_id,),
        )
        async for found in cursor:
            yield UsageLine(*found)


async def billed_twice(conn: Conn, *, organization_id: UUID) -> Offenders:
    """The same of the same period on several lines: (kind, subscription, times, ids of the lines).

    Usage is billed once a stretch, a feature's minimum once a period, a base price once for what it covers, and a
    difference once from the position it begins at. Reads every line.
    """
    found = await rows(
        conn,
        """SELECT count(*) OVER (), kind, subscription_id, count(*), array_agg(id ORDER BY id)
             FROM (SELECT coalesce(l.part, l.line_type) AS kind, l.id,
                          CASE WHEN l.line_type = 'plan_base' THEN i.subscription_id ELSE l.subscription_id END AS subscription_id,
                          l.feature_id, l.usage_period,
                          CASE WHEN l.line_type = 'plan_base' THEN l.evidence -> 'period' ->> 'start'
                               WHEN l.part = 'usage' THEN l.evidence -> 'span' ->> 0
                               WHEN l.part = 'difference' THEN l.evidence ->> 'afterPosition'
                               WHEN l.part = 'plan_minimum' THEN l.evidence ->> 'chainPosition' END AS which
                     FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
                    WHERE i.organization_id = %(organization)s) AS told
            GROUP BY kind, subscription_id, feature_id, usage_period, which HAVING count(*) > 1
            ORDER BY 5 LIMIT %(first)s""",
        {"organization": organization_id, "first": FIRST_MAX},
    )
    return _offenders(found)


async def missing_numbers(conn: Conn, *, organization_id: UUID) -> Offenders:
    """Numbers that were given to an invoice which is not there: (number,). Reads the index of numbers."""
    found = await rows(
        conn,
        """SELECT count(*) OVER (), n.number
             FROM organizations o CROSS JOIN LATERAL generate_series(1, o.invoices_issued) AS n (number)
            WHERE o.id = %(organization)s
              AND NOT EXISTS (SELECT FROM invoices i WHERE i.organization_id = o.id AND i.number = n.number)
            ORDER BY 2 LIMIT %(first)s""",
        {"organization": organization_id, "first": FIRST_MAX},
    )
    return _offenders(found)


# Periods and due work -------------------------------------------------------------------------------------


async def broken_tilings(conn: Conn, *, organization_id: UUID) -> Offenders:
    """Where a subscription's periods leave a gap or overlap: (subscription, index, its start, where it must begin).

    The first closed period has the index 0 and begins at the anchor; the open one begins where the last ends.
    Reads every closed period.
    """
    found = await rows(
        conn,
        """WITH lived AS (
               SELECT subscription_id, period_index, period_start, period_end
                 FROM closed_periods WHERE organization_id = %(organization)s
                UNION ALL
               SELECT id, period_index, period_start, NULL
                 FROM subscriptions WHERE organization_id = %(organization)s AND closes_at IS NOT NULL
           ), told AS (
               SELECT l.*, s.anchor_at, lag(l.period_end) OVER w AS ended, lag(l.period_index) OVER w AS before
                 FROM lived l JOIN subscriptions s ON s.id = l.subscription_id
               WINDOW w AS (PARTITION BY l.subscription_id ORDER BY l.period_index)
           )
           SELECT count(*) OVER (), subscription_id, period_index, period_start,
                  CASE WHEN before IS NULL THEN anchor_at ELSE ended END
             FROM told
            WHERE period_index <> coalesce(before + 1, 0)
               OR period_start IS DISTINCT FROM CASE WHEN before IS NULL THEN anchor_at ELSE ended END
            ORDER BY 2, 3 LIMIT %(first)s""",
        {"organization": organization_id, "first": FIRST_MAX},
    )
    return _offenders(found)


async def overdue(conn: Conn, *, organization_id: UUID, before: datetime) -> Offenders:
    """What should have been done before an instant: (kind, id, since when). Reads the indexes of due work.

    Nothing is, while a test-clock run is under way.
    """
    found = await rows(
        conn,
        """SELECT count(*) OVER (), kind, id, since
             FROM (SELECT 'close' AS kind, id, closes_at AS since FROM subscriptions
                    WHERE organization_id = %(organization)s AND closes_at < %(before)s
                    UNION ALL
                   SELECT 'late', event_id, due_at FROM late_events
                    WHERE organization_id = %(organization)s AND due_at < %(before)s
                    UNION ALL
                   SELECT 'collect', id, collect_at FROM invoices
                    WHERE organization_id = %(organization)s AND collect_at < %(before)s) AS due
            WHERE NOT EXISTS (SELECT FROM clock_runs
                               WHERE organization_id = %(organization)s AND status IN ('pending', 'running'))
            ORDER BY since, id LIMIT %(first)s""",
        {"organization": organization_id, "before": before, "first": FIRST_MAX},
    )
    return _offenders(found)


# What was found -------------------------------------------------------------------------------------------


class Noted(NamedTuple):
    """What the last reconciliation of everything found of a rule."""

    rule: str
    offenders: int
    first: list[str]
    checked_at: datetime


async def note(conn: Conn, *, found: Sequence[Noted]) -> None:
    """In place of what was noted before; rules that are no more are forgotten."""
    await conn.execute("DELETE FROM reconciliations WHERE rule <> ALL(%s)", ([each.rule for each in found],))
    async with conn.cursor() as many:
        await many.executemany(
            """INSERT INTO reconciliations (rule, offenders, first, checked_at) VALUES (%s, %s, %s, %s)
               ON CONFLICT (rule) DO UPDATE SET offenders = excluded.offenders, first = excluded.first,
                                                checked_at = excluded.checked_at""",
            [(each.rule, each.offenders, Jsonb(each.first), each.checked_at) for each in found],
        )


async def noted(conn: Conn) -> list[Noted]:
    found = await rows(conn, "SELECT rule, offenders, first, checked_at FROM reconciliations ORDER BY rule")
    return [Noted(*each) for each in found]
