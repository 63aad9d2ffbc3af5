"""Group commit: everything that arrived while the last commit ran goes into the next.

Where many ask at once, commits begin a little apart: what a commit costs whatever is in it is then shared by
more, and checks find a core that is free. Who asks alone waits for nobody.

A caller that hangs up does not disturb the others; a batch that fails for what is in it is halved until the guilty event
stands alone, and one that is too long to be judged at length in one go until its parts are not; a lost database is waited
for, and until it is back the answer is "not now", never silence.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import psycopg

from tallystick.core.limits import ROWS_AT_LENGTH_MAX, ROWS_PER_COMMIT_MAX
from tallystick.core.rows import Table
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.drafts import Draft, Taken
from tallystick.flows.ingest import TooMany, take
from tallystick.flows.lane import Lane

log = logging.getLogger("tallystick.ingest")

MUCH: Final = 300
"""How many rows must wait before a second lane takes its share."""

COMMIT_SIBLINGS: Final = 5
"""How many must ask at once, those that were just answered among them, for the next commit to wait for more."""

COMMIT_GAP_S: Final = 0.006
"""How long after the one before it such a commit begins, unless much waits, or all who had asked are there again."""

COMMIT_REST: Final = 0.5
"""How long after the end of the one before it, as a share of the time that one took. Without a rest, a commit that takes
longer than the gap is followed at once by those who came meanwhile, and those whom it answered miss it: two crowds take
turns, in twice as many commits."""

ANSWERS_AT_ONCE: Final = 2
"""After so many it is somebody else's turn: a check that has come in, or what it has read, need not wait for all."""

LONG_TURN_S: Final = 0.001
"""A turn of others that takes longer is a crowd's. After it twice as many are answered as before it: else all who share a
commit would wait for a crowd of checks between every two of them."""

FEW_EACH: Final = 10
"""Who sent fewer on average than so many has their outcomes as a list: cutting that by columns would cost them more."""


@dataclass(slots=True)
class _Submission:
    organization_id: UUID
    drafts: Sequence[Draft]
    answer: "asyncio.Future[Taken]"


