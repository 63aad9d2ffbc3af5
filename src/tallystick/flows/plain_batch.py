"""The usual batch, in short: nobody in it has a limit to ask, and every wallet has plenty, so `core.admission.plainly` says
of all events alike what `admit` would say of each. A test compares the two.

It is judged by columns, each in one go: what an event costs is mostly the steps from one thing to the next. Whether a
wallet has plenty, the statement finds that stores the batch; where one has not, nothing is stored.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from uuid import UUID

from tallystick.core import ids
from tallystick.core.admission import plainly
from tallystick.core.events import StoredEvent, UsageEvent, marks
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.proof import key_hashes
from tallystick.core.rows import rows
from tallystick.core.subscriptions import Plain
from tallystick.core.times import hour_of
from tallystick.flows.books import Book
from tallystick.flows.drafts import Draft
from tallystick.store.db import as_uuids, new_ids
from tallystick.store.places import bunches
from tallystick.store.sheets import Costs, Feeds, Sheet


def plain_batch(book: Book, drafts: Sequence[Draft], *, now: datetime, latest: datetime) -> Sheet | None:
    """The batch as it is to be stored, or None when one of its events must be looked at more closely."""
    adjusted = [each.adjusts for each in drafts]
    if any(adjusted) or (
        book.revoked_keys and not book.revoked_keys.isdisjoint([each.api_key_id for each in drafts])
    ):
        return None
    events = [each.event for each in drafts]
    features, customers, values, keys, times, properties, others, _, calls = zip(*events, strict=True)
    if any(others) or any(calls):
        return None
    try:
        standings = [book.standings[each] for each in customers]
    except KeyError:
        return None
    terms: list[Plain] = []
    for feature, standing in zip(features, standings, strict=True):
        plain = plainly(feature, book.catalogue, standing, now)
        if plain is None:
            return None
        terms.append(plain)

    owners = [each.customer_id for each in standings]
    happened, hours = [now] * len(drafts), [hour_of(now)] * len(drafts)
    if any(times):
        if not _in_time(times, terms, latest + FUTURE_MAX):
            return None
        happened = [each or now for each in times]
        hours = [hour_of(each) for each in happened]
    costs = Costs()
    for place, (plain, owner, value) in enumerate(zip(terms, owners, values, strict=True)):
        if plain.tariff is not None:
            costs.add(place, owner, plain.tariff, value)
    stored = rows(
        StoredEvent,
        as_uuids(bunches.place_numbers(_numbers(events, keys), owners, hours)),
        owners,
        features,
        values,
        happened,
        repeat(now),
        keys,
        [each is not None for each in times],
        properties,
        *[repeat(None)] * 5,  # neither a correction nor a void, and paid for later
    )
    headers = [each.header_mark for each in drafts]
    return Sheet(stored, _places(drafts, owners), headers, _feeds(features, terms), costs)


def _in_time(times: Sequence[datetime | None], terms: Sequence[Plain], furthest: datetime) -> bool:
    """Whether everything happened while its terms hold, and nothing too far in the future."""
    return all(
        at is None or (plain.since <= at < plain.until and at <= furthest)
        for at, plain in zip(times, terms, strict=True)
    )


def _feeds(features: Sequence[str], terms: Sequence[Plain]) -> Feeds:
    """All events of a code feed the same meters."""
    fed = [
        (feature, meter, counts)
        for feature, plain in dict(zip(features, terms, strict=True)).items()
        for meter, counts in plain.meters
    ]
    return Feeds(*zip(*fed, strict=True))


def _numbers(events: Sequence[UsageEvent], keys: Sequence[str | None]) -> list[int]:
    """New ids, as numbers, which say what was sent where an event has a key (`Draft.marked`)."""
    numbers = new_ids.numbers(len(events))
    marked = ids.all_marked(numbers, marks(events))
    if None not in keys:
        return marked
    return [
        number if key is None else with_mark
        for number, with_mark, key in zip(numbers, marked, keys, strict=True)
    ]


def _places(drafts: Sequence[Draft], owners: Sequence[UUID]) -> list[bytes | None]:
    """Where their keys live."""
    keys = [each.event.key for each in drafts if each.event.key is not None and not each.key_attempt]
    if len(keys) == len(drafts):
        return [*key_hashes(owners, keys)]
    return [each.place(owner) for each, owner in zip(drafts, owners, strict=True)]
