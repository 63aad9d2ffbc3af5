"""Reservations: what is set aside in a wallet for usage that is yet to be measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from psycopg.rows import class_row

from tallystick.core.wallets import Lapse
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


_OPEN: Final = """
    SELECT customer_id, subscription_id, id, amount, expires_at,
           coalesce(sum(amount) OVER (PARTITION BY customer_id, subscription_id ORDER BY id DESC
                                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS newer
      FROM unnest(%(customers)s::uuid[], %(subscriptions)s::uuid[]) AS t (customer_id, subscription_id)
      JOIN reservations USING (customer_id, subscription_id)
     WHERE status = 'held'"""


async def expire(conn: Conn, keys: Sequence[WalletKey], *, now: datetime) -> dict[WalletKey, list[Lapse]]:
    """End what has expired in wallets that are held; the oldest first."""
    return _lapses(
        await rows(
            conn,
            f"""WITH expired AS MATERIALIZED (SELECT * FROM ({_OPEN}) AS open WHERE expires_at <= %(now)s
                ), ended AS (
                     UPDATE reservations r SET status = 'expired', updated_at = %(now)s
                       FROM expired e WHERE r.customer_id = e.customer_id AND r.id = e.id)
                SELECT customer_id, subscription_id, amount, newer FROM expired ORDER BY id""",
            {"now": now, **_named(keys)},
        )
    )


async def lapsed(conn: Conn, keys: Sequence[WalletKey], *, now: datetime) -> dict[WalletKey, list[Lapse]]:
    """What `expire` would end, of wallets held by nobody."""
    return _lapses(
        await rows(
            conn,
            f"""SELECT customer_id, subscription_id, amount, newer FROM ({_OPEN}) AS open
                 WHERE expires_at <= %(now)s ORDER BY id""",
            {"now": now, **_named(keys)},
        )
    )


def _named(keys: Sequence[WalletKey]) -> dict[str, list[UUID]]:
    return {
        "customers": [each.customer_id for each in keys],
        "subscriptions": [each.subscription_id for each in keys],
    }


def _lapses(found: Sequence[Any]) -> dict[WalletKey, list[Lapse]]:
    lapses: dict[WalletKey, list[Lapse]] = {}
    for customer, subscription, amount, newer in found:
        lapses.setdefault(WalletKey(customer, subscription), []).append(Lapse(amount, newer))
    return lapses


async def newer(conn: Conn, than: Reservation) -> Decimal:
    """What was set aside in its wallet since, and still is."""
    found = await rows(
        conn,
        """SELECT coalesce(sum(amount), 0) FROM reservations
            WHERE customer_id = %s AND subscription_id = %s AND id > %s AND status = 'held'""",
        (than.customer_id, than.subscription_id, than.id),
    )
    total: Decimal = found[0][0]
    return total


async def expired(conn: Conn, *, wall: datetime, limit: int) -> list[tuple[UUID, WalletKey]]:
    """(organization, wallet) where something has expired by its organization's clock, the longest ago first."""
    found = await rows(
        conn,
        """SELECT r.organization_id, r.customer_id, r.subscription_id
             FROM reservations r JOIN organizations o ON o.id = r.organization_id
            WHERE r.status = 'held' AND r.expires_at <= coalesce(o.simulated_time, %s)
            GROUP BY 1, 2, 3 ORDER BY min(r.expires_at) LIMIT %s""",
        (wall, limit),
    )
    return [(each[0], WalletKey(each[1], each[2])) for each in found]
