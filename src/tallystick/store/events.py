"""Events and the chain's records, read back."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.proof import LEAF_BYTES
from tallystick.core.times import Period
from tallystick.core.wallets import Draw, Model
from tallystick.store import columns
from tallystick.store.db import Conn, rows
from tallystick.store.places import IN_ORDER, OWNER, RECEIVED_AT, later, same, within
from tallystick.store.proving import Span

_EVENT: Final = f"""e.id, e.customer_id, e.feature_code, e.value, e.occurred_at, {RECEIVED_AT}, e.event_key, e.timed IS TRUE,
    e.properties, e.adjusts, e.reason, e.voids, e.voided, e.drew_on, e.deducted, e.remaining, e.blocked"""


_COUNTS: Final = """(e.voided IS NULL OR EXISTS (
    SELECT FROM ingest_batches v WHERE v.batch = e.voided AND v.position > %(position)s))"""


def _event(found: Sequence[Any]) -> StoredEvent:
    return StoredEvent(
        id=found[0],
        customer_id=found[1],
        feature=found[2],
        value=found[3],
        occurred_at=found[4],
        received_at=found[5],
        key=found[6],
        timed=found[7],
        properties={} if found[8] is None else found[8],
        adjusts=found[9],
        reason=found[10],
        voids=found[11],
        voided=found[12],
        draw=None if found[13] is None else Draw(Model(found[13]), *found[14:17]),
    )


async def at(conn: Conn, places: Mapping[UUID, tuple[UUID, datetime]]) -> dict[UUID, StoredEvent]:
    """Events by id, given each one's customer and time. Of an event's bunch no more is read than up to it."""
    found = await rows(
        conn,
        f"""SELECT {_EVENT}
              FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[]) AS k (customer_id, occurred_at, id)
             CROSS JOIN LATERAL (
                   SELECT * FROM events e WHERE {same("e", "k")} LIMIT 1 OFFSET 0) e""",
        (
            columns.uuids(customer_id for customer_id, _ in places.values()),
            columns.instants(occurred_at for _, occurred_at in places.values()),
            columns.uuids(places),
        ),
    )
    return {each[0]: _event(each) for each in found}


async def get(conn: Conn, *, organization_id: UUID, event_id: UUID) -> StoredEvent | None:
    found = await rows(
        conn,
        f"SELECT {_EVENT} FROM events e WHERE e.id = %s AND {OWNER} = %s",
        (event_id, organization_id),
    )
    return _event(found[0]) if found else None


async def mark_voided(conn: Conn, *, places: Sequence[StoredEvent], number: int) -> None:
    """Mark events that batch `number` took back."""
    await conn.execute(
        f"""UPDATE events e SET voided = %s
              FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[]) AS t (customer_id, occurred_at, id)
             WHERE {same("e", "t")}""",
        (
            number,
            [each.customer_id for each in places],
            [each.occurred_at for each in places],
            [each.id for each in places],
        ),
    )


async def window(
    conn: Conn, *, organization_id: UUID, before: UUID | None, events_min: int
) -> tuple[UUID, bool] | None:
    """The lowest event id of the newest batches before `before` that hold `events_min` events between them.

    The flag says that nothing older exists. None when there is nothing at all.
    """
    found = await rows(
        conn,
        """SELECT first_event_id, sum(events) OVER (ORDER BY position DESC) AS running, position
             FROM ingest_batches
            WHERE organization_id = %(organization)s AND (%(before)s::uuid IS NULL OR first_event_id < %(before)s)
            ORDER BY position DESC LIMIT 1000""",
        {"organization": organization_id, "before": before},
    )
    if not found:
        return None
    lowest = found[0][0]
    for first, running, position in found:
        lowest = min(lowest, first)
        if running >= events_min:
            return lowest, position == 1
    return lowest, found[-1][2] == 1


async def between(
    conn: Conn,
    *,
    organization_id: UUID,
    lowest: UUID,
    before: UUID | None,
    customer_id: UUID | None,
    feature: str | None,
    limit: int,
) -> list[StoredEvent]:
    """Events with an id in [lowest, before), newest arrival first."""
    found = await rows(
        conn,
        f"""SELECT {_EVENT} FROM events e
             WHERE e.id >= %(lowest)s AND {OWNER} = %(organization)s
               AND (%(before)s::uuid IS NULL OR e.id < %(before)s)
               AND (%(customer)s::uuid IS NULL OR e.customer_id = %(customer)s)
               AND (%(feature)s::text IS NULL OR e.feature_code = %(feature)s)
             ORDER BY e.id DESC LIMIT %(limit)s""",
        {
            "organization": organization_id,
            "lowest": lowest,
            "before": before,
            "customer": customer_id,
            "feature": feature,
            "limit": limit,
        },
    )
    return [_event(each) for each in found]


async def in_span(
    conn: Conn,
    *,
    customer_id: UUID,
    feature: str,
    span: Period,
    at_position: int | None = None,
    after_position: int = 0,
    after: tuple[datetime, UUID] | None = None,
    limit: int | None = None,
) -> list[StoredEvent]:
    """A customer's events of one code that happened in `span` and count, in order of (occurred_at, id).

    With `at_position`, those the chain had by then, as it had them. With `after_position` too, only what is new
    since: events, and the voids that took events back.
    """
    found = await rows(
        conn,
        f"""SELECT {_EVENT} FROM events e
             WHERE e.customer_id = %(customer)s AND {within("%(start)s::timestamptz", "%(end)s::timestamptz")}
               AND e.feature_code = %(feature)s
               AND (%(after_at)s::timestamptz IS NULL OR (e.occurred_at, e.id) > (%(after_at)s, %(after_id)s::uuid))
               AND (%(position)s::bigint IS NULL OR EXISTS (
                       SELECT FROM ingest_batches b WHERE b.batch = e.batch AND b.position <= %(position)s AND b.position > %(after_position)s))
               AND (CASE WHEN e.voids IS NULL THEN {_COUNTS} ELSE %(after_position)s > 0 END)
             ORDER BY {IN_ORDER} LIMIT %(limit)s""",
        {
            "customer": customer_id,
            "start": max(span.start, after[0]) if after else span.start,
            "end": span.end,
            "feature": feature,
            "after_at": after[0] if after else None,
            "after_id": after[1] if after else None,
            "position": at_position,
            "after_position": after_position,
            "limit": limit,
        },
    )
    return [_event(each) for each in found]


_BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)
_DREW: Final = """e.customer_id = %(customer)s AND e.drew_on = 'balance' AND e.batch = ANY(ARRAY(
    SELECT batch FROM ledger_entries l
     WHERE l.customer_id = %(customer)s AND l.subscription_id = %(subscription)s AND l.period_index = %(period)s
       AND l.cause = 'usage'))"""
"""Events that were paid from a subscription's balance in one of its periods, whenever they happened."""


