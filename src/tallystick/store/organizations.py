"""Organizations, their API keys, and the answers kept for repeated requests."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core.proof import GENESIS
from tallystick.store import key_generations
from tallystick.store.db import Conn, rows, the


@dataclass(frozen=True, slots=True)
class Organization:
    id: UUID
    name: str
    mode: str
    timezone: str
    currency: str
    api_version: str | None
    simulated_time: datetime | None
    invoice_prefix: str
    created_at: datetime
    grace_s: int | None = None  # between a period's end and its invoice; None: the mode's default

    @property
    def live(self) -> bool:
        return self.mode == "live"


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: UUID
    organization_id: UUID
    name: str
    prefix: str
    permissions: dict[str, list[str]] | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


_ORGANIZATION = (
    "id, name, mode, timezone, currency, api_version, simulated_time, invoice_prefix, created_at, grace_s"
)
_KEY = "id, organization_id, name, prefix, permissions, expires_at, revoked_at, last_used_at, created_at"


async def insert(conn: Conn, organization: Organization) -> None:
    await key_generations.stay(conn)  # until its head is there for everybody to see
    await conn.execute(
        """WITH made AS (
               INSERT INTO organizations
                      (id, name, mode, timezone, currency, api_version, simulated_time, invoice_prefix, created_at, grace_s)
               VALUES (%(id)s, %(name)s, %(mode)s, %(timezone)s, %(currency)s, %(api_version)s,
                       %(simulated_time)s, %(invoice_prefix)s, %(created_at)s, %(grace_s)s))
           INSERT INTO organization_heads (organization_id, digest) VALUES (%(id)s, %(genesis)s)""",
        {
            "id": organization.id,
            "name": organization.name,
            "mode": organization.mode,
            "timezone": organization.timezone,
            "currency": organization.currency,
            "api_version": organization.api_version,
            "simulated_time": organization.simulated_time,
            "invoice_prefix": organization.invoice_prefix,
            "created_at": organization.created_at,
            "grace_s": organization.grace_s,
            "genesis": GENESIS,
        },
    )


async def get(conn: Conn, *, organization_id: UUID, lock: bool = False) -> Organization | None:
    async with conn.cursor(row_factory=class_row(Organization)) as cursor:
        await cursor.execute(
            f"SELECT {_ORGANIZATION} FROM organizations WHERE id = %s"
            + (" FOR NO KEY UPDATE" if lock else ""),
            (organization_id,),
        )
        return await cursor.fetchone()


async def every(conn: Conn) -> list[Organization]:
    async with conn.cursor(row_factory=class_row(Organization)) as cursor:
        await cursor.execute(f"SELECT {_ORGANIZATION} FROM organizations ORDER BY id")
        return await cursor.fetchall()


async def update(conn: Conn, organization: Organization) -> None:
    """Its name, its time zone, its pinned version and its grace; nothing else of it ever changes this way."""
    await conn.execute(
        "UPDATE organizations SET name = %s, timezone = %s, api_version = %s, grace_s = %s WHERE id = %s",
        (
            organization.name,
            organization.timezone,
            organization.api_version,
            organization.grace_s,
            organization.id,
        ),
    )


async def set_clock(conn: Conn, *, organization_id: UUID, to: datetime) -> datetime:
    """Move the test clock, never backwards; returns where it stands."""
    cursor = await conn.execute(
        "UPDATE organizations SET simulated_time = greatest(simulated_time, %s) WHERE id = %s RETURNING simulated_time",
        (to, organization_id),
    )
    found: datetime = (await the(cursor))[0]
    return found


async def insert_key(conn: Conn, key: ApiKey, *, secret_hash: bytes) -> None:
    await conn.execute(
        """INSERT INTO api_keys (id, organization_id, name, prefix, secret_hash, permissions, expires_at, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            key.id,
            key.organization_id,
            key.name,
            key.prefix,
            secret_hash,
            Jsonb(key.permissions) if key.permissions is not None else None,
            key.expires_at,
            key.created_at,
        ),
    )


async def key_by_hash(conn: Conn, *, secret_hash: bytes) -> ApiKey | None:
    async with conn.cursor(row_factory=class_row(ApiKey)) as cursor:
        await cursor.execute(f"SELECT {_KEY} FROM api_keys WHERE secret_hash = %s", (secret_hash,))
        return await cursor.fetchone()


async def list_keys(
    conn: Conn, *, organization_id: UUID, before: UUID | None = None, limit: int = 1_000
) -> list[ApiKey]:
    """Keys that are not revoked, newest first."""
    async with conn.cursor(row_factory=class_row(ApiKey)) as cursor:
        await cursor.execute(
            f"""SELECT {_KEY} FROM api_keys
                 WHERE organization_id = %(organization)s AND revoked_at IS NULL
                   AND (%(before)s::uuid IS NULL OR id < %(before)s)
                 ORDER BY id DESC LIMIT %(limit)s""",
            {"organization": organization_id, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def revoke_key(conn: Conn, *, organization_id: UUID, key_id: UUID, now: datetime) -> bool:
    cursor = await conn.execute(
        """UPDATE api_keys SET revoked_at = %s
            WHERE id = %s AND organization_id = %s AND revoked_at IS NULL""",
        (now, key_id, organization_id),
    )
    return cursor.rowcount == 1


async def revoked_keys(conn: Conn, *, organization_id: UUID) -> frozenset[UUID]:
    found = await rows(
        conn,
        "SELECT id FROM api_keys WHERE organization_id = %s AND revoked_at IS NOT NULL",
        (organization_id,),
    )
    return frozenset(each[0] for each in found)


async def note_used(conn: Conn, *, key_ids: list[UUID], now: datetime) -> None:
    await conn.execute("UPDATE api_keys SET last_used_at = %s WHERE id = ANY(%s)", (now, key_ids))


async def remembered(
    conn: Conn, *, organization_id: UUID, key_hash: bytes, since: datetime
) -> tuple[bytes, int, bytes] | None:
    """(request hash, status, body) of the answer kept under an Idempotency-Key."""
    cursor = await conn.execute(
        """SELECT request_hash, status, body FROM idempotency_keys
            WHERE organization_id = %s AND key_hash = %s AND created_at > %s""",
        (organization_id, key_hash, since),
    )
    found = await cursor.fetchone()
    return None if found is None else (found[0], found[1], found[2])


async def remember(
    conn: Conn,
    *,
    organization_id: UUID,
    key_hash: bytes,
    request_hash: bytes,
    status: int,
    body: bytes,
    now: datetime,
) -> None:
    await conn.execute(
        """INSERT INTO idempotency_keys (organization_id, key_hash, request_hash, status, body, created_at)
           VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id, key_hash) DO UPDATE
              SET request_hash = excluded.request_hash, status = excluded.status,
                  body = excluded.body, created_at = excluded.created_at""",
        (organization_id, key_hash, request_hash, status, body, now),
    )


async def forget_answers(conn: Conn, *, before: datetime) -> int:
    cursor = await conn.execute("DELETE FROM idempotency_keys WHERE created_at <= %s", (before,))
    return cursor.rowcount
