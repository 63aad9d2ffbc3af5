"""Keys of the past, which cost little: the open generation of keys is kept small, and frozen ones are asked only where a
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

import psycopg

from tallystick.core.key_filter import KEY_BYTES, Filling, KeyFilter, Shelf, Sieve, part_with, parts_of
from tallystick.store import citus, key_generations
from tallystick.store.db import Conn
from tallystick.store.key_generations import Filter, Looked

log = logging.getLogger("tallystick.keys")

Keys = dict[bytes, int]
"""Where keys live, each with its generation."""

_ADDED_AT_ONCE: Final = 2_500  # keys: some two milliseconds in which nobody else is served
_RESTS: Final = 2  # times as long: whose events come to this process are not to wait longer than others
_SHELVED_AT_ONCE: Final = 8  # filters
_FREEZES_TRIED: Final = 3
_MORE_COMES: Final = 8  # an eighth of what is there when a filter is begun
_LITTLE: Final = 20_000  # keys, which are added in a moment
_ROUNDS_MAX: Final = 5


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
                self._shelves, [each for each in range(generation) if each not in known]
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
            parts.append(part_with(shelf, more, index))
            await asyncio.sleep(0)
        there = shelf.generations if shelf else ()
        wider = Shelf(size, (*there, *(each.generation for each in more)), tuple(parts))
        self._shelves = [*(each for each in self._shelves if each is not shelf), wider]
        self._sieves.clear()


async def _read(conn: Conn, stored: Filter) -> KeyFilter | None:
    bits, digest = bytearray(), sha256()
    async for part in key_generations.parts(conn, generation=stored.generation):
        bits += part
        digest.update(part)
    if len(bits) == stored.size and digest.digest() == stored.digest:
        return KeyFilter(stored.generation, bytes(bits))
    log.warning("the filter of key generation %s is damaged; it is built again", stored.generation)
    await key_generations.forget_filter(conn, generation=stored.generation)
    return None


async def held_before(
    conn: Conn, sieve: Sieve | None, customers: Sequence[UUID], key_hashes: Sequence[bytes | None]
) -> Keys:
    """Which of these keys are in an older generation than the book's, exactly."""
    if sieve is None:
        return {}
    looked = []
    for generation, places in sieve.may_hold(key_hashes).items():
        keyed = [
            (customers[place], key_hash) for place in places if (key_hash := key_hashes[place]) is not None
        ]
        looked.append(Looked(generation, [each for each, _ in keyed], [each for _, each in keyed]))
    return await key_generations.found(conn, looked) if looked else {}


async def freeze_if_full(conn: Conn, *, bytes_max: int) -> int | None:
    """Freeze the open generation when it has grown beyond so many bytes; the number of the new one.

    Its filter is made while it is open yet, so that it is missed for a moment only.
    """
    number = await key_generations.current(conn)
    if await key_generations.size(conn, generation=number) <= bytes_max:
        return None
    making = await _Making.begun(conn, number)
    for _ in range(_FREEZES_TRIED):
        await making.come_close(conn)
        try:
            if not await key_generations.freeze(conn, number=number):
                return None
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            log.info("key generation %s is not frozen yet: %s", number, str(error).strip())
            continue
        log.info("key generation %s is frozen", number)
        await making.finish(conn)
        return number + 1
    return None


async def build_filters(conn: Conn) -> int:
    """Build those that frozen generations lack, a little at a time, so that nobody waits; returns how many."""
    lacking = await key_generations.without_filter(conn)
    for generation in lacking:
        await (await _Making.begun(conn, generation)).finish(conn)
    return len(lacking)


class _Making:
    """The filter of a generation, while keys may still come."""

    def __init__(self, generation: int, keys: int) -> None:
        self._generation = generation
        self._filling = Filling(keys)
        self._since: str | None = None  # what was stored before it is in the filter

    @classmethod
    async def begun(cls, conn: Conn, generation: int) -> "_Making":
        keys = await key_generations.count_keys(conn, generation=generation)
        return cls(generation, keys + keys // _MORE_COMES)

    async def come_close(self, conn: Conn) -> None:
        """Bring what is there, then what came meanwhile, until that is little: each time it is less."""
        if citus.is_citus(conn):
            return  # which cannot tell what came since
        for _ in range(_ROUNDS_MAX):
            if await self._catch_up(conn) <= _LITTLE:
                return

    async def finish(self, conn: Conn) -> None:
        """The generation is frozen: bring what is left, and keep the filter."""
        await self._catch_up(conn)
        whole = self._filling.bits()
        await key_generations.keep_filter(
            conn, generation=self._generation, bits=whole, digest=sha256(whole).digest()
        )
        log.info("the filter of key generation %s is built: %s bytes", self._generation, len(whole))

    async def _catch_up(self, conn: Conn) -> int:
        """How many keys came since the last time."""
        came, horizon = 0, await key_generations.horizon(conn)
        async for page in key_generations.pages(conn, generation=self._generation, since=self._since):
            came += len(page) // KEY_BYTES
            for start in range(0, len(page), _ADDED_AT_ONCE * KEY_BYTES):
                began = time.monotonic()
                self._filling.add(page[start : start + _ADDED_AT_ONCE * KEY_BYTES])
                await asyncio.sleep(_RESTS * (time.monotonic() - began))
        self._since = horizon
        return came
