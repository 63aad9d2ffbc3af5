"""Take usage events: decide, store, count, draw on limits, and notch the chain, all or nothing.

Order inside (ruling 10): lock the counters of limited customers; look up their keys under that lock; core
decides in arrival order; then one statement inserts keys, events and rollups and advances the chain's head.
Where there are no hard limits that statement is all there is, and commits by itself: one round trip. What lost a race is told apart by a statement of its own afterwards.
A refused event leaves nothing, and its key stays free.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from psycopg.pq import TransactionStatus

from tallystick.core import ids
from tallystick.core.admission import Admitted, Limit, admit, admit_adjustment, limit_reached
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.meters import Aggregation, Fold, Measured, Meter, fold, merge
from tallystick.core.money import ZERO
from tallystick.core.proof import header_hash, key_hash
from tallystick.core.subscriptions import Standing
from tallystick.core.times import hour_of, show_instant
from tallystick.core.windows import Ruled
from tallystick.errors import FieldError, InvalidRequest, Problem, must
from tallystick.flows.books import Book, Books
from tallystick.flows.measure_usage import measure_usage
from tallystick.flows.subscribe import grace_of
from tallystick.store import db, events, late, measuring, usage
from tallystick.store.db import Conn, new_ids
from tallystick.store.usage import Addition, CounterKey

log = logging.getLogger("tallystick.ingest")
_ATTEMPTS_MAX = 50


@dataclass(slots=True)
class Draft:
    """One decoded event on its way in, with what came around it."""

    event: UsageEvent
    api_key_id: UUID | None = None
    header: str | None = None  # the Idempotency-Key
    index: int | None = None  # its place in a batch
    adjusts: Meter | None = None  # set: a signed correction of that meter's total
    reason: str | None = None
    key_attempt: int = 0
    header_place: bytes | None = None

    def __post_init__(self) -> None:
        if self.header is not None:
            self.header_place = header_hash(self.header, self.index)

    @property
    def place(self) -> bytes | None:
        """Where its key lives; an event without a key of its own is known by its header (ruling 12)."""
        if self.event.key is not None:
            return key_hash(self.event.key, self.key_attempt)
        return self.header_place


class Accepted(NamedTuple):
    """Counted, now or (`replayed`) when it first came with this very header."""

    event: StoredEvent
    reference: str
    replayed: bool = False


Outcome = Accepted | Problem


class _LostRace(Exception):
    """Somebody took a key that was free a moment ago, while a limit was held for it: undo and judge anew."""


async def ingest(
    conn: Conn, books: Books, organization_id: UUID, drafts: Sequence[Draft], *, wall: datetime
) -> list[Outcome]:
    """Take a batch of one organization; answers in the order of the drafts, all of them on disk.

    On a connection that is in a transaction already, this becomes part of it.
    """
    book = await books.known(conn, organization_id)
    outcomes: list[Outcome | None] = [None] * len(drafts)
    for _ in range(_ATTEMPTS_MAX):
        pending = [position for position, outcome in enumerate(outcomes) if outcome is None]
        if not pending:
            return [outcome for outcome in outcomes if outcome is not None]
        try:
            found = await _attempt(conn, books, book, [drafts[position] for position in pending], wall)
        except events.StaleVersion:
            book = await books.refreshed(conn, organization_id)
            continue
        except _LostRace:
            continue
        except Exception:
            if len(pending) == len(drafts):
                raise
            break  # some are answered, and may be on disk: only the rest is in doubt
        for position, outcome in zip(pending, found, strict=True):
            outcomes[position] = outcome
    unknown = Problem("unavailable", "Not every event could be judged; try again.", retry_after_s=1)
    return [unknown if outcome is None else outcome for outcome in outcomes]


@dataclass(slots=True)
class _Work:
    draft: Draft
    standing: Standing
    admitted: Admitted
    place: bytes | None
    id: UUID

    @property
    def is_plain(self) -> bool:
        """Nothing to lock beforehand and nothing to add afterwards: the one statement does it all."""
        return (
            not self.admitted.limits
            and not self.admitted.late
            and all(meter.adds_up for meter, _ in self.admitted.contributions)
        )


async def _attempt(
    conn: Conn, books: Books, book: Book, drafts: Sequence[Draft], wall: datetime
) -> list[Outcome | None]:
    """Judge and store once. None for an event whose key must be looked for elsewhere: try that one again.

    Raises StaleVersion when the book is out of date; nothing is stored then.
    """
    outcomes: list[Outcome | None] = [None] * len(drafts)
    now = book.now(wall)
    latest = max(now, wall)
    references = {draft.event.customer for draft in drafts}
    references.update(draft.event.also_customer for draft in drafts if draft.event.also_customer)
    await books.learn(conn, book, references)

    work: dict[int, _Work] = {}
    for position, (draft, identity) in enumerate(zip(drafts, new_ids(len(drafts)), strict=True)):
        try:
            standing = _standing(book, draft)
        except Problem as problem:
            outcomes[position] = problem
            continue
        try:
            admitted = _judge(book, draft, standing, now, latest)
        except Problem as problem:
            outcomes[position] = problem
            admitted = Admitted(now, (), ())
        work[position] = _Work(draft, standing, admitted, draft.place, identity)

    in_transaction = conn.info.transaction_status is not TransactionStatus.IDLE
    plain = all(each.is_plain for each in work.values())
    if plain and not in_transaction:  # one statement is all there is, and a transaction by itself
        await _take(conn, book, work, outcomes, now, plain=True)
    else:
        async with conn.transaction():
            await _take(conn, book, work, outcomes, now, plain=plain)
    try:
        await _tell_repeats(conn, work, outcomes)
    except Exception as error:
        if in_transaction or not any(isinstance(outcome, Accepted) for outcome in outcomes):
            raise
        # What was stored is on disk and must be answered so; only the repeats stay untold.
        log.warning("ingest: repeats could not be looked up", exc_info=error)
        untold = Problem(
            "unavailable", "The database is not available; try again with the same keys.", retry_after_s=1
        )
        return [untold if outcome is None else outcome for outcome in outcomes]
    return outcomes


async def _take(
    conn: Conn,
    book: Book,
    work: dict[int, _Work],
    outcomes: list[Outcome | None],
    now: datetime,
    *,
    plain: bool,
) -> None:
    """Draw on limits, store, count; writes what was stored or refused into `outcomes`."""
    held = set[int]() if plain else await _draw_on_limits(conn, work, outcomes)
    to_store = {
        position: each
        for position, each in work.items()
        if outcomes[position] is None and position not in held
    }
    if not to_store:  # no head was locked, but the refusals must be up to date all the same
        if await db.version(conn, organization_id=book.organization.id) != book.version:
            raise events.StaleVersion
        return
    number, stored = await _store(conn, book, to_store, now)
    for position, event in stored.items():
        outcomes[position] = Accepted(event, to_store[position].standing.reference)
    if not plain:
        if any(each.admitted.limits for position, each in to_store.items() if position not in stored):
            raise _LostRace
        fresh = [to_store[position] for position in stored]
        await _count_others(conn, fresh, number)
        await _mark_late(conn, book, fresh, now)


def _standing(book: Book, draft: Draft) -> Standing:
    if draft.api_key_id in book.revoked_keys:
        raise Problem("unauthorized")
    event = draft.event
    standing = book.standings.get(event.customer)
    if standing is None:
        raise Problem("customer_not_found", f"There is no customer {event.customer!r}.", param="customerId")
    if event.also_customer is not None and book.standings.get(event.also_customer) != standing:
        raise InvalidRequest(FieldError("externalId", "names another customer than customerId"))
    return standing


def _judge(book: Book, draft: Draft, standing: Standing, now: datetime, latest: datetime) -> Admitted:
    if draft.adjusts is None:
        return admit(draft.event, book.catalogue, standing, now=now, latest=latest)
    return admit_adjustment(draft.event, draft.adjusts, book.catalogue, standing, now=now)


async def _store(
    conn: Conn, book: Book, work: dict[int, _Work], now: datetime
) -> tuple[int, dict[int, StoredEvent]]:
    """The batch's number and what of it was new, by position."""
    batch: list[events.New] = []
    shares: list[events.HourShare] = []
    for each in work.values():
        draft, event, admitted = each.draft, each.draft.event, each.admitted
        to_keep = StoredEvent(
            each.id,
            each.standing.customer_id,
            event.feature,
            event.value,
            admitted.occurred_at,
            now,
            event.key,
            event.occurred_at is not None,
            event.properties,
            draft.adjusts.feature_id if draft.adjusts else None,
            draft.reason,
        )
        batch.append(events.New(to_keep, each.place, draft.header_place))
        for meter, measured in admitted.contributions:
            if meter.adds_up or measured.distinct:
                shares.append(
                    events.HourShare(
                        each.id,
                        each.standing.customer_id,
                        meter.id,
                        hour_of(admitted.occurred_at),
                        ZERO if measured.distinct else measured.quantity,
                    )
                )
    done = await events.insert(
        conn, batch, shares, organization_id=book.organization.id, version=book.version, received_at=now
    )
    if done.version != book.version:
        raise events.StaleVersion
    return done.number, {
        position: new.event
        for position, new in zip(work, batch, strict=True)
        if new.event.id.int not in done.repeats
    }


