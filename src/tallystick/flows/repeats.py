"""Repeats: what is told of events whose key is taken.

The row of a key is enough for most of them: its event's id says what was sent (`Work.is_marked_in`). The event itself is
read where that was something else, or where it came with this very header and its answer is given again: it lies among
its bunch, each on a page of its own, and old ones on disk.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from tallystick.core import ids
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.times import show_instant
from tallystick.errors import Problem, must
from tallystick.flows.books import Book
from tallystick.flows.drafts import Accepted, Draft, Outcome, Work
from tallystick.store import event_keys, events
from tallystick.store.db import Conn
from tallystick.store.event_keys import Held, Looked

log = logging.getLogger("tallystick.ingest")

Told = dict[int, Outcome | Draft | None]
"""What is known of drafts, by their positions: an outcome, or nothing yet (None), or that another draft is to be tried."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a key already belongs to. `event` is None where its key's row says enough, and of one that is archived."""

    key: Held
    event: StoredEvent | None

    def has_another_key_than(self, draft: Draft) -> bool:
        """Two keys may have one hash."""
        event = self.event
        return event is not None and event.key is not None and draft.event.key not in (None, event.key)


async def tell_repeats(
    conn: Conn, book: Book, work: dict[int, Work], outcomes: Told, older: Mapping[bytes, Held]
) -> None:
    """What was not stored may hold a key that is taken: tell a replay, a duplicate and a conflict apart.

    Refusals are looked at too: a repeat of a stored event is a repeat, whatever else has become of it (ruling 11).
    """
    suspects = {
        position: each
        for position, each in work.items()
        if each.place is not None and not isinstance(outcomes[position], Accepted)
    }
    must(
        all(outcome or position in suspects for position, outcome in outcomes.items()),
        "only keyed events repeat",
    )
    if not suspects:
        return
    holders = await holders_of(conn, book, list(suspects.values()), older)
    mine = {each.id for each in work.values()} if any(outcomes[position] for position in suspects) else set()
    for position, each in suspects.items():
        holder = holders.get(each.place or b"")
        if holder is None:
            continue  # None stays None: look again
        if outcomes[position] is not None and holder.key.event_id in mine and holder.key.event_id > each.id:
            continue  # refused, and its key was free: what holds it now came after it, in this very batch
        if holder.has_another_key_than(each.draft):
            outcomes[position] = each.draft.elsewhere
            continue
        outcomes[position] = repeat(each, holder)


async def after_the_commit(telling: Awaitable[None], told: Told, *, stored: bool) -> None:
    """What was `stored` is on disk and must be answered so, whatever else can be told."""
    try:
        await telling
    except Exception as error:
        if not stored:
            raise
        log.warning("ingest: repeats could not be looked up", exc_info=error)
        for position, each in told.items():
            if each is None:
                told[position] = Problem(
                    "unavailable",
                    "The database is not available; try again with the same keys.",
                    retry_after_s=1,
                )


async def holders_of(
    conn: Conn, book: Book, suspects: Sequence[Work], older: Mapping[bytes, Held]
) -> dict[bytes, Holder]:
    """By hash: those of `older`, or else of the generation where they would have gone."""
    keyed = [(each, each.place) for each in suspects if each.place is not None]
    held = dict(older)
    fresh = [(each.standing.customer_id, place) for each, place in keyed if place not in older]
    if fresh:
        customers, places = zip(*fresh, strict=True)
        held |= await event_keys.held(conn, Looked(book.generation, customers, places))
    known = [(each, place, held[place]) for each, place in keyed if place in held]
    unclear = {
        key.event_id: (each.standing.customer_id, key.occurred_at)
        for each, _, key in known
        if _is_retried(each.draft, key) or not each.is_marked_in(key.event_id)
    }
    read = await events.at(conn, unclear) if unclear else {}
    return {place: Holder(key, read.get(key.event_id)) for _, place, key in known}


def repeat(each: Work, holder: Holder) -> Outcome:
    """What is told of a draft whose key or header is that of a stored event."""
    draft, key, stored = each.draft, holder.key, holder.event
    identical: bool | None = each.is_marked_in(key.event_id) or None
    if stored is not None:
        identical = draft.event.as_sent() == stored.as_sent()
        if identical and _is_retried(draft, key):
            return Accepted(stored, each.standing.reference, replayed=True)
    where = {
        "id": ids.show(ids.EVENT, key.event_id),
        "ts": show_instant(key.occurred_at),
    }
    if draft.event.key is not None:
        return duplicate(draft.event, identical, **where)
    if stored is not None:
        return Problem("idempotency_key_mismatch", details={"identical": identical, **where})
    return Problem(
        "duplicate",
        "This Idempotency-Key came with an event before, which is archived.",
        details={"identical": None, **where},
    )


def _is_retried(draft: Draft, key: Held) -> bool:
    """Whether the event came with this very header."""
    return draft.header_mark is not None and draft.header_mark == key.header_mark


def duplicate(event: UsageEvent, identical: bool | None, **where: str) -> Problem:
    """The refusal of an event whose key is taken, by the same content, or other content, or nobody can say (None)."""
    content = {
        True: ", with the same content.",
        False: ", with other content.",
        None: "; the event is archived.",
    }
    return Problem(
        "duplicate",
        f"The key {event.key!r} was already recorded for this customer{content[identical]}",
        param=event.key_field,
        details={"identical": identical, **where},
    )
