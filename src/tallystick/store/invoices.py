"""Invoices and their lines. The unique index on (subscription, period, type) is the last judge of a close."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core.invoicing import Line
from tallystick.store.db import Conn, new_ids, rows, the

_COLUMNS = """i.id, i.customer_id, i.subscription_id, i.number, i.status, i.invoice_type, i.currency, i.subtotal, i.discount,
    i.credit_applied, i.tax, i.total, i.period_index, i.period_start, i.period_end, i.issued_at, i.due_at,
    i.plan_name, i.memo, i.metadata, i.created_at, i.updated_at, o.invoice_prefix,
    coalesce(c.external_id, '') AS external_id"""
_FROM = "invoices i JOIN organizations o ON o.id = i.organization_id JOIN customers c ON c.id = i.customer_id"


@dataclass(frozen=True, slots=True)
class Invoice:
    id: UUID
    customer_id: UUID
    subscription_id: UUID | None
    number: int
    status: str
    invoice_type: str
    currency: str
    subtotal: int
    discount: int
    credit_applied: int
    tax: int
    total: int
    period_index: int | None
    period_start: datetime
    period_end: datetime
    issued_at: datetime
    due_at: datetime
    plan_name: str | None
    memo: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    invoice_prefix: str
    external_id: str


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    id: UUID
    invoice_id: UUID
    position: int
    line_type: str
    charge_type: str
    feature_id: UUID | None
    feature_name: str | None
    description: str
    quantity: Decimal
    unit_amount: Decimal
    amount: int
    included: Decimal | None
    used: Decimal | None
    overage: Decimal | None
    evidence: dict[str, Any] | None
    subscription_id: UUID | None
    usage_period: int | None
    part: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice about to be issued."""

    id: UUID
    organization_id: UUID
    customer_id: UUID
    subscription_id: UUID
    status: str
    invoice_type: str
    currency: str
    subtotal: int
    tax: int
    period_index: int | None  # None: of no period, so any number of them
    period_start: datetime
    period_end: datetime
    issued_at: datetime
    due_at: datetime
    collect_at: datetime | None
    plan_name: str
    created_at: datetime


async def issue(conn: Conn, draft: Draft, lines: Sequence[Line]) -> int:
    """Number and freeze an invoice with its lines; returns its number."""
    (number,) = await issue_set(conn, draft.organization_id, [(draft, lines)])
    return number


async def issue_set(
    conn: Conn, organization_id: UUID, drafts: Sequence[tuple[Draft, Sequence[Line]]]
) -> list[int]:
    """Number and freeze invoices of one organization with their lines; their numbers, in order.

    Numbers come from the organization's row, locked by this statement, so that they have no gaps.
    """
    if not drafts:
        return []
    cursor = await conn.execute(
        "UPDATE organizations SET invoices_issued = invoices_issued + %s WHERE id = %s RETURNING invoices_issued",
        (len(drafts), organization_id),
    )
    newest = int((await the(cursor))[0])
    numbers = list(range(newest - len(drafts) + 1, newest + 1))
    async with conn.cursor() as many:
        await many.executemany(
            """INSERT INTO invoices (id, organization_id, customer_id, subscription_id, number, status, invoice_type,
                      currency, subtotal, tax, total, period_index, period_start, period_end, issued_at, due_at,
                      collect_at, plan_name, created_at, updated_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    draft.id,
                    draft.organization_id,
                    draft.customer_id,
                    draft.subscription_id,
                    number,
                    draft.status,
                    draft.invoice_type,
                    draft.currency,
                    draft.subtotal,
                    draft.tax,
                    draft.subtotal + draft.tax,
                    draft.period_index,
                    draft.period_start,
                    draft.period_end,
                    draft.issued_at,
                    draft.due_at,
                    draft.collect_at,
                    draft.plan_name,
                    draft.created_at,
                    draft.created_at,
                )
                for (draft, _), number in zip(drafts, numbers, strict=True)
            ],
        )
        await many.executemany(
            """INSERT INTO invoice_lines (id, invoice_id, position, line_type, charge_type, feature_id, feature_name,
                      description, quantity, unit_amount, amount, included, used, overage, evidence,
                      subscription_id, usage_period, part)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    line.id or line_id,
                    draft.id,
                    position,
                    line.line_type,
                    line.charge_type,
                    line.feature_id,
                    line.feature_name,
                    line.description,
                    line.quantity,
                    line.unit_amount,
                    line.amount,
                    line.included,
                    line.used,
                    line.overage,
                    Jsonb(line.evidence) if line.evidence is not None else None,
                    line.subscription_id,
                    line.usage_period,
                    line.part,
                )
                for draft, lines in drafts
                for position, (line_id, line) in enumerate(zip(new_ids(len(lines)), lines, strict=True))
            ],
        )
    return numbers


