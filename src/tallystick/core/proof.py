"""Proof: digests of events and event sets, and the chain of ingest batches.

A leaf is 16 bytes of SHA-256 over every field of a stored event. A batch's digest covers its leaves and the
digest before it, so no row can be added, changed or removed later without the chain telling. A line's digest
covers the leaves of the very events it bills, in the order they happened.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Final
from uuid import UUID

from tallystick.core.events import StoredEvent, properties_as_text
from tallystick.core.money import text
from tallystick.core.rows import Table, each_of

LEAF_BYTES: Final = 16
GENESIS: Final = sha256(b"tallystick").digest()


def leaf(event: StoredEvent) -> bytes:
    """Text in the database never holds a NUL, so NUL parts the fields without ambiguity."""
    facts = _fields(event.feature, event.value, event.occurred_at, event.received_at)
    rest = _after(event.timed, event.adjusts, event.reason, event.properties)
    said = (
        f"{_before(event.voids)}{event.id.hex}\0{event.customer_id.hex}\0{facts}\0{event.key or ''}\0{rest}"
    )
    return sha256(said.encode()).digest()[:LEAF_BYTES]


def leaves(events: Sequence[StoredEvent]) -> list[bytes]:
    """The `leaf` of each, for less; at least one."""
    (
        identities,
        customers,
        features,
        values,
        occurred,
        received,
        keys,
        timed,
        properties,
        adjusts,
        reasons,
        voids,
        *_,
    ) = Table.of(StoredEvent, events).columns
    before = each_of(_before, voids)
    between = each_of(_fields, features, values, occurred, received)
    after = each_of(_after, timed, adjusts, reasons, properties)
    return [
        sha256(f"{void}{identity}\0{customer}\0{fields}\0{key or ''}\0{rest}".encode()).digest()[:LEAF_BYTES]
        for void, identity, customer, fields, key, rest in zip(
            before, _hexes(identities), _hexes(customers), between, keys, after, strict=True
        )
    ]


def _hexes(uuids: Sequence[UUID]) -> list[str]:
    return b"".join([each.int.to_bytes(16) for each in uuids]).hex("-", 16).split("-")


def _before(voids: UUID | None) -> str:
    return f"void of {voids.hex}\0" if voids else ""


@lru_cache(maxsize=1024)
def _fields(feature: str, value: Decimal, occurred: datetime, received: datetime) -> str:
    """What many events of a batch have in common; times are always UTC here."""
    return f"{feature}\0{text(value)}\0{occurred.isoformat()}\0{received.isoformat()}"


def _after(timed: bool, adjusts: UUID | None, reason: str | None, properties: Mapping[str, str]) -> str:
    said = f"{'t' if timed else ''}\0{adjusts.hex if adjusts else ''}\0{reason or ''}"
    return said + properties_as_text(properties) if properties else said


def link(previous: bytes, position: int, leaves: bytes) -> bytes:
    """The chain's digest after a batch: position `position` of its organization, right after `previous`."""
    return sha256(previous + position.to_bytes(8) + leaves).digest()


def set_digest(leaves: Iterable[bytes]) -> str:
    """The digest of an event set, as hex: its leaves in order of (occurred_at, id)."""
    running = sha256()
    for each in leaves:
        running.update(each)
    return running.hexdigest()


def key_hash(customer_id: UUID, key: str, attempt: int = 0) -> bytes:
    """Where a customer's key lives in the key table. `attempt` moves on when another key holds that place."""
    return _of_customer(customer_id, sha256(b"key\0" + attempt.to_bytes(2) + key.encode()).digest())


def key_hashes(customers: Iterable[UUID], keys: Iterable[str]) -> list[bytes]:
    """The `key_hash` of each, at the first attempt."""
    return [
        sha256(customer.int.to_bytes(16) + sha256(b"key\0\0\0" + key.encode()).digest()[:16]).digest()[:16]
        for customer, key in zip(customers, keys, strict=True)
    ]


def void_hash(customer_id: UUID, event_id: UUID) -> bytes:
    """Where the void of an event lives: a namespace of its own, so that an event is taken back once."""
    return _of_customer(customer_id, sha256(b"void\0" + event_id.bytes).digest())


def header_hash(customer_id: UUID, header: str, index: int | None = None) -> bytes:
    """Where an `Idempotency-Key` lives: a namespace of its own; `index` tells the items of a batch apart."""
    place = b"" if index is None else index.to_bytes(4)
    return _of_customer(customer_id, sha256(b"header\0" + place + b"\0" + header.encode()).digest())


def _of_customer(customer_id: UUID, digest: bytes) -> bytes:
    """One index tells all keys apart, whosever they are: 16 bytes of both."""
    return sha256(customer_id.bytes + digest[:16]).digest()[:16]


def header_mark(header: str, index: int | None = None) -> int:
    """Four bytes by which a stored event knows the `Idempotency-Key` it came with, and its place in the request.

    They tell a retry of the same request from an event that is sent twice, once its content is known to be the same.
    """
    if index is None:
        return _header_number(header) - 0x80000000
    return ((_number_of_many(header) + index + 1) & 0xFFFFFFFF) - 0x80000000


def _header_number(header: str) -> int:
    return int.from_bytes(sha256(header.encode()).digest()[:4])


def header_marks(headers: Sequence[str | None], indexes: Sequence[int | None]) -> list[int | None]:
    """The `header_mark` of each, where there is a header."""
    numbers = {each: _header_number(each) for each in set(headers) if each is not None}
    return [
        None
        if header is None
        else ((numbers[header] + (0 if index is None else index + 1)) & 0xFFFFFFFF) - 0x80000000
        for header, index in zip(headers, indexes, strict=True)
    ]


_number_of_many: Final = lru_cache(maxsize=1024)(_header_number)
"""Of a header that many events of a request came with."""
