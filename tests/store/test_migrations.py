"""Migrations run once, under a lock, and leave what `schema.sql` shows."""

import threading
from pathlib import Path

import psycopg
import pytest
from tests.conftest import private_dir

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
