"""Group reads: everybody who asked while the last answers were made is answered together next.

Two lanes per process, apart from ingest's, so that asking waits for no commit. The second helps when somebody has waited
for the first a while: where cores are busy one answer in a hundred takes much longer, and nobody need wait for two.
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


class _Waiting(NamedTuple):
    organization_id: UUID
    ask: Ask
    answer: "asyncio.Future[Checked | Problem]"


class Checker:
    def __init__(self, conninfo: str, books: Books, clock: Callable[[], datetime]) -> None:
        self._books = books
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._first, self._second = Lane(conninfo, 1), Lane(conninfo, 1)
        self._timer: asyncio.TimerHandle | None = None  # until the second lane is wanted
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(lane), name="check lane") for lane in (self._first, self._second)
        ]

    async def stop(self) -> None:
        """Answer everybody who asked, then stop."""
        self._closing = True
        for lane in (self._first, self._second):
            lane.wanted.set()
        await asyncio.gather(*self._tasks)
        for lane in (self._first, self._second):
            await lane.close()

    async def submit(self, organization_id: UUID, ask: Ask) -> Checked:
        """Raises what track would be refused with before limits and wallets are looked at."""
        if self._closing or len(self._waiting) >= CHECKS_QUEUED_MAX:
            raise Problem("unavailable", "Too many are asking; try again.", retry_after_s=1)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Checked | Problem] = loop.create_future()
        self._waiting.append(_Waiting(organization_id, ask, answer))
        self._first.wanted.set()
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE_S, self._want_second)
        found = await answer
        if isinstance(found, Problem):
            raise found
        return found

    def _want_second(self) -> None:
        self._timer = None
        if self._waiting:
            self._second.wanted.set()

    async def _run(self, lane: Lane) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                lane.wanted.clear()
                await lane.wanted.wait()
                continue
            taken = self._take()
            answers = await self._answer(lane, taken[0].organization_id, [each.ask for each in taken])
            for each, found in zip(taken, answers, strict=True):
                if not each.answer.done():  # the caller may be gone
                    each.answer.set_result(found)

    def _take(self) -> list[_Waiting]:
        """Who asks about the organization that has waited longest; the others keep their order."""
        first, taken, others = self._waiting[0], list[_Waiting](), deque[_Waiting]()
        for each in self._waiting:
            mine = each.organization_id == first.organization_id and len(taken) < CHECKS_PER_READ_MAX
            (taken if mine else others).append(each)
        self._waiting = others
        return taken

    async def _answer(
        self, lane: Lane, organization_id: UUID, asks: Sequence[Ask]
    ) -> Sequence[Checked | Problem]:
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
