"""Close whatever is due by the wall clock: in sets by organization, and one by one what a set leaves out."""

import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core.limits import CLOSES_PER_CLAIM
from tallystick.flows.close_period import close_period, close_set
from tallystick.store import subscriptions
from tallystick.store.db import Database

log = logging.getLogger("tallystick.close")


async def close_due(
    database: Database, *, now: datetime, closed: Callable[[int], None] = lambda count: None
) -> None:
    """Until nothing is due. What cannot be closed is noted and passed over; `closed` hears of progress.

    Raises only when the database is away.
    """
    while True:
        async with database.reading() as conn:
            due = await subscriptions.due(conn, now=now, limit=CLOSES_PER_CLAIM)
        for organization_id, claimed in _by_organization(due).items():
            together: set[UUID] = set()
            if len(claimed) > 1:
                together = await _close_together(database, organization_id, claimed, now)
                closed(len(together))
            for subscription_id in claimed:
                if subscription_id not in together:
                    await _close_one(database, organization_id, subscription_id, now)
                    closed(1)
        if len(due) < CLOSES_PER_CLAIM:
            return


def _by_organization(due: list[tuple[UUID, UUID, datetime]]) -> dict[UUID, list[UUID]]:
    claimed: dict[UUID, list[UUID]] = {}
    for organization_id, subscription_id, _ in due:
        claimed.setdefault(organization_id, []).append(subscription_id)
    return claimed


async def _close_together(
    database: Database, organization_id: UUID, claimed: list[UUID], now: datetime
) -> set[UUID]:
    try:
        done = await close_set(database, organization_id=organization_id, subscription_ids=claimed, now=now)
    except (psycopg.OperationalError, PoolTimeout):
        raise
    except Exception as error:  # one of them is guilty: alone, it shows which
        log.warning("a set of periods could not be closed together: %s", error)
        return set()
    return {each.subscription_id for each in done}


async def _close_one(database: Database, organization_id: UUID, subscription_id: UUID, now: datetime) -> None:
    try:
        await close_period(
            database, organization_id=organization_id, subscription_id=subscription_id, now=now
        )
    except (psycopg.OperationalError, PoolTimeout):
        raise
    except Exception as error:  # one that cannot be closed does not stop the others
        log.exception("a period could not be closed", exc_info=error)
        async with database.reading() as conn:
            await subscriptions.note_failure(conn, subscription_id=subscription_id, failure=str(error))