async def get(conn: Conn, *, organization_id: UUID, invoice_id: UUID) -> Invoice | None:
    async with conn.cursor(row_factory=class_row(Invoice)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.id = %s AND i.organization_id = %s",
            (invoice_id, organization_id),
        )
        return await cursor.fetchone()


class ToVerify(NamedTuple):
    """An invoice, and about how many events its lines are derived from."""

    id: UUID
    organization_id: UUID
    customer_id: UUID
    events: int


async def to_verify(
    conn: Conn, *, organization_id: UUID | None, invoice_id: UUID | None, page: int = 1_000
) -> AsyncIterator[ToVerify]:
    """Every invoice, or those of an organization, or one; those with most events first, as their evidence says.

    A late line is derived from its whole period, so it counts for as much as the longest line of that period.
    """
    async with conn.cursor(name="invoices_to_verify", withhold=True) as cursor:
        cursor.itersize = page
        await cursor.execute(
            """WITH told AS (
                   SELECT invoice_id, max(CASE WHEN jsonb_typeof(evidence #> '{events,count}') = 'number'
                                               THEN least((evidence #>> '{events,count}')::numeric, 1e9) ELSE 0 END)
                                          OVER (PARTITION BY subscription_id, usage_period, feature_id) AS events
                     FROM invoice_lines
                    WHERE part IN ('usage', 'difference')
                      AND (%(invoice)s::uuid IS NULL OR (subscription_id, usage_period) IN (
                           SELECT subscription_id, usage_period FROM invoice_lines WHERE invoice_id = %(invoice)s)))
               SELECT i.id, i.organization_id, i.customer_id, coalesce(t.events, 0)::bigint
                 FROM invoices i
                 LEFT JOIN (SELECT invoice_id, sum(events) AS events FROM told GROUP BY 1) t ON t.invoice_id = i.id
                WHERE (%(organization)s::uuid IS NULL OR i.organization_id = %(organization)s)
                  AND (%(invoice)s::uuid IS NULL OR i.id = %(invoice)s)
                ORDER BY 4 DESC, i.id""",
            {"organization": organization_id, "invoice": invoice_id},
        )
        async for found in cursor:
            yield ToVerify(*found)


async def lines(conn: Conn, *, invoice_id: UUID) -> list[InvoiceLine]:
    """Of an invoice that was found in its organization."""
    async with conn.cursor(row_factory=class_row(InvoiceLine)) as cursor:
        await cursor.execute(
            """SELECT id, invoice_id, position, line_type, charge_type, feature_id, feature_name, description,
                      quantity, unit_amount, amount, included, used, overage, evidence,
                      subscription_id, usage_period, part
                 FROM invoice_lines WHERE invoice_id = %s ORDER BY position""",
            (invoice_id,),
        )
        return await cursor.fetchall()


async def lines_of_period(conn: Conn, *, subscription_id: UUID, index: int) -> list[InvoiceLine]:
    """Every line that speaks of one usage period, in the order they were made."""
    async with conn.cursor(row_factory=class_row(InvoiceLine)) as cursor:
        await cursor.execute(
            """SELECT l.id, l.invoice_id, l.position, l.line_type, l.charge_type, l.feature_id, l.feature_name,
                      l.description, l.quantity, l.unit_amount, l.amount, l.included, l.used, l.overage, l.evidence,
                      l.subscription_id, l.usage_period, l.part
                 FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
                WHERE l.subscription_id = %s AND l.usage_period = %s ORDER BY i.number, l.position""",
            (subscription_id, index),
        )
        return await cursor.fetchall()


