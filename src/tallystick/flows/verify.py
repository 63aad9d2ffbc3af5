"""Derive an invoice again from raw events, and say where it differs; check the chain those events are notched in.

A line is verified when the events that the chain had at the line's position, measured by its frozen meter and rated
by its frozen terms, give its digest, its quantities, its components and its amount. When they do not, the chain says
which row was changed, added or taken away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from tallystick.core import ids
from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.events import StoredEvent
from tallystick.core.evidence import Basis, frozen_basis, frozen_span
from tallystick.core.invoicing import Part, charges_in_money, in_money, number, true_up_in_money
from tallystick.core.meters import Fold, Measured, fold, merge
from tallystick.core.money import from_minor, text, to_minor
from tallystick.core.proof import GENESIS, leaf, link, set_digest
from tallystick.core.times import Period
from tallystick.flows.measure_usage import contribution
from tallystick.store import db, events, invoices
from tallystick.store.db import Conn
from tallystick.store.events import Batch
from tallystick.store.invoices import Invoice, InvoiceLine
from tallystick.store.organizations import Organization

_BATCHES_AT_ONCE: Final = 500
_NAMED_MAX: Final = 20


class Outcome(StrEnum):
    VERIFIED = "verified"
    DIFFERENT = "different"


@dataclass(slots=True)
class LineReport:
    line: InvoiceLine
    events: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        return Outcome.DIFFERENT if self.differences else Outcome.VERIFIED


@dataclass(slots=True)
class InvoiceReport:
    invoice: Invoice
    lines: list[LineReport]
    differences: list[str]  # of the invoice as a whole

    @property
    def events(self) -> int:
        return sum(line.events for line in self.lines)

    @property
    def outcome(self) -> Outcome:
        wrong = self.differences or any(line.differences for line in self.lines)
        return Outcome.DIFFERENT if wrong else Outcome.VERIFIED

    @property
    def first_difference(self) -> str | None:
        return next(
            iter([*(each for line in self.lines for each in line.differences), *self.differences]), None
        )


async def verify_invoice(conn: Conn, organization: Organization, invoice: Invoice) -> InvoiceReport:
    """Under one snapshot: every line from raw events, their sum, and the events' place in the chain."""
    lines = await invoices.lines(conn, invoice_id=invoice.id)
    reports = [await _verify_line(conn, invoice, line) for line in lines]
    differences = []
    said = sum(line.amount for line in lines)
    if said != invoice.subtotal:
        differences.append(f"the lines sum to {said}, the invoice says {invoice.subtotal}")
    if any(report.differences and report.line.part in (Part.USAGE, Part.DIFFERENCE) for report in reports):
        differences += (await verify_chain(conn, organization, customers=[invoice.customer_id])).differences
    return InvoiceReport(invoice, reports, differences)


async def _verify_line(conn: Conn, invoice: Invoice, line: InvoiceLine) -> LineReport:
    report = LineReport(line)
    proof = line.evidence or {}
    if line.line_type == "plan_base":
        amount = from_minor(line.amount, invoice.currency)
        report.differences += _differ("the amount", text(amount), proof.get("amount"))
    elif line.part == Part.PLAN_MINIMUM:
        report.differences += await _compare_minimum(conn, invoice, line)
    elif line.part is None or line.feature_id is None or "terms" not in proof:
        report.differences.append("the line holds no evidence it could be derived from")
    else:
        basis = frozen_basis(proof, line.feature_id, line.feature_id)
        rated, found = await _derive(conn, invoice.customer_id, basis, _window(line))
        report.events = len(found)
        report.differences += _compare(line, invoice.currency, rated, found, basis)
        if line.part == Part.DIFFERENCE:
            report.differences += await _compare_before(conn, line)
    return report


