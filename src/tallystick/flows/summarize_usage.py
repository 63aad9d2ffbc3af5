"""What a customer used of a feature: in all, by windows of time, and by properties of the events.

The same meters as billing, period by period; totals and windows come from rollups and ragged edges, groups
from raw events, and everything is read at one moment.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice, pairwise
from uuid import UUID

from tallystick.core import limits
from tallystick.core.catalog import Feature, FeatureType
from tallystick.core.meters import NOTHING, Aggregation, Meter, Total
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Life
from tallystick.core.times import Period, show_instant
from tallystick.core.windows import Ruled, Window, billed_by, ruled, windows
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import Books
from tallystick.store import customers, measuring
from tallystick.store.db import Conn, one_moment
from tallystick.store.measuring import Group


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; None leaves it to us."""

    reference: str
    feature_code: str
    start: datetime | None
    end: datetime | None
    window: Window | None
    zone: str | None
    group_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One window, with the groups that were used in it."""

    window: Period
    usage: Total
    groups: list[tuple[Group, Total]]


@dataclass(frozen=True, slots=True)
class Summary:
    reference: str
    aggregation: Aggregation
    zone: str
    span: Period
    total: Total
    groups: list[tuple[Group, Total]]  # the largest first
    series: list[Piece]


async def summarize_usage(
    conn: Conn, books: Books, *, organization_id: UUID, question: Question, now: datetime
) -> Summary:
    book = await books.current(conn, organization_id)
    await books.learn(conn, book, {question.reference})
    standing = book.standings.get(question.reference)
    customer = await customers.find(conn, organization_id=organization_id, reference=question.reference)
    if standing is None or customer is None:
        raise Problem(
            "customer_not_found", f"There is no customer {question.reference!r}.", param="customerId"
        )
    feature = _measured(book.catalogue.features.get(question.feature_code), question.feature_code)
    zone = question.zone or customer.timezone or book.organization.timezone
    lives = sorted(
        (*standing.past, *([standing.current] if standing.current else ())), key=lambda life: life.anchor.at
    )
    span = _span(question, standing.usable(now), now)
    shown = [] if question.window is None else _windows(question.window, span, zone, lives)
    cuts = sorted({span.start, span.end, *(at for each in shown for at in (each.start, each.end))})
    parts = ruled(_comparable(billed_by(book.catalogue.versions[feature.id], lives, span)), cuts)
    aggregation = parts[0].meter.aggregation
    windowed = question.window is not None
    async with one_moment(conn):
        total, pieces = await _measure(conn, standing.customer_id, aggregation, parts, windowed=windowed)
        groups: dict[Group, Total] = {}
        groups_of: Mapping[int, Mapping[Group, Total]] = {}
        if question.group_by:
            groups, groups_of = await _measure_groups(
                conn, standing.customer_id, aggregation, parts, question.group_by, windowed=windowed
            )
    numbers = {start: number for number, start in enumerate(cuts)}
    ranks = {group: rank for rank, (group, _) in enumerate(_largest_first(groups.items()))}
    series = [
        Piece(
            each,
            pieces.get(numbers[each.start], NOTHING),
            sorted(groups_of.get(numbers[each.start], {}).items(), key=lambda found: ranks[found[0]]),
        )
        for each in shown
    ]
    return Summary(standing.reference, aggregation, zone, span, total, _largest_first(groups.items()), series)


def _measured(feature: Feature | None, code: str) -> Feature:
    if feature is None:
        raise Problem("feature_not_found", f"There is no feature {code!r}.", param="featureCode")
    if feature.type is not FeatureType.USAGE:
        raise InvalidRequest(FieldError("featureCode", f"{code!r} has no usage"))
    return feature


def _span(question: Question, life: Life | None, now: datetime) -> Period:
    """What was asked for; by itself the usage period that is open, or the last 30 days."""
    where = life.period_at(now) if life is not None else None
    end = question.end or (where[1].end if where else now)
    start = question.start or (where[1].start if where else end - limits.SUMMARY_DEFAULT)
    if end <= start:
        raise InvalidRequest(FieldError("end", f"must be after start, which is {show_instant(start)}"))
    return Period(start, end)


def _windows(window: Window, span: Period, zone: str, lives: Sequence[Life]) -> list[Period]:
    if window is Window.PERIOD and not lives:
        raise InvalidRequest(FieldError("window", "the customer has no subscription, hence no usage periods"))
    try:
        found = list(islice(windows(span, window, zone, lives), limits.SUMMARY_WINDOWS_MAX + 1))
    except OverflowError:
        raise InvalidRequest(FieldError("start", "is where no calendar reaches")) from None
    if len(found) > limits.SUMMARY_WINDOWS_MAX:
        raise InvalidRequest(
            FieldError(
                "window",
                f"gives more than {limits.SUMMARY_WINDOWS_MAX:,} windows: choose a longer one or a shorter span",
            )
        )
    return found


def _comparable(parts: list[tuple[Meter, Period]]) -> list[tuple[Meter, Period]]:
    """Quantities of two versions add up only while both measure the same thing."""
    for (before, _), (after, part) in pairwise(parts):
        if (before.aggregation, before.property_name) != (after.aggregation, after.property_name):
            since = show_instant(part.start)
            raise InvalidRequest(
                FieldError(
                    "start", f"the feature is measured otherwise since {since}: ask for either side of it"
                )
            )
    return parts


async def _measure(
    conn: Conn, customer_id: UUID, aggregation: Aggregation, parts: Sequence[Ruled], *, windowed: bool
) -> tuple[Total, dict[int, Total]]:
    """The whole, and each piece that has events."""
    pieces = await measuring.usage_of_pieces(conn, customer_id=customer_id, parts=parts)
    total = _merged(aggregation, pieces.values())
    if aggregation is Aggregation.UNIQUE and total.events:
        uncut = [Ruled(part.meter, (part.span.start, part.span.end)) for part in parts]
        (count,) = (await measuring.distinct_counts(conn, customer_id=customer_id, parts=uncut)).values()
        total = Total(total.events, Decimal(count))
        if windowed:
            counts = await measuring.distinct_counts(conn, customer_id=customer_id, parts=parts)
            pieces = {number: Total(each.events, Decimal(counts[number])) for number, each in pieces.items()}
    return total, pieces


async def _measure_groups(
    conn: Conn,
    customer_id: UUID,
    aggregation: Aggregation,
    parts: Sequence[Ruled],
    properties: Sequence[str],
    *,
    windowed: bool,
) -> tuple[dict[Group, Total], Mapping[int, Mapping[Group, Total]]]:
    """Each group of the whole, and each group of each piece that has it."""
    rows_max = limits.SUMMARY_CELLS_MAX + limits.SUMMARY_GROUPS_MAX
    read = measuring.distinct_in_groups if aggregation is Aggregation.UNIQUE else measuring.usage_of_groups
    found = await read(
        conn,
        customer_id=customer_id,
        parts=parts,
        properties=properties,
        by_piece=windowed,
        rows_max=rows_max + 1,
    )
    wholes: defaultdict[Group, list[Total]] = defaultdict(list)
    pieces: defaultdict[int, dict[Group, Total]] = defaultdict(dict)
    for (piece, group), usage in found.items():
        if piece is not None:
            pieces[piece][group] = usage
        if piece is None or aggregation is not Aggregation.UNIQUE:
            wholes[group].append(usage)
    if len(wholes) > limits.SUMMARY_GROUPS_MAX:
        raise InvalidRequest(FieldError("groupBy", f"gives more than {limits.SUMMARY_GROUPS_MAX:,} groups"))
    if len(found) > rows_max:
        raise InvalidRequest(
            FieldError(
                "groupBy",
                f"gives more than {limits.SUMMARY_CELLS_MAX:,} groups over all windows: choose a longer window",
            )
        )
    return {group: _merged(aggregation, usages) for group, usages in wholes.items()}, pieces


def _merged(aggregation: Aggregation, usages: Iterable[Total]) -> Total:
    """Of aggregations whose pieces merge without knowing more than their quantities."""
    found = list(usages)
    events, quantities = sum(each.events for each in found), [each.quantity for each in found]
    match aggregation:
        case Aggregation.MAX:
            return Total(events, max(quantities, default=ZERO))
        case Aggregation.LATEST:
            dated = [(each.at, each.quantity) for each in found if each.at is not None]
            at, quantity = max(dated, default=(None, ZERO))
            return Total(events, quantity, at)
    return Total(events, sum(quantities, ZERO))


def _largest_first(groups: Iterable[tuple[Group, Total]]) -> list[tuple[Group, Total]]:
    """By quantity; equals by their values, what has none last."""
    return sorted(
        groups, key=lambda found: (-found[1].quantity, [(value is None, value or "") for value in found[0]])
    )
