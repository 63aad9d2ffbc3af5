"""Partitions of `events`: a month each, and one for whatever happened in no month that has its own.

Attaching a partition locks the default one for as long as it takes to read it, so that is done only while it is
small; waiting for a lock is short, for whoever stores events waits behind us meanwhile.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from psycopg import sql

from tallystick.core.retention import Month
from tallystick.store import citus
from tallystick.store.db import Conn, row, rows, the
from tallystick.store.places import same

DEFAULT: Final = "events_any"
_DEFAULT_TABLE: Final = "'events_any'::regclass"
SMALL_BYTES: Final = 64 * 1024 * 1024
"""What is read in some tens of milliseconds: so large may the default partition be while it is locked."""
LOCK_NAME: Final = b"tallyret"
"""Held by whoever changes partitions, one at a time."""
_COUNTED_BYTES: Final = 256 * 1024 * 1024


class Partition(NamedTuple):
    """`month` is None of the default partition."""

    month: Month | None
    name: str
    events: int
    exact: bool  # else as PostgreSQL last estimated it
    size_bytes: int


class Heads(NamedTuple):
    """How far the chain of each organization was, in the order of its commits."""

    organizations: list[UUID]
    positions: list[int]


async def partitions(conn: Conn) -> list[Partition]:
    """Those there are, by month; the default one last."""
    total, heap = (
        citus.sized_by(conn, each, "c.oid::regclass") for each in ("total_relation_size", "relation_size")
    )
    found = await rows(
        conn,
        f"""SELECT c.relname, {total}, {heap}, c.reltuples::bigint
             FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
            WHERE h.inhparent = 'events'::regclass AND NOT h.inhdetachpending ORDER BY c.relname""",
    )
    told = []
    for name, size, of_heap, estimate in found:
        exact = of_heap <= _COUNTED_BYTES or estimate < 0
        events = estimate
        if exact:
            cursor = await conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
            events = (await the(cursor))[0]
        month = Month.named(name.removeprefix("events_").replace("_", "-"))
        told.append(Partition(month, name, events, exact, size))
    return told


async def with_partition(conn: Conn) -> set[Month]:
    found = await rows(
        conn,
        """SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
            WHERE h.inhparent = 'events'::regclass""",
    )
    named = (Month.named(each[0].removeprefix("events_").replace("_", "-")) for each in found)
    return {each for each in named if each is not None}


async def default_bytes(conn: Conn) -> int:
    found = await row(conn, f"SELECT {citus.sized_by(conn, 'relation_size', _DEFAULT_TABLE)}")
    return 0 if found is None else int(found[0])


async def in_default(conn: Conn, months: Sequence[Month]) -> set[Month]:
    """Those of some months of which the default partition holds an event; reads it once."""
    found = await rows(
        conn,
        """SELECT DISTINCT date_trunc('month', occurred_at, 'UTC') FROM events_any
            WHERE occurred_at >= %s AND occurred_at < %s""",
        (min(each.span.start for each in months), max(each.span.end for each in months)),
    )
    return {Month.of(each[0]) for each in found} & set(months)


async def months_in_default(conn: Conn) -> dict[Month, int]:
    """Every month of which the default partition holds events, and how many; reads all of it."""
    found = await rows(
        conn,
        """SELECT date_trunc('month', occurred_at, 'UTC'), count(*) FROM events_any GROUP BY 1 ORDER BY 1""",
    )
    return {Month.of(each[0]): each[1] for each in found}


async def give_up_after(conn: Conn, *, seconds: float) -> None:
    """How long this transaction waits for a lock before it fails with LockNotAvailable."""
    await conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(seconds * 1000)}ms",))


async def make_table(conn: Conn, name: str) -> None:
    """A table like `events`, of nobody's yet, on the same nodes."""
    table = sql.Identifier(name)
    await conn.execute(sql.SQL("CREATE TABLE {} (LIKE events INCLUDING ALL)").format(table))
    await conn.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table))
    await citus.lie_with_events(conn, name)


async def attach(conn: Conn, month: Month, *, to: str = "events") -> None:
    """Make a month's table a partition. It must hold nothing of another month, nor the default anything of it."""
    await conn.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(to),
            sql.Identifier(month.partition),
            sql.Literal(month.span.start.isoformat()),
            sql.Literal(month.span.end.isoformat()),
        )
    )


async def detach(conn: Conn, name: str, *, of: str = "events") -> None:
    await conn.execute(
        sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(sql.Identifier(of), sql.Identifier(name))
    )


async def drop(conn: Conn, name: str) -> None:
    await conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))


async def exists(conn: Conn, name: str) -> bool:
    found = await row(conn, "SELECT to_regclass(quote_ident(%s)) IS NOT NULL", (name,))
    return found is not None and bool(found[0])


async def must_be_of(conn: Conn, month: Month) -> None:
    """Let a month's table, empty as yet, take only what happened in it: to be attached it need not be read then."""
    await conn.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK (occurred_at >= {} AND occurred_at < {})").format(
            sql.Identifier(month.partition),
            sql.Identifier(f"{month.partition}_only"),
            sql.Literal(month.span.start.isoformat()),
            sql.Literal(month.span.end.isoformat()),
        )
    )


async def lock_default(conn: Conn) -> None:
    """Nobody reads or stores events until the transaction ends. Who is at it holds `events` itself, whatever else."""
    await conn.execute("LOCK TABLE ONLY events, ONLY events_any IN ACCESS EXCLUSIVE MODE")
    if citus.is_citus(conn):  # what is yet to appear on its node would not be copied
        await citus.nothing_half_committed(conn)


