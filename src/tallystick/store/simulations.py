"""Simulations: their reports, and how much there would be to look at."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tallystick.core.times import Period
from tallystick.store.db import Conn, row, rows, the

_SUMMARY = "id, starts_at, ends_at, asked, position, result, created_at"


@dataclass(frozen=True, slots=True)
class Simulation:
    """A report; without `customers` where only its summary was asked for."""

    id: UUID
    span: Period
    asked: dict[str, Any]
    position: int
    result: dict[str, Any]
    created_at: datetime
    customers: list[dict[str, Any]] | None = None


def _simulation(found: Any) -> Simulation:
    return Simulation(found[0], Period(found[1], found[2]), *found[3:])


async def insert(conn: Conn, *, organization_id: UUID, simulation: Simulation) -> None:
    await conn.execute(
        """INSERT INTO simulations (id, organization_id, starts_at, ends_at, asked, position, result, customers, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            simulation.id,
            organization_id,
            simulation.span.start,
            simulation.span.end,
            Jsonb(simulation.asked),
            simulation.position,
            Jsonb(simulation.result),
            Jsonb(simulation.customers),
            simulation.created_at,
        ),
    )


async def get(conn: Conn, *, organization_id: UUID, simulation_id: UUID) -> Simulation | None:
    found = await row(
        conn,
        f"SELECT {_SUMMARY}, customers FROM simulations WHERE id = %s AND organization_id = %s",
        (simulation_id, organization_id),
    )
    return None if found is None else _simulation(found)


async def page(conn: Conn, *, organization_id: UUID, before: UUID | None, limit: int) -> list[Simulation]:
    """Newest first, without their customers."""
    found = await rows(
        conn,
        f"""SELECT {_SUMMARY} FROM simulations
             WHERE organization_id = %(organization)s AND (%(before)s::uuid IS NULL OR id < %(before)s)
             ORDER BY id DESC LIMIT %(limit)s""",
        {"organization": organization_id, "before": before, "limit": limit},
    )
    return [_simulation(each) for each in found]


async def size(
    conn: Conn, *, organization_id: UUID, span: Period, customers: list[UUID] | None
) -> tuple[int, int]:
    """(usage periods, customers who lived them) that lie wholly or partly in `span`: closed ones, and those that
    subscriptions stand in."""
    cursor = await conn.execute(
        """SELECT count(*), count(DISTINCT customer_id) FROM (
               SELECT s.customer_id FROM subscriptions s JOIN closed_periods p ON p.subscription_id = s.id
                WHERE s.organization_id = %(organization)s
                  AND (%(customers)s::uuid[] IS NULL OR s.customer_id = ANY(%(customers)s))
                  AND p.period_start < %(end)s AND p.period_end > %(start)s AND p.period_start < p.period_end
               UNION ALL
               SELECT s.customer_id FROM subscriptions s
                WHERE s.organization_id = %(organization)s
                  AND (%(customers)s::uuid[] IS NULL OR s.customer_id = ANY(%(customers)s))
                  AND s.period_start < %(end)s AND least(s.period_end, s.ended_at) > %(start)s
                  AND s.period_start < least(s.period_end, s.ended_at)
                  AND NOT EXISTS (SELECT FROM closed_periods p
                                   WHERE p.subscription_id = s.id AND p.period_index = s.period_index)) AS lived""",
        {"organization": organization_id, "start": span.start, "end": span.end, "customers": customers},
    )
    found = await the(cursor)
    return int(found[0]), int(found[1])
