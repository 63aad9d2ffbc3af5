"""Take usage events: decide, store, count, draw on limits, and notch the chain, all or nothing.

Order inside (ruling 10, docs/decisions/0019): lock the wallets and counters of limited customers; look up their keys
under that lock; core decides in arrival order; then one statement inserts keys, events and rollups and advances the
chain's head. Where nothing is limited that statement is all there is, and commits by itself: one round trip, which also
says who has the keys of repeats (`take_plain`). What lost a race is told apart by a statement of its own afterwards. Keys
that a filter takes for old ones are looked for in frozen generations beforehand: those never change
(docs/decisions/0024). A refused event leaves nothing, and its key stays free.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from tallystick.core.admission import Admitted, admit, admit_adjustment
from tallystick.core.events import StoredEvent
from tallystick.core.money import ZERO
from tallystick.core.rows import Table
from tallystick.core.subscriptions import Standing
from tallystick.core.times import hour_of
from tallystick.errors import Problem
from tallystick.flows.books import Book, Books
from tallystick.flows.drafts import Accepted, Draft, Outcome, Taken, Work
from tallystick.flows.draw_on_limits import Limits
from tallystick.flows.draw_on_wallets import Wallets
from tallystick.flows.key_filters import held_before
from tallystick.flows.plain_batch import plain_batch
from tallystick.flows.repeats import Told, after_the_commit, tell_repeats
from tallystick.flows.subscribe import grace_of
from tallystick.flows.take_plain import take_plain
from tallystick.store import ai_costs, db, event_keys, late, storing, usage
from tallystick.store.ai_costs import EventCost
from tallystick.store.db import Conn, new_ids
from tallystick.store.event_keys import Held
from tallystick.store.places import bunches
from tallystick.store.sheets import NoPlenty, Shares, Sheet, StaleVersion
from tallystick.store.usage import Addition

_ATTEMPTS_MAX = 50


class TooMany(Exception):
    """What was sent has to be judged at length and is more than may be so in one go. Nothing has happened."""


class _LostRace(Exception):
    """Somebody took a key that was free a moment ago, while a limit was held for it: undo and judge anew."""


async def ingest(
    conn: Conn, books: Books, organization_id: UUID, drafts: Sequence[Draft], *, wall: datetime
) -> Sequence[Outcome]:
    """Take a batch of one organization; answers in the order of the drafts, all of them on disk.

    On a connection that is in a transaction already, this becomes part of it.
    """
    return (await take(conn, books, organization_id, drafts, wall=wall)).outcomes


async def take(
    conn: Conn,
    books: Books,
    organization_id: UUID,
    drafts: Sequence[Draft],
    *,
    wall: datetime,
    at_length_max: int | None = None,
    old_apart: bool = False,
) -> Taken:
    """As `ingest`. `old_apart`: events whose keys may be old ones may be left for later, so that the others need not wait
    while those are looked for. Raises TooMany where more than `at_length_max` would have to be judged at length.
    """
    if not drafts:
        return Taken([])
    in_transaction = conn.info.transaction_status is not TransactionStatus.IDLE
    book = await books.known(conn, organization_id)
    outcomes: dict[int, Outcome] = {}
    pending: Sequence[int] = range(len(drafts))
    waiting = drafts  # those of `pending`
    for _ in range(_ATTEMPTS_MAX):
        try:
            found = await _attempt(
                conn,
                books,
                book,
                Table.of(Draft, waiting),
                wall,
                at_length_max=None if outcomes else at_length_max,
                old_apart=old_apart and not outcomes,
            )
        except StaleVersion:
            book = await books.refreshed(conn, organization_id)
            continue
        except _LostRace:
            continue
        except psycopg.errors.DeadlockDetected:
            if in_transaction:
                raise
            continue  # all of it was undone to let somebody else pass
        except Exception:
            if not outcomes:
                raise
            break  # some are answered, and may be on disk: only the rest is in doubt
        if isinstance(found, Taken):
            if not outcomes:
                return found
            found = found.outcomes
        again: dict[int, Draft] = {}
        for position, draft, told in zip(pending, waiting, found, strict=True):
            if told is None or isinstance(told, Draft):
                again[position] = told or draft
            else:
                outcomes[position] = told
        if not again:
            return Taken([outcomes[position] for position in range(len(drafts))])
        pending, waiting = [*again], [*again.values()]
    unknown = Problem("unavailable", "Not every event could be judged; try again.", retry_after_s=1)
    return Taken([outcomes.get(position, unknown) for position in range(len(drafts))])


async def _attempt(
    conn: Conn,
    books: Books,
    book: Book,
    drafts: Table[Draft],
    wall: datetime,
    *,
    at_length_max: int | None,
    old_apart: bool,
) -> Taken | Sequence[Outcome | Draft | None]:
    """Judge and store once. Of an event whose key must be looked for again, None; of one whose key lives elsewhere, the
    draft that looks there.

    Raises StaleVersion when the book is out of date, and TooMany; nothing is stored then.
    """
    now = book.now(wall)
    latest = max(now, wall)
    in_transaction = conn.info.transaction_status is not TransactionStatus.IDLE
    judged = None if in_transaction else plain_batch(book, drafts, now=now, latest=latest)
    if judged is None:
        named = {each for draft in drafts for each in draft.event.customers}
        if await books.learn(conn, book, named) and not in_transaction:
            judged = plain_batch(book, drafts, now=now, latest=latest)
    if judged is not None:
        with suppress(NoPlenty):
            return await take_plain(conn, book, drafts, judged, now, old_apart=old_apart)
    if at_length_max is not None and len(drafts) > at_length_max:
        raise TooMany

    outcomes: Told = dict.fromkeys(range(len(drafts)))
    work: dict[int, Work] = {}
    for position, (draft, number) in enumerate(zip(drafts, new_ids.numbers(len(drafts)), strict=True)):
        try:
            standing = standing_of(book, draft)
        except Problem as problem:
            outcomes[position] = problem
            continue
        try:
            admitted = judge(book, draft, standing, now, latest)
        except Problem as problem:
            outcomes[position] = problem
            admitted = Admitted(now, (), ())
        hour = hour_of(admitted.occurred_at)
        identity = bunches.place(UUID(int=draft.marked(number)), standing.customer_id, hour)
        work[position] = Work(draft, standing, admitted, draft.place(standing.customer_id), identity)

    older = await held_before(
        conn,
        book.sieve,
        [each.standing.customer_id for each in work.values()],
        [each.place for each in work.values()],
    )
    plain = all(each.is_plain for each in work.values())
    if plain and not in_transaction:  # one statement is all there is, and a transaction by itself
        await _take(conn, book, work, outcomes, now, older, plain=True)
    else:
        async with conn.transaction() if in_transaction else db.pipelined(conn):
            await _take(conn, book, work, outcomes, now, older, plain=plain)
    if in_transaction:
        await tell_repeats(conn, book, work, outcomes, older)
    else:
        stored = any(isinstance(each, Accepted) for each in outcomes.values())
        await after_the_commit(tell_repeats(conn, book, work, outcomes, older), outcomes, stored=stored)
    return list(outcomes.values())


async def _take(
    conn: Conn,
    book: Book,
    work: dict[int, Work],
    outcomes: Told,
    now: datetime,
    older: Mapping[bytes, Held],
    *,
    plain: bool,
) -> None:
    """Draw on limits, store, count; writes what was stored or refused into `outcomes`."""
    drawing = _NOTHING_DRAWN if plain else await _draw(conn, book, work, outcomes, now, older)
    to_store = {
        position: each
        for position, each in work.items()
        if outcomes[position] is None and position not in drawing.held
    }
    if not to_store:  # no head was locked, but the refusals must be up to date all the same
        if await db.version(conn, organization_id=book.organization.id) != book.version:
            raise StaleVersion
        return
    number, stored = await _store(conn, book, to_store, now, drawing.number, older)
    for position, event in stored.items():
        outcomes[position] = Accepted(event, to_store[position].standing.reference)
    if not plain:
        lost = [each.admitted for position, each in to_store.items() if position not in stored]
        if any(each.limits or each.spend for each in lost):
            raise _LostRace
        fresh = [to_store[position] for position in stored]
        await _count_others(conn, fresh, number)
        await _keep_costs(conn, book, fresh)
        await _mark_late(conn, book, fresh, now)


def standing_of(book: Book, draft: Draft) -> Standing:
    """Whose it is. Raises Problem."""
    if draft.api_key_id in book.revoked_keys:
        raise Problem("unauthorized")
    return book.standing_of(draft.event)


def judge(book: Book, draft: Draft, standing: Standing, now: datetime, latest: datetime) -> Admitted:
    """Whether the draft may count by what the catalogue says. Raises Problem."""
    if draft.adjusts is None:
        return admit(
            draft.event,
            book.catalogue,
            standing,
            now=now,
            latest=latest,
            price_tokens=book.price_tokens,
        )
    return admit_adjustment(draft.event, draft.adjusts, book.catalogue, standing, now=now)


async def _store(
    conn: Conn,
    book: Book,
    work: dict[int, Work],
    now: datetime,
    number: int | None,
    older: Mapping[bytes, Held],
) -> tuple[int, dict[int, StoredEvent]]:
    """The batch's number and what of it was new, by position."""
    stored: list[StoredEvent] = []
    shares = Shares()
    for each in work.values():
        draft, event, admitted = each.draft, each.draft.event, each.admitted
        for meter, measured in admitted.contributions:
            if meter.adds_up or measured.distinct:
                shares.add(
                    len(stored),
                    meter.id,
                    hour_of(admitted.occurred_at),
                    ZERO if measured.distinct else measured.quantity,
                )
        stored.append(
            StoredEvent(
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
                draw=each.draw,
            )
        )
    done = await storing.insert(
        conn,
        Sheet(
            stored,
            [each.place for each in work.values()],
            [each.draft.header_mark for each in work.values()],
            shares,
            older=[each.id for each in work.values() if each.place in older],
        ),
        organization_id=book.organization.id,
        version=book.version,
        generation=book.generation,
        received_at=now,
        number=number,
    )
    return done.number, {
        position: event
        for position, event in zip(work, stored, strict=True)
        if event.id.int not in done.repeats
    }


