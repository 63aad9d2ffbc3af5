"""Purchases of credits and top-ups: from the promise to charge until it is kept."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from psycopg.rows import class_row

from tallystick.core.wallets import Model
from tallystick.store.db import Conn

_COLUMNS = """id, organization_id, customer_id, subscription_id, request_key, status, kind, credit_pack_id, description,
    quantity, amount_minor, currency, payment_method_id, retry_at, invoice_id, failure_code, failure_message,
    created_at, updated_at"""


@dataclass(frozen=True, slots=True)
class Purchase:
    """`quantity` in credits, or in rate units of a balance."""

    id: UUID
    organization_id: UUID
    customer_id: UUID
    subscription_id: UUID
    request_key: bytes | None
    status: str
    kind: str
    credit_pack_id: UUID | None
    description: str
    quantity: Decimal
    amount_minor: int
    currency: str
    payment_method_id: UUID | None  # None: there is nothing to charge
    retry_at: datetime | None  # by the wall clock; None: it is settled
    invoice_id: UUID | None
    failure_code: str | None
    failure_message: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def model(self) -> Model:
        return Model(self.kind)


async def insert(conn: Conn, purchase: Purchase) -> bool:
    """False when the organization has one under this request key already."""
    cursor = await conn.execute(
        f"""INSERT INTO purchases ({_COLUMNS})
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (organization_id, request_key) WHERE request_key IS NOT NULL DO NOTHING""",
        (
            purchase.id,
            purchase.organization_id,
            purchase.customer_id,
            purchase.subscription_id,
            purchase.request_key,
            purchase.status,
            purchase.kind,
            purchase.credit_pack_id,
            purchase.description,
            purchase.quantity,
            purchase.amount_minor,
            purchase.currency,
            purchase.payment_method_id,
            purchase.retry_at,
            purchase.invoice_id,
            purchase.failure_code,
            purchase.failure_message,
            purchase.created_at,
            purchase.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def by_key(conn: Conn, *, organization_id: UUID, request_key: bytes) -> Purchase | None:
    async with conn.cursor(row_factory=class_row(Purchase)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM purchases WHERE organization_id = %s AND request_key = %s",
            (organization_id, request_key),
        )
        return await cursor.fetchone()


async def held(conn: Conn, *, purchase_id: UUID) -> Purchase:
    """Locked: one settles it, and who comes later sees that it is."""
    async with conn.cursor(row_factory=class_row(Purchase)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM purchases WHERE id = %s FOR UPDATE", (purchase_id,))
        found = await cursor.fetchone()
    assert found is not None  # a purchase is never deleted
    return found


async def settle(conn: Conn, purchase: Purchase) -> None:
    """Write what became of a held one."""
    await conn.execute(
        """UPDATE purchases SET status = %s, retry_at = NULL, invoice_id = %s, failure_code = %s,
                  failure_message = %s, updated_at = %s
            WHERE id = %s""",
        (
            purchase.status,
            purchase.invoice_id,
            purchase.failure_code,
            purchase.failure_message,
            purchase.updated_at,
            purchase.id,
        ),
    )


async def claim_pending(conn: Conn, *, wall: datetime, again_at: datetime, limit: int) -> list[Purchase]:
    """Those whose settlement is overdue, oldest first; nobody else is handed them before `again_at`."""
    async with conn.cursor(row_factory=class_row(Purchase)) as cursor:
        await cursor.execute(
            f"""UPDATE purchases SET retry_at = %s
                 WHERE id IN (SELECT id FROM purchases WHERE status = 'pending' AND retry_at <= %s
                               ORDER BY retry_at LIMIT %s FOR UPDATE SKIP LOCKED)
             RETURNING {_COLUMNS}""",
            (again_at, wall, limit),
        )
        return sorted(await cursor.fetchall(), key=lambda each: each.id)
