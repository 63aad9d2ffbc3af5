"""Domain events: what happened that somebody may want to hear of, committed with what made it happen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tallystick.store.db import Conn, new_ids, rows


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Its `data` as a webhook will carry it (behaviour.md, Appendix D)."""

    type: str
    customer_id: UUID | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    id: UUID
    type: str
    customer_id: UUID | None
    data: dict[str, Any]
    created_at: datetime


async def record(
    conn: Conn, happened: Sequence[DomainEvent], *, organization_id: UUID, now: datetime
) -> None:
    async with conn.cursor() as many:
        await many.executemany(
            """INSERT INTO domain_events (organization_id, id, customer_id, type, data, created_at)
               VALUES (%s, %s, %s, %s, %s, %s)""",
            [
                (organization_id, identity, each.customer_id, each.type, Jsonb(each.data), now)
                for identity, each in zip(new_ids(len(happened)), happened, strict=True)
            ],
        )


async def page(
    conn: Conn,
    *,
    organization_id: UUID,
    before: UUID | None,
    limit: int,
    customer_id: UUID | None = None,
    type_: str | None = None,
) -> list[Recorded]:
    """Newest first."""
    found = await rows(
        conn,
        """SELECT id, type, customer_id, data, created_at FROM domain_events
            WHERE organization_id = %(organization)s AND (%(before)s::uuid IS NULL OR id < %(before)s)
              AND (%(customer)s::uuid IS NULL OR customer_id = %(customer)s)
              AND (%(type)s::text IS NULL OR type = %(type)s)
            ORDER BY id DESC LIMIT %(limit)s""",
        {
            "organization": organization_id,
            "before": before,
            "limit": limit,
            "customer": customer_id,
            "type": type_,
        },
    )
    return [Recorded(*each) for each in found]
