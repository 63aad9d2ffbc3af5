"""Where the time of a close goes: waiting, by what PostgreSQL was asked, and our own processor time, by room."""

import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import msgspec
from psycopg import AsyncCursor

import tallystick
from tallystick.store.db import Conn, Database

_TICK_S: Final = 0.001  # asked for; the kernel's own tick may be coarser
_HOME: Final = f"{Path(tallystick.__file__).parent}/"
_REST: Final = "Python: the rest"
_ROOMS: Final = (
    (f"{_HOME}core/proof", "Python: digest"),
    (f"{_HOME}core/meters", "Python: fold"),
    (f"{_HOME}core/", "Python: rate"),
    (f"{_HOME}store/", "Python: to and from SQL"),
    (f"{_HOME}flows/", "Python: flows"),
    (_HOME, _REST),
)
_BEGIN, _COMMIT = "borrow a connection, BEGIN", "COMMIT"
_STAGES: Final = {
    _BEGIN: "waiting: begin",
    _COMMIT: "waiting: commit",
    "SELECT usage_hours": "waiting: read rollups",
    "SELECT usage_values": "waiting: read rollups",
    "SELECT events": "waiting: read events",
}
_WRITE: Final = re.compile(r"(?<!FOR )(?<!DO )(?<!KEY )\b(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
_READ: Final = re.compile(r"\bFROM\s+(?!unnest\b)(\w+)")


class Statement(msgspec.Struct, rename="camel"):
    """One kind of statement, as often as it was sent."""

    name: str
    stage: str
    round_trips: int = 0
    seconds: float = 0.0  # from asking to the answer; several at a time add up


class Stage(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    share: float  # of the whole time
    ms_per_close: float
    round_trips_per_close: float


class Stages:
    """Notes while it is entered. Costs two looks at a clock for each statement, and a glance at each tick."""

    def __init__(self) -> None:
        self.statements: dict[str, Statement] = {}
        self._by_query: dict[str, Statement] = {}
        self._ticks: Counter[str] = Counter()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)
        self._began, self._cpu_before = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu_s = time.process_time() - self._cpu_before
        signal.setitimer(signal.ITIMER_PROF, 0)

    def note(self, query: str, began: float, *, round_trips: int = 1) -> None:
        took = time.perf_counter() - began
        statement = self._by_query.get(query)
        if statement is None:
            name = _name(query)
            stage = _STAGES.get(
                name, "waiting: other reads" if name.startswith("SELECT") else "waiting: write"
            )
            statement = self._by_query[query] = self.statements.setdefault(name, Statement(name, stage))
        statement.round_trips += round_trips
        statement.seconds += took

    def told(self, closes: int) -> list[Stage]:
        """All of the time. What was no processor time of ours was waiting, and is shared out by how long each
        statement took; processor time is shared out by where the ticks fell."""
        waited: Counter[str] = Counter()
        trips: Counter[str] = Counter()
        for each in self.statements.values():
            waited[each.stage] += each.seconds  # type: ignore[assignment]
            trips[each.stage] += each.round_trips
        waiting = max(0.0, self.seconds - self.cpu_s)
        shares = [(name, waiting * part / waited.total()) for name, part in waited.most_common()]
        shares += [
            (name, self.cpu_s * ticks / self._ticks.total()) for name, ticks in self._ticks.most_common()
        ]
        return [
            Stage(name, seconds / self.seconds, seconds / closes * 1e3, trips[name] / closes)
            for name, seconds in shares
        ]

    def _tick(self, _: int, frame: FrameType | None) -> None:
        """The innermost frame of ours names the room, whatever it has called of others."""
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(_HOME):
                self._ticks[next(name for room, name in _ROOMS if file.startswith(room))] += 1
                return
            frame = frame.f_back
        self._ticks[_REST] += 1


class Watched(Database):
    """The server's database; its connections tell `stages` what they are asked."""

    def __init__(self, conninfo: str, stages: Stages, *, size: int) -> None:
        super().__init__(conninfo, size=size)
        self._stages = stages
        self._cursors = _noting(stages)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Conn]:
        began = time.perf_counter()
        async with super().reading() as conn:
            self._stages.note(_BEGIN, began)
            conn.cursor_factory = self._cursors
            yield conn

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Conn]:
        began = time.perf_counter()
        async with super().transaction(snapshot=snapshot) as conn:
            self._stages.note(_BEGIN, began, round_trips=2)  # the pool asks first whether anybody is there
            conn.cursor_factory = self._cursors
            yield conn
            began = time.perf_counter()
        self._stages.note(_COMMIT, began)


def _noting(stages: Stages) -> type[AsyncCursor[Any]]:
    class Noting(AsyncCursor[Any]):
        async def execute(self, query: Any, *rest: Any, **more: Any) -> Self:
            began = time.perf_counter()
            await super().execute(query, *rest, **more)
            if query:  # an empty one is the pool's question, which belongs to the borrowing
                stages.note(query, began)
            return self

        async def executemany(self, query: Any, *rest: Any, **more: Any) -> None:
            began = time.perf_counter()
            await super().executemany(query, *rest, **more)
            stages.note(query, began)

    return Noting


def _name(query: str) -> str:
    """What it does to which table: `SELECT usage_hours`."""
    if query in _STAGES:
        return query
    written = _WRITE.findall(query)
    if written:
        return ", ".join(f"{verb.split()[0]} {table}" for verb, table in written)
    read = _READ.search(query)
    return f"SELECT {read[1] if read else ''}{' FOR UPDATE' if 'FOR UPDATE' in query else ''}"
