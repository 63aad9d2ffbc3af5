"""Group reads: everybody who asked while the last answers were made is answered together next. No timer.

One lane per process, apart from ingest's, so that asking waits for no commit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg

from tallystick.core.limits import CHECKS_PER_READ_MAX, CHECKS_QUEUED_MAX
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.check_usage import Ask, Checked, check_usage
from tallystick.flows.lane import Lane

log = logging.getLogger("tallystick.check")


class _Waiting(NamedTuple):
    organization_id: UUID
    ask: Ask
    answer: "asyncio.Future[Checked | Problem]"


class Checker:
    def __init__(self, conninfo: str, books: Books, clock: Callable[[], datetime]) -> None:
        self._books = books
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._lane = Lane(conninfo, 1)
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="check lane")

    async def stop(self) -> None:
        """Answer everybody who asked, then stop."""
        self._closing = True
        self._lane.wanted.set()
        if self._task is not None:
            await self._task
        await self._lane.close()

    async def submit(self, organization_id: UUID, ask: Ask) -> Checked:
        """Raises what track would be refused with before limits and wallets are looked at."""
        if self._closing or len(self._waiting) >= CHECKS_QUEUED_MAX:
            raise Problem("unavailable", "Too many are asking; try again.", retry_after_s=1)
        answer: asyncio.Future[Checked | Problem] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(organization_id, ask, answer))
        self._lane.wanted.set()
        found = await answer
        if isinstance(found, Problem):
            raise found
        return found

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._lane.wanted.clear()
                await self._lane.wanted.wait()
                continue
            taken = self._take()
            answers = await self._answer(taken[0].organization_id, [each.ask for each in taken])
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

    async def _answer(self, organization_id: UUID, asks: Sequence[Ask]) -> Sequence[Checked | Problem]:
        try:
            conn = await self._lane.connection()
            return await check_usage(conn, self._books, organization_id, asks, wall=self._clock())
        except psycopg.OperationalError as error:
            log.warning("check: the database did not answer: %s", str(error).strip())
            await self._lane.close()
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
                *await self._answer(organization_id, asks[:half]),
                *await self._answer(organization_id, asks[half:]),
            ]
