"""Whether this process can serve, told soon: whoever asks has other servers to send people to."""

import asyncio
import logging
from typing import Final

import psycopg
from psycopg_pool import PoolTimeout

from tallystick import __version__
from tallystick.api.wire import encode
from tallystick.core.limits import READY_WITHIN_S
from tallystick.store.db import Database

log = logging.getLogger("tallystick.health")

_GIVEN_UP_AFTER_S: Final = 5 * READY_WITHIN_S
"""So long a statement is waited for before another is sent, on another connection."""


class Health:
    """One statement at a time is under way, however many ask: a database that stands still has no more of them to answer
    when it goes on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: asyncio.Task[bool] | None = None

    async def live(self) -> tuple[int, bytes]:
        return 200, encode({"status": "live", "version": __version__})

    async def ready(self) -> tuple[int, bytes]:
        """Ready means: a statement just went through."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask(), name="readiness")
        asked = self._asked
        await asyncio.wait({asked}, timeout=READY_WITHIN_S)
        if asked.done() and asked.result():
            return 200, encode({"status": "ready", "version": __version__})
        return 503, encode({"status": "not_ready", "reason": "the database does not answer"})

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_GIVEN_UP_AFTER_S), self._database.reading() as conn:
                await conn.execute("SELECT 1")
        except (psycopg.Error, PoolTimeout, TimeoutError) as error:
            log.warning("the database does not answer: %s", str(error).strip() or type(error).__name__)
            return False
        return True
