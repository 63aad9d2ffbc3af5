"""Invoices and their lines. The unique index on (subscription, period, type) is the last judge of a close."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import class_row

from tallystick.core.invoicing import Line
from tallystick.store import columns
from tallystick.store.db import Conn, new_ids, rows, the, to_json

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
    await _insert(conn, [draft for draft, _ in drafts], numbers)
    await _insert_lines(conn, drafts)
    return numbers


async def _insert(conn: Conn, drafts: Sequence[Draft], numbers: Sequence[int]) -> None:
    await conn.execute(
        """INSERT INTO invoices (id, organization_id, customer_id, subscription_id, number, status, invoice_type,
                  currency, subtotal, tax, total, period_index, period_start, period_end, issued_at, due_at,
                  collect_at, plan_name, created_at, updated_at)
           SELECT id, organization_id, customer_id, subscription_id, number, status, invoice_type, currency, subtotal,
                  tax, subtotal + tax, period_index, period_start, period_end, issued_at, due_at, collect_at, plan_name,
                  created_at, created_at
             FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::text[],
                         %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::timestamptz[],
                         %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::timestamptz[])
               AS t (id, organization_id, customer_id, subscription_id, number, status, invoice_type, currency,
                     subtotal, tax, period_index, period_start, period_end, issued_at, due_at, collect_at, plan_name,
                     created_at)""",
        (
            columns.uuids(each.id for each in drafts),
            columns.uuids(each.organization_id for each in drafts),
            columns.uuids(each.customer_id for each in drafts),
            columns.uuids(each.subscription_id for each in drafts),
            columns.integers(numbers),
            columns.texts(each.status for each in drafts),
            columns.texts(each.invoice_type for each in drafts),
            columns.texts(each.currency for each in drafts),
            columns.integers(each.subtotal for each in drafts),
            columns.integers(each.tax for each in drafts),
            columns.integers(each.period_index for each in drafts),
            columns.instants(each.period_start for each in drafts),
            columns.instants(each.period_end for each in drafts),
            columns.instants(each.issued_at for each in drafts),
            columns.instants(each.due_at for each in drafts),
            columns.instants(each.collect_at for each in drafts),
            columns.texts(each.plan_name for each in drafts),
            columns.instants(each.created_at for each in drafts),
        ),
    )


async def _insert_lines(conn: Conn, drafts: Sequence[tuple[Draft, Sequence[Line]]]) -> None:
    lines = [line for _, own in drafts for line in own]
    await conn.execute(
        """INSERT INTO invoice_lines (id, invoice_id, position, line_type, charge_type, feature_id, feature_name,
                  description, quantity, unit_amount, amount, included, used, overage, evidence,
                  subscription_id, usage_period, part)
           SELECT id, invoice_id, position, line_type, charge_type, feature_id, feature_name, description,
                  quantity::numeric, unit_amount::numeric, amount, included::numeric, used::numeric, overage::numeric,
                  evidence::jsonb, subscription_id, usage_period, part
             FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::uuid[], %s::text[],
                         %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
                         %s::text[], %s::uuid[], %s::bigint[], %s::text[])
               AS t (id, invoice_id, position, line_type, charge_type, feature_id, feature_name, description, quantity,
                     unit_amount, amount, included, used, overage, evidence, subscription_id, usage_period, part)""",
        (
            columns.uuids(line.id or new for line, new in zip(lines, new_ids(len(lines)), strict=True)),
            columns.uuids(draft.id for draft, own in drafts for _ in own),
            columns.integers(position for _, own in drafts for position in range(len(own))),
            columns.texts(line.line_type for line in lines),
            columns.texts(line.charge_type for line in lines),
            columns.uuids(line.feature_id for line in lines),
            columns.texts(line.feature_name for line in lines),
            columns.texts(line.description for line in lines),
            columns.numbers(line.quantity for line in lines),
            columns.numbers(line.unit_amount for line in lines),
            columns.integers(line.amount for line in lines),
            columns.numbers(line.included for line in lines),
            columns.numbers(line.used for line in lines),
            columns.numbers(line.overage for line in lines),
            columns.documents(None if line.evidence is None else to_json(line.evidence) for line in lines),
            columns.uuids(line.subscription_id for line in lines),
            columns.integers(line.usage_period for line in lines),
            columns.texts(line.part for line in lines),
        ),
    )


async def get(conn: Conn, *, organization_id: UUID, invoice_id: UUID) -> Invoice | None:
    async with conn.cursor(row_factory=class_row(Invoice)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.id = %s AND i.organization_id = %s",
            (invoice_id, organization_id),
        )
        return await cursor.fetchone()


async def of_ids(conn: Conn, *, invoice_ids: Sequence[UUID]) -> list[Invoice]:
    """Those there are of them, whosesoever, in order of id."""
    async with conn.cursor(row_factory=class_row(Invoice)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.id = ANY(%s) ORDER BY i.id", (list(invoice_ids),)
        )
        return await cursor.fetchall()


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
    return (await lines_of(conn, invoice_ids=[invoice_id]))[invoice_id]


async def lines_of(conn: Conn, *, invoice_ids: Sequence[UUID]) -> dict[UUID, list[InvoiceLine]]:
    """By invoice, each of which was found in its organization."""
    found: dict[UUID, list[InvoiceLine]] = {each: [] for each in invoice_ids}
    async with conn.cursor(row_factory=class_row(InvoiceLine)) as cursor:
        await cursor.execute(
            """SELECT id, invoice_id, position, line_type, charge_type, feature_id, feature_name, description,
                      quantity, unit_amount, amount, included, used, overage, evidence,
                      subscription_id, usage_period, part
                 FROM invoice_lines WHERE invoice_id = ANY(%s) ORDER BY invoice_id, position""",
            (list(invoice_ids),),
        )
        async for each in cursor:
            found[each.invoice_id].append(each)
    return found


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
