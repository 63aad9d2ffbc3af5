"""Closed periods, and the events that happened before the period that was open when they arrived."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core.times import Period
from tallystick.store import columns
from tallystick.store.db import Conn, rows

_CLOSED = """subscription_id, period_index, organization_id, customer_id, plan_id, timezone, period_start, period_end,
    position, closed_at"""

WITH_THE_NEXT_INVOICE: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""When to look again at what waits for the next invoice: its close will."""


@dataclass(frozen=True, slots=True)
class ClosedPeriod:
    subscription_id: UUID
    period_index: int
    organization_id: UUID
    customer_id: UUID
    plan_id: UUID
    timezone: str
    period_start: datetime
    period_end: datetime
    position: int  # of the chain, when it was last rated
    closed_at: datetime

    @property
    def span(self) -> Period:
        return Period(self.period_start, self.period_end)


@dataclass(frozen=True, slots=True)
class LateEvent:
    customer_id: UUID
    event_id: UUID
    occurred_at: datetime
    received_at: datetime
    due_at: datetime | None
    decisions: list[dict[str, Any]]


async def mark(
    conn: Conn,
    *,
    organization_id: UUID,
    customers: list[UUID],
    events: list[UUID],
    occurred: list[datetime],
    received_at: datetime,
    due_at: datetime,
) -> None:
    await conn.execute(
        """INSERT INTO late_events (customer_id, event_id, organization_id, occurred_at, received_at, due_at)
           SELECT customer_id, event_id, %s, occurred_at, %s, %s
             FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[]) AS t (customer_id, event_id, occurred_at)""",
        (organization_id, received_at, due_at, customers, events, occurred),
    )


async def close_set(conn: Conn, closed: Sequence[ClosedPeriod]) -> None:
    await conn.execute(
        f"""INSERT INTO closed_periods ({_CLOSED})
            SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::uuid[], %s::uuid[], %s::uuid[], %s::text[],
                                 %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::timestamptz[])""",
        (
            columns.uuids(each.subscription_id for each in closed),
            columns.integers(each.period_index for each in closed),
            columns.uuids(each.organization_id for each in closed),
            columns.uuids(each.customer_id for each in closed),
            columns.uuids(each.plan_id for each in closed),
            columns.texts(each.timezone for each in closed),
            columns.instants(each.period_start for each in closed),
            columns.instants(each.period_end for each in closed),
            columns.integers(each.position for each in closed),
            columns.instants(each.closed_at for each in closed),
        ),
    )


async def among(conn: Conn, *, customer_ids: list[UUID]) -> set[UUID]:
    """Those of some customers with whom something may be late: what `touched` and `undecided` say one by one."""
    undecided = await rows(
        conn,
        "SELECT DISTINCT customer_id FROM late_events WHERE customer_id = ANY(%s) AND due_at IS NOT NULL",
        (customer_ids,),
    )
    newest = await rows(
        conn,
        """SELECT p.customer_id, p.period_start, p.period_end, p.position
             FROM unnest(%s::uuid[]) AS t (customer_id)
            CROSS JOIN LATERAL (
                  SELECT * FROM closed_periods p WHERE p.customer_id = t.customer_id
                   ORDER BY p.period_end DESC LIMIT 1) p""",
        (customer_ids,),
    )
    met = await rows(
        conn,
        """SELECT DISTINCT p.customer_id
             FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::bigint[])
               AS p (customer_id, period_start, period_end, position)
            CROSS JOIN LATERAL (
                  SELECT u.batch FROM usage_hours u
                   WHERE u.customer_id = p.customer_id
                     AND u.hour >= date_trunc('hour', p.period_start) AND u.hour < p.period_end OFFSET 0) u
             JOIN ingest_batches b ON b.batch = u.batch AND b.position > p.position""",
        tuple(map(list, zip(*newest, strict=True))) or ([], [], [], []),
    )
    return {each[0] for each in (*undecided, *met)}


