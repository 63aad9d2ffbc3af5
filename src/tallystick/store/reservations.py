"""Reservations: what is set aside in a wallet for usage that is yet to be measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from tallystick.store.db import Conn, rows
from tallystick.store.wallets import WalletKey

_COLUMNS: Final = """id, organization_id, customer_id, subscription_id, event_code, quantity, model, input_tokens,
    max_output_tokens, amount, status, expires_at, event_id, created_at, updated_at"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """`amount` is what was set aside, in the wallet's unit: of a quantity, or of a model's tokens."""

    id: UUID
    organization_id: UUID
    customer_id: UUID
    subscription_id: UUID
    event_code: str
    quantity: Decimal | None
    model: str | None
    input_tokens: int | None
    max_output_tokens: int | None
    amount: Decimal
    status: str
    expires_at: datetime
    event_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> WalletKey:
        return WalletKey(self.customer_id, self.subscription_id)


async def insert(conn: Conn, made: Reservation) -> None:
    await conn.execute(
        f"""INSERT INTO reservations ({_COLUMNS})
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            made.id,
            made.organization_id,
            made.customer_id,
            made.subscription_id,
            made.event_code,
            made.quantity,
            made.model,
            made.input_tokens,
            made.max_output_tokens,
            made.amount,
            made.status,
            made.expires_at,
            made.event_id,
            made.created_at,
            made.updated_at,
        ),
    )


async def get(
    conn: Conn, *, organization_id: UUID, reservation_id: UUID, lock: bool = False
) -> Reservation | None:
    async with conn.cursor(row_factory=class_row(Reservation)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM reservations WHERE id = %s AND organization_id = %s"
            + (" FOR UPDATE" if lock else ""),
            (reservation_id, organization_id),
        )
        return await cursor.fetchone()


async def conclude(conn: Conn, done: Reservation) -> None:
    await conn.execute(
        """UPDATE reservations SET status = %s, event_id = %s, updated_at = %s
            WHERE customer_id = %s AND id = %s""",
        (done.status, done.event_id, done.updated_at, done.customer_id, done.id),
    )


async def expire(conn: Conn, keys: Sequence[WalletKey], *, now: datetime) -> list[tuple[WalletKey, Decimal]]:
    """End what has expired in wallets that are held; returns what each had set aside."""
    found = await rows(
        conn,
        """UPDATE reservations r SET status = 'expired', updated_at = %(now)s
             FROM unnest(%(customers)s::uuid[], %(subscriptions)s::uuid[]) AS t (customer_id, subscription_id)
            WHERE r.customer_id = t.customer_id AND r.subscription_id = t.subscription_id AND r.status = 'held'
              AND r.expires_at <= %(now)s
            RETURNING r.customer_id, r.subscription_id, r.amount""",
        {
            "now": now,
            "customers": [each.customer_id for each in keys],
            "subscriptions": [each.subscription_id for each in keys],
        },
    )
    return [(WalletKey(each[0], each[1]), each[2]) for each in found]


async def lapsed(conn: Conn, keys: Sequence[WalletKey], *, now: datetime) -> list[tuple[WalletKey, Decimal]]:
    """What `expire` would give back of wallets, held by nobody."""
    found = await rows(
        conn,
        """SELECT r.customer_id, r.subscription_id, r.amount
             FROM unnest(%s::uuid[], %s::uuid[]) AS t (customer_id, subscription_id)
             JOIN reservations r ON r.customer_id = t.customer_id AND r.subscription_id = t.subscription_id
            WHERE r.status = 'held' AND r.expires_at <= %s""",
        ([each.customer_id for each in keys], [each.subscription_id for each in keys], now),
    )
    return [(WalletKey(each[0], each[1]), each[2]) for each in found]


async def expired(conn: Conn, *, wall: datetime, limit: int) -> list[tuple[UUID, WalletKey]]:
    """(organization, wallet) where something has expired by its organization's clock."""
    found = await rows(
        conn,
        """SELECT DISTINCT r.organization_id, r.customer_id, r.subscription_id
             FROM reservations r JOIN organizations o ON o.id = r.organization_id
            WHERE r.status = 'held' AND r.expires_at <= coalesce(o.simulated_time, %s) LIMIT %s""",
        (wall, limit),
    )
    return [(each[0], WalletKey(each[1], each[2])) for each in found]