async def _count_others(conn: Conn, fresh: Sequence[_Work], number: int) -> None:
    """Maxima, newest and distinct values, which do not add up, for the events that were stored."""
    maxima: list[Addition] = []
    latest: list[Addition] = []
    values: list[Addition] = []
    for each in fresh:
        for meter, measured in each.admitted.contributions:
            if meter.adds_up:
                continue
            addition = Addition(
                each.standing.customer_id,
                meter.feature_id,
                meter.id,
                hour_of(each.admitted.occurred_at),
                measured.quantity,
                measured.distinct,
                measured.at,
            )
            (values if measured.distinct else latest if measured.at else maxima).append(addition)
    if maxima:
        await usage.raise_maxima(conn, maxima, number=number)
    if latest:
        await usage.renew_latest(conn, latest, number=number)
    if values:
        await usage.add_values(conn, values)


async def _mark_late(conn: Conn, book: Book, fresh: Sequence[_Work], now: datetime) -> None:
    """Note what may have missed its invoice; `settle_late` decides what becomes of it."""
    marked = [each for each in fresh if each.admitted.late]
    if marked:
        await late.mark(
            conn,
            organization_id=book.organization.id,
            customers=[each.standing.customer_id for each in marked],
            events=[each.id for each in marked],
            occurred=[each.admitted.occurred_at for each in marked],
            received_at=now,
            due_at=now + grace_of(book.organization),
        )


