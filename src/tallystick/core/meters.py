"""Meters: which events count, for how much, and how partial folds of them merge.

A fold of some events is small (a count and a quantity, or a set of distinct values) and folds merge in any
order, so usage of any span is whole hours folded beforehand plus the ragged edges folded now.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core.money import ZERO, fits

BLANKS: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""A property of nothing but these is blank. Written out, for PostgreSQL must agree (`store/meter_sql.py`)."""
ASCII_BLANKS: Final = BLANKS[:10]
NUMBER: Final = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?0*[0-9]{1,4})?"
"""What a number looks like, in Python's regular expressions and in PostgreSQL's alike."""
_NUMBER: Final = re.compile(NUMBER)


class Aggregation(StrEnum):
    SUM = "sum"
    COUNT = "count"
    UNIQUE = "unique"
    MAX = "max"
    LATEST = "latest"


class LatePolicy(StrEnum):
    NEXT_PERIOD = "next_period"
    CURRENT_PERIOD = "current_period"
    IGNORE = "ignore"


class Operator(StrEnum):
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    GREATER_THAN = "greater_than"
    LESS_THAN = "less_than"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Filter:
    property_name: str
    operator: Operator
    value: str

    def lets_through(self, properties: Mapping[str, str]) -> bool:
        """A missing property matches nothing except `not_equals`; numbers compare as decimals (ruling 17)."""
        given = properties.get(self.property_name)
        if given is None:
            return self.operator is Operator.NOT_EQUALS
        match self.operator:
            case Operator.EQUALS:
                return given == self.value
            case Operator.NOT_EQUALS:
                return given != self.value
            case Operator.CONTAINS:
                return self.value in given
        left, right = number(given), number(self.value)
        if left is None or right is None:
            return False
        return left > right if self.operator is Operator.GREATER_THAN else left < right


@dataclass(frozen=True, slots=True)
class Meter:
    """One version of how a feature is measured."""

    id: UUID
    feature_id: UUID
    feature_code: str
    version: int
    event_code: str
    aggregation: Aggregation
    property_name: str | None = None
    filters: tuple[Filter, ...] = ()
    late_policy: LatePolicy = LatePolicy.NEXT_PERIOD

    @property
    def adds_up(self) -> bool:
        """Whether the whole is the sum of its parts; distinct values and maxima are not."""
        return self.aggregation in (Aggregation.SUM, Aggregation.COUNT)

    @property
    def reads_all(self) -> bool:
        """Whether every event of its code counts, by its own value: nothing depends on properties."""
        return (
            self.adds_up
            and not self.filters
            and (self.property_name is None or self.aggregation is Aggregation.COUNT)
        )


class Measured(NamedTuple):
    """What one event contributes to one meter: a quantity; for UNIQUE the hash of a value, for LATEST its time."""

    quantity: Decimal
    distinct: bytes | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """What some events amount to under one meter. `quantity` of a UNIQUE fold is the size of its set."""

    events: int = 0
    quantity: Decimal = ZERO
    values: frozenset[bytes] = frozenset()
    at: datetime | None = None  # of a LATEST fold: when its quantity was so


class Total(NamedTuple):
    """What a span amounts to, read as a whole: of distinct values only their number is left."""

    events: int
    quantity: Decimal
    at: datetime | None = None  # of LATEST: when its quantity was so


NOTHING: Final = Total(0, ZERO)


def number(text: str) -> Decimal | None:
    """The decimal a property's text spells, or None."""
    written = text.strip(ASCII_BLANKS)
    if _NUMBER.fullmatch(written) is None:
        return None
    value = Decimal(written)
    return value if fits(value) else None


def distinct_hash(value: str) -> bytes:
    return sha256(value.encode()).digest()[:16]


def measure(
    meter: Meter, value: Decimal, properties: Mapping[str, str], at: datetime | None = None
) -> Measured | None:
    """What an event with this value and these properties contributes, or None when it does not match.

    `at`, when it happened, is wanted by LATEST alone.
    """
    if meter.filters and not all(each.lets_through(properties) for each in meter.filters):
        return None
    if meter.aggregation is Aggregation.COUNT:
        return Measured(Decimal(1))
    moment = at if meter.aggregation is Aggregation.LATEST else None
    if meter.property_name is None:
        return Measured(value, at=moment)
    given = properties.get(meter.property_name)
    if given is None or not given.strip(BLANKS):
        return None
    if meter.aggregation is Aggregation.UNIQUE:
        return Measured(Decimal(1), distinct_hash(given))
    quantity = number(given)
    return None if quantity is None else Measured(quantity, at=moment)


def why_not(meter: Meter, properties: Mapping[str, str]) -> str | None:
    """Why an event of the meter's code does not count, in words; None when it does."""
    for each in meter.filters:
        if not each.lets_through(properties):
            given = properties.get(each.property_name)
            found = "is missing" if given is None else f"is {given!r}"
            wanted = f"{each.operator.value.replace('_', ' ')} {each.value!r}"
            return f"{each.property_name} {found}; the filter wants {wanted}"
    if meter.property_name is None or meter.aggregation is Aggregation.COUNT:
        return None
    given = properties.get(meter.property_name)
    if given is None or not given.strip(BLANKS):
        return f"{meter.property_name} is missing or blank"
    if meter.aggregation is not Aggregation.UNIQUE and number(given) is None:
        return f"{meter.property_name} is {given!r}, which is no number"
    return None


def fold(meter: Meter, measured: Iterable[Measured]) -> Fold:
    parts = [
        Fold(1, each.quantity, frozenset([each.distinct] if each.distinct else ()), each.at)
        for each in measured
    ]
    return merge(meter, parts)


def merge(meter: Meter, parts: Sequence[Fold]) -> Fold:
    """Sum and count add, max takes the larger, unique unites, latest takes what happened last: order-free.

    Of two events at one instant the larger is the latest, so that the order of arrival decides nothing.
    """
    events = sum(part.events for part in parts)
    if meter.aggregation is Aggregation.UNIQUE:
        values = frozenset[bytes]().union(*(part.values for part in parts))
        return Fold(events, Decimal(len(values)), values)
    if meter.aggregation is Aggregation.LATEST:
        dated = [(part.at, part.quantity) for part in parts if part.at is not None]
        at, quantity = max(dated, default=(None, ZERO))
        return Fold(events, quantity, at=at)
    quantities = [part.quantity for part in parts if part.events]
    if meter.aggregation is Aggregation.MAX:
        return Fold(events, max(quantities, default=ZERO))
    return Fold(events, sum(quantities, ZERO))


def in_force(versions: Sequence[tuple[object, Meter]], start: object) -> Meter:
    """The version a period is measured by: the newest of those valid at its start, else the first there was.

    `versions` are (valid_from, meter) in order of version. A change counts from the next period on (ruling 17).
    """
    chosen = versions[0][1]
    for valid_from, meter in versions:
        if valid_from <= start:  # type: ignore[operator]
            chosen = meter
    return chosen
