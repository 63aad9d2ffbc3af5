"""Keys of events: which are taken, and by which event. What a row says never changes."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from tallystick.store import columns
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


async def held(conn: Conn, looked: Sequence[Looked]) -> dict[bytes, Held]:
    """Those of the keys that are there, by hash; a statement for each generation, one round trip for all."""
    there: dict[bytes, Held] = {}
    asked: list[tuple[Looked, AsyncCursor[TupleRow]]] = []
    async with conn.pipeline() if len(looked) > 1 else nullcontext():
        for each in looked:
            asked.append((each, await _look(conn, each)))
        for each, cursor in asked:
            for nth, *row in await cursor.fetchall():
                there[each.key_hashes[nth - 1]] = Held(*row)
    return there


async def taken(
    conn: Conn, *, customers: Sequence[UUID], key_hashes: Sequence[bytes], generation: int
) -> Later[set[bytes]]:
    """Which of these keys belong to an event of this generation already."""
    cursor = await _look(conn, Looked(generation, customers, key_hashes))

    async def told() -> set[bytes]:
        return {key_hashes[nth - 1] for nth, *_ in await cursor.fetchall()}

    return told


async def _look(conn: Conn, looked: Looked) -> AsyncCursor[TupleRow]:
    """A row for each of the keys that is there: its place among them, from 1, and what it says."""
    return await conn.execute(
        f"""SELECT t.nth, k.event_id, k.occurred_at, k.header_mark
              FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS t (customer_id, key_hash, nth)
             CROSS JOIN LATERAL (
                   SELECT * FROM {table(looked.generation)} k
                    WHERE k.customer_id = t.customer_id AND k.key_hash = t.key_hash OFFSET 0) k""",
        (columns.uuids(looked.customers), columns.digests(looked.key_hashes)),
    )
