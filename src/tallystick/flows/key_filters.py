"""Which keys may be old, told by the filters that this process has in memory: frozen generations are asked only where a
filter says that they may hold a key.

A filter is an optimization and nothing else: it never changes, may be missing (then its generation is asked about
every key), and is built again when it is lost or damaged.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from tallystick.core.key_filter import KeyFilter, Shelf, Sieve, part_with, parts_of
from tallystick.flows.unhurried import rest_after
from tallystick.store import event_keys, key_generations
from tallystick.store.db import Conn
from tallystick.store.event_keys import Held, Looked
from tallystick.store.key_generations import Filter

log = logging.getLogger("tallystick.keys")

_SHELVED_AT_ONCE: Final = 8  # filters


class Filters:
    """Those that this process has in memory."""

    def __init__(self) -> None:
        self._shelves: list[Shelf] = []
        self._sieves: dict[int, Sieve] = {}
        self.missed = asyncio.Event()
        """Set when a filter would have been of use that is not here."""

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return sum(each.size * len(each.generations) for each in self._shelves)

    def before(self, generation: int) -> Sieve | None:
        """What to ask about the generations before this one; None when it is the first.

        What a filter says of younger ones harms nobody: a book that does not know of them is out of date.
        """
        if generation == 0:
            return None
        sieve = self._sieves.get(generation)
        if sieve is None:
            known = self._known()
            sieve = self._sieves[generation] = Sieve(
                generation, self._shelves, [each for each in range(generation) if each not in known]
            )
        if sieve.asks_all:
            self.missed.set()
        return sieve

    async def load(self, conn: Conn) -> None:
        """Bring what was built since, a few at a time. What is damaged is not brought, and will be built again."""
        self.missed.clear()
        known = self._known()
        by_size: defaultdict[int, list[Filter]] = defaultdict(list)
        for stored in await key_generations.filters(conn):
            if stored.generation not in known:
                by_size[stored.size].append(stored)
        for size, some in by_size.items():
            for start in range(0, len(some), _SHELVED_AT_ONCE):
                read = [await _read(conn, each) for each in some[start : start + _SHELVED_AT_ONCE]]
                await self._shelve(size, [each for each in read if each is not None])

    def _known(self) -> set[int]:
        return {generation for shelf in self._shelves for generation in shelf.generations}

    async def _shelve(self, size: int, more: Sequence[KeyFilter]) -> None:
        """Asked are the old shelves, until the new one is complete."""
        if not more:
            return
        shelf = next((each for each in self._shelves if each.size == size and each.has_room), None)
        parts = []
        for index in range(parts_of(size)):
            began = time.monotonic()
            parts.append(part_with(shelf, more, index))
            await rest_after(began)
        there = shelf.generations if shelf else ()
        wider = Shelf(size, (*there, *(each.generation for each in more)), tuple(parts))
        self._shelves = [*(each for each in self._shelves if each is not shelf), wider]
        self._sieves.clear()


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
    await key_generations.forget_filter(conn, generation=stored.generation)
    return None


async def held_before(
    conn: Conn, sieve: Sieve | None, customers: Sequence[UUID], key_hashes: Sequence[bytes | None]
) -> dict[bytes, Held]:
    """Which of these keys are in an older generation than the book's, exactly, by hash."""
    if sieve is None:
        return {}
    looked = []
    for generation, places in sieve.may_hold(key_hashes).items():
        keyed = [
            (customers[place], key_hash) for place in places if (key_hash := key_hashes[place]) is not None
        ]
        looked.append(Looked(generation, [each for each, _ in keyed], [each for _, each in keyed]))
    return await event_keys.held_before(conn, sieve.before, looked) if looked else {}
