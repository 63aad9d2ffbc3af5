"""Corrections: which events were taken back and which were put in their place."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.store.db import Conn

_COLUMNS = """id, organization_id, customer_id, event_code, span_start, span_end, reason, voided, added, reverts,
    created_at"""


@dataclass(frozen=True, slots=True)
class Correction:
    id: UUID
    organization_id: UUID
    customer_id: UUID
    event_code: str
    span_start: datetime
    span_end: datetime
    reason: str | None
    voided: list[str]  # public ids
    added: list[str]
    reverts: UUID | None
    created_at: datetime


async def insert(conn: Conn, correction: Correction) -> bool:
    """False when it reverts one that was reverted already: the unique index is the last judge."""
    cursor = await conn.execute(
        f"""INSERT INTO corrections ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (reverts) WHERE reverts IS NOT NULL DO NOTHING""",
        (
            correction.id,
            correction.organization_id,
            correction.customer_id,
            correction.event_code,
            correction.span_start,
            correction.span_end,
            correction.reason,
            Jsonb(correction.voided),
            Jsonb(correction.added),
            correction.reverts,
            correction.created_at,
        ),
    )
    return cursor.rowcount == 1


async def get(conn: Conn, *, organization_id: UUID, correction_id: UUID) -> Correction | None:
    async with conn.cursor(row_factory=class_row(Correction)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM corrections WHERE id = %s AND organization_id = %s",
            (correction_id, organization_id),
        )
        return await cursor.fetchone()


async def page(
    conn: Conn, *, organization_id: UUID, customer_id: UUID | None, before: UUID | None, limit: int
) -> list[Correction]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Correction)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM corrections
                 WHERE organization_id = %(organization)s
                   AND (%(customer)s::uuid IS NULL OR customer_id = %(customer)s)
                   AND (%(before)s::uuid IS NULL OR id < %(before)s)
                 ORDER BY id DESC LIMIT %(limit)s""",
            {"organization": organization_id, "customer": customer_id, "before": before, "limit": limit},
        )
        return await cursor.fetchall()
