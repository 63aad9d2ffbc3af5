"""Move a sandbox organization's test clock: live through every deadline on the way, in time order."""

import contextlib
import logging
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from tallystick.core.limits import CLOCK_ADVANCE_DAYS_MAX, CLOSES_PER_CLAIM
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.close_period import Closed, close_period, close_set
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
                conn,
                organization_id=organization_id,
                until=run.target_time,
                skipping=failed,
                limit=CLOSES_PER_CLAIM,
            )
        if due is None:
            break
        due_at, ids = due
        moment = max(due_at, run.started_at_time)
        if stands_at is None or moment > stands_at:  # each move makes every process read the catalogue anew
            stands_at = await _set(database, organization_id, moment)
            await _settle(database, provider, organization_id, stands_at)
        together = await _close_together(database, organization_id, ids, stands_at)
        if together:
            failed += await _charge_set(database, provider, organization_id, run, together, stands_at)
            continue
        for subscription_id in ids if together is None else ids[:1]:
            item = await _close_one(database, provider, organization_id, subscription_id, stands_at)
            if item.status == "failed":
                failed.append(subscription_id)
            async with database.reading() as conn:
                await clock.add_items(conn, run_id=run.id, items=[item])
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


async def _close_together(
    database: Database, organization_id: UUID, subscription_ids: list[UUID], moment: datetime
) -> list[Closed] | None:
    """The first few of those due at one moment, up to the first that must go alone; None when that went wrong."""
    if len(subscription_ids) < 2:
        return []
    try:
        return await close_set(
            database,
            organization_id=organization_id,
            subscription_ids=subscription_ids,
            now=moment,
            in_order=True,
        )
    except psycopg.OperationalError:
        raise
    except Exception as error:  # one of them is guilty: alone, it shows which
        log.warning("a set of periods could not be closed together: %s", error)
        return None


async def _charge_set(
    database: Database,
    provider: Payments,
    organization_id: UUID,
    run: Run,
    closed: list[Closed],
    moment: datetime,
) -> list[UUID]:
    """Note what was closed, then charge it one by one; the subscriptions where that failed."""
    failed = []
    async with database.reading() as conn:
        noted = [_item(each.subscription_id, moment, each, status="completed") for each in closed]
        positions = await clock.add_items(conn, run_id=run.id, items=noted)
    for position, each in zip(positions, closed, strict=True):
        item = await _charge(database, provider, organization_id, each.subscription_id, moment, each)
        if item.status == "failed":
            failed.append(each.subscription_id)
        async with database.reading() as conn:
            await clock.finish_item(conn, run_id=run.id, position=position, item=item)
    return failed


async def _close_one(
    database: Database, provider: Payments, organization_id: UUID, subscription_id: UUID, moment: datetime
) -> Item:
    try:
        closed = await close_period(
            database, organization_id=organization_id, subscription_id=subscription_id, now=moment
        )
    except psycopg.OperationalError:
        raise
    except Exception as error:  # one that cannot be closed does not stop the others
        return _failed(subscription_id, moment, error)
    return await _charge(database, provider, organization_id, subscription_id, moment, closed)


async def _charge(
    database: Database,
    provider: Payments,
    organization_id: UUID,
    subscription_id: UUID,
    moment: datetime,
    closed: Closed | None,
) -> Item:
    """Charge what a close has made."""
    paid = None
    try:
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
    except Exception as error:  # the sweep tries again; nobody else waits for it
        return _failed(subscription_id, moment, error)
    return _item(subscription_id, moment, closed, status="completed", paid=paid)


def _failed(subscription_id: UUID, moment: datetime, error: Exception) -> Item:
    log.exception("a period could not be closed", exc_info=error)
    return _item(subscription_id, moment, None, status="failed", error=str(error))


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