async def closed_between(
    conn: Conn, *, subscription_ids: list[UUID], span: Period
) -> dict[UUID, list[ClosedPeriod]]:
    """By subscription, the closed periods that lie wholly or partly in `span`, in order."""
    found: dict[UUID, list[ClosedPeriod]] = {}
    async with conn.cursor(row_factory=class_row(ClosedPeriod)) as cursor:
        await cursor.execute(
            f"""SELECT {_CLOSED} FROM closed_periods
                 WHERE subscription_id = ANY(%s) AND period_start < %s AND period_end > %s
                   AND period_start < period_end
                 ORDER BY subscription_id, period_index""",
            (subscription_ids, span.end, span.start),
        )
        async for each in cursor:
            found.setdefault(each.subscription_id, []).append(each)
    return found


async def closed_of(conn: Conn, *, periods: Collection[tuple[UUID, int]]) -> list[ClosedPeriod]:
    """Those there are of some periods, each given by its subscription and index."""
    async with conn.cursor(row_factory=class_row(ClosedPeriod)) as cursor:
        await cursor.execute(
            f"""SELECT {_CLOSED} FROM closed_periods
                  JOIN unnest(%s::uuid[], %s::int[]) AS wanted (subscription, index)
                    ON subscription_id = subscription AND period_index = index""",
            tuple(map(list, zip(*periods, strict=True))) or ([], []),
        )
        return await cursor.fetchall()


async def overtaken(conn: Conn, *, customer_id: UUID, span: Period, position: int) -> bool:
    """Whether something happened in a span (or in the hour it begins in) that the chain had not at a position."""
    found = await rows(
        conn,
        """SELECT EXISTS (SELECT 1 FROM usage_hours u JOIN ingest_batches b ON b.batch = u.batch
                           WHERE u.customer_id = %(customer)s AND u.hour >= date_trunc('hour', %(start)s)
                             AND u.hour < %(end)s AND b.position > %(position)s)""",
        {"customer": customer_id, "start": span.start, "end": span.end, "position": position},
    )
    return bool(found[0][0])


async def touched(conn: Conn, *, customer_id: UUID) -> list[ClosedPeriod]:
    """Closed periods of a customer in which something happened that they were not rated with, oldest first.

    Undecided late events name them. An event that was judged while its period was still open, and committed just
    after the close had looked, is not marked: the newest closed period's rollups tell of it.
    """
    found = await rows(
        conn,
        f"""SELECT * FROM (
                SELECT EXISTS (SELECT FROM late_events l
                                WHERE l.customer_id = %(customer)s AND l.due_at IS NOT NULL
                                  AND l.occurred_at >= p.period_start AND l.occurred_at < p.period_end) AS marked,
                       {_CLOSED}
                  FROM closed_periods p WHERE p.customer_id = %(customer)s) AS p
             WHERE marked OR period_end = (SELECT max(period_end) FROM closed_periods WHERE customer_id = %(customer)s)
             ORDER BY period_end""",
        {"customer": customer_id},
    )
    periods = [(marked, ClosedPeriod(*closed)) for marked, *closed in found]
    return [
        each
        for marked, each in periods
        if marked or await overtaken(conn, customer_id=customer_id, span=each.span, position=each.position)
    ]


async def lock_closed(conn: Conn, periods: list[ClosedPeriod]) -> bool:
    """Lock closed periods that are to be rated again; False when one of them has moved on meanwhile."""
    for each in periods:
        found = await rows(
            conn,
            "SELECT position FROM closed_periods WHERE subscription_id = %s AND period_index = %s FOR UPDATE",
            (each.subscription_id, each.period_index),
        )
        if not found or found[0][0] != each.position:
            return False
    return True


async def rated_again(conn: Conn, period: ClosedPeriod, *, position: int) -> None:
    await conn.execute(
        "UPDATE closed_periods SET position = %s WHERE subscription_id = %s AND period_index = %s",
        (position, period.subscription_id, period.period_index),
    )


