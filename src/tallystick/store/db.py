"""Connections, transactions, new ids, and the head row everybody locks last."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from decimal import Decimal
from struct import unpack_from
from typing import Any, Final, LiteralString, NamedTuple, Self, TypeVar
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncCursor, IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool

from tallystick.store import citus

T = TypeVar("T")
Conn = AsyncConnection[TupleRow]

# JSON columns hold numbers exactly: no float on the way in or out.
to_json: Final = msgspec.json.Encoder(decimal_format="number").encode
set_json_dumps(to_json)
set_json_loads(msgspec.json.Decoder(float_hook=Decimal).decode)


# No statement of ours runs for so long that compiling it would pay, whatever its estimate says.
CONNECTION: Final[dict[str, Any]] = {"autocommit": True, "options": "-c timezone=UTC -c jit=off"}

INGEST_CONNECTION: Final[dict[str, Any]] = {
    "autocommit": True,
    # The same few statements for ever: plan each once. What the tables hold when that happens, nothing as yet
    # perhaps, must not decide: every row these statements want is found by an index.
    "options": "-c timezone=UTC -c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off",
    "prepare_threshold": 0,
}

STATEMENTS_MAX: Final = 500
"""Planned and kept by a connection that ingests: a few, and some for each generation of keys that was open meanwhile."""


PROOF_CONNECTION: Final[dict[str, Any]] = {
    "autocommit": True,
    # A customer may have ten events or ten million: each statement is planned for the one it asks about. Leaves
    # are sorted a stretch at a time, in memory. Who wants several cores opens several connections.
    "options": "-c timezone=UTC -c plan_cache_mode=force_custom_plan -c work_mem=64MB -c jit=off "
    "-c max_parallel_workers_per_gather=0",
}


async def connect(conninfo: str, options: Mapping[str, Any], kind: type[Conn] = AsyncConnection) -> Conn:
    """A connection of one's own, with one of the above; whatever kind of PostgreSQL it leads to."""
    conn = await kind.connect(conninfo, **options)
    try:
        await citus.adapt(conn)
    except BaseException:
        await conn.close()
        raise
    return conn


def unhurried(conn: Conn) -> Conn:
    """Let it rest after each statement for nine times as long as that took, so that it takes a tenth of a core, and no
    snapshot is held most of the time. In a transaction it does not rest, which would hold one."""
    conn.cursor_factory = type("Unhurried", (_Rests, conn.cursor_factory), {})
    return conn


class _Rests(AsyncCursor[TupleRow]):
    async def execute(self, *args: Any, **kwargs: Any) -> Self:
        began = time.monotonic()
        try:
            return await super().execute(*args, **kwargs)
        finally:
            if self.connection.info.transaction_status is TransactionStatus.IDLE:
                await asyncio.sleep(_RESTS * (time.monotonic() - began))


_RESTS: Final = 9


class Database:
    """A pool of connections. `transaction` is the only way to write; flows and edges open it, nobody else."""

    def __init__(self, conninfo: str, *, size: int = 16) -> None:
        self.conninfo = conninfo
        self.holders = asyncio.Semaphore(max(1, size // 4))
        """For who holds a connection while asking for another: together they must never hold them all."""
        self._pool = AsyncConnectionPool[Conn](
            conninfo,
            min_size=1,
            max_size=size,
            open=False,
            kwargs=CONNECTION,
            configure=citus.adapt,
            check=AsyncConnectionPool.check_connection,
            timeout=10,
        )

    async def open(self) -> None:
        await self._pool.open(wait=True)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Conn]:
        """A connection where each statement stands alone."""
        async with self._pool.connection() as conn:
            yield conn

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Conn]:
        """All or nothing. With `snapshot`, every statement sees one moment (REPEATABLE READ)."""
        async with self._pool.connection() as conn, one_moment(conn) if snapshot else conn.transaction():
            yield conn


@asynccontextmanager
async def one_moment(conn: Conn) -> AsyncIterator[None]:
    """On a connection where each statement stands alone: those inside all see one moment (REPEATABLE READ).

    In a transaction already, they see what that one sees.
    """
    if conn.info.transaction_status is not TransactionStatus.IDLE:
        async with conn.transaction():
            yield
        return
    gate = await citus.gate(conn) if citus.is_citus(conn) else None
    await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    try:
        async with conn.transaction():
            if gate is not None:
                await citus.look_everywhere(conn, gate)
            yield
    finally:
        if not conn.closed:
            await conn.set_isolation_level(None)


@asynccontextmanager
async def one_look(conn: Conn) -> AsyncIterator[None]:
    """Each statement inside sees one moment. So it does by itself; on a cluster it must be told."""
    async with one_moment(conn) if citus.is_citus(conn) else nullcontext():
        yield


@asynccontextmanager
async def pipelined(conn: Conn) -> AsyncIterator[None]:
    """A transaction whose statements are sent without waiting for what nobody reads: BEGIN, and writes that answer
    nothing, travel with the next statement. Their failure is raised by whatever is read next, or at the end.
    """
    async with conn.pipeline() as pipeline:
        try:
            await conn.execute("BEGIN")
            yield
            await conn.execute("COMMIT")
            await pipeline.sync()
        except BaseException:
            try:
                with suppress(psycopg.Error):  # what was sent after a failure fails too
                    await pipeline.sync()
                await conn.rollback()
            except psycopg.Error:
                await conn.close()  # its next user must not find itself in this transaction
            raise


Later = Callable[[], Awaitable[T]]
"""An answer that was asked for: in a pipeline nobody waits before somebody calls."""


