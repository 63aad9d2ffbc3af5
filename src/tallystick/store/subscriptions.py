"""Subscriptions: rows, due work, and the one live subscription a customer may have."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core.subscriptions import Status
from tallystick.core.times import Anchor, Period
from tallystick.store import citus, wallets
from tallystick.store.db import Conn

_COLUMNS = """id, organization_id, customer_id, plan_id, price_id, name, description, status, billing_interval, currency,
    timezone, zones, anchor_at, anchor_day, period_index, period_start, period_end, closes_at, cancel_at,
    cancel_requested_at, cancel_reason, ended_at, checkout_token, success_url, close_failure, created_at, updated_at"""


@dataclass(frozen=True, slots=True)
class Subscription:
    id: UUID
    organization_id: UUID
    customer_id: UUID
    plan_id: UUID
    price_id: UUID | None
    name: str
    description: str | None
    status: str
    billing_interval: str | None
    currency: str
    timezone: str
    zones: list[tuple[int, str]]
    anchor_at: datetime | None
    anchor_day: date | None
    period_index: int
    period_start: datetime | None
    period_end: datetime | None
    closes_at: datetime | None
    cancel_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_reason: str | None
    ended_at: datetime | None
    checkout_token: str | None
    success_url: str | None
    close_failure: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def state(self) -> Status:
        return Status(self.status)

    def is_over(self, now: datetime) -> bool:
        """A scheduled end counts from its instant, closed or not."""
        return self.state is Status.CANCELED or (self.cancel_at is not None and self.cancel_at <= now)

    @property
    def anchor(self) -> Anchor | None:
        if self.anchor_at is None or self.anchor_day is None:
            return None
        zones = tuple((first, zone) for first, zone in self.zones)
        return Anchor(self.anchor_at, self.anchor_day, self.billing_interval == "weekly", zones)


async def insert(conn: Conn, subscription: Subscription) -> bool:
    """False when the customer has a live one already: the unique index is the last judge."""
    cursor = await conn.execute(
        """INSERT INTO subscriptions (id, organization_id, customer_id, plan_id, price_id, name, description, status,
                  billing_interval, currency, timezone, checkout_token, success_url, created_at, updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (customer_id) WHERE status <> 'canceled' DO NOTHING""",
        (
            subscription.id,
            subscription.organization_id,
            subscription.customer_id,
            subscription.plan_id,
            subscription.price_id,
            subscription.name,
            subscription.description,
            subscription.status,
            subscription.billing_interval,
            subscription.currency,
            subscription.timezone,
            subscription.checkout_token,
            subscription.success_url,
            subscription.created_at,
            subscription.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def get(
    conn: Conn, *, organization_id: UUID, subscription_id: UUID, lock: bool = False
) -> Subscription | None:
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM subscriptions WHERE id = %s AND organization_id = %s"
            + (" FOR NO KEY UPDATE" if lock else ""),
            (subscription_id, organization_id),
        )
        return await cursor.fetchone()


async def by_checkout(conn: Conn, *, token: str) -> Subscription | None:
    """The address is the secret, so it is not scoped by organization."""
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM subscriptions WHERE checkout_token = %s", (token,))
        return await cursor.fetchone()


async def live_of_customer(
    conn: Conn, *, organization_id: UUID, customer_id: UUID, lock: bool = False
) -> Subscription | None:
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM subscriptions
                 WHERE organization_id = %s AND customer_id = %s AND status <> 'canceled'"""
            + (" FOR NO KEY UPDATE" if lock else ""),
            (organization_id, customer_id),
        )
        return await cursor.fetchone()


async def of_customer(
    conn: Conn, *, organization_id: UUID, customer_id: UUID, lock: bool = False
) -> list[Subscription]:
    """All a customer ever had that was activated, oldest first."""
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM subscriptions
                 WHERE organization_id = %s AND customer_id = %s AND anchor_at IS NOT NULL ORDER BY id"""
            + (" FOR NO KEY UPDATE" if lock else ""),
            (organization_id, customer_id),
        )
        return await cursor.fetchall()


async def matching(
    conn: Conn, *, organization_id: UUID, customer_id: UUID | None, status: str | None
) -> list[Subscription]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM subscriptions
                 WHERE organization_id = %(organization)s
                   AND (%(customer)s::uuid IS NULL OR customer_id = %(customer)s)
                   AND (%(status)s::text IS NULL OR status = %(status)s)
                 ORDER BY id DESC""",
            {"organization": organization_id, "customer": customer_id, "status": status},
        )
        return await cursor.fetchall()


