"""Keys of events: which are taken, and by which event. What a row says never changes."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from tallystick.store import citus, columns
from tallystick.store.db import Conn, Later
from tallystick.store.key_generations import table


class Held(NamedTuple):
    """What the row of a key says of the event that has it."""

    event_id: UUID
    occurred_at: datetime
    header_mark: int | None


class Looked(NamedTuple):
    """Keys to look for in one generation."""

    generation: int
    customers: Sequence[UUID]
    key_hashes: Sequence[bytes]


TOGETHER: Final = 16
"""So many generations are asked by one statement: their tables are opened each time, and a statement of its own for each
would cost several times as much."""


async def held(conn: Conn, looked: Looked) -> dict[bytes, Held]:
    """Those of the keys that are there, by hash."""
    return await _found(looked.key_hashes, await _look(conn, [looked.generation], [looked]))


async def held_before(conn: Conn, generation: int, looked: Sequence[Looked]) -> dict[bytes, Held]:
    """As `held`, in generations that are all before that one; one round trip for them together."""
    together = 1 if citus.is_citus(conn) else TOGETHER
    groups: defaultdict[int, list[Looked]] = defaultdict(list)
    for each in looked:
        groups[each.generation // together].append(each)
    there: dict[bytes, Held] = {}
    asked = []
    async with conn.pipeline() if len(groups) > 1 else nullcontext():
        for number, group in groups.items():
            # All that belong to the group, whichever are asked: so there are few statements to prepare.
            several = range(number * together, min((number + 1) * together, generation))
            key_hashes = [key_hash for each in group for key_hash in each.key_hashes]
            asked.append((key_hashes, await _look(conn, several, group)))
        for key_hashes, cursor in asked:
            there |= await _found(key_hashes, cursor)
    return there


async def _found(key_hashes: Sequence[bytes], cursor: AsyncCursor[TupleRow]) -> dict[bytes, Held]:
    return {key_hashes[nth - 1]: Held(*row) for nth, *row in await cursor.fetchall()}


async def taken(
    conn: Conn, *, customers: Sequence[UUID], key_hashes: Sequence[bytes], generation: int
) -> Later[set[bytes]]:
    """Which of these keys belong to an event of this generation already."""
    cursor = await _look(conn, [generation], [Looked(generation, customers, key_hashes)])

    async def told() -> set[bytes]:
        return {key_hashes[nth - 1] for nth, *_ in await cursor.fetchall()}

    return told


async def _look(conn: Conn, generations: Sequence[int], looked: Sequence[Looked]) -> AsyncCursor[TupleRow]:
    """A row for each of the keys that is there: its place among all of them, from 1, and what it says. Those of `looked`
    are among the `generations`, which the statement is made for."""
    anywhere: LiteralString = " UNION ALL ".join(
        f"""SELECT * FROM {table(each)} k
             WHERE t.generation = {each:d} AND k.customer_id = t.customer_id AND k.key_hash = t.key_hash"""
        for each in generations
    )
    return await conn.execute(
        f"""SELECT t.nth, k.event_id, k.occurred_at, k.header_mark
              FROM unnest(%s::int8[], %s::uuid[], %s::uuid[]) WITH ORDINALITY
                   AS t (generation, customer_id, key_hash, nth)
             CROSS JOIN LATERAL ({anywhere} OFFSET 0) k""",
        (
            columns.integers([each.generation for each in looked for _ in each.key_hashes]),
            columns.uuids([customer for each in looked for customer in each.customers]),
            columns.digests([key_hash for each in looked for key_hash in each.key_hashes]),
        ),
    )
