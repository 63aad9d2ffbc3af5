"""Credit packs: credits that are sold for a price."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from tallystick.store.db import Conn

_COLUMNS = "id, name, description, credits, price_minor, is_active, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class CreditPack:
    id: UUID
    name: str
    description: str | None
    credits: int
    price_minor: int
    is_active: bool
    created_at: datetime
    updated_at: datetime


async def insert(conn: Conn, *, organization_id: UUID, pack: CreditPack) -> bool:
    """False when another pack has this name."""
    cursor = await conn.execute(
        """INSERT INTO credit_packs (id, organization_id, name, description, credits, price_minor, is_active,
                                     created_at, updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id, name) WHERE deleted_at IS NULL DO NOTHING""",
        (
            pack.id,
            organization_id,
            pack.name,
            pack.description,
            pack.credits,
            pack.price_minor,
            pack.is_active,
            pack.created_at,
            pack.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def get(conn: Conn, *, organization_id: UUID, pack_id: UUID, lock: bool = False) -> CreditPack | None:
    """None when there is none, or no longer."""
    async with conn.cursor(row_factory=class_row(CreditPack)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM credit_packs WHERE id = %s AND organization_id = %s AND deleted_at IS NULL"
            + (" FOR NO KEY UPDATE" if lock else ""),
            (pack_id, organization_id),
        )
        return await cursor.fetchone()


async def active(conn: Conn, *, organization_id: UUID) -> list[CreditPack]:
    """What is on sale, newest first."""
    async with conn.cursor(row_factory=class_row(CreditPack)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM credit_packs
                 WHERE organization_id = %s AND is_active AND deleted_at IS NULL ORDER BY id DESC""",
            (organization_id,),
        )
        return await cursor.fetchall()


async def update(conn: Conn, *, organization_id: UUID, pack: CreditPack) -> None:
    """Raises UniqueViolation when another pack has this name."""
    await conn.execute(
        """UPDATE credit_packs SET name = %s, description = %s, credits = %s, price_minor = %s, is_active = %s,
                  updated_at = %s
            WHERE id = %s AND organization_id = %s""",
        (
            pack.name,
            pack.description,
            pack.credits,
            pack.price_minor,
            pack.is_active,
            pack.updated_at,
            pack.id,
            organization_id,
        ),
    )


async def delete(conn: Conn, *, organization_id: UUID, pack_id: UUID, now: datetime) -> None:
    """Its name is free again; what was bought of it stays."""
    await conn.execute(
        "UPDATE credit_packs SET deleted_at = %s, is_active = false WHERE id = %s AND organization_id = %s",
        (now, pack_id, organization_id),
    )
