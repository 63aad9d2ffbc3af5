"""The usual batch, in short: nobody in it has a limit to ask, and every wallet has plenty, so `core.admission.plainly` says
of all events alike what `admit` would say of each. A test compares the two.

Whether a wallet has plenty, the statement finds that stores the batch; where one has not, nothing is stored.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tallystick.core.admission import plainly
from tallystick.core.events import ONE, StoredEvent
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.times import hour_of
from tallystick.flows.books import Book
from tallystick.flows.drafts import Draft
from tallystick.store.db import as_uuids, new_ids
from tallystick.store.places import bunches
from tallystick.store.sheets import Costs, Shares, Sheet


def plain_batch(book: Book, drafts: Sequence[Draft], *, now: datetime, latest: datetime) -> Sheet | None:
    """The batch as it is to be stored, or None when one of its events must be looked at more closely."""
    revoked, standings, catalogue = book.revoked_keys, book.standings, book.catalogue
    this_hour, furthest = hour_of(now), latest + FUTURE_MAX
    identities: list[int] = []
    facts: list[tuple[Any, ...]] = []
    key_hashes: list[bytes | None] = []
    shares, costs = Shares(), Costs()
    for place, (draft, number) in enumerate(zip(drafts, new_ids.numbers(len(drafts)), strict=True)):
        feature, customer, value, key, occurred_at, properties, also_customer, _, call = draft.event
        standing = standings.get(customer)
        if (
            standing is None
            or draft.adjusts is not None
            or call is not None
            or also_customer is not None
            or (revoked and draft.api_key_id in revoked)
        ):
            return None
        plain = plainly(feature, catalogue, standing, now)
        if plain is None:
            return None
        if occurred_at is None:
            at, hour = now, this_hour
        elif plain.since <= occurred_at < plain.until and occurred_at <= furthest:
            at, hour = occurred_at, hour_of(occurred_at)
        else:
            return None
        for meter, counts in plain.meters:
            shares.add(place, meter, hour, ONE if counts else value)
        customer_id, tariff = standing.customer_id, plain.tariff
        if tariff is not None:
            costs.add(place, customer_id, tariff, value)
        identities.append(bunches.place_number(draft.marked(number), customer_id, hour))
        facts.append((customer_id, feature, value, at, now, key, occurred_at is not None, properties))
        key_hashes.append(draft.place(customer_id))
    events = [
        StoredEvent(identity, *each) for identity, each in zip(as_uuids(identities), facts, strict=True)
    ]
    return Sheet(events, key_hashes, [each.header_mark for each in drafts], shares, costs)