async def _draw_on_limits(conn: Conn, work: dict[int, _Work], outcomes: list[Outcome | None]) -> set[int]:
    """Decide, in arrival order, which events fit into hard limits; writes refusals into `outcomes`.

    Returns the positions that must not be inserted because their key is taken already.
    """
    limited = {position: each for position, each in work.items() if each.admitted.limits}
    if not limited:
        return set()
    spans: dict[CounterKey, Limit] = {}
    values: defaultdict[CounterKey, set[bytes]] = defaultdict(set)
    for each in limited.values():
        for limit in each.admitted.limits:
            key = _counter(each, limit)
            spans.setdefault(key, limit)
            if limit.adds.distinct is not None:
                values[key].add(limit.adds.distinct)
    counters = await usage.lock_counters(conn, keys=list(spans))
    drawn: dict[CounterKey, _Drawn] = {}
    for key, limit in spans.items():
        used, at, met = counters[key], None, frozenset[bytes]()
        if used is None or not limit.meter.adds_up:
            _, used, at = await measure_usage(
                conn, customer_id=key.customer_id, meter=limit.meter, span=limit.period
            )
        if values[key]:
            part = Ruled(limit.meter, (limit.period.start, limit.period.end))
            met = await measuring.met_in(
                conn, customer_id=key.customer_id, part=part, values=list(values[key])
            )
        drawn[key] = _Drawn(used, at, met)
    keyed = [each for each in limited.values() if each.place is not None]
    taken = set(
        await events.holders(
            conn,
            customers=[each.standing.customer_id for each in keyed],
            key_hashes=[each.place for each in keyed if each.place is not None],
        )
    )
    held: set[int] = set()
    for position, each in work.items():
        if outcomes[position] is not None:
            continue
        place = (each.standing.customer_id, each.place) if each.place is not None else None
        if place in taken:
            held.add(position)
            continue
        if not each.admitted.limits:
            if place is not None:
                taken.add(place)  # it comes first, so it will have the key
            continue
        after = {}
        for limit in each.admitted.limits:
            key = _counter(each, limit)
            after[key] = drawn[key].plus(limit.meter, limit.adds)
            if after[key].used > limit.included and after[key].used > drawn[key].used:
                outcomes[position] = limit_reached(limit, drawn[key].used)
                break
        else:
            drawn.update(after)
            if place is not None:
                taken.add(place)
    await usage.set_counters(conn, used={key: each.used for key, each in drawn.items()})
    return held