async def that_drew(
    conn: Conn,
    *,
    customer_id: UUID,
    subscription_id: UUID,
    period_index: int,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[StoredEvent]:
    """What a balance paid for in a period, in order of (occurred_at, id)."""
    found = await rows(
        conn,
        f"""SELECT {_EVENT} FROM events e
             WHERE {_DREW} AND {later("%(after_at)s::timestamptz", "%(after_id)s::uuid")}
             ORDER BY {IN_ORDER} LIMIT %(limit)s""",
        {
            "customer": customer_id,
            "subscription": subscription_id,
            "period": period_index,
            "after_at": after[0] if after else _BEFORE_ALL,
            "after_id": after[1] if after else UUID(int=0),
            "limit": limit,
        },
    )
    return [_event(each) for each in found]


async def how_many_drew(
    conn: Conn, *, customer_id: UUID, subscription_id: UUID, period_index: int
) -> tuple[int, datetime | None, datetime | None]:
    """How many those are, the first and the last of them."""
    found = await rows(
        conn,
        f"SELECT count(*), min(e.occurred_at), max(e.occurred_at) FROM events e WHERE {_DREW}",
        {"customer": customer_id, "subscription": subscription_id, "period": period_index},
    )
    return found[0][0], found[0][1], found[0][2]


@dataclass(frozen=True, slots=True)
class Batch:
    """A record of the chain: the leaves of the events that were stored together, in order of id."""

    batch: int
    position: int
    first_event_id: UUID
    events: int
    leaves: tuple[bytes, ...]
    digest: bytes


async def batches(conn: Conn, *, organization_id: UUID, after: int, until: int) -> list[Batch]:
    """The chain's records after a position and up to another, in order."""
    found = await rows(
        conn,
        """SELECT batch, position, first_event_id, events, leaves, digest FROM ingest_batches
            WHERE organization_id = %s AND position > %s AND position <= %s ORDER BY position""",
        (organization_id, after, until),
    )
    return [
        Batch(
            each[0],
            each[1],
            each[2],
            each[3],
            tuple(bytes(each[4][at : at + LEAF_BYTES]) for at in range(0, len(each[4]), LEAF_BYTES)),
            bytes(each[5]),
        )
        for each in found
    ]


async def of_batches(
    conn: Conn, *, organization_id: UUID, numbers: list[int], lowest: UUID
) -> dict[int, list[StoredEvent]]:
    """The stored events of some batches, none of which is older than `lowest`, in order of id."""
    found = await rows(
        conn,
        f"""SELECT e.batch, {_EVENT} FROM events e
             WHERE e.id >= %s AND e.batch = ANY(%s) AND {OWNER} = %s ORDER BY e.id""",
        (lowest, numbers, organization_id),
    )
    kept: dict[int, list[StoredEvent]] = {}
    for each in found:
        kept.setdefault(each[0], []).append(_event(each[1:]))
    return kept


async def carried_leaf(conn: Conn, event: StoredEvent) -> bytes | None:
    """The leaf that a row carries with it; None in rows from before they did."""
    found = await rows(
        conn,
        f"""SELECT e.leaf FROM (SELECT %s::uuid AS customer_id, %s::timestamptz AS occurred_at, %s::uuid AS id) k
              JOIN events e ON {same("e", "k")}""",
        (event.customer_id, event.occurred_at, event.id),
    )
    return None if found[0][0] is None else found[0][0].bytes


async def voids_of(conn: Conn, event: StoredEvent) -> list[tuple[UUID, int]]:
    """The voids that take an event back, each with its batch."""
    found = await rows(
        conn,
        "SELECT id, batch FROM events WHERE customer_id = %s AND occurred_at = %s AND voids = %s",
        (event.customer_id, event.occurred_at, event.id),
    )
    return [(each[0], each[1]) for each in found]


async def stream_positions(
    conn: Conn, wanted: Span, *, page: int = 5_000
) -> AsyncIterator[tuple[StoredEvent, int]]:
    """The events of a span that counted then, and the voids, each with its position; in order of (occurred_at, id)."""
    after_at, after_id = wanted.span.start, UUID(int=0)
    while True:
        found = await rows(
            conn,
            f"""SELECT b.position, {_EVENT} FROM events e JOIN ingest_batches b ON b.batch = e.batch
                 WHERE e.customer_id = %(customer)s
                   AND {within("%(after_at)s::timestamptz", "%(end)s::timestamptz")}
                   AND (e.occurred_at, e.id) > (%(after_at)s, %(after_id)s)
                   AND e.feature_code = %(feature)s
                   AND b.organization_id = %(organization)s AND b.position <= %(position)s
                   AND (e.voids IS NOT NULL OR {_COUNTS})
                 ORDER BY {IN_ORDER} LIMIT %(limit)s""",
            {
                "organization": wanted.organization_id,
                "customer": wanted.customer_id,
                "end": wanted.span.end,
                "after_at": after_at,
                "after_id": after_id,
                "feature": wanted.meter.event_code,
                "position": wanted.position,
                "limit": page,
            },
        )
        for each in found:
            yield _event(each[1:]), each[0]
        if len(found) < page:
            return
        after_at, after_id = found[-1][5], found[-1][1]


async def stream_span(
    conn: Conn,
    *,
    customer_id: UUID,
    feature: str,
    span: Period,
    at_position: int,
    after_position: int = 0,
    page: int = 5_000,
) -> AsyncIterator[StoredEvent]:
    """All of `in_span`, a page at a time, so that a busy month does not fill the memory."""
    after: tuple[datetime, UUID] | None = None
    while True:
        found = await in_span(
            conn,
            customer_id=customer_id,
            feature=feature,
            span=span,
            at_position=at_position,
            after_position=after_position,
            after=after,
            limit=page,
        )
        for each in found:
            yield each
        if len(found) < page:
            return
        after = (found[-1].occurred_at, found[-1].id)
