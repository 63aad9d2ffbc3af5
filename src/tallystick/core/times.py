"""Periods: half-open, counted from an anchor, in the customer's zone.

A period contains its start and not its end, so neighbours neither overlap nor leak. Period 0 begins at the
instant of activation; every later boundary is the first instant of the anchor day in the customer's zone
(ruling 1). All instants are UTC; a zone only decides where they fall.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

_HOUR: Final = timedelta(hours=1)
MONTHS: Final = {"monthly": 1, "quarterly": 3, "semiannual": 6, "yearly": 12}


@dataclass(frozen=True, slots=True)
class Period:
    start: datetime  # included
    end: datetime  # excluded: it is the next period's start

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a subscription's periods are counted from."""

    at: datetime
    day: date  # the local day of `at`, in the zone of that moment
    weekly: bool
    zones: tuple[tuple[int, str], ...] = ()
    """Where the customer lived: (the first boundary that is counted there, zone), in order. Empty: never moved."""

    def zone_at(self, index: int, zone: str) -> str:
        """The zone boundary `index` falls in; what has begun under one zone is not moved by the next."""
        for first, lived_in in self.zones:
            if first <= index:
                zone = lived_in
        return zone


def is_zone(name: str) -> bool:
    """Whether it is a name of the zone data; what only one host means by it is none."""
    return name in _zones()


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(
        name
        for name in available_timezones()
        if name != "localtime" and not name.startswith(("posix", "right/"))
    )


def local_day(at: datetime, zone: str) -> date:
    return at.astimezone(ZoneInfo(zone)).date()


@lru_cache(maxsize=1024)
def first_instant(day: date, zone: str) -> datetime:
    """When `day` begins in `zone`: midnight, or, where the clocks jump over it, the instant after the jump."""
    where = ZoneInfo(zone)
    midnight = datetime.combine(day, time.min, tzinfo=where)
    early, late = sorted((midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)))
    if early == late or early.astimezone(where).date() >= day:
        return early
    while late - early > timedelta(seconds=1):  # midnight does not exist: find the jump between the two
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(where).date() >= day:
            late = middle
        else:
            early = middle
    return late


def add_months(day: date, months: int) -> date:
    """The same day some months on; a month too short for it gives its last day (31 Jan + 1 = 28 or 29 Feb)."""
    year, month0 = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month0 + 1, min(day.day, calendar.monthrange(year, month0 + 1)[1]))


def boundary(anchor: Anchor, index: int, zone: str) -> datetime:
    """When period `index` begins."""
    if index == 0:
        return anchor.at
    day = anchor.day + timedelta(weeks=index) if anchor.weekly else add_months(anchor.day, index)
    return first_instant(day, anchor.zone_at(index, zone))


def period(anchor: Anchor, index: int, zone: str) -> Period:
    return Period(boundary(anchor, index, zone), boundary(anchor, index + 1, zone))


def index_at(anchor: Anchor, at: datetime, zone: str) -> int:
    """Which period contains `at`; -1 for anything before the anchor."""
    if at < anchor.at:
        return -1
    day = local_day(at, zone)
    if anchor.weekly:
        index = (day - anchor.day).days // 7
    else:
        index = (day.year - anchor.day.year) * 12 + day.month - anchor.day.month
    index = max(0, index)
    while index > 0 and at < boundary(anchor, index, zone):
        index -= 1
    while at >= boundary(anchor, index + 1, zone):
        index += 1
    return index


def days_between(start: datetime, end: datetime, zone: str) -> int:
    """Calendar days, as people in `zone` count them."""
    return (local_day(end, zone) - local_day(start, zone)).days


@lru_cache(maxsize=1024)
def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def whole_hours(span: Period) -> tuple[Period | None, tuple[Period, ...]]:
    """A span as its whole hours and the ragged edges beside them, which together tile it."""
    start, end = hour_of(span.start), hour_of(span.end)
    if start < span.start:
        start += _HOUR
    if start >= end:
        return None, ((span,) if span.start < span.end else ())
    edges = (Period(span.start, start), Period(end, span.end))
    return Period(start, end), tuple(edge for edge in edges if edge.start < edge.end)


def parse_instant(text: str) -> datetime | None:
    """ISO 8601 with a date and a time; without an offset it is UTC. None when it is not that."""
    try:
        at = _read(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_local(text: str) -> datetime | None:
    """ISO 8601 with a date, a time and no offset, as the clock on a wall showed it. None when it is not that."""
    try:
        at = _read(text)
    except ValueError:
        return None
    return at if at.tzinfo is None else None


def _read(text: str) -> datetime:
    if len(text) < 16 or text[10] not in "Tt " or "\0" in text:  # Python reads only up to a NUL
        raise ValueError("no date and time")
    return datetime.fromisoformat(text)


def instant_of(local: datetime, zone: str) -> datetime:
    """When clocks in `zone` showed that: the first time, where they were set back over it; where they skipped it,
    as much later. Raises OverflowError at the ends of the calendar."""
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@lru_cache(maxsize=1024)
def show_instant(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as the wire shows every time."""
    return at.isoformat(timespec="milliseconds")[:23] + "Z"
