"""The usual batch, in short: nobody in it has a limit to ask, and every wallet has plenty, so `core.admission.plainly` says
of all events alike what `admit` would say of each. A test compares the two.

It is judged by columns, each in one go: what an event costs is mostly the steps from one thing to the next. Whether a
wallet has plenty, the statement finds that stores the batch; where one has not, nothing is stored.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from tallystick.core import ids
from tallystick.core.admission import plainly
from tallystick.core.events import StoredEvent, UsageEvent, marks
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.proof import header_marks, key_hashes
from tallystick.core.rows import Table
from tallystick.core.subscriptions import Plain, Standing
from tallystick.core.times import hour_of
from tallystick.flows.books import Book
from tallystick.flows.drafts import Draft
from tallystick.store.db import as_uuids, new_ids
from tallystick.store.places import bunches
from tallystick.store.sheets import Costs, Feeds, Sheet


class Judged(NamedTuple):
    """A batch as it is to be stored, and whose its events are."""

    sheet: Sheet
    standings: Sequence[Standing]


def plain_batch(book: Book, drafts: Table[Draft], *, now: datetime, latest: datetime) -> Judged | None:
    """None when one of its events must be looked at more closely."""
    sent, api_keys, headers, nths, adjusted, _, attempts = drafts.columns
    if any(adjusted) or any(attempts):
        return None
    if book.revoked_keys and not book.revoked_keys.isdisjoint(api_keys):
        return None
    events = Table.of(UsageEvent, sent)
    features, customers, values, keys, times, properties, others, _, calls = events.columns
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
    none = [None] * len(drafts)
    stored = Table(
        StoredEvent,
        as_uuids(bunches.place_numbers(_numbers(events, keys), owners, hours)),
        owners,
        features,
        values,
        happened,
        [now] * len(drafts),
        keys,
        [each is not None for each in times],
        properties,
        *[none] * 5,  # neither a correction nor a void, and paid for later
    )
    places = _places(drafts, owners, keys)
    sheet = Sheet(stored, places, header_marks(headers, nths), _feeds(features, terms), costs)
    return Judged(sheet, standings)


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


def _numbers(events: Table[UsageEvent], keys: Sequence[str | None]) -> list[int]:
    """New ids, as numbers, which say what was sent where an event has a key (`Draft.marked`)."""
    numbers = new_ids.numbers(len(events))
    marked = ids.all_marked(numbers, marks(events))
    if None not in keys:
        return marked
    return [
        number if key is None else with_mark
        for number, with_mark, key in zip(numbers, marked, keys, strict=True)
    ]


def _places(drafts: Table[Draft], owners: Sequence[UUID], keys: Sequence[str | None]) -> list[bytes | None]:
    """Where their keys live."""
    keyed = [each for each in keys if each is not None]
    if len(keyed) == len(keys):
        return [*key_hashes(owners, keyed)]
    return [each.place(owner) for each, owner in zip(drafts, owners, strict=True)]
