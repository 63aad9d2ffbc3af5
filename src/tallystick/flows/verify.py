"""Derive an invoice again from raw events, and say where it differs.

A line is verified when the events that the chain had at the line's position make the very line that was issued
(`verify_line`); an invoice when its lines are, and sum to it. When a line of events differs, the chain says which
row was changed, added or taken away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallystick.flows.read_usage import Reader, reading
from tallystick.flows.verify_chain import verify_chain, verify_keys
from tallystick.flows.verify_line import Checking, LineReport, Outcome, Published, outcome
from tallystick.store import invoices, payments
from tallystick.store.db import Conn
from tallystick.store.invoices import Invoice, InvoiceLine
from tallystick.store.organizations import Organization


@dataclass(slots=True)
class InvoiceReport:
    invoice: Invoice
    lines: list[LineReport]
    differences: list[str]  # of the invoice as a whole

    @property
    def events(self) -> int:
        return sum(line.events for line in self.lines)

    @property
    def all_differences(self) -> list[str]:
        return [*(each for line in self.lines for each in line.differences), *self.differences]

    @property
    def outcome(self) -> Outcome:
        return outcome(self.all_differences)

    @property
    def first_difference(self) -> str | None:
        return next(iter(self.all_differences), None)


async def verify_invoice(
    conn: Conn,
    organization: Organization,
    invoice: Invoice,
    *,
    read: Reader | None = None,
    published: Published | None = None,
    chain: bool = True,
) -> InvoiceReport:
    """Every line from raw events, and their sum; where events differ, also their place in the chain if `chain`.

    All that it reads was written once and for all, so it needs no snapshot, and others may write meanwhile.
    """
    checking = Checking(conn, organization, invoice, read or reading(conn), published or Published())
    lines = await invoices.lines(conn, invoice_id=invoice.id)
    reports = [await checking.line(line) for line in lines]
    differences = [*_as_a_whole(invoice, lines), *await _paid(conn, invoice)]
    if chain and any(report.differences and report.line.part is not None for report in reports):
        customers = [invoice.customer_id]
        told = await verify_chain(conn, organization, customers=customers)
        differences += told.differences
        differences += await verify_keys(conn, organization, customers=customers, told=told.named)
    return InvoiceReport(invoice, reports, differences)


def _as_a_whole(invoice: Invoice, lines: Sequence[InvoiceLine]) -> Iterator[str]:
    said = sum(line.amount for line in lines)
    if said != invoice.subtotal:
        yield f"the lines sum to {said}, the invoice says {invoice.subtotal}"
    positions = {str((line.evidence or {}).get("chainPosition")) for line in lines if line.part is not None}
    if len(positions) > 1:
        yield f"the lines were made at one moment, and say the chain stood at {', '.join(sorted(positions))}"
    for name, amount in (
        ("discount", invoice.discount),
        ("credit", invoice.credit_applied),
        ("tax", invoice.tax),
    ):
        if amount:
            yield f"the invoice has a {name} of {amount}, which nothing brought"
    total = invoice.subtotal - invoice.discount - invoice.credit_applied + invoice.tax
    if total != invoice.total:
        yield f"the invoice comes to {total}, its total says {invoice.total}"


async def _paid(conn: Conn, invoice: Invoice) -> list[str]:
    """What was paid for it is what it says."""
    return [
        f"{amount} was paid for the invoice, its total says {invoice.total}"
        for amount in await payments.paid(conn, invoice_id=invoice.id)
        if amount != invoice.total
    ]
