"""Batches as `flows/ingest` hands them to the store, of customers who need not exist."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.proof import key_hash
from tallystick.store.db import new_ids
from tallystick.store.sheets import Shares, Sheet

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


def batch_of(
    customers: Sequence[UUID], *, meter_id: UUID, keys: Sequence[str], feature: str = "api_calls"
) -> Sheet:
    """An event for each customer and key, worth 1.25 each, all in one hour."""
    sent = [(customer, key) for key in keys for customer in customers]
    events: list[StoredEvent] = []
    shares = Shares()
    for identity, (customer, key) in zip(new_ids(len(sent)), sent, strict=True):
        shares.add(len(events), meter_id, NOON, Decimal("1.25"))
        events.append(
            StoredEvent(
                identity,
                customer,
                feature,
                Decimal("1.25"),
                NOON,
                NOON,
                key,
                True,
                {"region": "eu"},
                None,
                None,
            )
        )
    return Sheet(events, [key_hash(customer, key) for customer, key in sent], [None] * len(sent), shares)