async def _count_others(conn: Conn, fresh: Sequence[Work], number: int) -> None:
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


async def _keep_costs(conn: Conn, book: Book, fresh: Sequence[Work]) -> None:
    """What AI calls cost, with the prices they were paid by."""
    costs = [
        EventCost(
            each.standing.customer_id,
            each.id,
            share.feature_id,
            each.admitted.spend.subscription_id,
            each.admitted.occurred_at,
            share.tokens,
        )
        for each in fresh
        if each.admitted.spend is not None
        for share in each.admitted.spend.shares
        if share.tokens is not None
    ]
    if costs:
        await ai_costs.insert(conn, costs, organization_id=book.organization.id)


async def _mark_late(conn: Conn, book: Book, fresh: Sequence[Work], now: datetime) -> None:
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


async def _draw(
    conn: Conn,
    book: Book,
    work: dict[int, Work],
    outcomes: Told,
    now: datetime,
    older: Mapping[bytes, Held],
) -> "_Drawing":
    """Decide, in arrival order, which events fit into hard limits and wallets; writes refusals into `outcomes`."""
    drawing = [each for each in work.values() if each.admitted.limits or each.admitted.spend]
    if not drawing:
        return _NOTHING_DRAWN
    # Whatever is to be locked, in its order; then the keys, by a statement that sees what was waited for.
    claimed = await Wallets.claim(conn, book, drawing, now=now)
    limits = await Limits.held(conn, drawing)
    keyed = [each for each in drawing if each.place is not None]
    asked = await event_keys.taken(
        conn,
        customers=[each.standing.customer_id for each in keyed],
        key_hashes=[each.place for each in keyed if each.place is not None],
        generation=book.generation,
    )
    wallets, taken = await claimed(), {*await asked(), *older}
    held: set[int] = set()
    for position, each in work.items():
        if outcomes[position] is not None:
            continue
        if each.place in taken:
            held.add(position)
            continue
        refusal = limits.refusal(each) or wallets.refusal(each)
        if refusal is not None:
            outcomes[position] = refusal
            continue
        if each.place is not None:
            taken.add(each.place)  # it comes first, so it will have the key
    await limits.keep(conn)
    return _Drawing(held, await wallets.keep(conn, now=now))


class _Drawing(NamedTuple):
    held: set[int]  # positions that must not be inserted because their key is taken already
    number: int | None  # of the batch, where something refers to it beforehand


_NOTHING_DRAWN = _Drawing(set(), None)
