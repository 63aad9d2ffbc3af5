"""Saved cards and transactions: one row per attempt through a provider."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from tallystick.store.db import Conn, rows


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    id: UUID
    customer_id: UUID
    provider: str
    token: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    is_default: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Transaction:
    id: UUID
    customer_id: UUID
    invoice_id: UUID | None
    provider: str
    provider_reference: str
    status: str
    gross_amount: int
    subtotal: int
    tax: int
    currency: str
    reason: str
    failure_code: str | None
    failure_message: str | None
    paid_at: datetime | None
    created_at: datetime
    updated_at: datetime
    customer_email: str | None = None
    customer_name: str | None = None


_TRANSACTION = """t.id, t.customer_id, t.invoice_id, t.provider, t.provider_reference, t.status, t.gross_amount,
    t.subtotal, t.tax, t.currency, t.reason, t.failure_code, t.failure_message, t.paid_at, t.created_at, t.updated_at,
    c.email AS customer_email, c.full_name AS customer_name"""


_METHOD = "id, customer_id, provider, token, brand, last4, exp_month, exp_year, is_default, created_at"


async def default_method(conn: Conn, *, customer_id: UUID) -> PaymentMethod | None:
    async with conn.cursor(row_factory=class_row(PaymentMethod)) as cursor:
        await cursor.execute(
            f"""SELECT {_METHOD} FROM payment_methods
                 WHERE customer_id = %s ORDER BY is_default DESC, id DESC LIMIT 1""",
            (customer_id,),
        )
        return await cursor.fetchone()


async def method(conn: Conn, *, method_id: UUID) -> PaymentMethod | None:
    """One that something of ours refers to."""
    async with conn.cursor(row_factory=class_row(PaymentMethod)) as cursor:
        await cursor.execute(f"SELECT {_METHOD} FROM payment_methods WHERE id = %s", (method_id,))
        return await cursor.fetchone()


async def save_method(conn: Conn, *, organization_id: UUID, method: PaymentMethod) -> None:
    """The newest card becomes the default."""
    await conn.execute(
        "UPDATE payment_methods SET is_default = false WHERE customer_id = %s AND is_default",
        (method.customer_id,),
    )
    await conn.execute(
        """INSERT INTO payment_methods (id, organization_id, customer_id, provider, token, brand, last4, exp_month,
                                        exp_year, is_default, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, true, %s)""",
        (
            method.id,
            organization_id,
            method.customer_id,
            method.provider,
            method.token,
            method.brand,
            method.last4,
            method.exp_month,
            method.exp_year,
            method.created_at,
        ),
    )


async def record(conn: Conn, *, organization_id: UUID, transaction: Transaction) -> None:
    """A provider's answer is recorded once, however often it is heard."""
    await conn.execute(
        """INSERT INTO transactions (id, organization_id, customer_id, invoice_id, provider, provider_reference, status,
                  gross_amount, subtotal, tax, currency, reason, failure_code, failure_message, paid_at, created_at,
                  updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id, provider_reference) DO NOTHING""",
        (
            transaction.id,
            organization_id,
            transaction.customer_id,
            transaction.invoice_id,
            transaction.provider,
            transaction.provider_reference,
            transaction.status,
            transaction.gross_amount,
            transaction.subtotal,
            transaction.tax,
            transaction.currency,
            transaction.reason,
            transaction.failure_code,
            transaction.failure_message,
            transaction.paid_at,
            transaction.created_at,
            transaction.updated_at,
        ),
    )


async def get(conn: Conn, *, organization_id: UUID, transaction_id: UUID) -> Transaction | None:
    async with conn.cursor(row_factory=class_row(Transaction)) as cursor:
        await cursor.execute(
            f"""SELECT {_TRANSACTION} FROM transactions t JOIN customers c ON c.id = t.customer_id
                 WHERE t.id = %s AND t.organization_id = %s""",
            (transaction_id, organization_id),
        )
        return await cursor.fetchone()


async def paid(conn: Conn, *, invoice_ids: Sequence[UUID]) -> dict[UUID, list[int]]:
    """What was taken for each invoice, a charge at a time."""
    found: dict[UUID, list[int]] = {each: [] for each in invoice_ids}
    for invoice_id, amount in await rows(
        conn,
        """SELECT invoice_id, gross_amount FROM transactions
            WHERE invoice_id = ANY(%s) AND status = 'succeeded' ORDER BY id""",
        (list(invoice_ids),),
    ):
        found[invoice_id].append(amount)
    return found


async def page(
    conn: Conn,
    *,
    organization_id: UUID,
    before: UUID | None,
    limit: int,
    status: str | None,
    email: str | None,
) -> list[Transaction]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Transaction)) as cursor:
        await cursor.execute(
            f"""SELECT {_TRANSACTION} FROM transactions t JOIN customers c ON c.id = t.customer_id
                 WHERE t.organization_id = %(organization)s
                   AND (%(before)s::uuid IS NULL OR t.id < %(before)s)
                   AND (%(status)s::text IS NULL OR t.status = %(status)s)
                   AND (%(email)s::text IS NULL OR c.email = %(email)s)
                 ORDER BY t.id DESC LIMIT %(limit)s""",
            {
                "organization": organization_id,
                "before": before,
                "limit": limit,
                "status": status,
                "email": email,
            },
        )
        return await cursor.fetchall()
