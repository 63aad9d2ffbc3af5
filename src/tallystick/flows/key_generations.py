"""Keep the open generation of keys small: freeze it when it is large, with a filter over what it holds.

A filter is made while its generation is open yet, so that it is missed for a moment only; and unhurried, since the
process that makes it serves others.
"""

import asyncio
import logging
import time
from hashlib import sha256
from typing import Final

import psycopg

from tallystick.core.key_filter import KEY_BYTES, Filling
from tallystick.store import citus, key_generations
from tallystick.store.db import Conn

log = logging.getLogger("tallystick.keys")

_ADDED_AT_ONCE: Final = 2_500  # keys: some two milliseconds in which nobody else is served
_RESTS: Final = 2  # times as long: whose events come to this process are not to wait longer than others
_FREEZES_TRIED: Final = 3
_MORE_COMES: Final = 8  # an eighth of what is there when a filter is begun
_LITTLE: Final = 20_000  # keys, which are added in a moment
_ROUNDS_MAX: Final = 5


async def freeze_if_full(conn: Conn, *, bytes_max: int) -> int | None:
    """Freeze the open generation when it has grown beyond so many bytes; the number of the new one."""
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
