"""From an invoice line back to the very events it was made of."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.evidence import frozen_meter, frozen_span
from tallystick.core.invoicing import Part
from tallystick.flows.measure_usage import contribution
from tallystick.store import events
from tallystick.store.db import Conn
from tallystick.store.invoices import InvoiceLine

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Traced:
    """A page of events (one more than asked for, if there are more) and what all of them amount to."""

    events: list[StoredEvent]
    count: int
    first_at: datetime | None
    last_at: datetime | None


async def trace_line(
    conn: Conn, *, customer_id: UUID, line: InvoiceLine, after: tuple[datetime, UUID] | None, limit: int
) -> Traced:
    """Events that matched the frozen meter in the frozen period and were in the chain when the line was made."""
    if line.part == Part.OVERDRAFT:
        return await _that_drew(conn, customer_id, line, after, limit)
    if line.evidence is None or line.feature_id is None:
        return Traced([], 0, None, None)
    if line.part not in (Part.USAGE, Part.DIFFERENCE):
        return Traced([], 0, None, None)
    meter = frozen_meter(line.evidence, line.feature_id)
    span = frozen_span(line.evidence.get("span", line.evidence["instants"]))
    page: list[StoredEvent] = []
    count = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    place: tuple[datetime, UUID] | None = None
    while True:
        found = await events.in_span(
            conn,
            customer_id=customer_id,
            feature=meter.event_code,
            span=span,
            at_position=line.evidence["chainPosition"],
            after_position=line.evidence.get("afterPosition", 0),
            after=place,
            limit=_PAGE,
        )
        for event in found:
            if contribution(meter, event) is None:
                continue
            count += 1
            first_at = first_at or event.occurred_at
            last_at = event.occurred_at
            if len(page) <= limit and (after is None or (event.occurred_at, event.id) > after):
                page.append(event)
        if len(found) < _PAGE:
            return Traced(page, count, first_at, last_at)
        place = (found[-1].occurred_at, found[-1].id)


async def _that_drew(
    conn: Conn, customer_id: UUID, line: InvoiceLine, after: tuple[datetime, UUID] | None, limit: int
) -> Traced:
    """Events that the balance paid for, those before it went below zero too: one pool paid them all."""
    assert line.subscription_id is not None and line.usage_period is not None
    page = await events.that_drew(
        conn,
        customer_id=customer_id,
        subscription_id=line.subscription_id,
        period_index=line.usage_period,
        after=after,
        limit=limit + 1,
    )
    count, first_at, last_at = await events.how_many_drew(
        conn,
        customer_id=customer_id,
        subscription_id=line.subscription_id,
        period_index=line.usage_period,
    )
    return Traced(page, count, first_at, last_at)
