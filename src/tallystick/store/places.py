"""Where events lie: their index holds customer, hour and bunch (docs/decisions/0026), so whoever looks for some says these.

A bound on `occurred_at` alone would read all that the customer has in its partition. An hour is that of `core.times.hour_of`;
`hour_of` and `bunch_of` in these expressions are functions of the schema.
"""

from collections.abc import Iterable
from datetime import datetime
from random import randrange
from typing import Final, LiteralString
from uuid import UUID

BUNCH: Final = 32
"""Events of a customer and hour that share a number. To find one of them, so many are looked at; and an event's share
of the index is six bytes and a part of 44 that the bunch has in common."""
_NUMBERS: Final = 1 << 16
_OPEN_MAX: Final = 50_000


IN_ORDER: Final[LiteralString] = "hour_of(e.occurred_at), e.occurred_at, e.id"
"""The order of (occurred_at, id), said so that only the events of one hour are sorted at a time."""


RECEIVED_AT: Final[LiteralString] = "coalesce(e.received_at, e.occurred_at)"
"""When the event `e` was received."""

OWNER: Final[LiteralString] = "(SELECT o.organization_id FROM ingest_batches o WHERE o.batch = e.batch)"
"""Whose the event `e` is: its batch knows. Said so that it is asked of each event, and of no more than those."""


def within(start: str, end: str) -> str:
    """That the event `e` happened in [start, end)."""
    return f"""(e.occurred_at >= {start} AND e.occurred_at < {end}
            AND hour_of(e.occurred_at) >= hour_of({start}) AND hour_of(e.occurred_at) < {end})"""


def later(at: str, id_then: str) -> str:
    """That the event `e` comes after a place in the order of (occurred_at, id)."""
    return f"(hour_of(e.occurred_at) >= hour_of({at}) AND (e.occurred_at, e.id) > ({at}, {id_then}))"


def same(event: str, known: str, *, named: str = "id") -> str:
    """That `event` is the one of which `known` has the customer, the time, and the id in the column `named`."""
    return f"""({event}.customer_id = {known}.customer_id AND {event}.occurred_at = {known}.occurred_at
            AND hour_of({event}.occurred_at) = hour_of({known}.occurred_at)
            AND bunch_of({event}.id) = bunch_of({known}.{named}) AND {event}.id = {known}.{named})"""


class Bunches:
    """The bunches of a process that are not full yet."""

    def __init__(self) -> None:
        self._left: dict[tuple[int, datetime], int] = {}
        self._last = randrange(_NUMBERS)

    def place(self, event_id: UUID, customer_id: UUID, hour: datetime) -> UUID:
        """The id, as time-ordered as it was, with the number of a bunch of this customer and hour at its end."""
        return UUID(int=self.place_numbers((event_id.int,), (customer_id,), (hour,))[0])

    def place_numbers(
        self, event_ids: Iterable[int], customers: Iterable[UUID], hours: Iterable[datetime]
    ) -> list[int]:
        """The same of many ids, which are numbers still."""
        left, placed = self._left, []
        for event_id, customer_id, hour in zip(event_ids, customers, hours, strict=True):
            of_whom = customer_id.int, hour
            bunch = left.get(of_whom, 0)  # its number, BUNCH times, and how many of it are left
            if bunch % BUNCH:
                bunch -= 1
            else:
                if len(left) >= _OPEN_MAX:
                    left.clear()
                self._last = (self._last + 1) % _NUMBERS
                bunch = self._last * BUNCH + BUNCH - 1
            left[of_whom] = bunch
            placed.append(event_id & -_NUMBERS | bunch // BUNCH)
        return placed


bunches: Final = Bunches()
"""Those of this process."""
