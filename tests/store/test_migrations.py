"""Migrations run once, under a lock, and leave what `schema.sql` shows."""

import threading
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.conftest import private_dir
from tests.literals import at

from tallystick.core.proof import header_hash, key_hash
from tallystick.store import migrate, schema

SCHEMA = Path(schema.__file__).with_name("schema.sql")


def test_the_schema_file_is_what_the_migrations_make() -> None:
    assert schema.dumped(private_dir("tallystick-schema-") / "data") == SCHEMA.read_text(), (
        f"run: python -m tallystick.store.schema --write {SCHEMA.name}"
    )


@pytest.fixture
def empty_database(database_url: str) -> str:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS migrations_here")
        conn.execute("CREATE DATABASE migrations_here")
    return psycopg.conninfo.make_conninfo(database_url, dbname="migrations_here")


def test_two_programs_that_start_at_once_migrate_once(empty_database: str) -> None:
    done: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: done.append(migrate.migrate(empty_database))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, done)) == [0, 0, 0, len(migrate.available())]
    assert migrate.pending(empty_database) == []


def test_a_database_of_a_newer_program_is_left_alone(empty_database: str) -> None:
    migrate.migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute("INSERT INTO migrations (number, name) VALUES (9999, 'from the future')")
    with pytest.raises(RuntimeError, match="newer Tallystick"):
        migrate.migrate(empty_database)


def test_distinct_values_counted_before_they_were_numbered_move_over(empty_database: str) -> None:
    """A database of the first migration alone, with two versions of a meter, keeps every value of every hour."""
    ids = {name: uuid4() for name in ("organization", "feature", "ada", "bob", "old", "new")}
    values = [sha256(str(each).encode()).digest()[:16] for each in range(3000)]
    kept = {
        (ids[who], ids[meter], hour, value)
        for who, meter, hour, some in [
            ("ada", "old", at("2026-01-01T00:00"), values),
            ("ada", "old", at("2026-01-01T05:00"), values[::7]),
            ("ada", "new", at("2026-01-01T05:00"), values[1000:2500:3]),
            ("bob", "new", at("2026-01-01T05:00"), values[:1]),
        ]
        for value in some
    }
    with psycopg.connect(empty_database, autocommit=True) as conn:
        _, name, first = migrate.available()[0]
        conn.execute(first.encode())
        conn.execute(
            "CREATE TABLE migrations (number int PRIMARY KEY, name text NOT NULL, applied_at timestamptz)"
        )
        conn.execute("INSERT INTO migrations VALUES (1, %s, now())", (name,))
        conn.execute(
            "INSERT INTO organizations VALUES (%s, 'o', 'live', 'UTC', 'USD', NULL, NULL, 'O', 0, now())",
            (ids["organization"],),
        )
        conn.execute(
            "INSERT INTO features VALUES (%s, %s, 'users', 'users', 'usage', NULL, NULL, now(), now())",
            (ids["feature"], ids["organization"]),
        )
        for version, meter in enumerate(("old", "new"), start=1):
            conn.execute(
                "INSERT INTO meters VALUES (%s, %s, %s, %s, 'e', 'unique', 'user', '[]', 'ignore', now())",
                (ids[meter], ids["organization"], ids["feature"], version),
            )
        with conn.cursor() as cursor:
            cursor.executemany("INSERT INTO usage_values VALUES (%s, %s, %s, %s)", sorted(kept))
    assert name not in migrate.migrate(empty_database)
    with psycopg.connect(empty_database, options="-c timezone=UTC") as conn:
        assert conn.execute("SELECT to_regclass('usage_values')").fetchone() == (None,)
        found = conn.execute(
            """SELECT u.customer_id, u.meter_id, u.hour, d.value_hash
                 FROM usage_sets u JOIN distinct_values d
                   ON d.customer_id = u.customer_id AND d.feature_id = %s AND d.number / 2048 = u.block
                WHERE get_bit(u.members, mod(d.number, 2048)) = 1""",
            (ids["feature"],),
        ).fetchall()
        assert len(found) == len(kept)
        assert set(found) == kept
        counts = conn.execute(
            "SELECT count(*), count(DISTINCT number), max(number) FROM distinct_values GROUP BY customer_id"
        ).fetchall()
        assert sorted(counts) == [(1, 1, 0), (3000, 3000, 2999)], "numbers are dense"


def apply_until(conn: psycopg.Connection, number: int) -> None:
    """Every migration before this one, on an empty database."""
    conn.execute(
        "CREATE TABLE migrations (number int PRIMARY KEY, name text NOT NULL, applied_at timestamptz DEFAULT now())"
    )
    for each, name, statements in migrate.available():
        if each < number:
            conn.execute(statements.encode())
            conn.execute("INSERT INTO migrations VALUES (%s, %s)", (each, name))


