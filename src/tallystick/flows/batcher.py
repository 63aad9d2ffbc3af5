"""Where events queue for their commit (`flows.commits`), with room for so many.

A process that is alone has two lanes, each with a connection of its own. The first takes whatever waits; the second
helps only when much waits, so that this process decides about one batch while PostgreSQL stores another, and a trickle
of single events still shares its commits. Several processes have one lane each.

Where it takes long to look for old keys, because they lie on a disk, events whose keys may be old are set apart when the
others are stored. They go on in a lane of their own: whoever sent none does not wait for the disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from tallystick.core.limits import ROWS_QUEUED_MAX
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.commits import MUCH, Commits
from tallystick.flows.drafts import Draft, Outcome
from tallystick.flows.lane import Lane


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
        lanes = [Lane(conninfo, beside=beside)]
        if workers == 1:
            lanes.append(Lane(conninfo, MUCH, beside=beside))
        self._usual = Commits(books, clock, lanes, old_apart=True)
        self._old = Commits(books, clock, [Lane(conninfo, beside=beside)], gap_s=0)
        self._asking = 0
        self._nobody_asks = asyncio.Event()
        self._closing = False

    @property
    def rows_waiting(self) -> int:
        return self._usual.rows_waiting + self._old.rows_waiting

    def start(self) -> None:
        self._usual.start()
        self._old.start()

    async def stop(self) -> None:
        """Answer everything that was accepted into the queue, then stop."""
        self._closing = True
        await self._usual.stop()
        while self._asking:
            self._nobody_asks.clear()
            await self._nobody_asks.wait()
        await self._old.stop()

    async def submit(self, organization_id: UUID, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        """Outcomes in the order of the drafts, once they are on disk. Raises Problem when there is no room."""
        if not drafts:
            return []
        if self._closing or self.rows_waiting + len(drafts) > ROWS_QUEUED_MAX:
            raise Problem("unavailable", "Too much is waiting to be stored; try again.", retry_after_s=1)
        self._asking += 1
        try:
            taken = await self._usual.submit(organization_id, drafts)
            if not taken.apart:
                return taken.outcomes
            outcomes = [*taken.outcomes]
            old = await self._old.submit(organization_id, [drafts[place] for place in taken.apart])
            for place, outcome in zip(taken.apart, old.outcomes, strict=True):
                outcomes[place] = outcome
            return outcomes
        finally:
            self._asking -= 1
            if not self._asking:
                self._nobody_asks.set()
