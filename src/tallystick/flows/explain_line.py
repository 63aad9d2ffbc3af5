"""Why a line says what it says: its frozen evidence, and what of the period's events did not count."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from tallystick.core.evidence import frozen_meter, frozen_span
from tallystick.core.explaining import Dropped, explain
from tallystick.core.invoicing import Part
from tallystick.core.meters import why_not
from tallystick.store import archives, events, invoices
from tallystick.store.db import Conn
from tallystick.store.invoices import Invoice, InvoiceLine

_REASONS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Explanation:
    sentences: list[str]
    kept: int
    dropped: list[Dropped]


async def explain_line(conn: Conn, invoice: Invoice, line: InvoiceLine) -> Explanation:
    proof = line.evidence
    kept = 0
    dropped: list[Dropped] = []
    if proof is not None and line.feature_id is not None and line.part in (Part.USAGE, Part.DIFFERENCE):
        kept = proof["events"]["count"]
        dropped = await _left_out(conn, invoice, line)
    if line.part == Part.OVERDRAFT and line.subscription_id is not None and line.usage_period is not None:
        kept, _, _ = await events.how_many_drew(
            conn,
            customer_id=invoice.customer_id,
            subscription_id=line.subscription_id,
            period_index=line.usage_period,
        )
    sentences = explain(
        line_type=line.line_type,
        part=line.part,
        description=line.description,
        amount=line.amount,
        currency=invoice.currency,
        proof=proof,
        dropped=dropped,
    )
    return Explanation([*sentences, *await _out_of_reach(conn, invoice, line)], kept, dropped)


async def _out_of_reach(conn: Conn, invoice: Invoice, line: InvoiceLine) -> list[str]:
    """That what was left out may be more than is said, where events of the period are archived."""
    if line.evidence is None or line.part not in (Part.USAGE, Part.DIFFERENCE, Part.OVERDRAFT):
        return []
    owner = await invoices.owner(conn, invoice_id=invoice.id)
    archived = archives.touching(
        await archives.of_organization(conn, organization_id=owner), frozen_span(line.evidence["instants"])
    )
    if not archived:
        return []
    files = ", ".join(each.file_name for each in archived)
    return [f"Which events were left out is known only of those that are not archived in {files}."]


async def _left_out(conn: Conn, invoice: Invoice, line: InvoiceLine) -> list[Dropped]:
    assert line.evidence is not None and line.feature_id is not None
    meter = frozen_meter(line.evidence, line.feature_id)
    reasons: Counter[str] = Counter()
    async for event in events.stream_span(
        conn,
        customer_id=invoice.customer_id,
        feature=meter.event_code,
        span=frozen_span(line.evidence.get("span", line.evidence["instants"])),
        at_position=line.evidence["chainPosition"],
        after_position=line.evidence.get("afterPosition", 0),
    ):
        if event.voids is not None:
            reasons["it takes back an earlier event"] += 1
            continue
        if event.adjusts is not None:
            if event.adjusts != meter.feature_id:
                reasons["it corrects another feature"] += 1
            continue
        reason = why_not(meter, event.properties)
        if reason is not None:
            reasons[reason] += 1
    listed = [Dropped(reason, count) for reason, count in reasons.most_common(_REASONS_MAX)]
    rest = reasons.total() - sum(each.events for each in listed)
    return [*listed, Dropped("of other reasons", rest)] if rest else listed
