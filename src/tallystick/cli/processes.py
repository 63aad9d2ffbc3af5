"""Work for several processes, each with a connection of its own, handed out from one event loop."""

import asyncio
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tallystick.store.db import PROOF_CONNECTION, Conn, connect

P = ParamSpec("P")
T = TypeVar("T")

_loop: asyncio.AbstractEventLoop
_conn: Conn


class Processes:
    """So many processes on one database, started as work comes. Pieces of work are functions of a connection."""

    def __init__(self, conninfo: str, count: int, options: Mapping[str, Any] = PROOF_CONNECTION) -> None:
        self.count = count
        self._executor = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(conninfo, options),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    async def do(
        self, act: Callable[Concatenate[Conn, P], Awaitable[T]], *given: P.args, **named: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _perform, act, given, named)


def _begin(conninfo: str, options: Mapping[str, Any]) -> None:
    """Ctrl-C is the parent's to handle: it stops handing out work."""
    global _loop, _conn
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _loop = asyncio.new_event_loop()
    _conn = _loop.run_until_complete(connect(conninfo, options))


def _perform(act: Callable[..., Awaitable[T]], given: tuple[object, ...], named: dict[str, object]) -> T:
    async def inside() -> T:
        return await act(_conn, *given, **named)

    return _loop.run_until_complete(inside())
