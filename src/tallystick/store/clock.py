"""Test-clock runs and what happened in them, in time order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from tallystick.store.db import Conn, rows


@dataclass(frozen=True, slots=True)
class Item:
    kind: str
    status: str
    due_at: datetime
    subscription_id: UUID
    customer_name: str | None
    invoice_number: str | None
    invoice_id: UUID | None
    outcome: str | None
    detail: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Run:
    id: UUID
    status: str
    started_at_time: datetime
    target_time: datetime
    estimated: int
    error: str | None
    created_at: datetime


_RUN = "id, status, started_at_time, target_time, estimated, error, created_at"


async def insert(conn: Conn, *, organization_id: UUID, run: Run) -> bool:
    """False when a run is under way."""
    cursor = await conn.execute(
        """INSERT INTO clock_runs (id, organization_id, status, started_at_time, target_time, estimated, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id) WHERE status IN ('pending', 'running') DO NOTHING""",
        (
            run.id,
            organization_id,
            run.status,
            run.started_at_time,
            run.target_time,
            run.estimated,
            run.created_at,
        ),
    )
    return cursor.rowcount == 1


async def get(conn: Conn, *, run_id: UUID) -> Run | None:
    async with conn.cursor(row_factory=class_row(Run)) as cursor:
        await cursor.execute(f"SELECT {_RUN} FROM clock_runs WHERE id = %s", (run_id,))
        return await cursor.fetchone()


async def latest(conn: Conn, *, organization_id: UUID) -> Run | None:
    async with conn.cursor(row_factory=class_row(Run)) as cursor:
        await cursor.execute(
            f"SELECT {_RUN} FROM clock_runs WHERE organization_id = %s ORDER BY id DESC LIMIT 1",
            (organization_id,),
        )
        return await cursor.fetchone()


async def unfinished(conn: Conn) -> list[tuple[UUID, UUID]]:
    """(organization, run) of every run that has not ended: after a crash somebody must go on with it."""
    found = await rows(
        conn, "SELECT organization_id, id FROM clock_runs WHERE status IN ('pending', 'running') ORDER BY id"
    )
    return [(each[0], each[1]) for each in found]


async def set_status(conn: Conn, *, run_id: UUID, status: str, error: str | None = None) -> None:
    await conn.execute("UPDATE clock_runs SET status = %s, error = %s WHERE id = %s", (status, error, run_id))


async def count_due(conn: Conn, *, organization_id: UUID, until: datetime) -> int:
    found = await rows(
        conn,
        "SELECT count(*) FROM subscriptions WHERE organization_id = %s AND closes_at <= %s",
        (organization_id, until),
    )
    return int(found[0][0])


async def add_items(conn: Conn, *, run_id: UUID, items: Sequence[Item]) -> list[int]:
    """After those that are there; their positions. Only one process at a time performs a run."""
    found = await rows(
        conn, "SELECT coalesce(max(position) + 1, 0) FROM clock_run_items WHERE run_id = %s", (run_id,)
    )
    positions = list(range(found[0][0], found[0][0] + len(items)))
    async with conn.cursor() as many:
        await many.executemany(
            """INSERT INTO clock_run_items (run_id, position, kind, status, due_at, subscription_id, customer_name,
                                            invoice_number, invoice_id, outcome, detail, error)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    run_id,
                    position,
                    item.kind,
                    item.status,
                    item.due_at,
                    item.subscription_id,
                    item.customer_name,
                    item.invoice_number,
                    item.invoice_id,
                    item.outcome,
                    item.detail,
                    item.error,
                )
                for position, item in zip(positions, items, strict=True)
            ],
        )
    return positions


async def finish_item(conn: Conn, *, run_id: UUID, position: int, item: Item) -> None:
    """Say how it ended with what was noted before its invoice was charged."""
    await conn.execute(
        "UPDATE clock_run_items SET status = %s, detail = %s, error = %s WHERE run_id = %s AND position = %s",
        (item.status, item.detail, item.error, run_id, position),
    )


async def items(conn: Conn, *, run_id: UUID) -> list[Item]:
    async with conn.cursor(row_factory=class_row(Item)) as cursor:
        await cursor.execute(
            """SELECT kind, status, due_at, subscription_id, customer_name, invoice_number, invoice_id, outcome,
                      detail, error
                 FROM clock_run_items WHERE run_id = %s ORDER BY position""",
            (run_id,),
        )
        return await cursor.fetchall()
