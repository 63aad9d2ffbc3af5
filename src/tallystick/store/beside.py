"""PostgreSQL's process of a connection on the cores that we may run on (docs/decisions/0032); only for one on this machine.

On one core the two take turns, so who has asked something small may as well wait for the answer: nobody else here could
run meanwhile, but would go before it if we turned to them first.
"""

import os
from contextlib import suppress
from select import POLLIN, poll
from typing import Any, Final, TypeVar

from psycopg import AsyncConnection
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from tallystick.store.db import Conn

T = TypeVar("T")

PATIENCE_MS: Final = 1
"""How long for. An answer that takes longer comes from a disk, from behind a lock or from behind a full core: the event
loop goes on meanwhile."""


def keep_beside(conn: Conn) -> None:
    """Have its process there, which is found by its number."""
    with suppress(OSError):  # it is somebody else's, or gone already
        os.sched_setaffinity(conn.info.backend_pid, os.sched_getaffinity(0))


class Staying(AsyncConnection[TupleRow]):
    """Waits for an answer for a moment before it lets the event loop go on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer = poll()
        self._answer.register(self.pgconn.socket, POLLIN)

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109 (psycopg's)
        try:
            wants = next(gen)
            while wants == Wait.R and self._answer.poll(PATIENCE_MS):
                wants = gen.send(Ready.R)
        except StopIteration as done:
            found: T = done.value
            return found
        return await super().wait(_resumed(gen, wants), interval, timeout)


def _resumed(gen: PQGen[T], wants: Wait) -> PQGen[T]:
    """The rest of a generator that was begun, from what it wants."""
    while True:
        ready = yield wants
        try:
            wants = gen.send(ready)
        except StopIteration as done:
            found: T = done.value
            return found
