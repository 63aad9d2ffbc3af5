"""A lane: one connection, and so one group of requests at a time; whoever waits shares the next."""

import asyncio
import contextlib

import psycopg
from psycopg import AsyncConnection

from tallystick.store.beside import Staying, keep_beside
from tallystick.store.db import INGEST_CONNECTION, STATEMENTS_MAX, Conn, connect


class Lane:
    """One connection, and so one commit at a time. While one lane waits for the disk, another decides.

    `beside`: PostgreSQL's process at the other end, which is on this machine, runs on the cores of this one. `stays`: who
    asks it something waits a moment for the answer, with the whole process.
    """

    def __init__(
        self, conninfo: str, from_rows: int = 1, *, beside: bool = False, stays: bool = False
    ) -> None:
        self.from_rows = from_rows
        self.stays = stays
        self._beside = beside
        self.wanted = asyncio.Event()
        self._conninfo = conninfo
        self._conn: Conn | None = None

    async def connection(self) -> Conn:
        if self._conn is None or self._conn.closed or self._conn.broken:
            kind: type[Conn] = Staying if self.stays else AsyncConnection
            self._conn = await connect(self._conninfo, {"connect_timeout": 5, **INGEST_CONNECTION}, kind)
            self._conn.prepared_max = STATEMENTS_MAX
            if self._beside:
                keep_beside(self._conn)
        return self._conn

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()
