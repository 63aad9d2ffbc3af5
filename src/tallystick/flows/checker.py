"""Group reads: everybody who asked while the last answers were made is answered together next.

Who asks first reads for all who wait, in their own task: nobody else need be woken before the question is sent, nor
after the answer is there. Then the next who waits does. Two lanes per process, apart from ingest's, so that asking
waits for no commit. The second helps when somebody has waited for the first a while: where cores are busy one answer in
a hundred takes much longer, and nobody need wait for two.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import psycopg

from tallystick.core.limits import CHECKS_PER_READ_MAX, CHECKS_QUEUED_MAX
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.check_usage import Ask, Checked, check_usage
from tallystick.flows.lane import Lane

log = logging.getLogger("tallystick.check")


PATIENCE_S: Final = 0.001
"""How long somebody waits for the first lane before the second one helps."""

CROWD_S: Final = 0.001
"""Where a lane stays, nobody comes to it while it reads. So who asks that soon after it was read on first lets in those who
came at the same moment."""

Answer = Checked | Problem


class _Waiting(NamedTuple):
    organization_id: UUID
    ask: Ask
    told: "asyncio.Future[Answer | Lane]"  # the answer, or the lane on which to read for all who wait


class Checker:
    def __init__(
        self, conninfo: str, books: Books, clock: Callable[[], datetime], *, beside: bool = False
    ) -> None:
        """`beside`: as a lane takes it."""
        self._books = books
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._first = Lane(conninfo, beside=beside, stays=beside)
        self._second = Lane(conninfo, beside=beside)
        self._free = {self._first, self._second}
        self._read_at = 0.0  # when the last answers were there, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None  # until the second lane is wanted
        self._closing = False
        self._idle = asyncio.Event()

    async def stop(self) -> None:
        """Answer everybody who asked, then stop."""
        self._closing = True
        while len(self._free) < 2:
            self._idle.clear()
            await self._idle.wait()
        for lane in (self._first, self._second):
            await lane.close()

    async def submit(self, organization_id: UUID, ask: Ask) -> Checked:
        """Raises what track would be refused with before limits and wallets are looked at."""
        if self._closing or len(self._waiting) >= CHECKS_QUEUED_MAX:
            raise Problem("unavailable", "Too many are asking; try again.", retry_after_s=1)
        loop = asyncio.get_running_loop()
        mine = _Waiting(organization_id, ask, loop.create_future())
        if self._first in self._free:  # then nobody waits
            self._free.remove(self._first)
            told: Answer | Lane = self._first
        else:
            self._waiting.append(mine)
            if self._timer is None:
                self._timer = loop.call_later(PATIENCE_S, self._want_second)
            told = await self._turn(mine)
        if isinstance(told, Lane):
            told = await self._read(told, mine)
        if isinstance(told, Problem):
            raise told
        return told

    async def _turn(self, mine: _Waiting) -> Answer | Lane:
        try:
            return await mine.told
        except asyncio.CancelledError:
            if not mine.told.cancelled() and isinstance(lane := mine.told.result(), Lane):
                self._pass_on(lane)
            raise

    def _want_second(self) -> None:
        self._timer = None
        if self._second in self._free:
            self._free.remove(self._second)
            self._pass_on(self._second)

    def _pass_on(self, lane: Lane) -> None:
        """To whoever has waited longest; to nobody where nobody waits."""
        while self._waiting:
            told = self._waiting.popleft().told
            if not told.done():  # the caller may be gone
                told.set_result(lane)
                return
        self._free.add(lane)
        self._idle.set()

    async def _read(self, lane: Lane, mine: _Waiting) -> Answer:
        """For mine and all who wait beside it."""
        clock = asyncio.get_running_loop().time
        others: list[_Waiting] = []
        answers: Sequence[Answer] = []
        try:
            if lane.stays and clock() < self._read_at + CROWD_S:
                await asyncio.sleep(0)
            others = self._take(mine.organization_id)
            asks = [mine.ask, *(each.ask for each in others)]
            answers = await self._answer(lane, mine.organization_id, asks)
        finally:
            self._read_at = clock()
            self._pass_on(lane)
            interrupted = Problem("unavailable", "It was interrupted; try again.", retry_after_s=1)
            for each, found in zip(others, answers[1:] or [interrupted] * len(others), strict=True):
                if not each.told.done():
                    each.told.set_result(found)
        return answers[0]

    def _take(self, organization_id: UUID) -> list[_Waiting]:
        """Who else asks about that organization; the others keep their order."""
        taken, others = list[_Waiting](), deque[_Waiting]()
        for each in self._waiting:
            fits = each.organization_id == organization_id and len(taken) < CHECKS_PER_READ_MAX - 1
            (taken if fits else others).append(each)
        self._waiting = others
        return taken

    async def _answer(self, lane: Lane, organization_id: UUID, asks: Sequence[Ask]) -> Sequence[Answer]:
        try:
            conn = await lane.connection()
            return await check_usage(conn, self._books, organization_id, asks, wall=self._clock())
        except psycopg.OperationalError as error:
            log.warning("check: the database did not answer: %s", str(error).strip())
            await lane.close()
            away = Problem("unavailable", "The database is not available; try again.", retry_after_s=1)
            return [away] * len(asks)
        except Problem as problem:
            return [problem] * len(asks)
        except Exception as error:  # whatever it is, it must not end the lane
            if len(asks) == 1:
                log.exception("check: it cannot be told", exc_info=error)
                return [Problem("internal_error")]
            half = len(asks) // 2
            return [
                *await self._answer(lane, organization_id, asks[:half]),
                *await self._answer(lane, organization_id, asks[half:]),
            ]
