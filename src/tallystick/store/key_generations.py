"""Generations of keys: which is open, what the frozen ones hold, and their filters. See docs/decisions/0024.

A frozen generation never changes, so whatever was found in it, or not, is true for ever, in any statement.
"""

from collections.abc import AsyncIterator, Sequence
from itertools import zip_longest
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from tallystick.store import citus
from tallystick.store.db import Conn, rows, the

_PART_BYTES: Final = 1024 * 1024
_PAGE_KEYS: Final = 10_000
_PAGE_BLOCKS: Final = 128
_HASH_MAX: Final = (1 << 128) - 1
_PATIENCE: Final = "1s"  # others wait behind whoever waits for a lock


def table(generation: int) -> LiteralString:
    """By its own name, so that a plan opens one table, however many there are."""
    return f"event_keys_g{generation:d}"


async def current(conn: Conn) -> int:
    """The one that is open."""
    cursor = await conn.execute("SELECT number FROM key_generations WHERE frozen_at IS NULL")
    return int((await the(cursor))[0])


async def stay(conn: Conn) -> None:
    """No other generation is opened until this transaction ends."""
    await conn.execute("SELECT FROM key_generations WHERE frozen_at IS NULL FOR SHARE")


async def size(conn: Conn, *, generation: int) -> int:
    """Bytes, rows and index."""
    name: LiteralString = f"'{table(generation)}'::regclass"
    cursor = await conn.execute(f"SELECT {citus.sized_by(conn, 'total_relation_size', name)}")
    return int((await the(cursor))[0])