def _window(line: InvoiceLine) -> tuple[Period, int] | None:
    """Which of the period's events the line lists: in what span, and after which position."""
    proof = line.evidence or {}
    if line.part == Part.USAGE:
        return frozen_span(proof["span"]), 0
    if line.part == Part.DIFFERENCE:
        return frozen_span(proof["instants"]), proof["afterPosition"]
    return None


async def _derive(
    conn: Conn, customer_id: UUID, basis: Basis, window: tuple[Period, int] | None
) -> tuple[Rated, list[bytes]]:
    """Rate the period from raw events; and the leaves of those the line lists."""
    parts: list[tuple[StoredEvent, Measured]] = []
    leaves: list[bytes] = []
    async for event, position in events.stream_positions(
        conn,
        customer_id=customer_id,
        feature=basis.meter.event_code,
        span=basis.period,
        at_position=basis.position,
    ):
        measured = contribution(basis.meter, event)
        if measured is None:
            continue
        if event.voids is None:
            parts.append((event, measured))
        elif window is None or not window[1]:
            continue  # only a difference speaks of what was taken back
        if window is not None and event.occurred_at in window[0] and position > window[1]:
            leaves.append(leaf(event))
    parts.sort(key=lambda each: (each[0].occurred_at, each[1].quantity))
    rows = []
    so_far, amounts, place = Fold(), list[Measured](), 0
    for span, terms in basis.stretches:
        until = place
        while until < len(parts) and parts[until][0].occurred_at < span.end:
            until += 1
        stretch = [measured for _, measured in parts[place:until]]
        so_far, place = merge(basis.meter, [so_far, fold(basis.meter, stretch)]), until
        amounts += stretch
        rows.append((span, terms, Usage(so_far.quantity, tuple(each.quantity for each in amounts))))
    return rate_period(rows), leaves


def _compare(
    line: InvoiceLine, currency: str, rated: Rated, leaves: Sequence[bytes], basis: Basis
) -> list[str]:
    proof: dict[str, Any] = line.evidence or {}
    if line.part == Part.MINIMUM:
        amount = rated.true_up.amount if rated.true_up else None
        return [
            *_differ("the true-up", text(amount) if amount is not None else "none", proof["exact"]),
            *_differ("the amount", true_up_in_money(rated, currency), line.amount),
        ]
    listed = proof["events"]
    found = [
        *_differ("the number of events", len(leaves), listed["count"]),
        *_differ("the digest of the events", set_digest(leaves), listed["digest"]),
    ]
    if line.part == Part.USAGE:
        span = frozen_span(proof["span"])
        amounts = zip(rated.charges, charges_in_money(rated, currency), strict=True)
        charge, minor = next((each for each in amounts if each[0].span == span), (None, 0))
        if charge is None:
            return [*found, "the line's span is none of the period's stretches"]
        return [
            *found,
            *_differ("the usage", text(charge.used), proof["used"]),
            *_differ("the usage on the line", charge.used, line.used),
            *_differ("the billed units", text(charge.billable), text(line.quantity)),
            *_differ("the components", [part.to_json() for part in charge.components], proof["components"]),
            *_differ("the exact amount", text(charge.exact), proof["exact"]),
            *_differ("the amount", minor, line.amount),
        ]
    return [
        *found,
        *_differ("the usage", text(rated.used), proof["used"]),
        *_differ("the exact amount", text(rated.exact), proof["exact"]),
        *_differ("what the period comes to", in_money(rated, currency), proof["amountNow"]),
        *_differ("the amount", proof["amountNow"] - proof["amountBefore"], line.amount),
    ]


async def _compare_before(conn: Conn, line: InvoiceLine) -> list[str]:
    """What the period's earlier lines said is what the difference was taken from."""
    assert line.subscription_id is not None and line.usage_period is not None
    before = 0
    for each in await invoices.lines_of_period(
        conn, subscription_id=line.subscription_id, index=line.usage_period
    ):
        if each.id == line.id:
            break
        if each.feature_id == line.feature_id:
            before += each.amount
    return _differ("what its earlier lines said", before, (line.evidence or {})["amountBefore"])


