"""The recurring acts, on one page.

    every few seconds   close periods that are due by the wall clock   a customer should not wait for an invoice
    every few seconds   bill what arrived after its period was billed   by each meter's policy
    every few seconds   charge what is to be collected                 after a crash, too
    every few seconds   finish purchases that were promised            a minute after a crash left them
    every few seconds   give back what was reserved and not settled    it holds a customer's money
    every few seconds   go on with test-clock runs a crash cut short
    every few seconds   note when keys were last used
    every hour          forget answers kept for repeated requests      they last 24 hours
    every hour          try again what could not be closed or settled  `doctor` shows it meanwhile
    every hour          make the next months' partitions               while there is nothing to move
    every day           reconcile the books                            next door, in `nightly`

One process sweeps at a time: whoever holds the advisory lock. Losing it loses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core.limits import CHANGES_KEPT, CLOSES_PER_CLAIM, IDEMPOTENCY_KEEP
from tallystick.flows.close_due import close_due
from tallystick.flows.collect_payment import collect_payment
from tallystick.flows.move_clock import perform_run
from tallystick.flows.purchase import finish_pending
from tallystick.flows.reserve import release_due
from tallystick.flows.settle_late import settle_due
from tallystick.flows.sort_months import make_ahead
from tallystick.providers.payments import Payments
from tallystick.store import clock, db, invoices, late, organizations, subscriptions
from tallystick.store.db import Database

log = logging.getLogger("tallystick.worker")
_LOCK = 0x7461_6C6C_7973_7765
_FORGET_EVERY = timedelta(hours=1)


class Sweeper:
    def __init__(
        self,
        database: Database,
        provider: Payments,
        wall: Callable[[], datetime],
        *,
        every_s: float,
        used_keys: set[int],
    ) -> None:
        self._database = database
        self._provider = provider
        self._wall = wall
        self._every_s = every_s
        self._used_keys = used_keys
        self._forgotten_at: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sweeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (psycopg.OperationalError, PoolTimeout) as error:
                log.warning("the sweep waits for the database: %s", str(error).strip())
            except Exception as error:  # whatever it is, time goes on
                log.exception("the sweep failed and will be tried again", exc_info=error)
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> None:
        """Do all that is due now, if no other process is at it."""
        await self._note_used_keys()
        async with self._database.reading() as lock:
            cursor = await lock.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            if not (await db.the(cursor))[0]:
                return
            try:
                await close_due(self._database, now=self._wall())
                await self._settle_what_is_late()
                await self._collect_what_is_owed()
                await finish_pending(self._database, self._provider, wall=self._wall())
                await release_due(self._database, wall=self._wall())
                await self._finish_clock_runs()
                await self._forget()
            finally:
                with contextlib.suppress(psycopg.Error):  # a lost connection holds no lock
                    await lock.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    async def _note_used_keys(self) -> None:
        """Every process for the keys it saw."""
        used = [UUID(int=each) for each in self._used_keys]
        self._used_keys.clear()
        if used:
            async with self._database.reading() as conn:
                await organizations.note_used(conn, key_ids=used, now=self._wall())

    async def _settle_what_is_late(self) -> None:
        try:
            await settle_due(self._database, wall=self._wall())
        except (psycopg.OperationalError, PoolTimeout):
            raise
        except Exception as error:  # the rest of the sweep goes on
            log.exception("late usage could not be settled", exc_info=error)

    async def _collect_what_is_owed(self) -> None:
        async with self._database.reading() as conn:
            owed = await invoices.to_collect(conn, now=self._wall(), limit=CLOSES_PER_CLAIM)
        for invoice_id in owed:
            async with self._database.reading() as conn:
                organization_id = await invoices.owner(conn, invoice_id=invoice_id)
                organization = await organizations.get(conn, organization_id=organization_id)
            now = (
                organization.simulated_time if organization and organization.simulated_time else self._wall()
            )
            try:
                await collect_payment(
                    self._database,
                    self._provider,
                    organization_id=organization_id,
                    invoice_id=invoice_id,
                    now=now,
                )
            except (psycopg.OperationalError, PoolTimeout):
                raise
            except Exception as error:  # one that cannot be charged does not stop the others
                log.exception("an invoice could not be charged", exc_info=error)

    async def _finish_clock_runs(self) -> None:
        async with self._database.reading() as conn:
            runs = await clock.unfinished(conn)
        for organization_id, run_id in runs:
            await perform_run(self._database, self._provider, organization_id=organization_id, run_id=run_id)

    async def _forget(self) -> None:
        now = self._wall()
        if self._forgotten_at is None or now - self._forgotten_at >= _FORGET_EVERY:
            self._forgotten_at = now
            async with self._database.reading() as conn:
                await organizations.forget_answers(conn, before=now - IDEMPOTENCY_KEEP)
                await db.forget_changes(conn, keep=CHANGES_KEPT)
                await subscriptions.forget_failures(conn)
                await late.forget_failures(conn)
                await make_ahead(conn, now=now)
