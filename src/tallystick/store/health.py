"""Facts about the database for `doctor`."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg


@dataclass(frozen=True, slots=True)
class Facts:
    version: int
    version_text: str
    size_mb: int
    fsync: str
    synchronous_commit: str


def facts(conninfo: str) -> Facts:
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
        found = conn.execute(
            """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                      (pg_database_size(current_database()) / 1000000)::int, current_setting('fsync'),
                      current_setting('synchronous_commit')"""
        ).fetchone()
    assert found is not None
    return Facts(*found)


def stuck_closes(conninfo: str) -> list[tuple[UUID, str]]:
    """Subscriptions whose period could not be closed, and why."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
        found = conn.execute(
            "SELECT id, close_failure FROM subscriptions WHERE close_failure IS NOT NULL LIMIT 20"
        ).fetchall()
    return [(each[0], each[1]) for each in found]


def reconciled(conninfo: str) -> tuple[datetime | None, list[tuple[str, int]]]:
    """When the books were last reconciled, and the rules that were broken then, each with how many break it."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
        found = conn.execute(
            "SELECT checked_at, rule, offenders FROM reconciliations ORDER BY rule"
        ).fetchall()
    return max((each[0] for each in found), default=None), [(each[1], each[2]) for each in found if each[2]]


def stuck_late_usage(conninfo: str) -> list[tuple[UUID, str]]:
    """Customers whose late usage could not be settled, and why."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
        found = conn.execute(
            """SELECT customer_id, min(failure) FROM late_events
                WHERE due_at IS NOT NULL AND failure IS NOT NULL GROUP BY 1 LIMIT 20"""
        ).fetchall()
    return [(each[0], each[1]) for each in found]
