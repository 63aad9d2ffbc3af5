"""Meters: which events count, for how much, and how partial folds of them merge.

A fold of some events is small (a count and a quantity, or a set of distinct values) and folds merge in any
order, so usage of any span is whole hours folded beforehand plus the ragged edges folded now.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


class Measured(NamedTuple):
    """What one event contributes to one meter: a quantity, or, for UNIQUE, the hash of a value."""

    quantity: Decimal
    distinct: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """What some events amount to under one meter. `quantity` of a UNIQUE fold is the size of its set."""

    events: int = 0
    quantity: Decimal = ZERO
    values: frozenset[bytes] = frozenset()


class Usage(NamedTuple):
    """What a span amounts to, read as a whole: unlike a fold it merges with nothing any more."""

    events: int
    quantity: Decimal


NO_USAGE: Final = Usage(0, ZERO)


def number(text: str) -> Decimal | None:
    """The decimal a property's text spells, or None."""
    written = text.strip(ASCII_BLANKS)
    if _NUMBER.fullmatch(written) is None:
        return None
    value = Decimal(written)
    return value if fits(value) else None


def distinct_hash(value: str) -> bytes:
    return sha256(value.encode()).digest()[:16]


def measure(meter: Meter, value: Decimal, properties: Mapping[str, str]) -> Measured | None:
    """What an event with this value and these properties contributes, or None when it does not match."""
    if meter.filters and not all(each.lets_through(properties) for each in meter.filters):
        return None
    if meter.aggregation is Aggregation.COUNT:
        return Measured(Decimal(1))
    if meter.property_name is None:
        return Measured(value)
    given = properties.get(meter.property_name)
    if given is None or not given.strip(BLANKS):
        return None
    if meter.aggregation is Aggregation.UNIQUE:
        return Measured(Decimal(1), distinct_hash(given))
    quantity = number(given)
    return None if quantity is None else Measured(quantity)


def fold(meter: Meter, measured: Iterable[Measured]) -> Fold:
    parts = [Fold(1, each.quantity, frozenset([each.distinct] if each.distinct else ())) for each in measured]
    return merge(meter, parts)


def merge(meter: Meter, parts: Sequence[Fold]) -> Fold:
    """Sum and count add, max takes the larger, unique unites: associative and order-free."""
    events = sum(part.events for part in parts)
    if meter.aggregation is Aggregation.UNIQUE:
        values = frozenset[bytes]().union(*(part.values for part in parts))
        return Fold(events, Decimal(len(values)), values)
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
