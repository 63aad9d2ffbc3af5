"""What this machine's PostgreSQL does at best: the same rows without HTTP, and rows without any index."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from typing import Final, LiteralString
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from bench.events import CUSTOMERS, FEATURE, REPEAT_EVERY, SPREAD
from bench.load import percentile
from tallystick.store.places import BUNCH

COPY_ROWS: Final = 10_000
WARM_UP_S: Final = 0.5
METER: Final = UUID(int=7)

# Tables of the server's shape: a narrow table of keys, events apart from it, a rollup by the hour.
TABLES: Final[LiteralString] = """
    CREATE FUNCTION hour_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN date_bin(INTERVAL '1 hour', at, TIMESTAMPTZ '1970-01-01 00:00:00+00');
    CREATE FUNCTION bunch_of(id uuid) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN get_byte(uuid_send(id), 14) * 256 + get_byte(uuid_send(id), 15);
    CREATE TABLE event_keys (
        customer_id uuid NOT NULL, key_hash uuid PRIMARY KEY, event_id uuid NOT NULL,
        occurred_at timestamptz NOT NULL, header_mark int, generation int NOT NULL);
    CREATE TABLE events (
        customer_id uuid NOT NULL, occurred_at timestamptz NOT NULL, id uuid NOT NULL, received_at timestamptz,
        batch bigint NOT NULL, feature_code text NOT NULL, value numeric NOT NULL, event_key text, timed boolean,
        adjusts uuid, properties jsonb, reason text) PARTITION BY RANGE (occurred_at);
    CREATE TABLE events_any PARTITION OF events DEFAULT;
    CREATE INDEX ON events (customer_id, hour_of(occurred_at), bunch_of(id));
    CREATE INDEX ON events USING brin (id, batch) WITH (pages_per_range = 32, autosummarize = on);
    CREATE TABLE usage_hours (
        customer_id uuid, meter_id uuid, hour timestamptz, events bigint NOT NULL, quantity numeric NOT NULL,
        batch bigint NOT NULL, PRIMARY KEY (customer_id, meter_id, hour));
    CREATE TABLE copied (LIKE events);
"""

INSERT: Final[LiteralString] = """
    WITH given AS (
        SELECT * FROM unnest(%(customers)b::uuid[], %(keys)b::uuid[], %(ids)b::uuid[], %(marks)b::int[],
                             %(names)b::text[], %(quantities)b::int8[])
            AS given (customer_id, key_hash, id, header_mark, event_key, value)
    ), fresh AS (
        INSERT INTO event_keys SELECT customer_id, key_hash, id, %(now)b, header_mark, 0 FROM given
            ON CONFLICT DO NOTHING RETURNING event_id
    ), stored AS (
        INSERT INTO events
        SELECT customer_id, %(now)b, id, NULL, %(batch)b, %(feature)b, value, event_key
          FROM given JOIN fresh ON event_id = id
        RETURNING customer_id, value
    )
    INSERT INTO usage_hours AS held
    SELECT customer_id, %(meter)b, date_trunc('hour', %(now)b), count(*), sum(value), %(batch)b
      FROM stored GROUP BY customer_id ORDER BY customer_id
        ON CONFLICT (customer_id, meter_id, hour) DO UPDATE
       SET events = held.events + excluded.events, quantity = held.quantity + excluded.quantity,
           batch = excluded.batch