def test_keys_from_before_generations_are_the_first_one(empty_database: str) -> None:
    """Unique as they were."""
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply_until(conn, 13)
        conn.execute(
            """INSERT INTO event_keys (customer_id, key_hash, event_id, occurred_at)
               SELECT gen_random_uuid(), substr(sha256(int4send(n)), 1, 16), gen_random_uuid(), now()
                 FROM generate_series(1, 1000) AS n"""
        )
    assert migrate.migrate(empty_database)[0].startswith("0013")
    with psycopg.connect(empty_database, autocommit=True) as conn:
        assert conn.execute("SELECT generation, count(*) FROM event_keys GROUP BY 1").fetchall() == [
            (0, 1000)
        ]
        assert conn.execute("SELECT number, frozen_at FROM key_generations").fetchall() == [(0, None)]
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("INSERT INTO event_keys SELECT * FROM event_keys LIMIT 1")


def test_keys_from_before_they_were_narrow_are_where_they_are_looked_for(empty_database: str) -> None:
    """In every generation; what is repeated after the migration is found, and filters are built anew."""
    customer, event = UUID(int=1), UUID(int=2)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply_until(conn, 15)
        conn.execute("CREATE TABLE event_keys_g1 (LIKE event_keys, PRIMARY KEY (customer_id, key_hash))")
        conn.execute("ALTER TABLE event_keys ATTACH PARTITION event_keys_g1 FOR VALUES IN (1)")
        conn.execute(
            "UPDATE key_generations SET frozen_at = now(), filter_bytes = 64, filter_digest = sha256('')"
        )
        conn.execute("INSERT INTO key_generations (number, first_batch) VALUES (1, 9)")
        conn.execute("INSERT INTO key_filters VALUES (0, 0, sha256(''))")
        places = {
            0: sha256(b"key\0" + bytes(2) + b"req_1").digest()[:16],
            1: sha256(b"header\0" + bytes(4) + b"\0" + b"a header").digest()[:16],
        }
        for generation, place in places.items():
            conn.execute(
                """INSERT INTO event_keys (generation, customer_id, key_hash, event_id, occurred_at, header_hash)
                   VALUES (%s, %s, %s, %s, now(), substr(sha256('a'), 1, 16))""",
                (generation, customer, place, event),
            )
    migrate.migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        found = conn.execute(
            "SELECT generation, key_hash, customer_id, event_id, header_mark FROM event_keys ORDER BY 1"
        ).fetchall()
        assert found == [
            (0, UUID(bytes=key_hash(customer, "req_1")), customer, event, None),
            (1, UUID(bytes=header_hash(customer, "a header", 0)), customer, event, None),
        ]
        for number in (0, 1):
            with pytest.raises(psycopg.errors.UniqueViolation):
                conn.execute(f"INSERT INTO event_keys_g{number} SELECT * FROM event_keys_g{number}".encode())
        assert conn.execute(
            "SELECT count(filter_bytes), (SELECT count(*) FROM key_filters) FROM key_generations"
        ).fetchone() == (0, 0)


def test_events_from_before_are_found_by_their_hour(empty_database: str) -> None:
    """In the default partition and in a month's; with the leaves they had; and what was NOT NULL still is, or need not be said."""
    required = "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnotnull AND attnum > 0 AND attrelid::regclass::text LIKE 'events%' ORDER BY 1, 2"
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply_until(conn, 14)
        conn.execute(
            "CREATE TABLE events_2026_01 PARTITION OF events FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z')"
        )
        conn.execute(
            """INSERT INTO events (customer_id, occurred_at, id, organization_id, received_at, batch, feature_code, value, timed, leaf)
               SELECT %s, timestamptz '2026-01-31 20:00Z' + n * interval '10 minutes', gen_random_uuid(), %s, now(), 1, 'a', n, true,
                      substr(sha256(int4send(n)), 1, 16)
                 FROM generate_series(0, 47) AS n""",
            (uuid4(), uuid4()),
        )
        before = conn.execute(required).fetchall()
    assert migrate.migrate(empty_database)[0].startswith("0014")
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute("SET enable_seqscan = off")
        unsaid = {"organization_id", "received_at", "timed"}
        assert conn.execute(required).fetchall() == [each for each in before if each[1] not in unsaid]
        same = conn.execute(
            "SELECT count(*) FROM events WHERE uuid_send(leaf) = substr(sha256(int4send(value::int)), 1, 16)"
        ).fetchone()
        assert same == (48,)
        indexed = conn.execute(
            """SELECT tablename, count(*) FROM pg_indexes WHERE indexdef LIKE '%%hour_of(occurred_at), bunch_of(id)%%'
                GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        assert indexed == [("events", 1), ("events_2026_01", 1), ("events_any", 1)]
        found = conn.execute(
            """SELECT sum(value) FROM events
                WHERE customer_id = (SELECT min(customer_id::text)::uuid FROM events)
                  AND hour_of(occurred_at) IN ('2026-01-31 23:00Z', '2026-02-01 00:00Z')"""
        ).fetchone()
        assert found == (sum(range(18, 30)),)
