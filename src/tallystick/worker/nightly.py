"""Reconcile everything once in 24 hours, in whichever process finds it due, and show what was found on `/metrics`.

    every ten minutes   show what was found last, and reconcile if that is a day ago     somebody should hear of it

On a connection of its own, beside the sweep, and unhurried: who stores events meanwhile goes first. One process does it
at a time: whoever holds the advisory lock, and the connection that holds it is the one that asks, so that a crash lets
go of both. All processes show what the database says was found, whoever found it. The first look is some minutes after
the start: the sweep goes first over what fell due while nobody served. Only where nobody has ever reconciled it is at
once: there is hardly anything to look at then, and the next is a day later.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import psycopg
from prometheus_client import Gauge

from tallystick.flows.reconcile import reconcile
from tallystick.store import db
from tallystick.store import reconcile as store
from tallystick.store.db import CONNECTION, PROOF_CONNECTION

log = logging.getLogger("tallystick.reconcile")
_LOCK: Final = b"reconcil"
_EVERY: Final = timedelta(hours=24)
_LOOK_EVERY_S: Final = 600
_AFTER_FAILURE_S: Final = 3600

_OFFENDERS: Final = Gauge(
    "tallystick_reconcile_offenders",
    "How many broke a rule of the books when they were last reconciled; 0 is right",
    ["rule"],
    multiprocess_mode="livemostrecent",
)
_AT: Final = Gauge(
    "tallystick_reconcile_timestamp_seconds",
    "When the books were last reconciled",
    multiprocess_mode="livemostrecent",
)


class Nightly:
    def __init__(
        self, conninfo: str, wall: Callable[[], datetime], *, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._conninfo = conninfo
        self._wall = wall
        self._look_every_s = look_every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="nightly")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        wait_s = self._look_every_s
        with contextlib.suppress(psycopg.Error):
            if not await self.show():
                wait_s = 0
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._look_every_s
            try:
                await self.look()
            except psycopg.OperationalError as error:
                log.warning("reconciling waits for the database: %s", str(error).strip())
            except Exception as error:  # whatever it is, there is another day
                log.exception("the books could not be reconciled", exc_info=error)
                await asyncio.sleep(_AFTER_FAILURE_S)

    async def show(self) -> bool:
        """Set the metrics to what was found last, by whomever; whether anybody ever looked."""
        async with await db.connect(self._conninfo, CONNECTION) as conn:
            noted = await store.noted(conn)
        for each in noted:
            _OFFENDERS.labels(each.rule).set(each.offenders)
            _AT.set(each.checked_at.timestamp())
        return bool(noted)

    async def look(self) -> bool:
        """Reconcile if that is due and nobody else is at it; whether it was."""
        async with db.unhurried(await db.connect(self._conninfo, PROOF_CONNECTION)) as conn:
            done = await db.try_hold(conn, name=_LOCK) and await self._if_due(conn)
        await self.show()
        return done

    async def _if_due(self, conn: db.Conn) -> bool:
        now, last = self._wall(), await store.last_noted(conn)
        if last is not None and now - last < _EVERY:
            return False
        for each in await reconcile(conn, organization_id=None, wall=now):
            if each.offenders:
                log.warning(
                    "the rule %r is broken by %s: %s; first: %s",
                    each.rule,
                    each.offenders,
                    each.promise,
                    each.first[0].what,
                )
        return True
