"""Derive an invoice again from raw events, and say where it differs.

A line is verified when the events that the chain had at the line's position make the very line that was issued
(`verify_line`); an invoice when its lines are, and sum to it. When a line of events differs, the chain says which
row was changed, added or taken away. A line whose events are archived is neither verified nor different.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tallystick.flows.read_usage import Reader, reading
from tallystick.flows.verify_chain import verify_chain, verify_keys
from tallystick.flows.verify_line import Checking, LineReport, Outcome, Published, outcome
from tallystick.store import invoices, payments
from tallystick.store.archives import Archived
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
        return outcome(self.all_differences, self.needs)

    @property
    def needs(self) -> list[Archived]:
        """Months without whose events some line cannot be derived."""
        found = {each.month: each for line in self.lines for each in line.needs}
        return [found[month] for month in sorted(found)]

    @property
    def first_difference(self) -> str | None:
        return next(iter(self.all_differences), None)


class Issued(NamedTuple):
    """An invoice, as it lies in the books."""

    invoice: Invoice
    lines: list[InvoiceLine]
    paid: list[int]  # a charge at a time


async def read_issued(conn: Conn, found: Sequence[Invoice]) -> list[Issued]:
    ids = [each.id for each in found]
    lines = await invoices.lines_of(conn, invoice_ids=ids)
    paid = await payments.paid(conn, invoice_ids=ids)
    return [Issued(each, lines[each.id], paid[each.id]) for each in found]


async def verify_invoice(
    conn: Conn,
    organization: Organization,
    invoice: Invoice,
    *,
    read: Reader | None = None,
    chain: bool = True,
) -> InvoiceReport:
    (issued,) = await read_issued(conn, [invoice])
    return await verify_issued(conn, organization, issued, read=read or reading(conn), chain=chain)


async def verify_issued(
    conn: Conn,
    organization: Organization,
    issued: Issued,
    *,
    read: Reader,
    published: Published | None = None,
    parts: int = 1,
    chain: bool,
) -> InvoiceReport:
    """Every line from raw events, and their sum; where events differ, also their place in the chain if `chain`.

    All that it reads was written once and for all, so it needs no snapshot, and others may write meanwhile.
    What is long is read in `parts`, at once.
    """
    invoice, lines, paid = issued
    if published is None:
        published = Published()
    await published.look_up(conn, organization.id, lines)
    checking = Checking(conn, organization, invoice, read, published, parts)
    reports = [await checking.line(line) for line in lines]
    differences = [*_as_a_whole(invoice, lines), *_paid(invoice, paid)]
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


def _paid(invoice: Invoice, paid: Sequence[int]) -> Iterator[str]:
    """What was paid for it is what it says."""
    for amount in paid:
        if amount != invoice.total:
            yield f"{amount} was paid for the invoice, its total says {invoice.total}"
