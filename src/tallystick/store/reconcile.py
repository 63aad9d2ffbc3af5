"""What must be true of the books, asked of the database: each function counts who breaks a rule and shows the first.

They read an organization's tables in sets: what does not fit into memory PostgreSQL sorts on disk, and little but
offenders comes here. Each is one statement and so sees one moment, and no longer than it must: a snapshot that is held
keeps the dead versions of hot rows, the chain's head first, in the way of everybody who stores events. What grows with
every event is asked about a portion at a time.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from tallystick.core.meters import Aggregation, Meter
from tallystick.core.reckoning import FrozenLine
from tallystick.store.db import Conn, row, rows
from tallystick.store.late import WITH_THE_NEXT_INVOICE
from tallystick.store.meter_sql import contributions, latest_at, merged
from tallystick.store.places import same, within
from tallystick.store.portions import OF_CUSTOMERS, OF_EVENTS, OF_HOURS, Portion
from tallystick.store.proving import ARCHIVED
from tallystick.store.usage import MEMBERS, CounterKey, member

FIRST_MAX: Final = 10
"""So many offenders are shown of each rule; the rest is counted."""


class Offenders(NamedTuple):
    """How many there are, and the first of them: the values that say who and how."""

    total: int
    first: list[tuple[Any, ...]]


async def _offenders(conn: Conn, query: str, **params: Any) -> Offenders:
    """Of a query whose first column counts all its rows, and which ends at `first` of them."""
    found = await rows(conn, query, {**params, "first": FIRST_MAX})
    return Offenders(found[0][0] if found else 0, [each[1:] for each in found])


# Usage ----------------------------------------------------------------------------------------------------


async def wrong_hours(
    conn: Conn, organization_id: UUID, portion: Portion, *, meters: Sequence[Meter]
) -> Offenders:
    """Hourly rollups that are not what the events of their hour fold to; of meters that fold alike.

    (customer, meter, hour, (events, quantity) by the events, (events, quantity) by the rollup; either may be None.)
    """
    measured: list[str] = []
    params: dict[str, Any] = {}
    for number, meter in enumerate(meters):
        counts = contributions(meter, str(number))
        params |= {**counts.params, f"meter_{number}": meter.id}
        measured.append(f"(%(meter_{number})s::uuid, {counts.matches}, {counts.quantity})")
    return await _offenders(
        conn,
        f"""WITH told AS (
                SELECT customer_id, meter_id, hour, count(*) AS events, {merged(meters[0])} AS quantity,
                       {latest_at(meters[0])} AS latest
                  FROM (SELECT e.customer_id, m.meter_id, hour_of(e.occurred_at) AS hour,
                               e.occurred_at AS at, m.quantity
                          FROM customers c JOIN events e ON e.customer_id = c.id
                         CROSS JOIN LATERAL (VALUES {", ".join(measured)}) AS m (meter_id, matches, quantity)
                         WHERE c.organization_id = %(organization)s AND {OF_EVENTS}
                           AND e.feature_code = ANY(%(codes)s) AND m.matches) AS measured
                 GROUP BY 1, 2, 3
            ), kept AS (
                SELECT customer_id, meter_id, hour, events, quantity, latest_at AS latest
                  FROM usage_hours
                 WHERE {OF_HOURS} AND meter_id = ANY(%(meters)s)
                   AND (events <> 0 OR quantity <> 0 OR latest_at IS NOT NULL)
            )
            SELECT count(*) OVER (), customer_id, meter_id, hour, t.events, t.quantity, k.events, k.quantity
              FROM told t FULL JOIN kept k USING (customer_id, meter_id, hour)
             WHERE (t.events, t.quantity, t.latest) IS DISTINCT FROM (k.events, k.quantity, k.latest)
               AND NOT {ARCHIVED.format(at="hour")}
             ORDER BY customer_id, meter_id, hour LIMIT %(first)s""",
        organization=organization_id,
        codes=list({each.event_code for each in meters}),
        meters=[each.id for each in meters],
        **portion.params,
        **params,
    )


def folds_alike(meters: Sequence[Meter]) -> list[list[Meter]]:
    """Meters by how their quantities merge: each group is one statement."""
    groups: dict[str, list[Meter]] = {}
    for each in meters:
        own = each.aggregation in (Aggregation.MAX, Aggregation.LATEST)
        groups.setdefault(each.aggregation if own else Aggregation.SUM, []).append(each)
    return list(groups.values())


async def wrong_sets(conn: Conn, organization_id: UUID, portion: Portion, *, meter: Meter) -> Offenders:
    """Hours of a UNIQUE meter whose set of distinct values is not that of their events: (customer, meter, hour)."""
    counts = contributions(meter)
    return await _offenders(
        conn,
        f"""WITH met AS (
                SELECT DISTINCT e.customer_id, hour_of(e.occurred_at) AS hour,
                       {counts.value_hash} AS value_hash
                  FROM customers c JOIN events e ON e.customer_id = c.id
                 WHERE c.organization_id = %(organization)s AND {OF_EVENTS} AND {counts.matches}
            ), told AS (
                SELECT m.customer_id, m.hour, d.number / {MEMBERS} AS block, bit_or({member("d.number")}) AS members
                  FROM met m LEFT JOIN distinct_values d ON d.customer_id = m.customer_id
                                   AND d.feature_id = %(feature)s AND d.value_hash = m.value_hash
                 GROUP BY 1, 2, 3
            ), wrong AS (
                SELECT DISTINCT customer_id, hour
                  FROM told t FULL JOIN (SELECT customer_id, hour, block, members FROM usage_sets
                                          WHERE {OF_HOURS} AND meter_id = %(meter)s AND bit_count(members) > 0) k
                 USING (customer_id, hour, block)
                 WHERE (t.members IS DISTINCT FROM k.members OR block IS NULL) AND NOT {ARCHIVED.format(at="hour")}
            )
            SELECT count(*) OVER (), customer_id, %(meter)s::uuid, hour FROM wrong ORDER BY 2, 4 LIMIT %(first)s""",
        organization=organization_id,
        feature=meter.feature_id,
        meter=meter.id,
        **portion.params,
        **counts.params,
    )


async def limited(conn: Conn, organization_id: UUID, *, page: int) -> AsyncIterator[list[CounterKey]]:
    """The counters of hard limits, page by page, of subscriptions that go on: of one that has ended nobody asks any
    more.
    """
    async with conn.cursor(name="limit_counters", withhold=True) as cursor:
        await cursor.execute(
            """SELECT l.customer_id, l.subscription_id, l.feature_id, l.period_start
                 FROM limit_counters l JOIN subscriptions s ON s.id = l.subscription_id
                WHERE s.organization_id = %s AND s.status <> 'canceled'
                ORDER BY l.subscription_id, l.feature_id, l.period_start""",
            (organization_id,),
        )
        while found := await cursor.fetchmany(page):
            yield [CounterKey(*each) for each in found]


# Invoices -------------------------------------------------------------------------------------------------


async def wrong_totals(conn: Conn, organization_id: UUID) -> Offenders:
    """Invoices that are not the sum of their lines: (id, subtotal, sum of the lines), in minor units.

    That the total follows from the subtotal is a constraint of the table.
    """
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), i.id, i.subtotal, coalesce(sum(l.amount), 0)
             FROM invoices i LEFT JOIN invoice_lines l ON l.invoice_id = i.id
            WHERE i.organization_id = %(organization)s
            GROUP BY i.id HAVING i.subtotal <> coalesce(sum(l.amount), 0)
            ORDER BY i.id LIMIT %(first)s""",
        organization=organization_id,
    )


