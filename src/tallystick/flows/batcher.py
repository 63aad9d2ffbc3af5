"""Group commit: everything that arrived while the last commit ran goes into the next.

Where many ask at once, commits begin a little apart: what a commit costs whatever is in it is then shared by
more, and checks find a core that is free. Who asks alone waits for nobody.

A process that is alone has two lanes, each with a connection of its own. The first takes whatever waits; the second
helps only when much waits, so that this process decides about one batch while PostgreSQL stores another, and a trickle
of single events still shares its commits. Several processes have one lane each. A caller that hangs up does not disturb
the others; a batch that fails for what is in it is halved until the guilty event stands alone, and one that is too long to
be judged at length in one go until its parts are not; a lost database is waited for, and until it is back the answer is
"not now", never silence.
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

from tallystick.core.limits import ROWS_AT_LENGTH_MAX, ROWS_PER_COMMIT_MAX, ROWS_QUEUED_MAX
from tallystick.core.rows import Table
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.drafts import Draft, Outcome
from tallystick.flows.ingest import TooMany, ingest
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

FEW: Final = 10
"""Who sent fewer on average than so many has their outcomes as a list: cutting that by columns would cost them more."""


@dataclass(slots=True)
class _Submission:
    organization_id: UUID
    drafts: Sequence[Draft]
    answer: "asyncio.Future[Sequence[Outcome]]"


class Batcher:
    def __init__(
        self,
        conninfo: str,
        books: Books,
        clock: Callable[[], datetime],
        *,
        workers: int = 1,
        beside: bool = False,
    ) -> None:
        """`workers` is how many processes serve together, this one among them: what they commit at the same time waits
        for the same rollups, so each has one lane. `beside`: as a lane takes it."""
        self._conninfo = conninfo
        self._books = books
        self._clock = clock
        self._waiting: deque[_Submission] = deque()
        self._rows = 0  # accepted and not yet answered
        self._unclaimed = 0  # of those, the ones no lane has taken
        self._lanes = [Lane(conninfo, beside=beside)]
        if workers == 1:
            self._lanes.append(Lane(conninfo, MUCH, beside=beside))
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

    async def submit(self, organization_id: UUID, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        """Outcomes in the order of the drafts, once they are on disk. Raises Problem when there is no room."""
        if not drafts:
            return []
        if self._closing or self._rows + len(drafts) > ROWS_QUEUED_MAX:
            raise Problem("unavailable", "Too much is waiting to be stored; try again.", retry_after_s=1)
        answer: asyncio.Future[Sequence[Outcome]] = self._loop.create_future()
        self._waiting.append(_Submission(organization_id, drafts, answer))
        self._rows += len(drafts)
        self._unclaimed += len(drafts)
        for lane in self._lanes:
            if self._unclaimed >= lane.from_rows:
                lane.wanted.set()
        return await answer

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
            outcomes = await self._commit(lane, taken[0].organization_id, drafts)
            stored = clock()
            self._rows -= len(drafts)
            many = len(taken) + len(self._waiting) >= COMMIT_SIBLINGS
            crowd = len(drafts) + self._unclaimed
            await self._answer(taken, outcomes)
            if many:
                wait_s = max(began + COMMIT_GAP_S - clock(), (stored - began) * COMMIT_REST)
                await self._gather(lane, wait_s, rows=min(crowd, MUCH))

    async def _answer(self, taken: Sequence[_Submission], outcomes: Sequence[Outcome]) -> None:
        """Each its share, a few at a time."""
        if len(taken) > len(outcomes) // FEW:
            outcomes = [*outcomes]
        place = 0
        for nth, submission in enumerate(taken):
            if nth and nth % ANSWERS_AT_ONCE == 0:
                await asyncio.sleep(0)
            share = outcomes[place : place + len(submission.drafts)]
            place += len(submission.drafts)
            if not submission.answer.done():  # the caller may be gone
                submission.answer.set_result(share)

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

    async def _commit(
        self, lane: "Lane", organization_id: UUID, drafts: Sequence[Draft]
    ) -> Sequence[Outcome]:
        try:
            conn = await lane.connection()
            return await ingest(
                conn,
                self._books,
                organization_id,
                drafts,
                wall=self._clock(),
                at_length_max=ROWS_AT_LENGTH_MAX,
            )
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            log.warning("ingest: the database did not answer: %s", str(error).strip())
            await lane.close()
            refusal = Problem(
                "unavailable", "The database is not available; try again with the same keys.", retry_after_s=1
            )
            return [refusal] * len(drafts)
        except Problem as problem:
            return [problem] * len(drafts)
        except TooMany:
            return await self._commit_halves(lane, organization_id, drafts)
        except Exception as error:  # whatever it is, it must not end the lane
            if len(drafts) == 1:
                log.exception("ingest: one event cannot be stored", exc_info=error)
                return [Problem("internal_error")]
            return await self._commit_halves(lane, organization_id, drafts)

    async def _commit_halves(
        self, lane: "Lane", organization_id: UUID, drafts: Sequence[Draft]
    ) -> Sequence[Outcome]:
        half = len(drafts) // 2
        return [
            *await self._commit(lane, organization_id, drafts[:half]),
            *await self._commit(lane, organization_id, drafts[half:]),
        ]