async def _compare_minimum(conn: Conn, invoice: Invoice, line: InvoiceLine) -> list[str]:
    """A plan's minimum lifts what the features' lines had said by then, and nothing else."""
    assert line.subscription_id is not None and line.usage_period is not None
    proof = line.evidence or {}
    features = before = 0
    for each in await invoices.lines_of_period(
        conn, subscription_id=line.subscription_id, index=line.usage_period
    ):
        if each.id == line.id:
            break
        if each.part == Part.PLAN_MINIMUM:
            before += each.amount
        else:
            features += each.amount
    wanted = max(0, to_minor(Decimal(proof["minimum"]), invoice.currency) - features)
    return [
        *_differ("what the features come to", features, proof["featuresAmount"]),
        *_differ("the amount", wanted - before, line.amount),
    ]


def _differ(what: str, derived: object, said: object) -> list[str]:
    return [] if derived == said else [f"{what}: the events give {derived}, the line says {said}"]


@dataclass(slots=True)
class ChainReport:
    batches: int = 0
    events: int = 0
    differences: list[str] = field(default_factory=list)


async def verify_chain(
    conn: Conn, organization: Organization, *, customers: Sequence[UUID] | None = None
) -> ChainReport:
    """Every batch gives its digest from the one before it, and every stored event its leaf.

    `customers`: name only what is wrong with theirs (the whole chain is looked at all the same).
    """
    report = ChainReport()
    previous, after = GENESIS, 0
    while True:
        found = await events.batches(
            conn, organization_id=organization.id, after=after, limit=_BATCHES_AT_ONCE
        )
        if not found:
            break
        stored = await events.of_batches(
            conn,
            organization_id=organization.id,
            numbers=[each.batch for each in found],
            lowest=min(each.first_event_id for each in found),
        )
        for batch in found:
            if batch.position != after + 1:
                report.differences.append(f"the chain has no record at position {after + 1}")
            if link(previous, batch.position, b"".join(batch.leaves)) != batch.digest:
                report.differences.append(f"the chain's record at position {batch.position} was changed")
            previous, after = batch.digest, batch.position
            report.batches += 1
            report.events += len(batch.leaves)
            report.differences += _missing_or_other(batch, stored.get(batch.batch, []), customers)
    head = await db.head(conn, organization_id=organization.id)
    if head != (after, previous):
        report.differences.append(f"the chain's head stands at {head[0]}, its last record at {after}")
    gone = await events.lost(
        conn, organization_id=organization.id, customers=list(customers) if customers is not None else None
    )
    report.differences += [
        f"the event {ids.show(ids.EVENT, event)} was taken away: its key is kept, its row is gone"
        for event in gone
    ]
    report.differences += [
        f"the event {ids.show(ids.EVENT, event)} was added: no batch of the chain brought it"
        for event in await events.unchained(conn, organization_id=organization.id)
    ]
    return report


def _missing_or_other(
    batch: Batch, stored: Sequence[StoredEvent], customers: Sequence[UUID] | None
) -> list[str]:
    """What of a batch is not as it was notched."""
    notched = set(batch.leaves)
    strange = [event for event in stored if leaf(event) not in notched]
    where = f"batch {batch.batch}, position {batch.position}"
    found = []
    if len(stored) < len(batch.leaves):
        found.append(f"{len(batch.leaves) - len(stored)} of {len(batch.leaves)} events of {where} are gone")
    verb = "was added to" if len(stored) > len(batch.leaves) else "was changed since it was stored in"
    for event in strange:
        if customers is None or event.customer_id in customers:
            found.append(f"the event {ids.show(ids.EVENT, event.id)} {verb} {where}")
    return found[:_NAMED_MAX]


def title(invoice: Invoice) -> str:
    return number(invoice.invoice_prefix, invoice.number)
