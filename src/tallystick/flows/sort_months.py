"""Give months of events a partition of their own: ahead of time, or afterwards, by sorting what lies in the default one.

Ahead of time costs nothing, as there is nothing to move. Afterwards a copy is sorted beside `events`, some thousand
rows at a time, while everybody goes on; then one short transaction adds what came meanwhile and changes places. A
sorting that is killed leaves a table that the next one removes.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import psycopg

from tallystick.core.retention import Month, around
from tallystick.errors import must
from tallystick.store import archives, months
from tallystick.store.db import Conn

log = logging.getLogger("tallystick.retention")
_LOCK_S: Final = 0.2
"""So long whoever stores events may have to stand behind us; then we step back and try again."""
_TRIES: Final = 100
_EVENTS_PER_STEP: Final = 50_000

Moved = Callable[[int], None]
"""Hears how many events were moved since it last heard."""


class Occupied(Exception):
    """A table was in use all the time; nothing was changed, and later it can be tried again."""


async def make_ahead(conn: Conn, *, now: datetime) -> list[Month]:
    """Partitions for the months around now, as far as they are missing; those that were made.

    Not where that would take long: a month of which the default partition holds something already, or all of them
    when it is large. `tallystick retention sort` is for these.
    """
    missing = [each for each in around(now) if each not in await months.with_partition(conn)]
    if not missing or await months.default_bytes(conn) > months.SMALL_BYTES:
        return []
    gone = {each.month for each in await archives.every(conn)}
    made: list[Month] = []
    async with months.alone(conn) as alone:
        if not alone:
            return []
        there = await months.with_partition(conn)
        begun = await months.in_default(conn, missing)
        for month in missing:
            if month in there | begun | gone:
                continue
            try:
                async with conn.transaction():
                    await months.give_up_after(conn, seconds=_LOCK_S)
                    await months.make_table(conn, month.partition)
                    await months.must_be_of(conn, month)
                    await months.attach(conn, month)
                made.append(month)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.CheckViolation):
                continue  # in use just now, or somebody just stored something of it: the next sweep looks again
    return made


async def sort_default(conn: Conn, *, moved: Moved = lambda events: None) -> list[Month]:
    """Give every month that the default partition holds something of its own; those that got one.

    What came late for an archived month stays where it is. The caller must be alone (`months.alone`), and in no
    transaction. Needs room for a second copy of the default partition.
    """
    await _clear_up(conn)
    gone = {each.month for each in await archives.every(conn)}
    wanted = [each for each in await months.months_in_default(conn) if each not in gone]
    if not wanted:
        return []
    seen = await months.heads(conn)
    async with conn.transaction():
        await months.begin_sorting(conn, wanted)
    low, high, count = await months.batches_in_default(conn)
    step = max(1, (high - low + 1) * _EVENTS_PER_STEP // max(count, 1))
    for start in range(low, high + 1, step):
        moved(await months.sort_batches(conn, low=start, high=min(start + step - 1, high)))

    for _ in range(_TRIES):
        ahead = await months.heads(conn)  # in the lock there shall be little left to do
        await months.sort_news(conn, await months.batches_since(conn, seen))
        seen = ahead
        try:
            async with conn.transaction():
                await months.give_up_after(conn, seconds=_LOCK_S)
                await months.lock_default(conn)
                await months.sort_news(conn, await months.batches_since(conn, seen))
                await months.put_in_place(conn, wanted)
            break
        except psycopg.errors.LockNotAvailable:
            await asyncio.sleep(_LOCK_S)
    else:
        raise Occupied
    await _clear_up(conn)
    return wanted


async def _clear_up(conn: Conn) -> None:
    """The copy of a sorting that was killed; and the old default partition, once all that it held is in its month."""
    await months.forget_sorting(conn)
    left = await months.left_unsorted(conn)
    if left is not None:
        must(
            left == 0,
            "every event of the old default partition is in its month",
            left_in_events_unsorted=left,
        )
        await months.drop_unsorted(conn)
