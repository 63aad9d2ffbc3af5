"""From an invoice line back to the very events it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tallystick.core import ids
from tallystick.core.events import StoredEvent
from tallystick.core.meters import Aggregation, Filter, Meter, Operator
from tallystick.core.times import Period
from tallystick.errors import must
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


def frozen_meter(evidence: Mapping[str, Any], feature_id: UUID) -> Meter:
    """The meter as the line froze it; what the catalogue says today does not matter."""
    kept = evidence["meter"]
    identity = ids.read(ids.METER, kept["id"])
    must(identity is not None, "evidence names its meter", meter=kept["id"])
    assert identity is not None
    return Meter(
        id=identity,
        feature_id=feature_id,
        feature_code="",
        version=kept["version"],
        event_code=kept["eventCode"],
        aggregation=Aggregation(kept["aggregation"]),
        property_name=kept["aggregationProperty"],
        filters=tuple(
            Filter(each["property"], Operator(each["operator"]), each["value"]) for each in kept["filters"]
        ),
    )


async def trace_line(
    conn: Conn, *, customer_id: UUID, line: InvoiceLine, after: tuple[datetime, UUID] | None, limit: int
) -> Traced:
    """Events that matched the frozen meter in the frozen period and were in the chain when the line was made."""
    if line.evidence is None or line.feature_id is None:
        return Traced([], 0, None, None)
    meter = frozen_meter(line.evidence, line.feature_id)
    start, end = (datetime.fromisoformat(each) for each in line.evidence["instants"])
    span = Period(start, end)
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
