"""A made-up history, in a database of its own: other tests audit what lies in theirs."""

import asyncio

import psycopg
from bench import history
from bench.month import own_database
from bench.portfolio import Size, subscribe_everybody
from bench.relations import Relation, sizes

from tallystick.store.db import Database


def test_a_history_is_as_long_as_it_was_asked_to_be() -> None:
    with own_database() as conninfo:
        asyncio.run(customers_and_a_feature(conninfo))
        with psycopg.connect(conninfo) as conn:
            as_migrated = indexes(conn)
            history.fill(conn, 900, per_generation=400)
            assert counted(conn) == (900, 0)
            history.fill(conn, 600, events=True)
            assert counted(conn) == (1_500, 600)
            of_each = conn.execute("SELECT count(*) FROM event_keys GROUP BY customer_id").fetchall()
            assert of_each == [(500,)] * 3
            assert indexes(conn) == [each.replace("g0", f"g{n}") for n in range(3) for each in as_migrated]
            generations = conn.execute(
                "SELECT count(*) FROM event_keys GROUP BY generation ORDER BY generation"
            )
            assert generations.fetchall() == [(400,), (300,), (800,)], "the last one is open"
        held = sizes(conninfo)
    for each in (f"event_keys_g{n}" for n in range(3)):
        assert held[Relation(each, "rows")] > held[Relation(each, f"{each}_pkey, btree")] > 0
    assert Relation("events", "rows") not in held  # the partitions hold them


async def customers_and_a_feature(conninfo: str) -> None:
    database = Database(conninfo)
    await database.open()
    await subscribe_everybody(database, Size(3, 1, 1, percentage=False))
    await database.close()


def indexes(conn: psycopg.Connection) -> list[str]:
    """Of the keys, and what makes them unique."""
    found = conn.execute(
        """SELECT indexdef || ' ' || pg_get_constraintdef(c.oid) FROM pg_indexes
             LEFT JOIN pg_constraint c ON c.conname = indexname
            WHERE tablename LIKE 'event_keys%' ORDER BY indexdef"""
    ).fetchall()
    return [each[0] for each in found]


def counted(conn: psycopg.Connection) -> tuple[int, int]:
    """Keys and events."""
    found = conn.execute("SELECT (SELECT count(*) FROM event_keys), (SELECT count(*) FROM events)").fetchone()
    assert found is not None
    return found[0], found[1]