async def lived_in(
    conn: Conn,
    *,
    organization_id: UUID,
    span: Period,
    customers: list[UUID] | None,
    after: UUID | None,
    limit: int,
) -> list[Subscription]:
    """Those that ran at some time of `span`, in order of id."""
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM subscriptions
                 WHERE organization_id = %(organization)s
                   AND (%(customers)s::uuid[] IS NULL OR customer_id = ANY(%(customers)s))
                   AND anchor_at < %(end)s AND (ended_at IS NULL OR ended_at > %(start)s)
                   AND (%(after)s::uuid IS NULL OR id > %(after)s)
                 ORDER BY id LIMIT %(limit)s""",
            {
                "organization": organization_id,
                "customers": customers,
                "start": span.start,
                "end": span.end,
                "after": after,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def update(conn: Conn, subscription: Subscription) -> None:
    """Write back everything that can change."""
    await update_set(conn, [subscription])


async def update_set(conn: Conn, changed: Sequence[Subscription]) -> None:
    async with conn.cursor() as many:
        await many.executemany(
            """UPDATE subscriptions SET status = %s, timezone = %s, zones = %s, anchor_at = %s, anchor_day = %s,
                      period_index = %s, period_start = %s, period_end = %s, closes_at = %s, cancel_at = %s,
                      cancel_requested_at = %s, cancel_reason = %s, ended_at = %s, checkout_token = %s,
                      close_failure = %s, updated_at = %s
                WHERE id = %s AND organization_id = %s""",
            [
                (
                    each.status,
                    each.timezone,
                    Jsonb(each.zones),
                    each.anchor_at,
                    each.anchor_day,
                    each.period_index,
                    each.period_start,
                    each.period_end,
                    each.closes_at,
                    each.cancel_at,
                    each.cancel_requested_at,
                    each.cancel_reason,
                    each.ended_at,
                    each.checkout_token,
                    each.close_failure,
                    each.updated_at,
                    each.id,
                    each.organization_id,
                )
                for each in changed
            ],
        )


async def of_ids(
    conn: Conn, *, organization_id: UUID, subscription_ids: Sequence[UUID], lock: bool = False
) -> list[Subscription]:
    """In order of id, which is also the order of locking."""
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM subscriptions WHERE organization_id = %s AND id = ANY(%s) ORDER BY id"
            + (" FOR NO KEY UPDATE" if lock else ""),
            (organization_id, list(subscription_ids)),
        )
        return await cursor.fetchall()


async def with_wallet_to_turn(
    conn: Conn, *, organization_id: UUID, subscription_ids: Sequence[UUID], now: datetime
) -> list[Subscription]:
    """Of those that are due, the prepaid ones whose wallet still stands in the period to be closed; held."""
    if citus.is_citus(conn):
        return await _with_wallet_elsewhere(conn, organization_id, subscription_ids, now)
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM subscriptions s
                 WHERE organization_id = %s AND id = ANY(%s) AND closes_at <= %s
                   AND EXISTS (SELECT FROM wallets w WHERE w.customer_id = s.customer_id AND w.subscription_id = s.id
                                  AND w.period_index <= s.period_index)
                 ORDER BY id FOR NO KEY UPDATE""",
            (organization_id, list(subscription_ids), now),
        )
        return await cursor.fetchall()


async def _with_wallet_elsewhere(
    conn: Conn, organization_id: UUID, subscription_ids: Sequence[UUID], now: datetime
) -> list[Subscription]:
    """The same, where subscriptions and wallets do not lie on one node."""
    asked = await of_ids(conn, organization_id=organization_id, subscription_ids=subscription_ids)
    found = await wallets.read(conn, [wallets.WalletKey(each.customer_id, each.id) for each in asked])
    standing = {key.subscription_id: wallet.period_index for key, wallet in found.items()}
    held = await of_ids(conn, organization_id=organization_id, subscription_ids=list(standing), lock=True)
    return [
        each
        for each in held
        if each.closes_at is not None and each.closes_at <= now and standing[each.id] <= each.period_index
    ]


async def due(conn: Conn, *, now: datetime, limit: int) -> list[tuple[UUID, UUID, datetime]]:
    """(organization, subscription, due since) of what is to be closed by the wall clock, oldest first.

    Organizations with a test clock move only when it is moved.
    """
    cursor = await conn.execute(
        """SELECT s.organization_id, s.id, s.closes_at
             FROM subscriptions s JOIN organizations o ON o.id = s.organization_id
            WHERE s.closes_at <= %s AND o.simulated_time IS NULL AND s.close_failure IS NULL
            ORDER BY s.closes_at, s.id LIMIT %s""",
        (now, limit),
    )
    return [(found[0], found[1], found[2]) async for found in cursor]


async def next_due(
    conn: Conn, *, organization_id: UUID, until: datetime, skipping: list[UUID], limit: int
) -> tuple[datetime, list[UUID]] | None:
    """When the next periods of one organization are to be closed up to `until`, and whose, in order of id."""
    cursor = await conn.execute(
        """SELECT closes_at, id FROM subscriptions
            WHERE organization_id = %(organization)s AND id <> ALL(%(skipping)s) AND closes_at = (
                  SELECT min(closes_at) FROM subscriptions
                   WHERE organization_id = %(organization)s AND closes_at <= %(until)s AND id <> ALL(%(skipping)s))
            ORDER BY id LIMIT %(limit)s""",
        {"organization": organization_id, "until": until, "skipping": skipping, "limit": limit},
    )
    found = await cursor.fetchall()
    return (found[0][0], [each[1] for each in found]) if found else None


async def forget_failures(conn: Conn) -> None:
    """Let what could not be closed be tried once more."""
    await conn.execute("UPDATE subscriptions SET close_failure = NULL WHERE close_failure IS NOT NULL")


async def note_failure(conn: Conn, *, subscription_id: UUID, failure: str) -> None:
    await conn.execute(
        "UPDATE subscriptions SET close_failure = %s WHERE id = %s", (failure, subscription_id)
    )
