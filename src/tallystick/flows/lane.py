"""A lane: one connection, and so one group of requests at a time; whoever waits shares the next."""

import asyncio
import contextlib

import psycopg

from tallystick.store.db import INGEST_CONNECTION, STATEMENTS_MAX, Conn, connect, keep_beside


class Lane:
    """One connection, and so one commit at a time. While one lane waits for the disk, another decides.

    `beside`: PostgreSQL's process at the other end, which is on this machine, runs on the cores of this one.
    """

    def __init__(self, conninfo: str, from_rows: int = 1, *, beside: bool = False) -> None:
        self.from_rows = from_rows
        self._beside = beside
        self.wanted = asyncio.Event()
        self._conninfo = conninfo
        self._conn: Conn | None = None

    async def connection(self) -> Conn:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = await connect(self._conninfo, {"connect_timeout": 5, **INGEST_CONNECTION})
            self._conn.prepared_max = STATEMENTS_MAX
            if self._beside:
                keep_beside(self._conn)
        return self._conn

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()
