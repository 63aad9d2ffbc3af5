"""Sheets: a batch as it is to be stored, by columns, and what storing it can come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from tallystick.core.events import ONE, StoredEvent
from tallystick.core.subscriptions import Tariff
from tallystick.core.times import hour_of
from tallystick.store.event_keys import Held


@dataclass(frozen=True, slots=True)
class Shares:
    """What the events of a sheet add to hourly rollups: by place of the event, meter, hour, and quantity."""

    places: list[int] = field(default_factory=list)
    meters: list[UUID] = field(default_factory=list)
    hours: list[datetime] = field(default_factory=list)
    quantities: list[Decimal] = field(default_factory=list)

    def add(self, place: int, meter: UUID, hour: datetime, quantity: Decimal) -> None:
        self.places.append(place)
        self.meters.append(meter)
        self.hours.append(hour)
        self.quantities.append(quantity)


class Feeds(NamedTuple):
    """The same where all events of a feature feed the same meters, in the hour in which they happened: by feature and meter,
    and whether that counts events or sums their values. No event need be told of by itself."""

    features: Sequence[str] = ()
    meters: Sequence[UUID] = ()
    counts: Sequence[bool] = ()

    def shares(self, events: Sequence[StoredEvent]) -> Shares:
        """What each of these adds."""
        shares = Shares()
        for place, event in enumerate(events):
            for feature, meter, counts in zip(*self, strict=True):
                if feature == event.feature:
                    shares.add(place, meter, hour_of(event.occurred_at), ONE if counts else event.value)
        return shares


@dataclass(frozen=True, slots=True)
class Costs:
    """What the events of a sheet take of wallets that are expected to have plenty: a customer has one."""

    places: list[int] = field(default_factory=list)  # of the events
    amounts: list[Decimal] = field(default_factory=list)
    payers: list[int] = field(default_factory=list)  # whose wallet each is, by its number in the two below
    customers: list[UUID] = field(default_factory=list)
    tariffs: list[Tariff] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)  # of wallets, by customer

    def add(self, place: int, customer_id: UUID, tariff: Tariff, value: Decimal) -> None:
        number = self._numbers.setdefault(customer_id.int, len(self.tariffs))
        if number == len(self.tariffs):
            self.customers.append(customer_id)
            self.tariffs.append(tariff)
        self.places.append(place)
        self.amounts.append(value * tariff.per_value + tariff.per_event)
        self.payers.append(number)


class Sheet(NamedTuple):
    """A batch to store, by columns: its events, where their keys live, the marks of their Idempotency-Keys, what they count."""

    events: Sequence[StoredEvent]
    key_hashes: Sequence[bytes | None]
    header_marks: Sequence[int | None]
    shares: Shares | Feeds
    costs: Costs = Costs()  # to be paid by the statement itself
    older: Sequence[UUID] = ()  # ids of events whose key a frozen generation holds: repeats


class StaleVersion(Exception):
    """The organization's version moved: nothing of the batch was stored."""


class NoPlenty(Exception):
    """A wallet of `Costs` must be looked at more closely: nothing of the batch was stored."""


@dataclass(frozen=True, slots=True)
class Inserted:
    number: int  # of the batch
    repeats: Mapping[int, Held | None]
    """What was not stored because its key is taken, by the event's id as a number: by whom, unless that must be asked."""
    levels: Sequence[Decimal]  # what remained in the wallets of `Costs` before, by their numbers
