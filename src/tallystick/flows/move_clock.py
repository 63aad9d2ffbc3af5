"""Move a sandbox organization's test clock: live through every deadline on the way, in time order."""

import contextlib
import logging
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from tallystick.core.limits import CLOCK_ADVANCE_DAYS_MAX
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.close_period import Closed, close_period
from tallystick.flows.collect_payment import collect_payment
from tallystick.flows.settle_late import settle_due
from tallystick.providers.payments import Payments
from tallystick.store import clock, db, organizations, subscriptions
from tallystick.store.clock import Item, Run
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.organizations import Organization

log = logging.getLogger("tallystick.clock")


async def promise_run(
    conn: Conn, *, organization: Organization, target: datetime, now: datetime, wall: datetime
) -> Run:
    """Note where the clock is to go; `perform_run` takes it there."""
    if organization.live:
        raise Problem("sandbox_only", "Only a sandbox organization has a test clock.")
    if target < now:
        raise InvalidRequest(
            FieldError("frozenTime", f"the clock stands at {show_instant(now)} and only moves forward")
        )
    if target - now > timedelta(days=CLOCK_ADVANCE_DAYS_MAX):
        raise InvalidRequest(
            FieldError(
                "frozenTime", f"lies more than {CLOCK_ADVANCE_DAYS_MAX} days after {show_instant(now)}"
            )
        )
    run = Run(
        id=new_id(),
        status="pending",
        started_at_time=now,
        target_time=target,
        estimated=await clock.count_due(conn, organization_id=organization.id, until=target),
        error=None,
        created_at=wall,
    )
    if not await clock.insert(conn, organization_id=organization.id, run=run):
        raise Problem("clock_run_in_progress")
    return run


async def perform_run(database: Database, provider: Payments, *, organization_id: UUID, run_id: UUID) -> None:
    """Do a promised run, or go on with one that a crash interrupted. Safe to call twice: one does it."""
    async with database.holders, database.reading() as lock:
        if not await _take(lock, run_id):
            return
        try:
            run = await clock.get(lock, run_id=run_id)
            if run is None or run.status not in ("pending", "running"):
                return
            await clock.set_status(lock, run_id=run_id, status="running")
            await _live_through(database, provider, organization_id, run)
        except psycopg.OperationalError:
            raise  # the database is away: the run stays unfinished, and the sweep goes on with it
        except Exception as error:
            log.exception("the test clock stopped", exc_info=error)
            await clock.set_status(lock, run_id=run_id, status="failed", error=str(error))
        finally:
            with contextlib.suppress(psycopg.Error):  # a lost connection holds no lock
                await lock.execute("SELECT pg_advisory_unlock(%s)", (_lock_number(run_id),))


def _lock_number(run_id: UUID) -> int:
    return int.from_bytes(run_id.bytes[8:], signed=True)


async def _take(conn: Conn, run_id: UUID) -> bool:
    cursor = await conn.execute("SELECT pg_try_advisory_lock(%s)", (_lock_number(run_id),))
    return bool((await db.the(cursor))[0])


async def _live_through(database: Database, provider: Payments, organization_id: UUID, run: Run) -> None:
    failed: list[UUID] = []
    stands_at: datetime | None = None
    await _settle(database, provider, organization_id, run.started_at_time)
    while True:
        async with database.reading() as conn:
            due = await subscriptions.next_due(
                conn, organization_id=organization_id, until=run.target_time, skipping=failed
            )
        if due is None:
            break
        subscription_id, due_at = due
        moment = max(due_at, run.started_at_time)
        if stands_at is None or moment > stands_at:  # each move makes every process read the catalogue anew
            stands_at = await _set(database, organization_id, moment)
            await _settle(database, provider, organization_id, stands_at)
        moment = stands_at
        item = await _close_one(database, provider, organization_id, subscription_id, moment)
        if item.status == "failed":
            failed.append(subscription_id)
        async with database.reading() as conn:
            await clock.add_item(conn, run_id=run.id, item=item)
    reached = await _set(database, organization_id, run.target_time)
    await _settle(database, provider, organization_id, reached)
    async with database.reading() as conn:
        await clock.set_status(conn, run_id=run.id, status="completed")


async def _settle(database: Database, provider: Payments, organization_id: UUID, moment: datetime) -> None:
    """Bill what arrived after its period was billed, where the policy says at once."""
    for invoice_id in await settle_due(database, wall=moment, organization_id=organization_id):
        await collect_payment(
            database, provider, organization_id=organization_id, invoice_id=invoice_id, now=moment
        )


async def _set(database: Database, organization_id: UUID, to: datetime) -> datetime:
    """Where the clock stands then: further on, if a run that was cut short had been there already."""
    async with database.transaction() as conn:
        stands_at = await organizations.set_clock(conn, organization_id=organization_id, to=to)
        await db.bump(conn, organization_id=organization_id)
    return stands_at


async def _close_one(
    database: Database, provider: Payments, organization_id: UUID, subscription_id: UUID, moment: datetime
) -> Item:
    try:
        closed = await close_period(
            database, organization_id=organization_id, subscription_id=subscription_id, now=moment
        )
        paid = None
        for invoice_id in closed.adjustments if closed is not None else ():
            await collect_payment(
                database, provider, organization_id=organization_id, invoice_id=invoice_id, now=moment
            )
        if closed is not None and closed.invoice_id is not None:
            paid = await collect_payment(
                database, provider, organization_id=organization_id, invoice_id=closed.invoice_id, now=moment
            )
    except psycopg.OperationalError:
        raise
    except Exception as error:  # one that cannot be closed does not stop the others
        log.exception("a period could not be closed", exc_info=error)
        return _item(subscription_id, moment, None, status="failed", error=str(error))
    return _item(subscription_id, moment, closed, status="completed", paid=paid)


def _item(
    subscription_id: UUID,
    due_at: datetime,
    closed: Closed | None,
    *,
    status: str,
    paid: bool | None = None,
    error: str | None = None,
) -> Item:
    return Item(
        kind="billing_cycle",
        status=status,
        due_at=due_at,
        subscription_id=subscription_id,
        customer_name=closed.customer_name if closed else None,
        invoice_number=closed.invoice_number if closed else None,
        invoice_id=closed.invoice_id if closed else None,
        outcome=closed.outcome if closed else None,
        detail=None if paid is None else "paid" if paid else "charge declined",
        error=error,
    )
