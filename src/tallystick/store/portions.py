"""What an organization has in portions, so that it can be asked about in short statements.

The order is that of customer and hour; a portion is what lies between two places in it. Together they leave out nothing.
How large one is, the rollups say: where they are wrong it is larger or smaller than it should be, and nothing else.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

from tallystick.store.db import Conn, rows

EVENTS: Final = 10_000
"""A portion holds about so many, or what a customer has in an hour: a tenth of a second's work."""
_PLACES_PER_PAGE: Final = 2_000
_FIRST_HOUR: Final = datetime.min.replace(tzinfo=UTC)


class Place(NamedTuple):
    customer_id: UUID
    hour: datetime


_BEGINNING: Final = Place(UUID(int=0), _FIRST_HOUR)
_END: Final = Place(UUID(int=(1 << 128) - 1), datetime.max.replace(tzinfo=UTC))

# The planner takes two comparisons of a column for a range, and of rows for two halves: so customers are said twice.
OF_EVENTS: Final[LiteralString] = """(e.customer_id >= %(low)s AND e.customer_id <= %(high)s
    AND (e.customer_id, hour_of(e.occurred_at)) >= (%(low)s, %(low_hour)s)
    AND (e.customer_id, hour_of(e.occurred_at)) < (%(high)s, %(high_hour)s))"""
"""That the event `e` is in the portion; said as the index over events is."""

OF_HOURS: Final[LiteralString] = """(customer_id >= %(low)s AND customer_id <= %(high)s
    AND (customer_id, hour) >= (%(low)s, %(low_hour)s) AND (customer_id, hour) < (%(high)s, %(high_hour)s))"""
"""That a row with a customer and an hour is."""

OF_CUSTOMERS: Final[LiteralString] = "(customer_id >= %(low)s AND customer_id < %(high)s)"
"""The same of what is not kept by the hour; only in portions of whole customers."""


class Portion(NamedTuple):
    """From a place on, and up to another."""

    low: Place
    high: Place

    @property
    def params(self) -> dict[str, Any]:
        return {
            "low": self.low.customer_id,
            "low_hour": self.low.hour,
            "high": self.high.customer_id,
            "high_hour": self.high.hour,
        }


async def portions(
    conn: Conn, organization_id: UUID, *, whole_customers: bool = False, events: int = EVENTS
) -> AsyncIterator[Portion]:
    """All there is, in order. `whole_customers`: nobody's hours are parted, however many events they hold."""
    low = read = _BEGINNING
    held = 0
    while True:
        page = [
            (Place(customer_id, hour), count)
            for customer_id, hour, count in await rows(
                conn,
                """SELECT c.id, u.hour, u.events
                     FROM customers c
                    CROSS JOIN LATERAL (
                          SELECT hour, max(events)::int8 AS events FROM usage_hours
                           WHERE customer_id = c.id AND (c.id <> %(customer)s OR hour > %(hour)s)
                           GROUP BY customer_id, hour) u
                    WHERE c.organization_id = %(organization)s AND c.id >= %(customer)s
                    ORDER BY c.id, u.hour LIMIT %(limit)s""",
                {
                    "organization": organization_id,
                    "customer": read.customer_id,
                    "hour": read.hour,
                    "limit": _PLACES_PER_PAGE,
                },
            )
        ]
        for place, count in page:
            cut = place if not whole_customers else Place(place.customer_id, _FIRST_HOUR)
            if held and held + count > events and cut > low:
                yield Portion(low, cut)
                low, held = cut, 0
            held += count
            read = place
        if len(page) < _PLACES_PER_PAGE:
            yield Portion(low, _END)
            return
