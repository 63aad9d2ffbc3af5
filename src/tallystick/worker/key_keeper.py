"""Keep the open generation of keys small, and the filters of the frozen ones at hand.

    every few seconds   bring filters that were built                  in every process, for itself; at once when one is missed
    every few seconds   go on with the filter of the open generation   one process: whoever holds the advisory lock
    every few seconds   freeze it when it is large                     the same process
    every few seconds   build filters that are missing                 the same process, a little at a time

On a connection of its own, beside the sweep: kept as long as a filter is in the making, and for a moment otherwise. A crash
loses a filter that is half made, and it is made again.
"""

import asyncio
import contextlib
import logging
from typing import Final

import psycopg
from prometheus_client import Gauge

from tallystick.flows.key_filters import Filters
from tallystick.flows.key_generations import OpenGeneration, build_filters
from tallystick.store import db
from tallystick.store.db import CONNECTION

log = logging.getLogger("tallystick.keys")
_LOCK: Final = b"keygener"
_SOON_S: Final = 0.5

_FILTER_BYTES: Final = Gauge(
    "tallystick_key_filter_bytes",
    "Memory of the filters over frozen keys, of all processes together",
    multiprocess_mode="livesum",
)


class KeyKeeper:
    def __init__(self, conninfo: str, filters: Filters, *, generation_bytes_max: int, every_s: float) -> None:
        self._conninfo = conninfo
        self._filters = filters
        self._generation_bytes_max = generation_bytes_max
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="key keeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._visit()
            except psycopg.OperationalError as error:
                log.warning("the generations of keys wait for the database: %s", str(error).strip())
            except Exception as error:  # whatever it is, time goes on
                log.exception("the generations of keys were not looked after", exc_info=error)
            await self._pause()

    async def _visit(self) -> None:
        async with await db.connect(self._conninfo, CONNECTION) as conn:
            await self._load(conn)
            if not await db.try_hold(conn, name=_LOCK):
                return
            generation = OpenGeneration(conn, bytes_max=self._generation_bytes_max)
            while True:
                await build_filters(conn)
                await generation.look()
                await self._load(conn)
                if not generation.is_followed:
                    return
                await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._filters.missed.wait(), self._every_s)
        await asyncio.sleep(_SOON_S)

    async def _load(self, conn: db.Conn) -> None:
        await self._filters.load(conn)
        _FILTER_BYTES.set(self._filters.size)