async def usage_lines(conn: Conn, organization_id: UUID, *, page: int) -> AsyncIterator[list[FrozenLine]]:
    """All lines of one feature and usage period at a time, or of no feature, in the order they were made."""
    async with conn.cursor(name="usage_lines", withhold=True) as cursor:
        await cursor.execute(
            """SELECT (l.subscription_id, l.usage_period, l.feature_id)::text,
                      l.id, l.part, l.feature_id, l.amount, i.currency, l.evidence
                 FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id
                WHERE i.organization_id = %s AND l.part IS NOT NULL
                ORDER BY l.subscription_id, l.usage_period, l.feature_id, i.number, l.position""",
            (organization_id,),
        )
        group: list[FrozenLine] = []
        of = None
        while found := await cursor.fetchmany(page):
            for each in found:
                if each[0] != of and group:
                    yield group
                    group = []
                of = each[0]
                group.append(FrozenLine(*each[1:]))
        if group:
            yield group


async def billed_twice(conn: Conn, organization_id: UUID) -> Offenders:
    """The same of the same period on several lines: (kind, subscription, times, ids of the lines).

    Usage is billed once a stretch, a feature's minimum once a period, a base price once for what it covers, a
    difference once from where it begins, and a purchase once.
    """
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), kind, subscription_id, count(*), array_agg(id ORDER BY id)
             FROM (SELECT coalesce(l.part, l.line_type) AS kind, l.id,
                          coalesce(l.subscription_id, i.subscription_id) AS subscription_id,
                          l.feature_id, l.usage_period,
                          CASE WHEN l.line_type = 'plan_base' THEN l.evidence #>> '{period,start}'
                               WHEN l.line_type = 'one_time' THEN l.evidence ->> 'purchaseId'
                               WHEN l.part = 'usage' THEN l.evidence #>> '{span,0}'
                               WHEN l.part = 'difference' THEN l.evidence ->> 'afterPosition'
                               WHEN l.part = 'plan_minimum'
                               THEN concat(l.evidence ->> 'chainPosition', ' ', l.evidence ->> 'amountBefore') END AS which
                     FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id
                    WHERE i.organization_id = %(organization)s
                      AND (l.part IS NOT NULL OR l.line_type IN ('plan_base', 'one_time'))) AS told
            GROUP BY kind, subscription_id, feature_id, usage_period, which HAVING count(*) > 1
            ORDER BY 5 LIMIT %(first)s""",
        organization=organization_id,
    )


async def wrong_numbers(conn: Conn, organization_id: UUID) -> Offenders:
    """Numbers that were given to an invoice which is not there, or never given to one that is: (number, is there)."""
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), number, i.number IS NOT NULL
             FROM (SELECT generate_series(1, invoices_issued) AS number
                     FROM organizations WHERE id = %(organization)s) n
             FULL JOIN (SELECT number FROM invoices WHERE organization_id = %(organization)s) i USING (number)
            WHERE n.number IS NULL OR i.number IS NULL
            ORDER BY 2 LIMIT %(first)s""",
        organization=organization_id,
    )


