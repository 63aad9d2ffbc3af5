"""Bring a database to the newest migration: forward only, one at a time, under a lock."""

import logging
from importlib import resources

import psycopg

from tallystick.store import citus

log = logging.getLogger("tallystick.migrate")
_LOCK = 0x7461_6C6C_7973_7469  # "tallysti"


def available() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration there is, in order."""
    found = []
    for entry in resources.files("tallystick.store.migrations").iterdir():
        if entry.name.endswith(".sql"):
            found.append((int(entry.name.split("_")[0]), entry.name.removesuffix(".sql"), entry.read_text()))
    return sorted(found)


def migrate(conninfo: str) -> list[str]:
    """Run what has not run yet; returns the names. Each migration commits alone, with its note that it ran."""
    done: list[str] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        spread = citus.is_laid_out(conn)
        conn.execute(
            """CREATE TABLE IF NOT EXISTS migrations (
                   number int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"""
        )
        applied = {number for (number,) in conn.execute("SELECT number FROM migrations").fetchall()}
        newest = max((number for number, _, _ in available()), default=0)
        if applied and max(applied) > newest:
            raise RuntimeError(
                f"the database is at migration {max(applied)}, this program knows only {newest}: "
                "it was written by a newer Tallystick"
            )
        for number, name, sql in available():
            if number not in applied:
                with conn.transaction():
                    conn.execute(sql.encode())  # our own file
                    conn.execute("INSERT INTO migrations (number, name) VALUES (%s, %s)", (number, name))
                log.info("migration %s applied", name)
                done.append(name)
        if done and spread:
            citus.lay_out(conn)
    return done


def spread(conninfo: str) -> citus.Done:
    """Spread a migrated database over the nodes of a Citus cluster; what later migrations add follows by itself.

    Raises `citus.NoCitus`.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        return citus.lay_out(conn)


def pending(conninfo: str) -> list[str]:
    """The names of migrations that have not run."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        known = conn.execute("SELECT to_regclass('migrations') IS NOT NULL").fetchone()
        if not known or not known[0]:
            return [name for _, name, _ in available()]
        applied = {number for (number,) in conn.execute("SELECT number FROM migrations").fetchall()}
    return [name for number, name, _ in available() if number not in applied]
