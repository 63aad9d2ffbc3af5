"""Which keys may be old, told by the filters that this process has in memory: frozen generations are asked only where a
filter says that they may hold a key.

A filter is an optimization and nothing else: it never changes, may be missing (then its generation is asked about
every key), and is built again when it is lost or damaged.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from tallystick.flows.sieve import KeyFilter, Shelf, Shelves, Sieve
from tallystick.flows.unhurried import piece_by_piece, rest_after
from tallystick.store import event_keys, key_generations
from tallystick.store.db import Conn
from tallystick.store.event_keys import Held, Looked
from tallystick.store.key_generations import Filter

log = logging.getLogger("tallystick.keys")

FAR_S: Final = 0.0002
"""Where it takes longer for a key that may be old, as it took lately, such keys are far: on a disk, that is."""

FEW: Final = 10
"""Fewer are taken for so many: whatever is asked takes a while."""

_LATELY: Final = 0.1
"""How much the last time counts in that."""


class Filters:
    """Those that this process has in memory, and how far what they take for old was lately."""

    def __init__(self, far_s: float = FAR_S) -> None:
        self._far_s = far_s
        self._looking_s = self._looked_for = 0.0
        self._shelves = Shelves()
        self._sieved: tuple[Shelf, ...] = ()
        self._sieves: dict[int, Sieve] = {}
        self.missed = asyncio.Event()
        """Set when a filter would have been of use that is not here."""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._shelves.bytes

    def took(self, seconds: float, keys: int) -> None:
        """To look for so many keys that may be old."""
        self._looking_s += _LATELY * (seconds - self._looking_s)
        self._looked_for += _LATELY * (keys - self._looked_for)

    @property
    def old_are_far(self) -> bool:
        """Whether it takes so long to look for old keys that nobody else should wait for it."""
        return self._looking_s >= self._far_s * max(self._looked_for, FEW)

    def before(self, generation: int) -> Sieve | None:
        """What to ask about the generations before this one; None when it is the first."""
        if generation == 0:
            return None
        if self._sieved is not self._shelves.all:
            self._sieved, self._sieves = self._shelves.all, {}
        sieve = self._sieves.get(generation)
        if sieve is None:
            known = self._shelves.generations
            unknown = [each for each in range(generation) if each not in known]
            sieve = self._sieves[generation] = Sieve(generation, self._sieved, unknown)
        if sieve.asks_all:
            self.missed.set()
        return sieve

    async def load(self, conn: Conn) -> None:
        """Bring what was built since. What is damaged is not brought, and will be built again."""
        self.missed.clear()
        known = self._shelves.generations
        for stored in await key_generations.filters(conn):
            if stored.generation not in known and (read := await _read(conn, stored)) is not None:
                await piece_by_piece(self._shelves.adding(read))
        await piece_by_piece(self._shelves.merging())


async def _read(conn: Conn, stored: Filter) -> KeyFilter | None:
    bits, digest, began = bytearray(), sha256(), time.monotonic()
    async for part in key_generations.parts(conn, generation=stored.generation):
        bits += part
        digest.update(part)
        await rest_after(began)
        began = time.monotonic()
    if len(bits) == stored.size and digest.digest() == stored.digest:
        return KeyFilter(stored.generation, bytes(bits))
    log.warning("the filter of key generation %s is damaged; it is built again", stored.generation)
    await key_generations.forget_filter(conn, generation=stored.generation, digest=stored.digest)
    return None


async def held_before(
    conn: Conn, sieve: Sieve | None, customers: Sequence[UUID], key_hashes: Sequence[bytes | None]
) -> dict[bytes, Held]:
    """Which of these keys are in an older generation than the book's, exactly, by hash."""
    if sieve is None:
        return {}
    return await held_among(conn, sieve.before, sieve.may_hold(key_hashes), customers, key_hashes)


async def held_among(
    conn: Conn,
    before: int,
    suspects: Mapping[int, Sequence[int]],
    customers: Sequence[UUID],
    key_hashes: Sequence[bytes | None],
) -> dict[bytes, Held]:
    """As `held_before`, of the keys that a sieve took for old ones (`Sieve.may_hold`)."""
    looked = []
    for generation, places in suspects.items():
        keyed = [
            (customers[place], key_hash) for place in places if (key_hash := key_hashes[place]) is not None
        ]
        looked.append(Looked(generation, [each for each, _ in keyed], [each for _, each in keyed]))
    return await event_keys.held_before(conn, before, looked) if looked else {}
