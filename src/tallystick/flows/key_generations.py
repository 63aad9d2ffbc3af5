"""Keep the open generation of keys small: freeze it when it is large, with a filter over what it holds.

The filter is made while its generation fills, a little every few seconds, so that it is there soon after the freeze and is not
felt before; the process that makes it serves others.
"""

import logging
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import psycopg

from tallystick.flows.sieve import KEY_BYTES, Filling
from tallystick.flows.unhurried import LEISURELY, SOON, rest_after
from tallystick.store import citus, key_generations
from tallystick.store.db import Conn
from tallystick.store.key_generations import Page

log = logging.getLogger("tallystick.keys")

_ADDED_AT_ONCE: Final = 1_000  # keys: less than a millisecond in which nobody else is served
_FREEZES_TRIED: Final = 3
_RESERVE: Final = 8  # an eighth of what is expected
_CROWD: Final = 1.5  # times what it was made for: then it says of too many strangers that they may be there
_WORTH_IT: Final = 8  # from an eighth of its size on a generation is followed
_LITTLE: Final = 20_000  # keys, which are added in a moment
_ROUNDS_MAX: Final = 5


async def freeze_if_full(conn: Conn, *, bytes_max: int) -> int | None:
    """Freeze the open generation when it has grown beyond so many bytes; the number of the new one."""
    return await OpenGeneration(conn, bytes_max=bytes_max).look()


async def build_filters(conn: Conn) -> int:
    """Build those that frozen generations lack, a little at a time, so that nobody waits; returns how many."""
    lacking = await key_generations.without_filter(conn)
    for generation in lacking:
        await (await _Making.begun(conn, generation, growth=1)).finish(conn)
    return len(lacking)


class OpenGeneration:
    """The one that is open, followed by one process at a time, which makes its filter."""

    def __init__(self, conn: Conn, *, bytes_max: int) -> None:
        self._conn = conn
        self._bytes_max = bytes_max
        self._making: _Making | None = None

    @property
    def is_followed(self) -> bool:
        """Whether there is a filter in the making, which would be lost with this object."""
        return self._making is not None

    async def look(self) -> int | None:
        """Bring its filter on; freeze it when it is full, and then say the number of the new one."""
        conn = self._conn
        number = await key_generations.current(conn)
        size = await key_generations.size(conn, generation=number)
        if size * _WORTH_IT <= self._bytes_max:
            self._making = None
            return None
        if self._making is None or self._making.generation != number:
            self._making = await _Making.begun(conn, number, growth=max(1, self._bytes_max / size))
        if size <= self._bytes_max:
            await self._making.follow(conn)
            return None
        for _ in range(_FREEZES_TRIED):
            await self._making.come_close(conn)
            try:
                if not await key_generations.freeze(conn, number=number):
                    return None
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                log.info("key generation %s is not frozen yet: %s", number, str(error).strip())
                continue
            log.info("key generation %s is frozen", number)
            await self._making.finish(conn)
            self._making = None
            return number + 1
        return None


class _Making:
    """The filter of a generation, while keys may still come."""

    def __init__(self, generation: int, keys: int) -> None:
        """For so many keys; more find room, and make it say of more strangers that they may be there."""
        self.generation = generation
        self._room = keys
        self._brought = 0
        self._filling = Filling(keys)
        self._read: dict[Page, str] = {}
        """By page: the horizon, before which all that was stored there is in the filter."""

    @classmethod
    async def begun(cls, conn: Conn, generation: int, *, growth: float) -> "_Making":
        """`growth` is how many times as large the generation will be. What comes of it is a guess, and too small a one where much
        of what makes the table large is not committed yet."""
        keys = int(await key_generations.estimate_keys(conn, generation=generation) * growth)
        return cls(generation, keys + keys // _RESERVE)

    async def follow(self, conn: Conn) -> None:
        """Bring what came at the end of the table, where nearly all keys come. A cluster cannot tell what came since."""
        if not citus.is_citus(conn):
            pages = await key_generations.pages(conn, generation=self.generation)
            await self._bring(conn, pages[max(0, len(self._read) - 1) :], rests=LEISURELY)

    async def come_close(self, conn: Conn) -> None:
        """Bring what is there, then what came meanwhile, until that is little: each time it is less."""
        if citus.is_citus(conn):
            return
        for _ in range(_ROUNDS_MAX):
            if await self._bring_all(conn, rests=LEISURELY) <= _LITTLE:
                return

    async def finish(self, conn: Conn) -> None:
        """The generation is frozen, and asked about every key until its filter is there: bring what is left, and keep it; or
        make a larger one, now that it is known how many there are."""
        await self._bring_all(conn, rests=SOON)
        if self._brought > self._room * _CROWD:
            log.info("the filter of key generation %s is made anew, for more keys", self.generation)
            await _Making(self.generation, self._brought).finish(conn)
            return
        bits, digest, began = bytearray(), sha256(), time.monotonic()
        for part in self._filling.parts():
            bits += part
            digest.update(part)
            await rest_after(began)
            began = time.monotonic()
        await key_generations.keep_filter(conn, generation=self.generation, bits=bits, digest=digest.digest())
        log.info("the filter of key generation %s is built: %s bytes", self.generation, len(bits))

    async def _bring_all(self, conn: Conn, *, rests: int) -> int:
        pages = await key_generations.pages(conn, generation=self.generation)
        return await self._bring(conn, pages, rests=rests)

    async def _bring(self, conn: Conn, pages: Sequence[Page], *, rests: int) -> int:
        """How many keys came to these pages since they were read."""
        came, horizon = 0, await key_generations.horizon(conn)
        for page in pages:
            began = time.monotonic()
            keys = await key_generations.keys_on(
                conn, page, generation=self.generation, since=self._read.get(page)
            )
            await rest_after(began, times=rests)
            for start in range(0, len(keys), _ADDED_AT_ONCE * KEY_BYTES):
                began = time.monotonic()
                self._filling.add(keys[start : start + _ADDED_AT_ONCE * KEY_BYTES])
                await rest_after(began, times=rests)
            self._read[page] = horizon
            came += len(keys) // KEY_BYTES
        self._brought += came
        return came
