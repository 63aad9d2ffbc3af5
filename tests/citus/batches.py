"""Batches as `flows/ingest` hands them to the store, of customers who need not exist."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.proof import key_hash
from tallystick.store.db import new_ids
from tallystick.store.events import HourShare, New

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


def batch_of(
    customers: Sequence[UUID], *, meter_id: UUID, keys: Sequence[str], feature: str = "api_calls"
) -> tuple[list[New], list[HourShare]]:
    """An event for each customer and key, worth 1.25 each, all in one hour."""
    sent = [(customer, key) for key in keys for customer in customers]
    batch, shares = [], []
    for identity, (customer, key) in zip(new_ids(len(sent)), sent, strict=True):
        event = StoredEvent(
            identity, customer, feature, Decimal("1.25"), NOON, NOON, key, True, {"region": "eu"}, None, None
        )
        batch.append(New(event, key_hash(key, 0), None))
        shares.append(HourShare(identity, customer, meter_id, NOON, event.value))
    return batch, shares