# Periods and due work -------------------------------------------------------------------------------------


async def broken_tilings(conn: Conn, organization_id: UUID) -> Offenders:
    """Where a subscription's periods leave a gap or overlap: (subscription, index, its start, where it must begin).

    The first has the index 0 and begins at the anchor; the open one begins where the last closed one ends. Of a
    canceled one all are closed: as if another were to follow.
    """
    return await _offenders(
        conn,
        """WITH lived AS (
               SELECT p.subscription_id, p.period_index, p.period_start, p.period_end, s.anchor_at
                 FROM closed_periods p JOIN subscriptions s ON s.id = p.subscription_id
                WHERE p.organization_id = %(organization)s
                UNION ALL
               SELECT id, period_index, period_start, NULL, anchor_at
                 FROM subscriptions WHERE organization_id = %(organization)s AND closes_at IS NOT NULL
                UNION ALL
               SELECT id, period_index + 1, period_end, NULL, anchor_at
                 FROM subscriptions
                WHERE organization_id = %(organization)s AND closes_at IS NULL AND status = 'canceled'
                  AND anchor_at IS NOT NULL
           ), told AS (
               SELECT *, lag(period_index) OVER w AS before,
                      CASE WHEN period_index = 0 THEN anchor_at ELSE lag(period_end) OVER w END AS begins
                 FROM lived WINDOW w AS (PARTITION BY subscription_id ORDER BY period_index)
           )
           SELECT count(*) OVER (), subscription_id, period_index, period_start, begins
             FROM told
            WHERE period_index <> coalesce(before + 1, 0) OR period_start IS DISTINCT FROM begins
            ORDER BY 2, 3 LIMIT %(first)s""",
        organization=organization_id,
    )


