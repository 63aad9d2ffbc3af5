"""Windows: a span of usage cut by local hours, days and months, or by the customer's usage periods.

Windows are half-open and begin where people in the zone say they do: a day of a clock change has 23 or 25
hours, and a zone may lie half an hour or a quarter off the full hour. The first and the last are clipped.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from tallystick.core.meters import Meter, in_force
from tallystick.core.subscriptions import Life
from tallystick.core.times import Period, add_months, first_instant, local_day, whole_hours

_HOUR: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)


class Window(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    PERIOD = "period"


def windows(span: Period, window: Window, zone: str, lives: Sequence[Life]) -> Iterator[Period]:
    """The windows of a span, in order. Hours, days and months tile it; periods only where there are any."""
    if window is Window.PERIOD:
        yield from _periods(span, lives)
        return
    start = span.start
    for boundary in _HOURS_DAYS_MONTHS[window](span.start, zone):
        if boundary >= span.end:
            break
        if boundary > start:  # a day that a zone skipped begins when the next one does
            yield Period(start, boundary)
            start = boundary
    yield Period(start, span.end)


def _hours(start: datetime, zone: str) -> Iterator[datetime]:
    while True:
        start = _next_hour(start, ZoneInfo(zone))
        yield start


def _next_hour(at: datetime, where: ZoneInfo) -> datetime:
    """When the local hour that `at` falls in is over: at the next :00, or when the clocks jump out of the hour."""
    local = at.astimezone(where)
    full = at + _HOUR - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    if full.astimezone(where).utcoffset() == local.utcoffset():
        return full
    early, late = at.replace(microsecond=0), full
    while late - early > _SECOND:  # the clocks change in between: find the first second after it
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(where).utcoffset() == local.utcoffset():
            early = middle
        else:
            late = middle
    after = late.astimezone(where)
    if (after.date(), after.hour) == (local.date(), local.hour) and (after.minute or after.second):
        return _next_hour(late, where)  # set back within the hour, which goes on
    return late


def _days(start: datetime, zone: str) -> Iterator[datetime]:
    day = local_day(start, zone)
    while True:
        day += timedelta(days=1)
        yield first_instant(day, zone)


def _months(start: datetime, zone: str) -> Iterator[datetime]:
    month = local_day(start, zone).replace(day=1)
    while True:
        month = add_months(month, 1)
        yield first_instant(month, zone)


_HOURS_DAYS_MONTHS: Final = {Window.HOUR: _hours, Window.DAY: _days, Window.MONTH: _months}


def _periods(span: Period, lives: Sequence[Life]) -> Iterator[Period]:
    """The usage periods that a span touches, as they are billed: a life's last one ends with it."""
    for life in lives:
        at, end = max(span.start, life.anchor.at), _end_within(life, span)
        while at < end and (where := life.period_at(at)) is not None:
            until = min(where[1].end, end)
            yield Period(at, until)
            at = until


def _end_within(life: Life, span: Period) -> datetime:
    return span.end if life.ends_at is None else min(life.ends_at, span.end)


def billed_by(
    versions: Sequence[tuple[datetime, Meter]], lives: Sequence[Life], span: Period
) -> list[tuple[Meter, Period]]:
    """Which version of a meter measures which part of a span: the one that each period is billed by.

    `lives` are in order. What lies before one is measured as its first period is, what lies behind the last as
    its last period was, and without any the newest version measures.
    """
    parts: list[tuple[Meter, Period]] = []
    at = span.start
    while at < span.end:
        meter, until = _version_at(versions, lives, at)
        until = span.end if until is None else min(until, span.end)
        if parts and parts[-1][0].id == meter.id:
            at = parts.pop()[1].start
        parts.append((meter, Period(at, until)))
        at = until
    return parts


def _version_at(
    versions: Sequence[tuple[datetime, Meter]], lives: Sequence[Life], at: datetime
) -> tuple[Meter, datetime | None]:
    """The version that measures `at`, and until when at least; None: for ever."""
    last = None
    for life in lives:
        if at < life.anchor.at:
            return in_force(versions, life.anchor.at), life.anchor.at
        last = life
        if at in life:
            break
    if last is None:
        return versions[-1][1], None
    if at not in last:
        assert last.ends_at is not None
        where = last.period_at(max(last.anchor.at, last.ends_at - timedelta(microseconds=1)))
        assert where is not None
        return in_force(versions, where[1].start), None
    where = last.period_at(at)
    assert where is not None
    start = where[1].start
    changes = [
        change for valid_from, _ in versions if valid_from > start and (change := _begin(last, valid_from))
    ]
    return in_force(versions, start), min((each for each in (*changes, last.ends_at) if each), default=None)


def _begin(life: Life, valid_from: datetime) -> datetime:
    """The first period of a life that begins at `valid_from` or later."""
    where = life.period_at(valid_from)
    assert where is not None
    return where[1].start if where[1].start >= valid_from else where[1].end


@dataclass(frozen=True, slots=True)
class Ruled:
    """What one meter measures of a span, and the instants that cut it into pieces."""

    meter: Meter
    cuts: tuple[datetime, ...]  # ascending: where the first piece begins, …, where the last one ends
    first: int = 0  # the number of the first piece

    @property
    def span(self) -> Period:
        return Period(self.cuts[0], self.cuts[-1])

    @property
    def pieces(self) -> list[tuple[int, Period]]:
        return [(self.first + place, Period(*ends)) for place, ends in enumerate(pairwise(self.cuts))]

    def edges(self, among: Container[int] | None = None) -> list[Period]:
        """What the whole hours of the pieces (`among` these) leave over, joined where it touches."""
        joined: list[Period] = []
        for number, piece in self.pieces:
            if among is not None and number not in among:
                continue
            for edge in whole_hours(piece)[1]:
                if joined and joined[-1].end == edge.start:
                    edge = Period(joined.pop().start, edge.end)
                joined.append(edge)
        return joined


def with_whole_hours(parts: Sequence[Ruled]) -> frozenset[int]:
    """The pieces that have at least one whole hour; what others amount to only raw events can say."""
    return frozenset(
        number for part in parts for number, piece in part.pieces if whole_hours(piece)[0] is not None
    )


def ruled(parts: Sequence[tuple[Meter, Period]], cuts: Sequence[datetime]) -> list[Ruled]:
    """The parts of a span, each with the cuts that fall into it; a piece that two parts share is in both."""
    return [
        Ruled(
            meter,
            (part.start, *(cut for cut in cuts if part.start < cut < part.end), part.end),
            sum(cut <= part.start for cut in cuts) - 1,
        )
        for meter, part in parts
    ]
