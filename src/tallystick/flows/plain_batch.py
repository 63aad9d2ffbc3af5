"""The usual batch, in short: nobody in it has a limit to ask, and every wallet has plenty, so `core.admission.plainly` says
of all events alike what `admit` would say of each. A test compares the two.

Whether a wallet has plenty, the statement finds that stores the batch; where one has not, nothing is stored.
"""

from collections.abc import Sequence
from datetime import datetime

from tallystick.core.admission import plainly
from tallystick.core.events import ONE, StoredEvent
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.times import hour_of
from tallystick.flows.books import Book
from tallystick.flows.drafts import Draft
from tallystick.store.db import new_ids
from tallystick.store.places import bunches
from tallystick.store.sheets import Costs, Shares, Sheet


def plain_batch(book: Book, drafts: Sequence[Draft], *, now: datetime, latest: datetime) -> Sheet | None:
    """The batch as it is to be stored, or None when one of its events must be looked at more closely."""
    revoked, standings, catalogue = book.revoked_keys, book.standings, book.catalogue
    this_hour, furthest = hour_of(now), latest + FUTURE_MAX
    stored: list[StoredEvent] = []
    key_hashes: list[bytes | None] = []
    shares, costs = Shares(), Costs()
    for draft, identity in zip(drafts, new_ids(len(drafts)), strict=True):
        event = draft.event
        feature, occurred_at = event.feature, event.occurred_at
        standing = standings.get(event.customer)
        if (
            standing is None
            or draft.adjusts is not None
            or event.call is not None
            or event.also_customer is not None
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
            shares.add(len(stored), meter, hour, ONE if counts else event.value)
        tariff = plain.tariff
        if tariff is not None:
            costs.add(len(stored), standing.customer_id, tariff, event.value)
        stored.append(
            StoredEvent(
                bunches.place(identity, standing.customer_id, hour),
                standing.customer_id,
                feature,
                event.value,
                at,
                now,
                event.key,
                occurred_at is not None,
                event.properties,
            )
        )
        key_hashes.append(draft.place(standing.customer_id))
    return Sheet(stored, key_hashes, [each.header_mark for each in drafts], shares, costs)