async def undone(conn: Conn, organization_id: UUID, *, before: datetime) -> Offenders:
    """What should have been done before an instant, or has lost the row's word that it is to be done.

    (kind, id, since when). Nothing is, while a test-clock run is under way.
    """
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), kind, id, since
             FROM (SELECT 'close' AS kind, id, coalesce(closes_at, period_end) AS since FROM subscriptions
                    WHERE organization_id = %(organization)s
                      AND (closes_at < %(before)s
                           OR (closes_at IS NULL AND status IN ('trialing', 'active', 'past_due')))
                    UNION ALL
                   SELECT 'settle', event_id, received_at FROM late_events l
                    WHERE organization_id = %(organization)s
                      AND (due_at < %(before)s
                           OR (due_at = %(next)s AND NOT EXISTS (
                               SELECT FROM subscriptions s
                                WHERE s.customer_id = l.customer_id AND s.closes_at IS NOT NULL)))
                    UNION ALL
                   SELECT 'collect', id, issued_at FROM invoices
                    WHERE organization_id = %(organization)s
                      AND (collect_at < %(before)s
                           OR (collect_at IS NULL AND status = 'outstanding' AND id NOT IN (
                               SELECT invoice_id FROM transactions
                                WHERE organization_id = %(organization)s AND invoice_id IS NOT NULL)))
                    UNION ALL
                   SELECT 'buy', subscription_id, created_at FROM purchases
                    WHERE organization_id = %(organization)s AND status = 'pending'
                      AND created_at < %(before)s) AS due
            WHERE NOT EXISTS (SELECT FROM clock_runs
                               WHERE organization_id = %(organization)s AND status IN ('pending', 'running'))
            ORDER BY since, id LIMIT %(first)s""",
        organization=organization_id,
        before=before,
        next=WITH_THE_NEXT_INVOICE,
    )


async def unseen_news(conn: Conn, organization_id: UUID) -> Offenders:
    """Closed periods in which something happened after they were last rated, and nobody is to decide of it.

    (subscription, index, position it was rated at.) An event that was judged while its period was still open and
    committed just after the close had looked carries no mark: the customer's next close finds it by the rollups of
    the newest closed period (`store.late.touched`), so that one is no offender as long as a close is to come.
    Whole hours are told by their rollups, the hours that a boundary cuts by their events.
    """
    return await _offenders(
        conn,
        f"""WITH lived AS (
               SELECT *, date_trunc('hour', period_start + interval '59 minutes 59.999999 seconds', 'UTC') AS first_hour,
                      date_trunc('hour', period_end, 'UTC') AS last_hour
                 FROM closed_periods WHERE organization_id = %(organization)s
           ), news AS (
               SELECT p.subscription_id, p.period_index
                 FROM lived p JOIN usage_hours u ON u.customer_id = p.customer_id
                                                AND u.hour >= p.first_hour AND u.hour < p.last_hour
                 JOIN ingest_batches b ON b.batch = u.batch AND b.position > p.position
                UNION
               SELECT p.subscription_id, p.period_index
                 FROM lived p
                CROSS JOIN LATERAL (VALUES (p.period_start, least(p.first_hour, p.period_end)),
                                           (greatest(p.last_hour, p.period_start), p.period_end)) AS edge (starts, ends)
                 JOIN events e ON e.customer_id = p.customer_id AND {within("edge.starts", "edge.ends")}
                 JOIN ingest_batches b ON b.batch = e.batch AND b.position > p.position
           )
           SELECT count(*) OVER (), p.subscription_id, p.period_index, p.position
             FROM news JOIN closed_periods p USING (subscription_id, period_index)
            WHERE NOT EXISTS (SELECT FROM late_events l
                               WHERE l.customer_id = p.customer_id AND l.due_at IS NOT NULL
                                 AND l.occurred_at >= p.period_start AND l.occurred_at < p.period_end)
              AND NOT (p.period_end = (SELECT max(period_end) FROM closed_periods o WHERE o.customer_id = p.customer_id)
                       AND EXISTS (SELECT FROM subscriptions s
                                    WHERE s.customer_id = p.customer_id AND s.closes_at IS NOT NULL))
            ORDER BY p.subscription_id, p.period_index LIMIT %(first)s""",
        organization=organization_id,
    )


# Wallets ---------------------------------------------------------------------------------------------------


async def wrong_wallets(conn: Conn, organization_id: UUID, portion: Portion) -> Offenders:
    """Pools that are not what was moved into them less what was moved out: (subscription, pool, kept, by the ledger).

    What reservations hold is compared too. Reads every wallet and every movement of the portion's customers.
    """
    return await _offenders(
        conn,
        f"""WITH moved AS (
               SELECT customer_id, subscription_id, account, sum(amount) AS amount
                 FROM (SELECT customer_id, subscription_id, target AS account, amount FROM ledger_entries
                        WHERE organization_id = %(organization)s AND {OF_CUSTOMERS}
                        UNION ALL
                       SELECT customer_id, subscription_id, source, -amount FROM ledger_entries
                        WHERE organization_id = %(organization)s AND {OF_CUSTOMERS}) AS sides
                WHERE account IN ('plan_credits', 'balance', 'purchased_credits', 'held') GROUP BY 1, 2, 3
           ), kept AS (
               SELECT customer_id, subscription_id, p.account, p.amount
                 FROM wallets w
                CROSS JOIN LATERAL (VALUES (CASE model WHEN 'credits' THEN 'plan_credits' ELSE 'balance' END, plan),
                                           ('purchased_credits', purchased), ('held', held)) AS p (account, amount)
                WHERE w.organization_id = %(organization)s AND {OF_CUSTOMERS} AND p.amount <> 0
           )
           SELECT count(*) OVER (), subscription_id, account, coalesce(k.amount, 0), coalesce(m.amount, 0)
             FROM kept k FULL JOIN moved m USING (customer_id, subscription_id, account)
            WHERE coalesce(k.amount, 0) <> coalesce(m.amount, 0)
            ORDER BY 2, 3 LIMIT %(first)s""",
        organization=organization_id,
        **portion.params,
    )


async def wrong_postings(conn: Conn, organization_id: UUID, portion: Portion) -> Offenders:
    """Batches whose events took something else of a customer's wallets than was posted: (customer, batch, took, posted).

    Reads the events and postings of usage of the portion's customers. A batch that may have events in an archived month
    may have posted more than is there.
    """
    return await _offenders(
        conn,
        f"""SELECT count(*) OVER (), customer_id, batch, coalesce(t.amount, 0), coalesce(p.amount, 0)
             FROM (SELECT e.customer_id, e.batch, sum(e.deducted) AS amount
                     FROM customers c JOIN events e ON e.customer_id = c.id
                    WHERE c.organization_id = %(organization)s AND {OF_EVENTS} AND e.drew_on IS NOT NULL
                    GROUP BY 1, 2) t
             FULL JOIN (SELECT customer_id, batch, sum(amount) AS amount FROM ledger_entries
                         WHERE organization_id = %(organization)s AND {OF_CUSTOMERS} AND cause = 'usage'
                         GROUP BY 1, 2) p
            USING (customer_id, batch)
            WHERE coalesce(t.amount, 0) <> coalesce(p.amount, 0)
              AND NOT (coalesce(t.amount, 0) < coalesce(p.amount, 0) AND EXISTS (
                       SELECT FROM archived_shares s JOIN archived_months USING (month)
                        WHERE s.organization_id = %(organization)s
                          AND batch >= s.first_batch AND batch <= s.last_batch))
            ORDER BY 2, 3 LIMIT %(first)s""",
        organization=organization_id,
        **portion.params,
    )


async def wrong_costs(conn: Conn, organization_id: UUID, portion: Portion) -> Offenders:
    """AI calls that took something else than their costs come to: (event, took, costs). Reads the cost rows of the
    portion's customers."""
    return await _offenders(
        conn,
        f"""SELECT count(*) OVER (), c.event_id, e.deducted, c.total
             FROM (SELECT customer_id, event_id, occurred_at, sum(total)::numeric AS total FROM ai_costs
                    WHERE organization_id = %(organization)s AND {OF_CUSTOMERS} GROUP BY 1, 2, 3) c
             LEFT JOIN events e ON {same("e", "c", named="event_id")}
            WHERE e.deducted IS DISTINCT FROM c.total
              AND NOT (e.id IS NULL AND {ARCHIVED.format(at="c.occurred_at")})
            ORDER BY 2 LIMIT %(first)s""",
        organization=organization_id,
        **portion.params,
    )


