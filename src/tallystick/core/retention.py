"""Months of events: the unit that is stored, archived and restored as a whole. All of them are of UTC."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Final, Self

from tallystick.core.times import Period, add_months

AHEAD: Final = (-1, 2)
"""So many months before and after the present one have a partition of their own before anything happens in them."""
_AGE: Final = re.compile(r"([1-9][0-9]{0,3})([my])")
_NAME: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class Kind(Enum):
    """What a file keeps a column as. What must stay exact is text, as PostgreSQL says it."""

    TEXT = "text"
    TIME = "time"
    COUNT = "count"
    FLAG = "flag"
    BYTES = "bytes"


COLUMNS: Final[Mapping[str, Kind]] = {
    "customer_id": Kind.TEXT,
    "occurred_at": Kind.TIME,
    "id": Kind.TEXT,
    "organization_id": Kind.TEXT,
    "received_at": Kind.TIME,
    "batch": Kind.COUNT,
    "feature_code": Kind.TEXT,
    "value": Kind.TEXT,
    "event_key": Kind.TEXT,
    "timed": Kind.FLAG,
    "adjusts": Kind.TEXT,
    "properties": Kind.TEXT,
    "reason": Kind.TEXT,
    "voids": Kind.TEXT,
    "voided": Kind.COUNT,
    "leaf": Kind.BYTES,
    "drew_on": Kind.TEXT,
    "deducted": Kind.TEXT,
    "remaining": Kind.TEXT,
    "blocked": Kind.FLAG,
}
"""What a file says of an event, in its order: every column of `events`, a test holds them together, and `OWNER`."""
OWNER: Final = "organization_id"
"""Of whom the database knows it by the event's batch."""
_MONTHS_OF: Final = {"m": 1, "y": 12}


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month, counted in UTC."""

    first: date  # its first day

    @classmethod
    def of(cls, at: datetime) -> Self:
        return cls(at.astimezone(UTC).date().replace(day=1))

    @classmethod
    def named(cls, name: str) -> Self | None:
        """`2024-03`; None when it is not that."""
        found = _NAME.fullmatch(name)
        return None if found is None or found[1] == "0000" else cls(date(int(found[1]), int(found[2]), 1))

    def __str__(self) -> str:
        return f"{self.first.year:04}-{self.first.month:02}"

    def plus(self, months: int) -> "Month":
        return Month(add_months(self.first, months))

    @property
    def span(self) -> Period:
        return Period(_midnight(self.first), _midnight(add_months(self.first, 1)))

    @property
    def partition(self) -> str:
        return f"events_{self.first.year:04}_{self.first.month:02}"

    @property
    def file_name(self) -> str:
        return f"events-{self}.parquet"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def around(now: datetime) -> Iterator[Month]:
    """The months that are to have a partition of their own."""
    before, after = AHEAD
    for months in range(before, after + 1):
        yield Month.of(now).plus(months)


def age(text: str) -> int | None:
    """`24m` or `2y` in months; None when it is neither."""
    found = _AGE.fullmatch(text)
    return None if found is None else int(found[1]) * _MONTHS_OF[found[2]]


def is_older(month: Month, *, months: int, now: datetime) -> bool:
    """Whether the whole of a month lies further back than so many months."""
    today = now.astimezone(UTC)
    day = add_months(today.date(), -months)
    return month.span.end <= today.replace(year=day.year, month=day.month, day=day.day)
