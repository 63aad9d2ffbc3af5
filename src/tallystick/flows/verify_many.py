"""Many invoices and whole chains, in pieces that can be looked at side by side, by processes of their own.

Each function here is one piece of work: it takes a connection and plain values, and answers with plain values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from tallystick.core.invoicing import number
from tallystick.flows.read_usage import Piece, Reader, read_there, read_together
from tallystick.flows.verify import InvoiceReport, read_issued, verify_issued
from tallystick.flows.verify_chain import Checked, Stretch, check_stretch, unkeyed
from tallystick.flows.verify_line import Published, spans_of
from tallystick.store import invoices, organizations
from tallystick.store.archives import Archived
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
    needs: list[Archived]  # months that some line cannot be derived without
    unverified: list[UUID]  # those lines


async def verify_some(conn: Conn, wanted: Sequence[ToVerify]) -> list[Verified]:
    """Invoices by the bundle; what they need is read for all of them at once. The chain is nobody's here."""
    found = await read_issued(conn, await invoices.of_ids(conn, invoice_ids=[each.id for each in wanted]))
    owner_of = {each.id: each.organization_id for each in wanted}
    owners: dict[UUID, tuple[Organization, Published]] = {}
    for organization_id in dict.fromkeys(owner_of.values()):
        organization = await organizations.get(conn, organization_id=organization_id)
        assert organization is not None
        owners[organization_id] = organization, Published()
        theirs = [each for each in found if owner_of[each.invoice.id] == organization_id]
        await owners[organization_id][1].look_up(
            conn, organization_id, (line for each in theirs for line in each.lines)
        )
    spans = [
        span
        for each in found
        for line in each.lines
        for span in spans_of(owner_of[each.invoice.id], each.invoice.customer_id, line)
    ]
    read = await read_together(conn, spans)
    reports = []
    for each in found:
        organization, published = owners[owner_of[each.invoice.id]]
        report = await verify_issued(conn, organization, each, read=read, published=published, chain=False)
        reports.append(_verified(organization, report))
    return reports


async def verify_long(
    conn: Conn, organization: Organization, wanted: ToVerify, *, read: Reader, parts: int
) -> Verified:
    """An invoice with a line that is read in parts."""
    (issued,) = await read_issued(conn, await invoices.of_ids(conn, invoice_ids=[wanted.id]))
    report = await verify_issued(conn, organization, issued, read=read, parts=parts, chain=False)
    return _verified(organization, report)


def _verified(organization: Organization, report: InvoiceReport) -> Verified:
    invoice = report.invoice
    return Verified(
        invoice.id,
        organization.id,
        invoice.customer_id,
        number(invoice.invoice_prefix, invoice.number),
        len(report.lines),
        report.events,
        list(_differences(report)),
        report.needs,
        [each.line.id for each in report.lines if each.needs],
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