async def wrong_holds(conn: Conn, organization_id: UUID) -> Offenders:
    """Wallets that hold more than reservations asked for: (subscription, held, asked for).

    They may hold less: a new period's pool need not reach as far as the old one did.
    """
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), w.subscription_id, w.held, coalesce(r.amount, 0)
             FROM wallets w
             LEFT JOIN (SELECT customer_id, subscription_id, sum(amount) AS amount FROM reservations
                         WHERE organization_id = %(organization)s AND status = 'held' GROUP BY 1, 2) r
            USING (customer_id, subscription_id)
            WHERE w.organization_id = %(organization)s AND w.held > coalesce(r.amount, 0)
            ORDER BY 2 LIMIT %(first)s""",
        organization=organization_id,
    )


async def wrong_overdrafts(conn: Conn, organization_id: UUID) -> Offenders:
    """Closed periods whose line does not ask for what was overdrawn in them: (subscription, index, overdrawn, asked)."""
    return await _offenders(
        conn,
        """SELECT count(*) OVER (), subscription_id, period_index, coalesce(o.amount, 0), coalesce(a.amount, 0)
             FROM (SELECT subscription_id, period_index, sum(amount) AS amount
                     FROM ledger_entries l JOIN closed_periods USING (subscription_id, period_index)
                    WHERE l.organization_id = %(organization)s AND cause = 'overdraft' GROUP BY 1, 2) o
             FULL JOIN (SELECT l.subscription_id, usage_period AS period_index,
                               sum((evidence ->> 'overdrawn')::numeric) AS amount
                          FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
                         WHERE i.organization_id = %(organization)s AND part = 'overdraft' GROUP BY 1, 2) a
            USING (subscription_id, period_index)
            WHERE coalesce(o.amount, 0) <> coalesce(a.amount, 0)
            ORDER BY 2, 3 LIMIT %(first)s""",
        organization=organization_id,
    )


async def wrong_purchases(conn: Conn, organization_id: UUID) -> Offenders:
    """What was not charged, invoiced and credited as it was bought.

    (invoice, quantity, credited, amount, charged, total of the invoice); None where there is no such thing.
    """
    return await _offenders(
        conn,
        """WITH bought AS (
                SELECT p.invoice_id, p.quantity, p.amount_minor, i.total
                  FROM purchases p JOIN invoices i ON i.id = p.invoice_id
                 WHERE p.organization_id = %(organization)s
            ), credited AS (
                SELECT e.reference AS invoice_id, sum(e.amount) AS quantity
                  FROM customers c JOIN ledger_entries e ON e.customer_id = c.id
                 WHERE c.organization_id = %(organization)s AND e.organization_id = %(organization)s
                   AND e.cause IN ('purchase', 'topup')
                 GROUP BY 1
            ), charged AS (
                SELECT invoice_id, sum(gross_amount) AS amount FROM transactions
                 WHERE organization_id = %(organization)s AND status = 'succeeded' AND reason = 'one_time_payment'
                 GROUP BY 1
            )
            SELECT count(*) OVER (), invoice_id, b.quantity, c.quantity, b.amount_minor, p.amount, b.total
              FROM bought b FULL JOIN credited c USING (invoice_id) FULL JOIN charged p USING (invoice_id)
             WHERE b.quantity IS DISTINCT FROM c.quantity OR b.total IS DISTINCT FROM b.amount_minor
                OR coalesce(p.amount, 0) IS DISTINCT FROM b.amount_minor
             ORDER BY invoice_id LIMIT %(first)s""",
        organization=organization_id,
    )


# What was found -------------------------------------------------------------------------------------------


class Noted(NamedTuple):
    """What the last reconciliation of everything found of a rule."""

    rule: str
    offenders: int
    first: list[dict[str, str]]  # {"organizationId", "what"}
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


async def last_noted(conn: Conn) -> datetime | None:
    found = await row(conn, "SELECT max(checked_at) FROM reconciliations")
    return None if found is None else found[0]