"""

COLUMNS: Final = ("customers", "keys", "ids", "marks", "names", "quantities")
Row = tuple[UUID, UUID, UUID, int, str, int]


class Written(msgspec.Struct, frozen=True, rename="camel"):
    """Rows written by one connection, commit after commit, each flushed to disk before the next."""

    rows_per_commit: int
    rows_per_s: float  # given to the database: stored and repeated
    p50_ms: float  # of a commit
    p99_ms: float


def insert(conninfo: str, *, rows_per_commit: int, seconds: float) -> Written:
    """The ingest statement, one commit after the other; preparing the rows takes place off the clock."""
    clock = _Clock(seconds)
    with _scratch(conninfo) as conn:
        for batch, rows in enumerate(_batches(rows_per_commit)):
            if clock.is_over:
                break
            columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)]
            values: dict[str, object] = dict(zip(COLUMNS, columns, strict=True))
            values |= {"now": datetime.now(UTC), "meter": METER}
            values |= {"batch": batch, "feature": FEATURE}
            with clock.running():
                conn.execute(INSERT, values, prepare=True)
    return clock.written(rows_per_commit)


def copy(conninfo: str, *, seconds: float) -> Written:
    """COPY of rendered rows into a logged table without an index: as fast as rows can be made durable."""
    now = datetime.now(UTC).isoformat()
    block = "".join(
        f"{customer}\t{now}\t{event_id}\t\\N\t1\t{FEATURE}\t{value}\t{name}\t\\N\t\\N\t\\N\t\\N\n"
        for customer, _, event_id, _, name, value in next(_batches(COPY_ROWS))
    ).encode()
    clock = _Clock(seconds)
    with _scratch(conninfo) as conn:
        while not clock.is_over:
            with clock.running(), conn.cursor() as cursor, cursor.copy("COPY copied FROM STDIN") as into:
                into.write(block)
    return clock.written(COPY_ROWS)


@contextmanager
def _scratch(conninfo: str) -> Iterator[psycopg.Connection]:
    """A schema of our own, gone afterwards; commits wait for the disk whatever the server's default is."""
    schema = sql.Identifier(f"bench_{os.urandom(4).hex()}")
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        try:
            conn.execute(sql.SQL("SET search_path = {}").format(schema))
            conn.execute("SET synchronous_commit = on")
            conn.execute(TABLES)
            yield conn
        finally:
            conn.execute("SET client_min_messages = warning")
            conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schema))


class _Clock:
    """Adds up only what ran inside `running`, after a warm-up."""

    def __init__(self, seconds: float) -> None:
        self._warm_up_ns, self._wanted_ns = int(min(WARM_UP_S, seconds) * 1e9), int(seconds * 1e9)
        self._warmed_ns = self._counted_ns = 0
        self._durations: list[int] = []

    @property
    def is_over(self) -> bool:
        return self._counted_ns >= self._wanted_ns

    @contextmanager
    def running(self) -> Iterator[None]:
        began = time.perf_counter_ns()
        yield
        took = time.perf_counter_ns() - began
        if self._warmed_ns < self._warm_up_ns:
            self._warmed_ns += took
        else:
            self._counted_ns += took
            self._durations.append(took)

    def written(self, rows_per_commit: int) -> Written:
        ordered = sorted(self._durations)
        rate = rows_per_commit * len(ordered) / (self._counted_ns / 1e9)
        return Written(rows_per_commit, rate, percentile(ordered, 0.50), percentile(ordered, 0.99))


def _customers() -> list[UUID]:
    random = Random(1)
    return [UUID(int=random.getrandbits(128)) for _ in range(CUSTOMERS)]


def _row(customers: list[UUID], salt: str, number: int) -> Row:
    """A new event: a random key, an id in the order of time with its bunch at the end, a customer of the thousand."""
    name = f"{salt}-{number:09d}"
    digest = hashlib.sha256(name.encode()).digest()
    bunch = number // (CUSTOMERS * BUNCH) % 65_536
    event_id = UUID(int=(time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(8)) << 16 | bunch)
    customer = customers[SPREAD.customer_of(0, number) - 1]
    return customer, UUID(bytes=digest[:16]), event_id, int.from_bytes(digest[16:20], signed=True), name, 1


def _batches(rows_per_commit: int) -> Iterator[list[Row]]:
    """Batches as ingest sees them: one row in ten repeats an older key; sorted, as keys are inserted."""
    customers, salt, random = _customers(), os.urandom(4).hex(), Random(2)
    sent = 0
    while True:
        rows, earlier = [], sent
        for at in range(1, rows_per_commit + 1):
            if earlier and at % REPEAT_EVERY == 0:
                rows.append(_row(customers, salt, random.randrange(earlier)))
            else:
                rows.append(_row(customers, salt, sent))
                sent += 1
        yield sorted(rows, key=lambda row: row[1])