async def heads(conn: Conn) -> Heads:
    found = await rows(conn, "SELECT organization_id, position FROM organization_heads")
    return Heads([each[0] for each in found], [each[1] for each in found])


_SINCE: Final[LiteralString] = """SELECT b.batch FROM organization_heads h
      LEFT JOIN unnest(%(organizations)s::uuid[], %(positions)s::bigint[]) AS n (organization_id, position)
             USING (organization_id)
      JOIN ingest_batches b ON b.organization_id = h.organization_id AND b.position > coalesce(n.position, 0)"""


async def batches_since(conn: Conn, noted: Heads) -> list[int]:
    """Batches that were committed after the heads stood there, in order of their number."""
    cursor = await conn.execute(f"{_SINCE} ORDER BY b.batch", noted._asdict())
    return [each[0] for each in await cursor.fetchall()]


async def holds_any(conn: Conn, name: str, batches: Sequence[int]) -> bool:
    """Whether a partition holds an event of some batches: the index over (id, batch) knows where they can be."""
    if not batches:
        return False
    cursor = await conn.execute(  # `+ 0`: or it would be asked for each of them by itself
        sql.SQL(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE batch >= %s AND batch <= %s AND batch + 0 = ANY(%s))"
        ).format(sql.Identifier(name)),
        (batches[0], batches[-1], list(batches)),
    )
    return bool((await the(cursor))[0])


# Sorting the default partition into months ----------------------------------------------------------------

_SORTED: Final = "events_sorted"
_LEFT: Final = "events_left"
_UNSORTED: Final = "events_unsorted"


async def begin_sorting(conn: Conn, months: Iterable[Month]) -> None:
    """A table beside `events` that sorts what is put into it: months, and the default partition that is to be."""
    await conn.execute(f"CREATE TABLE {_SORTED} (LIKE events INCLUDING ALL) PARTITION BY RANGE (occurred_at)")
    await citus.lie_with_events(conn, _SORTED)
    for month in months:
        await make_table(conn, month.partition)
        await must_be_of(conn, month)
        await attach(conn, month, to=_SORTED)
    await conn.execute(f"CREATE TABLE {_LEFT} PARTITION OF {_SORTED} DEFAULT")


async def forget_sorting(conn: Conn) -> None:
    """What a sorting that did not come to its end has left."""
    await drop(conn, _SORTED)


async def batches_in_default(conn: Conn) -> tuple[int, int, int]:
    """The lowest and the highest batch there, and how many events; reads all of it."""
    found = await row(
        conn, "SELECT coalesce(min(batch), 0), coalesce(max(batch), -1), count(*) FROM events_any"
    )
    assert found is not None
    return found[0], found[1], found[2]


async def sort_batches(conn: Conn, *, low: int, high: int) -> int:
    """Copy the events of some batches; how many those were."""
    cursor = await conn.execute(
        f"INSERT INTO {_SORTED} SELECT e.* FROM events_any e WHERE e.batch >= %s AND e.batch <= %s",
        (low, high),
    )
    return cursor.rowcount


async def sort_news(conn: Conn, batches: Sequence[int]) -> None:
    """The same for batches that came meanwhile, as far as that was not done, with what they took back."""
    if not batches:
        return
    given = {"low": batches[0], "high": batches[-1], "batches": list(batches)}
    among = "{0}.batch >= %(low)s AND {0}.batch <= %(high)s AND {0}.batch + 0 = ANY(%(batches)s)"
    await conn.execute(
        f"""INSERT INTO {_SORTED} SELECT e.* FROM events_any e WHERE {among.format("e")}
               AND NOT EXISTS (SELECT FROM {_SORTED} s WHERE {same("s", "e")} OFFSET 0)""",
        given,
    )
    await conn.execute(
        f"""UPDATE {_SORTED} s SET voided = o.voided
              FROM events_any v JOIN events_any o ON {same("o", "v", named="voids")}
             WHERE {among.format("v")} AND v.voids IS NOT NULL AND {same("s", "o")}""",
        given,
    )


async def put_in_place(conn: Conn, months: Iterable[Month]) -> None:
    """Let what was sorted take the place of the old default partition, which stands aside then."""
    await detach(conn, DEFAULT)
    await conn.execute(f"ALTER TABLE {DEFAULT} RENAME TO {_UNSORTED}")
    for month in months:
        await detach(conn, month.partition, of=_SORTED)
        await attach(conn, month)
    await detach(conn, _LEFT, of=_SORTED)
    await conn.execute(f"ALTER TABLE {_LEFT} RENAME TO {DEFAULT}")
    await conn.execute(f"ALTER TABLE events ATTACH PARTITION {DEFAULT} DEFAULT")
    await drop(conn, _SORTED)


async def left_unsorted(conn: Conn) -> int | None:
    """How many events of the old default partition are not in `events`: none, or it must be kept. None: it is gone."""
    if not await exists(conn, _UNSORTED):
        return None
    found = await row(
        conn,
        f"""SELECT count(*) FROM {_UNSORTED} o
             WHERE NOT EXISTS (SELECT FROM events e
                                WHERE {same("e", "o")} AND e.batch = o.batch)""",
    )
    return None if found is None else int(found[0])


async def drop_unsorted(conn: Conn) -> None:
    await drop(conn, _UNSORTED)


@asynccontextmanager
async def alone(conn: Conn) -> AsyncIterator[bool]:
    """Whether nobody else changes partitions while this lasts."""
    name = int.from_bytes(LOCK_NAME, signed=True)
    cursor = await conn.execute("SELECT pg_try_advisory_lock(%s)", (name,))
    held = bool((await the(cursor))[0])
    try:
        yield held
    finally:
        if held and not conn.closed:
            await conn.execute("SELECT pg_advisory_unlock(%s)", (name,))
