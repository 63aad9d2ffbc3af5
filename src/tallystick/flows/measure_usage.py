"""Usage of a meter by a customer over a span: whole hours from the rollups, ragged edges from raw events."""

from decimal import Decimal
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.meters import NOTHING, Aggregation, Measured, Meter, Total, measure
from tallystick.core.times import Period
from tallystick.core.windows import Ruled
from tallystick.store import measuring
from tallystick.store.db import Conn


async def measure_usage(conn: Conn, *, customer_id: UUID, meter: Meter, span: Period) -> Total:
    part = Ruled(meter, (span.start, span.end))
    found = await measuring.usage_of_pieces(conn, customer_id=customer_id, parts=[part])
    usage = found.get(part.first, NOTHING)
    if meter.aggregation is Aggregation.UNIQUE and usage.events:
        counts = await measuring.distinct_counts(conn, customer_id=customer_id, parts=[part])
        usage = Total(usage.events, Decimal(counts[part.first]))
    return usage


def contribution(meter: Meter, event: StoredEvent) -> Measured | None:
    """What a stored event adds to a meter. An adjustment adds to its own feature's, whatever the filters, as
    long as totals add up: it is no maximum and no distinct value.
    """
    if event.adjusts is not None:
        return Measured(event.value) if event.adjusts == meter.feature_id and meter.adds_up else None
    return measure(meter, event.value, event.properties, event.occurred_at)