def _counter(each: _Work, limit: Limit) -> CounterKey:
    return CounterKey(each.standing.customer_id, limit.subscription_id, limit.feature_id, limit.period.start)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """How much of a limit is used; since when, for LATEST; which of the batch's values were met, for UNIQUE."""

    used: Decimal
    at: datetime | None
    met: frozenset[bytes]

    def plus(self, meter: Meter, adds: Measured) -> "_Drawn":
        match meter.aggregation:
            case Aggregation.UNIQUE:
                if adds.distinct is None or adds.distinct in self.met:
                    return self
                return replace(self, used=self.used + 1, met=self.met | {adds.distinct})
            case Aggregation.MAX:
                return replace(self, used=max(self.used, adds.quantity))
            case Aggregation.LATEST:
                before = Fold(1, self.used, at=self.at)
                after = merge(meter, [before, fold(meter, [adds])])
                return replace(self, used=after.quantity, at=after.at)
        return replace(self, used=self.used + adds.quantity)


async def _tell_repeats(conn: Conn, work: dict[int, _Work], outcomes: list[Outcome | None]) -> None:
    """What was not stored may hold a key that is taken: tell a replay, a duplicate and a conflict apart.

    Refusals are looked at too: a repeat of a stored event is a repeat, whatever else has become of it (ruling 11).
    """
    suspects = {
        position: each
        for position, each in work.items()
        if each.place is not None and not isinstance(outcomes[position], Accepted)
    }
    must(
        all(outcome or place in suspects for place, outcome in enumerate(outcomes)),
        "only keyed events repeat",
    )
    if not suspects:
        return
    holders = await events.holders(
        conn,
        customers=[each.standing.customer_id for each in suspects.values()],
        key_hashes=[each.place for each in suspects.values() if each.place is not None],
    )
    mine = {each.id for each in work.values()} if any(outcomes[position] for position in suspects) else set()
    for position, each in suspects.items():
        holder = holders.get((each.standing.customer_id, each.place or b""))
        if holder is None:
            continue  # None stays None: look again
        if outcomes[position] is not None and holder.event.id in mine and holder.event.id > each.id:
            continue  # refused, and its key was free: what holds it now came after it, in this very batch
        event = each.draft.event
        if event.key is not None and holder.event.key is not None and holder.event.key != event.key:
            each.draft.key_attempt += 1  # two keys, one hash: this one moves on
            outcomes[position] = None
            continue
        outcomes[position] = _repeat(each, holder)


def _repeat(each: _Work, holder: events.Holder) -> Outcome:
    event, stored = each.draft.event, holder.event
    identical = event.as_sent() == stored.as_sent()
    same_header = each.draft.header is not None and each.draft.header_place == (
        bytes(holder.header_hash) if holder.header_hash is not None else None
    )
    if identical and same_header:
        return Accepted(stored, each.standing.reference, replayed=True)
    details = {
        "identical": identical,
        "id": ids.show(ids.EVENT, stored.id),
        "ts": show_instant(stored.occurred_at),
        "receivedAt": show_instant(stored.received_at),
    }
    if event.key is None:
        return Problem("idempotency_key_mismatch", details=details)
    return Problem(
        "duplicate",
        f"The key {event.key!r} was already recorded for this customer"
        + (", with the same content." if identical else ", with other content."),
        param=each.draft.event.key_field,
        details=details,
    )