async def rows(conn: Conn, query: LiteralString, params: Any = None) -> list[TupleRow]:
    cursor = await conn.execute(query, params)
    return await cursor.fetchall()


async def row(conn: Conn, query: LiteralString, params: Any = None) -> TupleRow | None:
    cursor = await conn.execute(query, params)
    return await cursor.fetchone()


async def the(cursor: AsyncCursor[Any]) -> Any:
    """The one row a statement cannot fail to return."""
    found = await cursor.fetchone()
    if found is None:
        raise LookupError("the statement returned no row")
    return found


_NOISE_BYTES: Final = 8 * 1024


def as_uuids(numbers: Iterable[int]) -> list[UUID]:
    """`UUID(int=number)` of each; msgspec makes them in a fifth of the time that Python takes."""
    return msgspec.convert([each.to_bytes(16) for each in numbers], list[UUID])


class Ids:
    """Time-ordered ids (UUIDv7), each greater than every one made before, whatever the clock does meanwhile."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._last_stamp = 0
        self._noise, self._noise_at = b"", 0

    def __call__(self, count: int) -> list[UUID]:
        return as_uuids(self.numbers(count))

    def numbers(self, count: int) -> list[int]:
        """The same as numbers, for who still changes them before they are ids."""
        milliseconds, rest = divmod(self._clock_ns(), 1_000_000)
        stamp = max(milliseconds << 12 | rest * 4096 // 1_000_000, self._last_stamp + 1)
        self._last_stamp = stamp + count - 1
        return [
            ((each >> 12) << 16 | 7 << 12 | each & 4095) << 64 | 2 << 62 | noise >> 2
            for each, noise in enumerate(self._noise_for(count), start=stamp)
        ]

    def _noise_for(self, count: int) -> tuple[int, ...]:
        """Eight random bytes each, as a number, asked of the kernel a block at a time."""
        if self._noise_at + 8 * count > len(self._noise):
            self._noise, self._noise_at = os.urandom(max(_NOISE_BYTES, 8 * count)), 0
        start, self._noise_at = self._noise_at, self._noise_at + 8 * count
        return unpack_from(f">{count}Q", self._noise, start)


new_ids: Final = Ids(time.time_ns)
"""The ids of this process."""


def new_id() -> UUID:
    return new_ids(1)[0]


async def bump(conn: Conn, *, organization_id: UUID, customer_id: UUID | None = None) -> None:
    """Say that what ingest knows of a customer (None: of the whole organization) is no longer so.

    Locks the head row: call it last in the transaction that makes the change.
    """
    await conn.execute(
        """WITH head AS (
               UPDATE organization_heads SET version = version + 1
                WHERE organization_id = %(organization)s RETURNING version)
           INSERT INTO changes (organization_id, version, customer_id)
           SELECT %(organization)s, version, %(customer)s FROM head""",
        {"organization": organization_id, "customer": customer_id},
    )


async def version(conn: Conn, *, organization_id: UUID) -> int:
    cursor = await conn.execute(
        "SELECT version FROM organization_heads WHERE organization_id = %s", (organization_id,)
    )
    return int((await the(cursor))[0])


async def head_position(conn: Conn, *, organization_id: UUID) -> int:
    cursor = await conn.execute(
        "SELECT position FROM organization_heads WHERE organization_id = %s", (organization_id,)
    )
    return int((await the(cursor))[0])


async def head(conn: Conn, *, organization_id: UUID) -> tuple[int, bytes]:
    """Where the chain stands, and its digest there."""
    cursor = await conn.execute(
        "SELECT position, digest FROM organization_heads WHERE organization_id = %s", (organization_id,)
    )
    position, digest = await the(cursor)
    return int(position), bytes(digest)


class Change(NamedTuple):
    """What moved an organization's version."""

    version: int  # the one it was moved to
    customer_id: UUID | None  # whose; None: everybody's
    only_keys: bool  # and nobody's but that another generation of keys is open


async def changed_since(conn: Conn, *, organization_id: UUID, version: int) -> list[Change]:
    """What moved the version after `version`, oldest first."""
    found = await rows(
        conn,
        """SELECT version, customer_id, only_keys FROM changes
            WHERE organization_id = %s AND version > %s ORDER BY version""",
        (organization_id, version),
    )
    return [Change(*each) for each in found]


async def forget_changes(conn: Conn, *, keep: int) -> int:
    """Drop all but the newest changes; a book older than that is read anew as a whole."""
    cursor = await conn.execute(
        """DELETE FROM changes c USING organization_heads h
            WHERE h.organization_id = c.organization_id AND c.version <= h.version - %s""",
        (keep,),
    )
    return cursor.rowcount


async def has_written(conn: Conn) -> bool:
    """Whether the transaction has changed or locked a row, so that what it sees may be seen by nobody else."""
    cursor = await conn.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
    return bool((await the(cursor))[0])


async def try_lock(conn: Conn, *, name: bytes) -> bool:
    """An advisory lock until the transaction ends; False when somebody else holds it."""
    cursor = await conn.execute(
        "SELECT pg_try_advisory_xact_lock(%s)", (int.from_bytes(name[:8], signed=True),)
    )
    return bool((await the(cursor))[0])


async def try_hold(conn: Conn, *, name: bytes) -> bool:
    """An advisory lock as long as this connection lives; False when somebody else holds it."""
    cursor = await conn.execute("SELECT pg_try_advisory_lock(%s)", (int.from_bytes(name[:8], signed=True),))
    return bool((await the(cursor))[0])
