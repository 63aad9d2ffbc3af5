"""Take the usual batch: one statement is all there is, and a transaction by itself."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from tallystick.core.admission import Admitted
from tallystick.core.events import StoredEvent
from tallystick.core.rows import Table
from tallystick.core.wallets import Draw
from tallystick.errors import Problem
from tallystick.flows.books import Book
from tallystick.flows.drafts import Accepted, Draft, Outcome, Outcomes, Taken, Work
from tallystick.flows.key_filters import held_among
from tallystick.flows.plain_batch import Judged
from tallystick.flows.repeats import Told, after_the_commit, tell_repeats
from tallystick.store import db, storing
from tallystick.store.db import Conn
from tallystick.store.event_keys import Held
from tallystick.store.sheets import Inserted, Sheet, StaleVersion


class _Old(NamedTuple):
    """What is known of keys that a filter takes for old ones."""

    held: Mapping[bytes, Held] = {}
    """Those that are, by hash."""
    apart: frozenset[int] = frozenset()
    """Places of events of which somebody else will find out."""


async def take_plain(
    conn: Conn, book: Book, drafts: Table[Draft], judged: Judged, now: datetime, *, old_apart: bool
) -> Taken | Sequence[Outcome | Draft | None]:
    """As `ingest.take`, of a batch that was `judged`; or, where a repeat is yet to be told, a sequence with None for it.
    Raises StaleVersion and NoPlenty; nothing is stored then."""
    sheet, standings = judged
    events, owners = Table.of(StoredEvent, sheet.events), [each.customer_id for each in standings]
    identities: Sequence[UUID] = events.columns[0]
    old = await _old(conn, book, sheet, owners, apart=old_apart)
    references = [each.reference for each in standings]
    if len(old.apart) == len(drafts):  # nothing is left to be stored
        return Taken(
            Outcomes(Table(Accepted, events, references, [False] * len(drafts)), {}), sorted(old.apart)
        )
    if old.held or old.apart:
        keyed = enumerate(zip(identities, sheet.key_hashes, strict=True))
        sheet = sheet._replace(
            older=[each for at, (each, key_hash) in keyed if at in old.apart or key_hash in old.held]
        )
    done = await _stored(conn, book, sheet, identities, now)
    if done.levels:
        events = events.but(draw=_draws(sheet, done, identities))
    accepted = Table(Accepted, events, references, [False] * len(drafts))
    if not done.repeats:
        return Taken(Outcomes(accepted, {}))
    work: dict[int, Work] = {}
    known = dict(old.held)
    for position, identity in enumerate(identities):
        if identity.int in done.repeats and position not in old.apart:
            key_hash, holder = sheet.key_hashes[position], done.repeats[identity.int]
            work[position] = Work(
                drafts[position], standings[position], Admitted(now, (), ()), key_hash, identity
            )
            if key_hash is not None and holder is not None:
                known[key_hash] = holder
    told: Told = dict.fromkeys(work)
    telling = tell_repeats(conn, book, work, told, known)
    await after_the_commit(telling, told, stored=len(done.repeats) < len(drafts))
    others = {position: each for position, each in told.items() if isinstance(each, Accepted | Problem)}
    if len(others) == len(told):
        return Taken(Outcomes(accepted, others), sorted(old.apart))
    return [
        None if position in old.apart else told.get(position, each) for position, each in enumerate(accepted)
    ]


async def _stored(
    conn: Conn, book: Book, sheet: Sheet, identities: Sequence[UUID], now: datetime
) -> Inserted:
    if len(sheet.older) == len(identities):
        # No head is locked, but what is told must be up to date all the same.
        if await db.version(conn, organization_id=book.organization.id) != book.version:
            raise StaleVersion
        return Inserted(0, dict.fromkeys(each.int for each in identities), [])
    await asyncio.sleep(0)  # judging took a while; so will packing, and in between somebody may ask
    return await storing.insert(
        conn,
        sheet,
        organization_id=book.organization.id,
        version=book.version,
        generation=book.generation,
        received_at=now,
    )


async def _old(conn: Conn, book: Book, sheet: Sheet, owners: Sequence[UUID], *, apart: bool) -> _Old:
    """Looked for at once, unless they are far and may be set `apart`. Where a filter is missing any key may be old:
    then there is nobody who need not wait. And who pays from a wallet does so in order of arrival."""
    sieve = book.sieve
    suspects = {} if sieve is None else sieve.may_hold(sheet.key_hashes)
    if sieve is None or not suspects:
        return _Old()
    places = frozenset(place for several in suspects.values() for place in several)
    if apart and book.filters.old_are_far and not sieve.asks_all and not sheet.costs.places:
        return _Old(apart=places)
    began = time.monotonic()
    held = await held_among(conn, sieve.before, suspects, owners, sheet.key_hashes)
    book.filters.took(time.monotonic() - began, len(places))
    return _Old(held)


def _draws(sheet: Sheet, done: Inserted, identities: Sequence[UUID]) -> list[Draw | None]:
    """What each stored event took of its wallet, as the statement wrote it."""
    draws: list[Draw | None] = [None] * len(identities)
    levels, costs = list(done.levels), sheet.costs
    models = [each.model for each in costs.tariffs]
    for place, amount, payer in zip(costs.places, costs.amounts, costs.payers, strict=True):
        if not done.repeats or identities[place].int not in done.repeats:
            levels[payer] = level = levels[payer] - amount
            draws[place] = Draw(models[payer], amount, level, blocked=False)
    return draws
