"""Keys (and, if wanted, events) that a server took long ago, made up by PostgreSQL itself.

This module alone knows the shape of the tables that keep keys unique.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import psycopg

CHUNK: Final = 500_000
LONG_AGO: Final = timedelta(days=365)
BYTES_PER_KEY: Final = 200  # rows and index, roughly: what `bench.storage` prints
KEY_TABLES: Final = ("event_keys",)

_MADE: Final = """
    WITH made AS MATERIALIZED (
        SELECT c.id AS customer_id, decode(md5('key' || %(salt)s || i), 'hex') AS key_hash, uuidv7(at - now()) AS id,
               decode(md5('header' || %(salt)s || i), 'hex') AS header_hash, at AS occurred_at, i
          FROM (SELECT i, now() - %(long_ago)s::interval * (1 - i / %(total)s::float8) AS at
                  FROM generate_series(%(first)s::int8, %(last)s::int8) AS i) AS numbers
          JOIN bench_crowd c ON c.nth = i %% %(crowd)s
    ), keys AS (
        INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at, header_hash)
        SELECT customer_id, key_hash, id, occurred_at, header_hash FROM made ORDER BY customer_id, key_hash
    )"""
_KEYS: Final = f"{_MADE} SELECT"
_KEYS_AND_EVENTS: Final = f"""{_MADE}
    INSERT INTO events (customer_id, occurred_at, id, organization_id, received_at, batch, feature_code, value,
                        event_key, timed)
    SELECT customer_id, occurred_at, id, %(organization)s, occurred_at, 0, %(feature)s, 1, %(salt)s || i, false
      FROM made ORDER BY i"""


def fill(
    conn: psycopg.Connection,
    n: int,
    *,
    events: bool = False,
    stored: Callable[[int], None] = lambda _: None,
) -> None:
    """`n` keys that nobody will ever send, of all customers in turn, over the last year, oldest first.

    Chunks are sorted as the server's own batches are, and committed one by one. Without `events` the keys point to
    events that are not there, with them to events without a batch: `verify` would complain of both.
    """
    conn.execute("SET synchronous_commit = off")
    conn.execute("SET work_mem = '256MB'")
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
    given: dict[str, object] = {"organization": found[0], "feature": found[1], "crowd": crowd}
    given |= {"salt": os.urandom(8).hex(), "total": n, "long_ago": LONG_AGO}
    for first in range(0, n, CHUNK):
        last = min(first + CHUNK, n) - 1
        conn.execute(_KEYS_AND_EVENTS if events else _KEYS, given | {"first": first, "last": last})
        conn.commit()
        stored(last - first + 1)
    conn.execute("DROP TABLE bench_crowd")
    conn.commit()
