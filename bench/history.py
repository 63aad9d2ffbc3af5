"""Keys (and, if wanted, events) that a server took long ago, made up by PostgreSQL itself.

This module alone knows the shape of the tables that keep keys unique.
"""

import asyncio
import os
import time
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import AsyncConnection

from bench.month import Progress, say
from tallystick.core.limits import KEY_GENERATION_MB
from tallystick.store import key_generations
from tallystick.store.db import CONNECTION
from tallystick.store.places import BUNCH

CHUNK: Final = 500_000
LASTS: Final = timedelta(days=365)
BYTES_PER_KEY: Final = 140  # rows and index, roughly: what `bench.storage` prints
FILTERS_WITHIN_S: Final = 3_600

_MADE: Final = f"""
    WITH made AS MATERIALIZED (
        SELECT c.id AS customer_id, md5('key' || %(salt)s || i)::uuid AS key_hash,
               (lpad(to_hex(at_ms), 12, '0') || '7' || left(other, 3) || '8' || right(other, 11)
                || lpad(to_hex(i / (%(crowd)s * {BUNCH}) %% 65536), 4, '0'))::uuid AS id,
               to_timestamp(at_ms / 1000.0) AS occurred_at, ('x' || left(other, 8))::bit(32)::int AS header_mark, i
          FROM (SELECT i, %(from_ms)s::int8 + i * %(lasts_ms)s::int8 / %(total)s::int8 AS at_ms,
                       md5('header' || %(salt)s || i) AS other
                  FROM generate_series(%(first)s::int8, %(last)s::int8) AS i OFFSET 0) AS numbers
          JOIN bench_crowd c ON c.nth = i %% %(crowd)s
    ), keys AS (
        INSERT INTO event_keys (generation, customer_id, key_hash, event_id, occurred_at, header_mark)
        SELECT %(generation)s, customer_id, key_hash, id, occurred_at, header_mark FROM made
    )"""
_KEYS: Final = f"{_MADE} SELECT"
_KEYS_AND_EVENTS: Final = f"""{_MADE}
    INSERT INTO events (customer_id, occurred_at, id, batch, feature_code, value, event_key)
    SELECT customer_id, occurred_at, id, 0, %(feature)s, 1, %(salt)s || i
      FROM made ORDER BY i"""


def fill(
    conn: psycopg.Connection,
    n: int,
    *,
    events: bool = False,
    per_generation: int = KEY_GENERATION_MB * 2**20 // BYTES_PER_KEY,
) -> None:
    """`n` keys that nobody will ever send, of all customers in turn, over the last year; says how far it is.

    The newest go into the open generation and leave it half full, as it is on average; the rest are frozen. An index is
    taken away meanwhile and comes back as if it had grown key by key: nobody may write in between. Without `events` the
    keys point to events that are not there, with them to events without a batch: `verify` would complain.
    """
    for name, value in (
        ("synchronous_commit", "off"),
        ("work_mem", "256MB"),
        ("maintenance_work_mem", "512MB"),
    ):
        conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    lasts_ms = LASTS // timedelta(milliseconds=1)
    given = _world(conn) | {"salt": os.urandom(8).hex(), "total": n}
    given |= {"from_ms": time.time_ns() // 1_000_000 - lasts_ms, "lasts_ms": lasts_ms}
    statement = _KEYS_AND_EVENTS if events else _KEYS
    progress = Progress("keys", n, parts=20)
    newest = min(n, per_generation // 2)
    for start in range(0, n - newest, per_generation):
        end = min(start + per_generation, n - newest)
        _fill_one(conn, statement, given, range(start, end), progress)
        _freeze(conn)
    _fill_one(conn, statement, given, range(n - newest, n), progress)
    conn.execute("DROP TABLE bench_crowd")
    conn.commit()


def _fill_one(
    conn: psycopg.Connection, statement: str, given: dict[str, object], keys: range, progress: Progress
) -> None:
    """The open generation."""
    number = _open_one(conn)
    table = key_generations.table(number)
    conn.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey".encode())
    conn.commit()
    for first in range(keys.start, keys.stop, CHUNK):
        last = min(first + CHUNK, keys.stop) - 1
        conn.execute(statement.encode(), given | {"generation": number, "first": first, "last": last})
        conn.commit()
        progress.more(last - first + 1)
    # A tree that grew by keys in no order has pages that are full to ln 2 on average.
    conn.execute(
        f"""ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (key_hash) WITH (fillfactor = 69);
            ALTER INDEX {table}_pkey RESET (fillfactor)""".encode()
    )
    conn.commit()


def _open_one(conn: psycopg.Connection) -> int:
    found = conn.execute("SELECT number FROM key_generations WHERE frozen_at IS NULL").fetchone()
    assert found is not None
    return int(found[0])


def _freeze(conn: psycopg.Connection) -> None:
    """As the server does it, unless it was quicker."""
    number, conninfo = _open_one(conn), conn.info.dsn
    conn.commit()

    async def act() -> None:
        async with await AsyncConnection.connect(conninfo, **CONNECTION) as freezing:
            await key_generations.freeze(freezing, number=number)

    asyncio.run(act())


def wait_for_filters(conninfo: str) -> int:
    """Until the server has built them all; how many bytes they are. Says how long that took."""
    began = time.monotonic()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        while time.monotonic() - began < FILTERS_WITHIN_S:
            lacking, size = conn.execute(
                """SELECT count(*) FILTER (WHERE filter_bytes IS NULL), coalesce(sum(filter_bytes), 0)
                     FROM key_generations WHERE frozen_at IS NOT NULL"""
            ).fetchone() or (0, 0)
            if not lacking:
                say(f"their filters were built {time.monotonic() - began:.0f} s later: {size:,} bytes")
                return int(size)
            time.sleep(0.5)
    raise TimeoutError("the server does not build its filters")


def _world(conn: psycopg.Connection) -> dict[str, object]:
    """Whose keys they are: a temporary table numbers the customers."""
    crowd = conn.execute(
        """CREATE TEMP TABLE bench_crowd AS
           SELECT id, organization_id, (row_number() OVER (ORDER BY id) - 1)::int8 AS nth FROM customers"""
    ).rowcount
    found = conn.execute(
        """SELECT f.code FROM features f
            WHERE f.organization_id = (SELECT organization_id FROM bench_crowd LIMIT 1)"""
    ).fetchone()
    if found is None:
        raise ValueError("a history needs customers and a feature")
    return {"feature": found[0], "crowd": crowd}
