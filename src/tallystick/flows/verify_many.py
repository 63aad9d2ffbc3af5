"""Many invoices and whole chains, in pieces that can be looked at side by side, by processes of their own.

Each function here is one piece of work: it takes a connection and plain values, and answers with plain values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from tallystick.core.invoicing import number
from tallystick.flows.read_usage import Piece, Reader, read_there
from tallystick.flows.verify import InvoiceReport, verify_invoice
from tallystick.flows.verify_chain import Checked, Stretch, check_stretch, unkeyed
from tallystick.flows.verify_line import Published
from tallystick.store import invoices, organizations
from tallystick.store.db import Conn
from tallystick.store.invoices import ToVerify
from tallystick.store.organizations import Organization
from tallystick.store.proving import Keyed, Span


class Difference(NamedTuple):
    """What is wrong, with a line or (None) with an invoice as a whole."""

    line_id: UUID | None
    words: str


@dataclass(frozen=True, slots=True)
class Verified:
    """One invoice that was looked at."""

    invoice_id: UUID
    organization_id: UUID
    customer_id: UUID
    number: str
    lines: int
    events: int
    differences: list[Difference]


async def verify_some(conn: Conn, wanted: Sequence[ToVerify]) -> list[Verified]:
    """Invoices one after the other; what they share is read once. The chain is nobody's here."""
    known: dict[UUID, tuple[Organization, Published]] = {}
    found = []
    for each in wanted:
        if each.organization_id not in known:
            organization = await organizations.get(conn, organization_id=each.organization_id)
            assert organization is not None
            known[each.organization_id] = organization, Published()
        organization, published = known[each.organization_id]
        found.append(await verify_one(conn, organization, each, published=published))
    return found


async def verify_one(
    conn: Conn,
    organization: Organization,
    wanted: ToVerify,
    *,
    read: Reader | None = None,
    published: Published | None = None,
    parts: int = 1,
) -> Verified:
    invoice = await invoices.get(conn, organization_id=organization.id, invoice_id=wanted.id)
    assert invoice is not None
    report = await verify_invoice(
        conn, organization, invoice, read=read, published=published, parts=parts, chain=False
    )
    return Verified(
        invoice.id,
        organization.id,
        invoice.customer_id,
        number(invoice.invoice_prefix, invoice.number),
        len(report.lines),
        report.events,
        list(_differences(report)),
    )


def _differences(report: InvoiceReport) -> Sequence[Difference]:
    return [
        *(Difference(line.line.id, words) for line in report.lines for words in line.differences),
        *(Difference(None, words) for words in report.differences),
    ]


async def read_slice(conn: Conn, span: Span, amounts: bool) -> Piece:
    """A part of one long line."""
    return await read_there(conn, span, amounts=amounts)


async def check_part(
    conn: Conn, organization_id: UUID, stretch: Stretch, customers: Sequence[UUID] | None
) -> tuple[Checked, list[Keyed]]:
    """A stretch of a chain, and the keys of its events."""
    checked = await check_stretch(conn, organization_id, stretch)
    return checked, await unkeyed(conn, organization_id, stretch, customers=customers)
