"""Invoices that can be checked: verify derives them again, explain says why in sentences."""

from typing import Any

from tallystick.api.invoices import find_invoice, find_line
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.wire import Out
from tallystick.core import ids
from tallystick.core.invoicing import number
from tallystick.flows.explain_line import explain_line
from tallystick.flows.verify import InvoiceReport, verify_invoice
from tallystick.store import db


class ArchivedMonth(Out, kw_only=True):
    month: str
    file: str
    sha256: str


class LineVerified(Out, kw_only=True):
    line_id: str
    status: str
    events: int
    differences: list[str]
    needs: list[str]


class InvoiceVerified(Out, kw_only=True):
    id: str
    invoice_number: str
    status: str
    first_difference: str | None
    events: int
    lines: list[LineVerified]
    differences: list[str]
    needs: list[ArchivedMonth]
    object: str = "invoice_verification"
    livemode: bool


class LeftOut(Out, kw_only=True):
    reason: str
    events: int


class LineExplained(Out, kw_only=True):
    id: str
    invoice_id: str
    description: str
    amount: int
    currency: str
    sentences: list[str]
    text: str
    events_kept: int
    events_dropped: list[LeftOut]
    evidence: Any
    object: str = "line_explanation"
    livemode: bool


def show_report(report: InvoiceReport, *, live: bool) -> InvoiceVerified:
    return InvoiceVerified(
        id=ids.show(ids.INVOICE, report.invoice.id),
        invoice_number=number(report.invoice.invoice_prefix, report.invoice.number),
        status=report.outcome.value,
        first_difference=report.first_difference,
        events=report.events,
        lines=[
            LineVerified(
                line_id=ids.show(ids.INVOICE_LINE, each.line.id),
                status=each.outcome.value,
                events=each.events,
                differences=each.differences,
                needs=[str(needed.month) for needed in each.needs],
            )
            for each in report.lines
        ],
        differences=report.differences,
        needs=[
            ArchivedMonth(month=str(each.month), file=each.file_name, sha256=each.sha256.hex())
            for each in report.needs
        ],
        livemode=live,
    )


async def verify(call: Call[None]) -> Reply:
    async with db.one_moment(call.conn):
        invoice = await find_invoice(call)
        report = await verify_invoice(call.conn, call.organization, invoice)
    return Reply(show_report(report, live=call.live))


async def explain(call: Call[None]) -> Reply:
    invoice = await find_invoice(call)
    line = await find_line(call, invoice)
    told = await explain_line(call.conn, invoice, line)
    return Reply(
        LineExplained(
            id=ids.show(ids.INVOICE_LINE, line.id),
            invoice_id=ids.show(ids.INVOICE, invoice.id),
            description=line.description,
            amount=line.amount,
            currency=invoice.currency,
            sentences=told.sentences,
            text=" ".join(told.sentences),
            events_kept=told.kept,
            events_dropped=[LeftOut(reason=each.reason, events=each.events) for each in told.dropped],
            evidence=line.evidence,
            livemode=call.live,
        )
    )


OPERATIONS = (
    Operation(
        name="invoices.verify",
        method="POST",
        path="/invoices/{id}/verify",
        summary="Derive every line again from raw events; `verified`, the first difference in words, or the archived months it needs",
        resource="invoice",
        returns=InvoiceVerified,
        handler=verify,
        errors=("invoice_not_found",),
        writes=False,
    ),
    Operation(
        name="invoices.explainLine",
        method="GET",
        path="/invoices/{id}/lines/{lineId}/explain",
        summary="Why a line says what it says: events kept and left out, components, rounding, in sentences",
        resource="invoice",
        returns=LineExplained,
        handler=explain,
        errors=("invoice_not_found", "not_found"),
    ),
)
