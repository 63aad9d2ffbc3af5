"""Keys (and, if wanted, events) that a server took long ago, made up by PostgreSQL itself.

This module alone knows the shape of the tables that keep keys unique.
"""

import os
import time
from datetime import timedelta
from typing import Final

import psycopg

from bench.month import Progress, say

CHUNK: Final = 500_000
LASTS: Final = timedelta(days=365)
BYTES_PER_KEY: Final = 200  # rows and index, roughly: what `bench.storage` prints
KEY_TABLES: Final = ("event_keys",)

# A tree that grew by keys in no order has pages that are full to ln 2 on average.
_INDEX: Final = """
    ALTER TABLE event_keys ADD CONSTRAINT event_keys_pkey PRIMARY KEY (customer_id, key_hash) WITH (fillfactor = 69);
    ALTER INDEX event_keys_pkey RESET (fillfactor)"""

_MADE: Final = """
    WITH made AS MATERIALIZED (
        SELECT c.id AS customer_id, decode(md5('key' || %(salt)s || i), 'hex') AS key_hash,
               (lpad(to_hex(at_ms), 12, '0') || '7' || left(other, 3) || '8' || right(other, 15))::uuid AS id,
               to_timestamp(at_ms / 1000.0) AS occurred_at, decode(other, 'hex') AS header_hash, i
          FROM (SELECT i, %(from_ms)s::int8 + i * %(lasts_ms)s::int8 / %(total)s::int8 AS at_ms,
                       md5('header' || %(salt)s || i) AS other
                  FROM generate_series(%(first)s::int8, %(last)s::int8) AS i OFFSET 0) AS numbers
          JOIN bench_crowd c ON c.nth = i %% %(crowd)s
    ), keys AS (
        INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at, header_hash)
        SELECT customer_id, key_hash, id, occurred_at, header_hash FROM made
    )"""
_KEYS: Final = f"{_MADE} SELECT"
_KEYS_AND_EVENTS: Final = f"""{_MADE}
    INSERT INTO events (customer_id, occurred_at, id, organization_id, received_at, batch, feature_code, value,
                        event_key, timed)
    SELECT customer_id, occurred_at, id, %(organization)s, occurred_at, 0, %(feature)s, 1, %(salt)s || i, false
      FROM made ORDER BY i"""


def fill(conn: psycopg.Connection, n: int, *, events: bool = False) -> None:
    """`n` keys that nobody will ever send, of all customers in turn, over the last year; says how far it is.

    The index is taken away meanwhile and comes back as if it had grown key by key: nobody may write in between. Without
    `events` the keys point to events that are not there, with them to events without a batch: `verify` would complain.
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
    conn.execute("ALTER TABLE event_keys DROP CONSTRAINT event_keys_pkey")
    conn.commit()
    progress = Progress("keys", n, parts=20)
    for first in range(0, n, CHUNK):
        last = min(first + CHUNK, n) - 1
        conn.execute(_KEYS_AND_EVENTS if events else _KEYS, given | {"first": first, "last": last})
        conn.commit()
        progress.more(last - first + 1)
    say("their index")
    conn.execute(_INDEX)
    conn.execute("DROP TABLE bench_crowd")
    conn.commit()


def _world(conn: psycopg.Connection) -> dict[str, object]:
    """Whose keys they are: a temporary table numbers the customers."""
    crowd = conn.execute(
        """CREATE TEMP TABLE bench_crowd AS
           SELECT id, organization_id, (row_number() OVER (ORDER BY id) - 1)::int8 AS nth FROM customers"""
    ).rowcount
    found = conn.execute(
        """SELECT f.organization_id, f.code FROM features f
            WHERE f.organization_id = (SELECT organization_id FROM bench_crowd LIMIT 1)"""
    ).fetchone()
    if found is None:
        raise ValueError("a history needs customers and a feature")
    return {"organization": found[0], "feature": found[1], "crowd": crowd}