async def freeze(conn: Conn, *, number: int) -> bool:
    """Freeze generation `number` and open the next; False when it was not the open one any more.

    One transaction moves the version of every organization with it. A batch is stored only if the head still has the
    version of its book: so nobody adds to the old generation afterwards, and whoever adds to the new one began when all
    of the old one was there to be seen. Heads are locked in order of id. Whoever makes an organization holds the open
    generation meanwhile (`stay`), so that no head is overlooked.

    Raises LockNotAvailable when somebody holds a head for too long, and OperationalError when a node of a cluster has yet
    to finish a commit: nothing has happened then; try again.
    """
    async with conn.transaction():
        await conn.execute("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
        await conn.execute("LOCK TABLE key_generations IN SHARE UPDATE EXCLUSIVE MODE")  # one at a time
        await _make(conn, number + 1)
    async with conn.transaction():
        await conn.execute("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
        if not await rows(
            conn,
            "SELECT FROM key_generations WHERE number = %s AND frozen_at IS NULL FOR UPDATE",
            (number,),
        ):
            return False
        await conn.execute("SELECT FROM organization_heads ORDER BY organization_id FOR NO KEY UPDATE")
        if citus.is_citus(conn):  # a key that is yet to appear on its node would be free for ever
            await citus.nothing_half_committed(conn)
        await conn.execute(
            """WITH heads AS (
                   UPDATE organization_heads SET version = version + 1 RETURNING organization_id, version)
               INSERT INTO changes (organization_id, version, only_keys)
               SELECT organization_id, version, true FROM heads"""
        )
        await conn.execute("UPDATE key_generations SET frozen_at = now() WHERE number = %s", (number,))
        await conn.execute(
            "INSERT INTO key_generations (number, first_batch) VALUES (%s, nextval('ingest_batch_numbers'))",
            (number + 1,),
        )
    return True


async def _make(conn: Conn, number: int) -> None:
    """The table of a generation, if it is not there yet. Attaching lets others read and write the older ones meanwhile."""
    name = table(number)
    if (await rows(conn, "SELECT to_regclass(%s) IS NULL", (name,)))[0][0]:
        unique_by = "key_hash, customer_id" if citus.is_citus(conn) else "key_hash"
        await conn.execute(f"CREATE TABLE {name} (LIKE event_keys, PRIMARY KEY ({unique_by}))")
        await conn.execute(f"ALTER TABLE event_keys ATTACH PARTITION {name} FOR VALUES IN ({number:d})")


# Filters --------------------------------------------------------------------------------------------------


class Filter(NamedTuple):
    """A filter as it is stored."""

    generation: int
    size: int  # bytes
    digest: bytes


async def filters(conn: Conn) -> list[Filter]:
    return [
        Filter(each[0], each[1], bytes(each[2]))
        for each in await rows(
            conn,
            """SELECT number, filter_bytes, filter_digest FROM key_generations
                WHERE frozen_at IS NOT NULL AND filter_bytes IS NOT NULL ORDER BY number""",
        )
    ]


async def without_filter(conn: Conn) -> list[int]:
    """Frozen generations whose filter was never built, or is not all there."""
    return [
        each[0]
        for each in await rows(
            conn,
            """SELECT number FROM key_generations g
                WHERE frozen_at IS NOT NULL
                  AND (filter_bytes = (SELECT sum(octet_length(bits)) FROM key_filters f
                                        WHERE f.generation = g.number)) IS NOT TRUE
                ORDER BY number""",
        )
    ]


async def estimate_keys(conn: Conn, *, generation: int) -> int:
    """About how many there are, told by the first page; on a cluster, all are counted."""
    if citus.is_citus(conn):
        cursor = await conn.execute(f"SELECT count(*) FROM {table(generation)}")
        return int((await the(cursor))[0])
    cursor = await conn.execute(
        f"""SELECT count(*) * greatest(1, pg_relation_size('{table(generation)}') / current_setting('block_size')::numeric
                                          / {_PAGE_BLOCKS})
              FROM {table(generation)} WHERE ctid < '({_PAGE_BLOCKS},0)'::tid"""
    )
    return int((await the(cursor))[0])


async def horizon(conn: Conn) -> str:
    """Every transaction before this number has ended: what it stored, all statements see from now on."""
    cursor = await conn.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::xid::text")
    return str((await the(cursor))[0])


Page = tuple[str, str | None]
"""Part of a generation that is read by one statement: from a row's address on and up to another. On a cluster, from a hash
on and up to another, or to the last."""


async def pages(conn: Conn, *, generation: int) -> Sequence[Page]:
    """All of them, some ten thousand keys each. The same ones again when it has grown, and then others.

    Each is a statement of its own: one statement over all keys would keep its snapshot meanwhile, and heads and rollups all
    of their versions, through which each commit would have to look.
    """
    if not citus.is_citus(conn):
        return await blocks(conn, generation=generation)
    count = await estimate_keys(conn, generation=generation) // _PAGE_KEYS + 1
    bounds = [str(UUID(int=nth * _HASH_MAX // count)) for nth in range(count)]  # hashes are spread evenly
    return list(zip_longest(bounds, bounds[1:]))


async def blocks(conn: Conn, *, generation: int) -> list[tuple[str, str]]:
    """The table of a generation in pages, each from a row's address on and up to another."""
    cursor = await conn.execute(
        f"SELECT pg_relation_size('{table(generation)}') / current_setting('block_size')::int"
    )
    return [
        (f"({first},0)", f"({first + _PAGE_BLOCKS},0)")
        for first in range(0, (await the(cursor))[0], _PAGE_BLOCKS)
    ]


async def keys_on(conn: Conn, page: Page, *, generation: int, since: str | None = None) -> bytes:
    """The keys one after the other; with `since`, those that transactions from that horizon on have stored, which a
    cluster cannot tell."""
    joined: LiteralString = (
        f"SELECT coalesce(string_agg(uuid_send(key_hash), ''::bytea), ''::bytea) FROM {table(generation)}"
    )
    cursor = conn.cursor(binary=True)
    if citus.is_citus(conn):
        await cursor.execute(
            f"{joined} WHERE key_hash >= %s::uuid AND (%s::uuid IS NULL OR key_hash < %s::uuid)",
            (page[0], page[1], page[1]),
        )
    else:
        await cursor.execute(
            f"""{joined} WHERE ctid >= %s::tid AND ctid < %s::tid
                   AND (%s::text IS NULL OR age(xmin) <= (SELECT age(%s::text::xid)))""",
            (*page, since, since),
        )
    return bytes((await the(cursor))[0])


async def keep_filter(conn: Conn, *, generation: int, bits: bytes | bytearray, digest: bytes) -> None:
    """Who keeps it at the same time waits for the row of the generation, and replaces it by one that is as good."""
    async with conn.transaction():
        await conn.execute(
            "UPDATE key_generations SET filter_bytes = %s, filter_digest = %s WHERE number = %s",
            (len(bits), digest, generation),
        )
        await conn.execute("DELETE FROM key_filters WHERE generation = %s", (generation,))
        for part, start in enumerate(range(0, len(bits), _PART_BYTES)):
            await conn.execute(
                "INSERT INTO key_filters (generation, part, bits) VALUES (%s, %s, %b)",
                (generation, part, bits[start : start + _PART_BYTES]),
            )


async def forget_filter(conn: Conn, *, generation: int, digest: bytes) -> None:
    """It is not what it was: let it be built again, unless it was meanwhile."""
    await conn.execute(
        """UPDATE key_generations SET filter_bytes = NULL, filter_digest = NULL
            WHERE number = %s AND filter_digest = %s""",
        (generation, digest),
    )


async def parts(conn: Conn, *, generation: int) -> AsyncIterator[bytes]:
    """A stored filter, a part at a time."""
    part = 0
    while True:
        cursor = conn.cursor(binary=True)
        await cursor.execute(
            "SELECT bits FROM key_filters WHERE generation = %s AND part = %s", (generation, part)
        )
        row = await cursor.fetchone()
        if row is None:
            return
        yield row[0]
        part += 1
