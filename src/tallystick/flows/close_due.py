"""Close whatever is due by the wall clock: in sets by organization, and one by one what a set leaves out.

Two sets at a time: while PostgreSQL reads for one, this process rates the other.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core.limits import CLOSES_PER_CLAIM, CLOSES_PER_LOOK, SETS_AT_ONCE
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
            due = await subscriptions.due(conn, now=now, limit=CLOSES_PER_LOOK)
        sets = _sets(due)
        lanes = [_close_sets(database, sets, now, closed) for _ in range(SETS_AT_ONCE)]
        for error in await asyncio.gather(*lanes, return_exceptions=True):
            if error is not None:
                raise error
        if len(due) < CLOSES_PER_LOOK:
            return


def _sets(due: list[tuple[UUID, UUID, datetime]]) -> Iterator[tuple[UUID, list[UUID]]]:
    """Each of one organization, and none larger than a claim."""
    claimed: dict[UUID, list[UUID]] = {}
    for organization_id, subscription_id, _ in due:
        claimed.setdefault(organization_id, []).append(subscription_id)
    for organization_id, ids in claimed.items():
        for start in range(0, len(ids), CLOSES_PER_CLAIM):
            yield organization_id, ids[start : start + CLOSES_PER_CLAIM]


async def _close_sets(
    database: Database,
    sets: Iterator[tuple[UUID, list[UUID]]],
    now: datetime,
    closed: Callable[[int], None],
) -> None:
    """One after the other, of sets that others take from too."""
    for organization_id, claimed in sets:
        together: set[UUID] = set()
        if len(claimed) > 1:
            together = await _close_together(database, organization_id, claimed, now)
            closed(len(together))
        for subscription_id in claimed:
            if subscription_id not in together:
                await _close_one(database, organization_id, subscription_id, now)
                closed(1)


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
