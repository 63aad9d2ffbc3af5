"""Invoices, the events behind each line, and what makes a line re-derivable (behaviour.md §16)."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from tallystick.api import events as shown_events
from tallystick.api.customers import find as find_customer
from tallystick.api.events import UsageEventOut
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core import ids
from tallystick.core.invoicing import Line, number
from tallystick.core.money import text, to_minor, to_rate
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import trace_line
from tallystick.store import invoices
from tallystick.store.invoices import Invoice, InvoiceLine

STATUSES = ("draft", "outstanding", "paid", "void", "uncollectible")


class LineOut(Out, kw_only=True):
    id: str | Maybe = MISSING  # one that is still to come has none
    line_type: str
    feature_name: str | None
    description: str
    quantity: int
    unit_amount: int
    amount: int
    included_amount: int | None
    used_amount: int | None
    overage_amount: int | None
    discount_type: str | None = None
    discount_value: int | None = None
    discount_name: str | None = None
    charge_type: str
    quantity_decimal: str
    unit_amount_decimal: str
    included_decimal: str | Maybe = MISSING
    used_decimal: str | Maybe = MISSING
    overage_decimal: str | Maybe = MISSING


class InvoiceOut(Out, kw_only=True):
    id: str
    customer_id: str
    subscription_id: str | None
    invoice_number: str
    status: str
    invoice_type: str
    currency: str
    subtotal: int
    discount_amount: int
    tax_amount: int
    total: int
    period_start: str
    period_end: str
    issue_date: str
    due_date: str
    memo: str | None
    metadata: dict[str, Any]
    created_at: str
    updated_at: str
    credit_applied: int | Maybe = MISSING
    plan_name: str | None | Maybe = MISSING
    po_number: None | Maybe = MISSING
    reference: None | Maybe = MISSING
    line_items: list[LineOut] | Maybe = MISSING
    object: str = "invoice"
    livemode: bool


class EventsSummary(Out, kw_only=True):
    events: int
    quantity: str
    first_at: str | None
    last_at: str | None


class LineEvents(Out, kw_only=True):
    object: str = "list"
    data: list[UsageEventOut]
    has_more: bool
    next_cursor: str | Maybe = MISSING
    summary: EventsSummary


class LineEvidence(Out, kw_only=True):
    line_id: str
    line_type: str
    amount: int
    evidence: dict[str, Any] | None


class InvoiceEvidence(Out, kw_only=True):
    id: str
    invoice_number: str
    currency: str
    total: int
    lines: list[LineEvidence]
    object: str = "invoice_evidence"
    livemode: bool


def _whole(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.to_integral_value(ROUND_HALF_UP))


def show_line(line: InvoiceLine | Line, currency: str) -> LineOut:
    """Integers for the published fields, half up; exact decimals beside them (ruling 20).

    `unitAmount` is in the rate scale on usage lines and in minor units elsewhere (behaviour.md §16.1).
    """
    usage = line.line_type == "feature_overage"
    return LineOut(
        id=MISSING if line.id is None else ids.show(ids.INVOICE_LINE, line.id),
        line_type=line.line_type,
        feature_name=line.feature_name,
        description=line.description,
        quantity=_whole(line.quantity) or 0,
        unit_amount=to_rate(line.unit_amount) if usage else to_minor(line.unit_amount, currency),
        amount=line.amount,
        included_amount=_whole(line.included),
        used_amount=_whole(line.used),
        overage_amount=_whole(line.overage),
        charge_type=line.charge_type,
        quantity_decimal=text(line.quantity),
        unit_amount_decimal=text(line.unit_amount),
        included_decimal=MISSING if line.included is None else text(line.included),
        used_decimal=MISSING if line.used is None else text(line.used),
        overage_decimal=MISSING if line.overage is None else text(line.overage),
    )


def show(invoice: Invoice, *, live: bool) -> InvoiceOut:
    return InvoiceOut(
        id=ids.show(ids.INVOICE, invoice.id),
        customer_id=invoice.external_id or ids.show(ids.CUSTOMER, invoice.customer_id),
        subscription_id=ids.show(ids.SUBSCRIPTION, invoice.subscription_id)
        if invoice.subscription_id
        else None,
        invoice_number=number(invoice.invoice_prefix, invoice.number),
        status=invoice.status,
        invoice_type=invoice.invoice_type,
        currency=invoice.currency,
        subtotal=invoice.subtotal,
        discount_amount=invoice.discount,
        tax_amount=invoice.tax,
        total=invoice.total,
        period_start=show_instant(invoice.period_start),
        period_end=show_instant(invoice.period_end),
        issue_date=show_instant(invoice.issued_at),
        due_date=show_instant(invoice.due_at),
        memo=invoice.memo,
        metadata=invoice.metadata,
        created_at=show_instant(invoice.created_at),
        updated_at=show_instant(invoice.updated_at),
        livemode=live,
    )


async def find_invoice(call: Call[Any]) -> Invoice:
    found = await invoices.get(
        call.conn,
        organization_id=call.organization.id,
        invoice_id=call.identity(ids.INVOICE, "id", "invoice_not_found"),
    )
    if found is None:
        raise Problem("invoice_not_found")
    return found


async def get(call: Call[None]) -> Reply:
    invoice = await find_invoice(call)
    shown = show(invoice, live=call.live)
    shown.credit_applied = invoice.credit_applied
    shown.plan_name = invoice.plan_name
    shown.po_number = None
    shown.reference = None
    shown.line_items = [
        show_line(line, invoice.currency) for line in await invoices.lines(call.conn, invoice_id=invoice.id)
    ]
    return Reply(shown)


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.INVOICE)
    status = call.query.get("status")
    if status is not None and status not in STATUSES:
        raise InvalidRequest(FieldError("status", f"must be one of {', '.join(STATUSES)}"))
    reference, held = call.query.get("customerId"), call.query.get("subscriptionId")
    customer = await find_customer(call, reference) if reference else None
    subscription_id = ids.read(ids.SUBSCRIPTION, held) if held is not None else None
    if held is not None and subscription_id is None:
        raise InvalidRequest(FieldError("subscriptionId", "is not a subscription id"))
    found = await invoices.page(
        call.conn,
        organization_id=call.organization.id,
        before=before,
        limit=limit + 1,
        customer_id=customer.id if customer else None,
        subscription_id=subscription_id,
        status=status,
    )
    return Reply(page_of([show(each, live=call.live) for each in found], limit, lambda each: str(each.id)))


async def find_line(call: Call[Any], invoice: Invoice) -> InvoiceLine:
    wanted = ids.read(ids.INVOICE_LINE, call.path["lineId"])
    for line in await invoices.lines(call.conn, invoice_id=invoice.id):
        if line.id == wanted:
            return line
    raise Problem("not_found", "The invoice has no such line.")


async def line_events(call: Call[None]) -> Reply:
    """The very events a usage line was made of, in the order they happened."""
    invoice = await find_invoice(call)
    line = await find_line(call, invoice)
    limit = call.limit()
    after = _position(call.query.get("cursor"))
    traced = await trace_line.trace_line(
        call.conn, customer_id=invoice.customer_id, line=line, after=after, limit=limit
    )
    reference = invoice.external_id or ids.show(ids.CUSTOMER, invoice.customer_id)
    more = len(traced.events) > limit
    shown = traced.events[:limit]
    return Reply(
        LineEvents(
            data=[shown_events.show(event, reference, live=call.live) for event in shown],
            has_more=more,
            next_cursor=f"{shown[-1].occurred_at.isoformat()}~{ids.show(ids.EVENT, shown[-1].id)}"
            if more
            else MISSING,
            summary=EventsSummary(
                events=traced.count,
                quantity=text(line.used) if line.used is not None else "0",
                first_at=show_instant(traced.first_at) if traced.first_at else None,
                last_at=show_instant(traced.last_at) if traced.last_at else None,
            ),
        )
    )


def _position(cursor: str | None) -> tuple[datetime, UUID] | None:
    """A cursor of this list is the moment and the id of the last event shown."""
    if cursor is None:
        return None
    moment, _, event = cursor.partition("~")
    identity = ids.read(ids.EVENT, event)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        at = None
    if identity is None or at is None or at.tzinfo is None:
        raise InvalidRequest(FieldError("cursor", "is not a cursor of this list"))
    return at, identity


async def evidence(call: Call[None]) -> Reply:
    invoice = await find_invoice(call)
    return Reply(
        InvoiceEvidence(
            id=ids.show(ids.INVOICE, invoice.id),
            invoice_number=number(invoice.invoice_prefix, invoice.number),
            currency=invoice.currency,
            total=invoice.total,
            lines=[
                LineEvidence(
                    line_id=ids.show(ids.INVOICE_LINE, line.id),
                    line_type=line.line_type,
                    amount=line.amount,
                    evidence=line.evidence,
                )
                for line in await invoices.lines(call.conn, invoice_id=invoice.id)
            ],
            livemode=call.live,
        )
    )


OPERATIONS = (
    Operation(
        name="invoices.list",
        method="GET",
        path="/invoices",
        summary="List invoices, newest first",
        resource="invoice",
        returns=Page[InvoiceOut],
        handler=list_all,
        query=("limit", "cursor", "customerId", "status", "subscriptionId"),
        errors=("customer_not_found",),
    ),
    Operation(
        name="invoices.get",
        method="GET",
        path="/invoices/{id}",
        summary="Get an invoice with its lines",
        resource="invoice",
        returns=InvoiceOut,
        handler=get,
        errors=("invoice_not_found",),
    ),
    Operation(
        name="invoices.lineEvents",
        method="GET",
        path="/invoices/{id}/lines/{lineId}/events",
        summary="The source events of a usage line",
        resource="invoice",
        returns=LineEvents,
        handler=line_events,
        query=("limit", "cursor"),
        errors=("invoice_not_found", "not_found"),
    ),
    Operation(
        name="invoices.evidence",
        method="GET",
        path="/invoices/{id}/evidence",
        summary="What makes each line re-derivable: versions, period, components, digest, chain position",
        resource="invoice",
        returns=InvoiceEvidence,
        handler=evidence,
        errors=("invoice_not_found",),
    ),
)
