"""Usage of a meter by a customer over a span: whole hours from the rollups, ragged edges from raw events."""

from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.meters import Aggregation, Fold, Measured, Meter, fold, measure, merge
from tallystick.core.times import Period, whole_hours
from tallystick.store import events, usage
from tallystick.store.db import Conn


async def measure_usage(conn: Conn, *, customer_id: UUID, meter: Meter, span: Period) -> Fold:
    hours, edges = whole_hours(span)
    parts: list[Fold] = []
    if hours is not None:
        whole = await usage.whole_hours(conn, customer_id=customer_id, meter=meter, span=hours)
        if meter.aggregation is Aggregation.UNIQUE:
            values = await usage.values_in(conn, customer_id=customer_id, meter_id=meter.id, span=hours)
            whole = Fold(whole.events, whole.quantity, values)
        parts.append(whole)
    for edge in edges:
        found = await events.in_span(conn, customer_id=customer_id, feature=meter.event_code, span=edge)
        measured = (contribution(meter, event) for event in found)
        parts.append(fold(meter, (each for each in measured if each is not None)))
    return merge(meter, parts)


def contribution(meter: Meter, event: StoredEvent) -> Measured | None:
    """What a stored event adds to a meter; an adjustment adds to its own feature's meter, whatever its filters."""
    if event.adjusts is not None:
        return Measured(event.value) if event.adjusts == meter.feature_id and meter.adds_up else None
    return measure(meter, event.value, event.properties, event.occurred_at)