class Commits:
    """Of one or more lanes, which take from one queue."""

    def __init__(
        self,
        books: Books,
        clock: Callable[[], datetime],
        lanes: Sequence[Lane],
        *,
        gap_s: float = COMMIT_GAP_S,
        old_apart: bool = False,
    ) -> None:
        """`gap_s`: how long after the one before it a commit of many begins. `old_apart`: as `ingest.take` takes it."""
        self._books = books
        self._clock = clock
        self._lanes = lanes
        self._gap_s = gap_s
        self._old_apart = old_apart
        self._waiting: deque[_Submission] = deque()
        self._rows = 0  # accepted and not yet answered
        self._unclaimed = 0  # of those, the ones no lane has taken
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    @property
    def rows_waiting(self) -> int:
        return self._rows

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._run(lane), name="ingest lane") for lane in self._lanes]

    async def stop(self) -> None:
        """Answer everything that was accepted into the queue, then stop."""
        self._closing = True
        for lane in self._lanes:
            lane.wanted.set()
        await asyncio.gather(*self._tasks)
        for lane in self._lanes:
            await lane.close()

    def submit(self, organization_id: UUID, drafts: Sequence[Draft]) -> "asyncio.Future[Taken]":
        """What became of them, once that is on disk."""
        answer: asyncio.Future[Taken] = self._loop.create_future()
        self._waiting.append(_Submission(organization_id, drafts, answer))
        self._rows += len(drafts)
        self._unclaimed += len(drafts)
        for lane in self._lanes:
            if self._unclaimed >= lane.from_rows:
                lane.wanted.set()
        return answer

    async def _run(self, lane: "Lane") -> None:
        clock = self._loop.time
        while True:
            if self._unclaimed < lane.from_rows:
                if self._closing:
                    return
                lane.wanted.clear()
                await lane.wanted.wait()
                continue
            began = clock()
            taken = self._take()
            drafts = Table.joined(Draft, [each.drafts for each in taken])
            self._unclaimed -= len(drafts)
            done = await self._commit(lane, taken[0].organization_id, drafts)
            stored = clock()
            self._rows -= len(drafts)
            many = len(taken) + len(self._waiting) >= COMMIT_SIBLINGS
            crowd = len(drafts) + self._unclaimed
            await self._answer(taken, done)
            if many and self._gap_s:
                wait_s = max(began + self._gap_s - clock(), (stored - began) * COMMIT_REST)
                await self._gather(lane, wait_s, rows=min(crowd, MUCH))

    async def _answer(self, taken: Sequence[_Submission], done: Taken) -> None:
        """Each its share, a few at a time."""
        if len(taken) > len(done.outcomes) // FEW_EACH:
            done = done._replace(outcomes=[*done.outcomes])
        place, at_once, left = 0, ANSWERS_AT_ONCE, ANSWERS_AT_ONCE
        for submission in taken:
            if not left:
                left = at_once = await self._let_others(at_once)
            left -= 1
            share = done.share(place, place := place + len(submission.drafts))
            if not submission.answer.done():  # the caller may be gone
                submission.answer.set_result(share)

    async def _let_others(self, at_once: int) -> int:
        """Have their turn; how many to answer after it."""
        began = self._loop.time()
        await asyncio.sleep(0)
        return 2 * at_once if self._loop.time() - began > LONG_TURN_S else ANSWERS_AT_ONCE

    async def _gather(self, lane: "Lane", seconds: float, *, rows: int) -> None:
        """Let more come before the next commit, until so many rows wait or the time is over."""
        if seconds <= 0 or self._unclaimed >= rows or self._closing:
            return
        usual, lane.from_rows = lane.from_rows, rows
        lane.wanted.clear()
        timer = self._loop.call_later(seconds, lane.wanted.set)
        await lane.wanted.wait()
        timer.cancel()
        lane.from_rows = usual

    def _take(self) -> list[_Submission]:
        """The next commit: what waits for the organization that has waited longest, up to the cap."""
        first = self._waiting.popleft()
        taken, rows, others = [first], len(first.drafts), deque[_Submission]()
        while self._waiting:
            each = self._waiting.popleft()
            if (
                each.organization_id.int == first.organization_id.int
                and rows + len(each.drafts) <= ROWS_PER_COMMIT_MAX
            ):
                taken.append(each)
                rows += len(each.drafts)
            else:
                others.append(each)
                if rows >= ROWS_PER_COMMIT_MAX:
                    break
        others.extend(self._waiting)
        self._waiting = others
        return taken

    async def _commit(self, lane: "Lane", organization_id: UUID, drafts: Sequence[Draft]) -> Taken:
        try:
            return await take(
                await lane.connection(),
                self._books,
                organization_id,
                drafts,
                wall=self._clock(),
                at_length_max=ROWS_AT_LENGTH_MAX,
                old_apart=self._old_apart,
            )
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            log.warning("ingest: the database did not answer: %s", str(error).strip())
            await lane.close()
            refusal = Problem(
                "unavailable", "The database is not available; try again with the same keys.", retry_after_s=1
            )
            return Taken([refusal] * len(drafts))
        except Problem as problem:
            return Taken([problem] * len(drafts))
        except TooMany:
            return await self._commit_halves(lane, organization_id, drafts)
        except Exception as error:  # whatever it is, it must not end the lane
            if len(drafts) == 1:
                log.exception("ingest: one event cannot be stored", exc_info=error)
                return Taken([Problem("internal_error")])
            return await self._commit_halves(lane, organization_id, drafts)

    async def _commit_halves(self, lane: "Lane", organization_id: UUID, drafts: Sequence[Draft]) -> Taken:
        half = len(drafts) // 2
        first = await self._commit(lane, organization_id, drafts[:half])
        return first.then(await self._commit(lane, organization_id, drafts[half:]))