async def undecided(conn: Conn, *, customer_id: UUID) -> list[LateEvent]:
    async with conn.cursor(row_factory=class_row(LateEvent)) as cursor:
        await cursor.execute(
            """SELECT customer_id, event_id, occurred_at, received_at, due_at, decisions FROM late_events
                WHERE customer_id = %s AND due_at IS NOT NULL ORDER BY occurred_at, event_id""",
            (customer_id,),
        )
        return await cursor.fetchall()


async def decide(
    conn: Conn, *, customer_id: UUID, event_id: UUID, decisions: list[dict[str, Any]], until: datetime | None
) -> None:
    """Record what was decided; `until`: when to look again, None when all is said."""
    await conn.execute(
        """UPDATE late_events SET decisions = %s, due_at = %s, failure = NULL
            WHERE customer_id = %s AND event_id = %s""",
        (Jsonb(decisions), until, customer_id, event_id),
    )


async def wake(conn: Conn, *, customer_ids: Sequence[UUID], now: datetime) -> None:
    """Look again at what waits for an invoice: one was made without it, or none is to come."""
    await conn.execute(
        "UPDATE late_events SET due_at = %s WHERE customer_id = ANY(%s) AND due_at = %s",
        (now, list(customer_ids), WITH_THE_NEXT_INVOICE),
    )


async def forget(conn: Conn, *, customer_id: UUID, event_ids: list[UUID]) -> None:
    """Not late after all: the close of their own period still counted them."""
    await conn.execute(
        "DELETE FROM late_events WHERE customer_id = %s AND event_id = ANY(%s)", (customer_id, event_ids)
    )


async def due(
    conn: Conn,
    *,
    now: datetime,
    limit: int,
    organization_id: UUID | None = None,
    skipping: Sequence[UUID] = (),
) -> list[tuple[UUID, UUID, datetime]]:
    """(organization, customer, its time) of those whose late events are to be looked at, by their own clock.

    Of one organization all of them, as when its clock moves; else not those that failed (`note_failure`).
    """
    found = await rows(
        conn,
        """SELECT l.organization_id, l.customer_id, max(coalesce(o.simulated_time, %(now)s))
             FROM late_events l JOIN organizations o ON o.id = l.organization_id
            WHERE l.due_at <= coalesce(o.simulated_time, %(now)s)
              AND (%(organization)s::uuid IS NULL OR l.organization_id = %(organization)s)
              AND l.customer_id <> ALL(%(skipping)s)
            GROUP BY 1, 2 HAVING %(organization)s::uuid IS NOT NULL OR count(l.failure) = 0
            ORDER BY min(l.due_at) LIMIT %(limit)s""",
        {"now": now, "limit": limit, "organization": organization_id, "skipping": list(skipping)},
    )
    return [(each[0], each[1], each[2]) for each in found]


async def note_failure(conn: Conn, *, customer_id: UUID, failure: str) -> None:
    """Why what waits of a customer could not be settled; until that is forgotten, sweeps pass it over."""
    await conn.execute(
        "UPDATE late_events SET failure = %s WHERE customer_id = %s AND due_at IS NOT NULL",
        (failure, customer_id),
    )


async def forget_failures(conn: Conn) -> None:
    """Let what could not be settled be tried once more."""
    await conn.execute(
        "UPDATE late_events SET failure = NULL WHERE due_at IS NOT NULL AND failure IS NOT NULL"
    )


async def page(
    conn: Conn,
    *,
    organization_id: UUID,
    customer_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[LateEvent]:
    """Newest arrival first."""
    async with conn.cursor(row_factory=class_row(LateEvent)) as cursor:
        await cursor.execute(
            """SELECT customer_id, event_id, occurred_at, received_at, due_at, decisions FROM late_events
                WHERE organization_id = %(organization)s
                  AND (%(customer)s::uuid IS NULL OR customer_id = %(customer)s)
                  AND (%(before)s::uuid IS NULL OR event_id < %(before)s)
                ORDER BY event_id DESC LIMIT %(limit)s""",
            {"organization": organization_id, "customer": customer_id, "before": before, "limit": limit},
        )
        return await cursor.fetchall()
