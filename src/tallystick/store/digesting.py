"""Digests of events where they lie: of many customers at once, each event read once for all the meters that count it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from tallystick.core.meters import Aggregation, Meter
from tallystick.core.money import ZERO
from tallystick.core.proof import LEAF_BYTES
from tallystick.core.times import Period
from tallystick.store import citus, columns
from tallystick.store.db import Conn, rows
from tallystick.store.places import IN_ORDER, within

METERS_PER_READING: Final = 100
"""A statement has three columns for each of them, and PostgreSQL has room for some 1,600."""

_ALL_THERE_IS: Final = "e.voids IS NULL AND e.voided IS NULL"
_NEWS: Final = """(e.voids IS NOT NULL OR e.voided IS NULL)
                   AND EXISTS (SELECT FROM ingest_batches b WHERE b.batch = e.batch AND b.position > t.after)"""


@dataclass(frozen=True, slots=True)
class Digested:
    """What a set of events is, without reading it here: how many, what they add up to, the digest of their leaves."""

    count: int
    quantity: Decimal
    digest: str


@dataclass(frozen=True, slots=True)
class ToDigest:
    """A set of events to digest: what a meter counts in a span, of all there is now or of what is new since."""

    customer_id: UUID
    meter: Meter
    span: Period
    after: int = 0  # a position of the chain; 0: from the beginning


async def digests(conn: Conn, asked: Sequence[ToDigest]) -> list[Digested | None]:
    """Many at once, in the order asked, as the snapshot of `conn` has them: of meters that read no property.

    What is new since a position is both the events and the voids that came later. None where a row from before
    leaves were kept is among the events.
    """
    found: list[Digested | None] = [_NOTHING] * len(asked)
    for readings in _alike(asked):
        meters = [asked[place].meter for place in readings[0]]
        spans = [asked[places[0]] for places in readings]
        for number, *told in await _read(conn, meters, spans):
            for nth, place in enumerate(readings[number - 1]):
                found[place] = _digested(*told[3 * nth : 3 * nth + 3])
    return found


def _alike(asked: Sequence[ToDigest]) -> Iterator[list[list[int]]]:
    """Places in `asked` by reading (one customer's span, several meters), and readings by what one statement can do."""
    readings: defaultdict[tuple[UUID, Period, int], list[int]] = defaultdict(list)
    for place, each in enumerate(asked):
        readings[each.customer_id, each.span, each.after].append(place)
    alike: defaultdict[tuple[bool, tuple[UUID, ...]], list[list[int]]] = defaultdict(list)
    for (_, _, after), places in readings.items():
        for start in range(0, len(places), METERS_PER_READING):
            some = places[start : start + METERS_PER_READING]
            alike[after > 0, tuple(asked[place].meter.id for place in some)].append(some)
    yield from alike.values()


_NOTHING: Final = Digested(0, ZERO, sha256(b"").hexdigest())


def _digested(count: int, quantity: Decimal, digest: bytes | None) -> Digested | None:
    return None if digest is None else Digested(count, Decimal(quantity), bytes(digest).hex())


async def _read(conn: Conn, meters: Sequence[Meter], spans: Sequence[ToDigest]) -> list[tuple[Any, ...]]:
    """One row for each span that has events: its number, and for each meter a count, a quantity, and a digest or NULL."""
    codes = {f"code_{nth}": meter.event_code for nth, meter in enumerate(meters)}
    features = {f"feature_{nth}": meter.feature_id for nth, meter in enumerate(meters)}
    counted = ", ".join(
        f"""e.feature_code = %(code_{nth})s::text
                     AND (e.adjusts IS NULL OR e.adjusts = %(feature_{nth})s::uuid) AS counts_{nth}"""
        for nth in range(len(meters))
    )
    told = ", ".join(_told(nth, meter) for nth, meter in enumerate(meters))
    return await rows(
        conn,
        f"""SELECT t.number, d.*
             FROM unnest(%(customers)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(afters)s::bigint[])
                  WITH ORDINALITY AS t (customer_id, start_at, end_at, after, number)
            CROSS JOIN LATERAL (
                  SELECT {told}
                    FROM (SELECT e.customer_id, hour_of(e.occurred_at) AS hour, e.occurred_at, e.id, e.leaf,
                                 CASE WHEN e.voids IS NULL THEN e.value ELSE 0 END AS sums,
                                 CASE WHEN e.voids IS NOT NULL THEN 0 WHEN e.adjusts IS NULL THEN 1 ELSE e.value END AS ones,
                                 {counted}
                            FROM events e
                           WHERE e.customer_id = t.customer_id
                             AND {within("t.start_at", "t.end_at")}
                             AND {_NEWS if spans[0].after else _ALL_THERE_IS}
                           ORDER BY {IN_ORDER} OFFSET 0) e
                  {citus.grouped_by(conn, "e.customer_id")} OFFSET 0) d""",
        {
            "customers": columns.uuids(each.customer_id for each in spans),
            "starts": columns.instants(each.span.start for each in spans),
            "ends": columns.instants(each.span.end for each in spans),
            "afters": columns.integers(each.after for each in spans),
            **codes,
            **features,
        },
    )


def _told(nth: int, meter: Meter) -> str:
    """Those of one meter. PostgreSQL makes out that the leaves lie in the order asked for, and sorts nothing."""
    mine = f"FILTER (WHERE e.counts_{nth})"
    quantity = "ones" if meter.aggregation is Aggregation.COUNT else "sums"
    leaves = f"string_agg(uuid_send(e.leaf), ''::bytea ORDER BY e.hour, e.occurred_at, e.id) {mine}"
    return f"""count(*) {mine}, coalesce(sum(e.{quantity}) {mine}, 0),
               CASE WHEN coalesce(octet_length({leaves}), 0) = {LEAF_BYTES} * count(*) {mine}
                    THEN sha256(coalesce({leaves}, ''::bytea)) END"""