async def charged_in_advance(conn: Conn, *, subscription_ids: list[UUID]) -> dict[tuple[UUID, datetime], int]:
    """What was charged in advance, by subscription and where the billing period begins."""
    found = await rows(
        conn,
        """SELECT i.subscription_id, i.period_start, sum(l.amount)::bigint
             FROM subscriptions s JOIN invoices i ON i.customer_id = s.customer_id AND i.subscription_id = s.id
             JOIN invoice_lines l ON l.invoice_id = i.id
            WHERE s.id = ANY(%s) AND l.line_type = 'plan_base' GROUP BY 1, 2""",
        (subscription_ids,),
    )
    return {(each[0], each[1]): each[2] for each in found}


async def page(
    conn: Conn,
    *,
    organization_id: UUID,
    before: UUID | None,
    limit: int,
    customer_id: UUID | None,
    subscription_id: UUID | None,
    status: str | None,
) -> list[Invoice]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Invoice)) as cursor:
        await cursor.execute(
            f"""SELECT {_COLUMNS} FROM {_FROM}
                 WHERE i.organization_id = %(organization)s
                   AND (%(before)s::uuid IS NULL OR i.id < %(before)s)
                   AND (%(customer)s::uuid IS NULL OR i.customer_id = %(customer)s)
                   AND (%(subscription)s::uuid IS NULL OR i.subscription_id = %(subscription)s)
                   AND (%(status)s::text IS NULL OR i.status = %(status)s)
                 ORDER BY i.id DESC LIMIT %(limit)s""",
            {
                "organization": organization_id,
                "before": before,
                "limit": limit,
                "customer": customer_id,
                "subscription": subscription_id,
                "status": status,
            },
        )
        return await cursor.fetchall()


async def exists(conn: Conn, *, invoice_id: UUID) -> bool:
    return bool(await rows(conn, "SELECT FROM invoices WHERE id = %s", (invoice_id,)))


async def claim_collection(conn: Conn, *, invoice_id: UUID, now: datetime) -> bool:
    """Take the promise to charge this invoice; False when somebody else has it or it is kept."""
    cursor = await conn.execute(
        """UPDATE invoices SET collect_at = NULL
            WHERE id = (SELECT id FROM invoices WHERE id = %s AND collect_at <= %s FOR UPDATE SKIP LOCKED)""",
        (invoice_id, now),
    )
    return cursor.rowcount == 1


async def to_collect(conn: Conn, *, now: datetime, limit: int) -> list[UUID]:
    """Invoices whose charge is due by their own organization's clock; `now` is the wall clock."""
    found = await rows(
        conn,
        """SELECT i.id FROM invoices i JOIN organizations o ON o.id = i.organization_id
            WHERE i.collect_at <= coalesce(o.simulated_time, %s) ORDER BY i.collect_at LIMIT %s""",
        (now, limit),
    )
    return [each[0] for each in found]


async def owner(conn: Conn, *, invoice_id: UUID) -> UUID:
    cursor = await conn.execute("SELECT organization_id FROM invoices WHERE id = %s", (invoice_id,))
    found: UUID = (await the(cursor))[0]
    return found


async def set_status(conn: Conn, *, invoice_id: UUID, status: str, now: datetime) -> None:
    await conn.execute(
        "UPDATE invoices SET status = %s, collect_at = NULL, updated_at = %s WHERE id = %s",
        (status, now, invoice_id),
    )


async def void_unpaid(conn: Conn, *, subscription_id: UUID, now: datetime) -> None:
    await conn.execute(
        """UPDATE invoices SET status = 'void', collect_at = NULL, updated_at = %s
            WHERE subscription_id = %s AND status = 'outstanding'""",
        (now, subscription_id),
    )
