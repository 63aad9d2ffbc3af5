"""What events come to, read from the raw rows, with the leaves that prove them.

Two ways that must say the same: where the events are, by SQL (`read_there`), and one by one in plain Python
(`read_here`), which is the reference. A span may be read in slices, at once and in other processes: slices join.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final

from tallystick.core.events import StoredEvent
from tallystick.core.meters import Aggregation, Fold, Measured, Meter, fold, merge
from tallystick.core.proof import LEAF_BYTES, leaf
from tallystick.core.times import Period
from tallystick.flows.measure_usage import contribution
from tallystick.store import events, proving
from tallystick.store.db import Conn
from tallystick.store.proving import Span, Summed

_NO_LEAF: Final = b""


@dataclass(frozen=True, slots=True)
class Piece:
    """What the events of a span come to. `amounts`, what each contributed in order, only where they were wanted."""

    fold: Fold
    amounts: tuple[Decimal, ...]
    leaves: bytes  # of those that were to be listed, in order of (occurred_at, id)

    @property
    def listed(self) -> int:
        return len(self.leaves) // LEAF_BYTES


Reader = Callable[[Span, bool], Awaitable[Piece]]
"""Reads a span; the flag asks for `amounts`."""


def reading(conn: Conn) -> Reader:
    """By SQL, on one connection."""

    async def read(span: Span, amounts: bool) -> Piece:
        return await read_there(conn, span, amounts=amounts)

    return read


def reading_one_by_one(conn: Conn) -> Reader:
    async def read(span: Span, amounts: bool) -> Piece:
        return await read_here(conn, span, amounts=amounts)

    return read


async def read_together(conn: Conn, wanted: Collection[tuple[Span, bool]]) -> Reader:
    """Has these spans already, many to a statement; another is read when it is asked for."""
    known: dict[tuple[Span, bool], Piece] = {}
    for amounts in (False, True):
        spans = list(dict.fromkeys(span for span, flag in wanted if flag is amounts))
        found = await proving.sum_spans(conn, spans, amounts=amounts)
        known.update(((span, amounts), _piece(span, each)) for span, each in zip(spans, found, strict=True))

    async def read(span: Span, amounts: bool) -> Piece:
        return known.get((span, amounts)) or await read_there(conn, span, amounts=amounts)

    return read


async def read_there(conn: Conn, span: Span, *, amounts: bool) -> Piece:
    (found,) = await proving.sum_spans(conn, [span], amounts=amounts)
    return _piece(span, found)


def _piece(span: Span, found: Summed) -> Piece:
    return Piece(
        Fold(
            found.events,
            found.quantity,
            frozenset(map(bytes, found.values)),
            found.at if span.meter.aggregation is Aggregation.LATEST else None,
        ),
        tuple(found.amounts),
        found.leaves,
    )


async def read_here(conn: Conn, span: Span, *, amounts: bool) -> Piece:
    """Row by row, by `core` alone. A void contributes nothing, and is listed where news are."""
    parts: list[tuple[datetime, Measured]] = []
    leaves: list[bytes] = []
    async for event, position in events.stream_positions(conn, span):
        measured = contribution(span.meter, event) if can_be(event) else None
        if measured is None:
            continue
        if event.voids is None:
            parts.append((event.occurred_at, measured))
        elif not span.after:
            continue
        if position > span.after:
            leaves.append(leaf_of(event))
    parts.sort(key=lambda each: (each[0], each[1].quantity))  # of one instant, arrival decides nothing
    contributed = tuple(measured.quantity for _, measured in parts) if amounts else ()
    return Piece(fold(span.meter, (each for _, each in parts)), contributed, b"".join(leaves))


def leaf_of(event: StoredEvent) -> bytes:
    """An event that cannot have been stored like this has no leaf."""
    return leaf(event) if can_be(event) else _NO_LEAF


def can_be(event: StoredEvent) -> bool:
    """Whether an event can have been stored like this: finite, and with properties that are text."""
    properties: object = event.properties
    return (
        event.value.is_finite()
        and isinstance(properties, Mapping)
        and all(isinstance(each, str) for each in properties.values())
    )


def slices(span: Span, count: int) -> list[Span]:
    """The span in equal parts of time, which hold about as many events each if they come evenly."""
    start, length = span.span.start, span.span.end - span.span.start
    cuts = [start + length * number / count for number in range(count)] + [span.span.end]
    parts = [Period(low, high) for low, high in pairwise(cuts) if low < high]
    return [replace(span, span=each) for each in parts] or [span]


def joined(meter: Meter, pieces: Sequence[Piece]) -> Piece:
    """Slices of one span, in order of time."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        merge(meter, [each.fold for each in pieces]),
        tuple(amount for each in pieces for amount in each.amounts),
        b"".join(each.leaves for each in pieces),
    )
