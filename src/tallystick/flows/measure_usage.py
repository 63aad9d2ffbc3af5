"""Usage of a meter by a customer over a span: whole hours from the rollups, ragged edges from raw events."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.meters import NO_USAGE, Aggregation, Fold, Measured, Meter, Usage, fold, measure
from tallystick.core.proof import leaf
from tallystick.core.times import Period
from tallystick.core.windows import Ruled
from tallystick.store import events, measuring
from tallystick.store.db import Conn


async def measure_usage(conn: Conn, *, customer_id: UUID, meter: Meter, span: Period) -> Usage:
    part = Ruled(meter, (span.start, span.end))
    found = await measuring.usage_of_pieces(conn, customer_id=customer_id, parts=[part])
    usage = found.get(part.first, NO_USAGE)
    if meter.aggregation is Aggregation.UNIQUE and usage.events:
        counts = await measuring.distinct_counts(conn, customer_id=customer_id, parts=[part])
        usage = Usage(usage.events, Decimal(counts[part.first]))
    return usage


def contribution(meter: Meter, event: StoredEvent) -> Measured | None:
    """What a stored event adds to a meter. An adjustment adds to its own feature's, whatever the filters, as
    long as totals add up: it is no maximum and no distinct value.
    """
    if event.adjusts is not None:
        return Measured(event.value) if event.adjusts == meter.feature_id and meter.adds_up else None
    return measure(meter, event.value, event.properties)


@dataclass(frozen=True, slots=True)
class EventSet:
    """The events a line bills: how many, what they amount to, and the leaves that prove them."""

    fold: Fold
    leaves: tuple[bytes, ...]


async def event_set(conn: Conn, *, customer_id: UUID, meter: Meter, span: Period) -> EventSet:
    """Read every event of the span; the slow, certain way."""
    leaves: list[bytes] = []
    parts: list[Measured] = []
    async for event in events.stream_span(conn, customer_id=customer_id, feature=meter.event_code, span=span):
        measured = contribution(meter, event)
        if measured is not None:
            leaves.append(leaf(event))
            parts.append(measured)
    return EventSet(fold(meter, parts), tuple(leaves))
