"""Months of events that left the database as files: which, whose, who still needs a month, and its rows on their way. A month that was
restored is archived no more.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import sql

from tallystick.core.retention import COLUMNS, OWNER, Kind, Month
from tallystick.core.times import Period
from tallystick.store import places
from tallystick.store.db import Conn, row, rows, the
from tallystick.store.places import IN_ORDER
from tallystick.store.proving import LEAF


@dataclass(frozen=True, slots=True)
class Archived:
    """A month that is in a file and nowhere else."""

    month: Month
    file_name: str
    size_bytes: int
    sha256: bytes
    events: int
    leaves: bytes  # the digest of them
    archived_at: datetime
    note: str | None

    @property
    def words(self) -> str:
        return f"events of {self.month}, archived in {self.file_name} (sha256 {self.sha256.hex()})"


class Share(NamedTuple):
    """What of a month was an organization's."""

    organization_id: UUID
    events: int
    first_id: UUID
    last_id: UUID
    first_batch: int
    last_batch: int


_ARCHIVED: Final = "month, file_name, bytes, sha256, events, leaves, archived_at, note"


def _archived(found: Sequence[Any]) -> Archived:
    first: date = found[0]
    return Archived(
        Month(first), found[1], found[2], bytes(found[3]), found[4], bytes(found[5]), found[6], found[7]
    )


async def every(conn: Conn) -> list[Archived]:
    return [
        _archived(each)
        for each in await rows(conn, f"SELECT {_ARCHIVED} FROM archived_months ORDER BY month")
    ]


async def of_organization(conn: Conn, *, organization_id: UUID) -> list[Archived]:
    """Those that hold events of an organization."""
    found = await rows(
        conn,
        f"""SELECT {_ARCHIVED} FROM archived_months
             WHERE month IN (SELECT month FROM archived_shares WHERE organization_id = %s) ORDER BY month""",
        (organization_id,),
    )
    return [_archived(each) for each in found]


def touching(archived: Iterable[Archived], span: Period) -> list[Archived]:
    return [
        each for each in archived if each.month.span.start < span.end and each.month.span.end > span.start
    ]


async def events_of(conn: Conn, *, organization_id: UUID) -> int:
    """How many events of an organization are archived."""
    cursor = await conn.execute(
        """SELECT coalesce(sum(s.events), 0)::bigint FROM archived_shares s JOIN archived_months USING (month)
            WHERE s.organization_id = %s""",
        (organization_id,),
    )
    return int((await the(cursor))[0])


async def may_hold(conn: Conn, *, organization_id: UUID, event_id: UUID) -> list[Archived]:
    """Archived months between whose ids an id lies; an event that is not there may be in one of them."""
    found = await rows(
        conn,
        f"""SELECT {_ARCHIVED} FROM archived_months
             WHERE month IN (SELECT month FROM archived_shares
                              WHERE organization_id = %(organization)s
                                AND first_id <= %(event)s AND last_id >= %(event)s) ORDER BY month""",
        {"organization": organization_id, "event": event_id},
    )
    return [_archived(each) for each in found]


# Who needs a month ----------------------------------------------------------------------------------------


class Needed(NamedTuple):
    """Who needs the raw events of a month: how many of each kind."""

    open_periods: int  # subscriptions whose period is not closed and touches it
    late_events: int  # undecided; the whole period that one happened in is rated again
    unrated_periods: int  # closed, and something happened in them that they were not rated with

    @property
    def anybody(self) -> bool:
        return any(self)


async def needed(conn: Conn, month: Month) -> Needed:
    """Who needs a month, of all organizations."""
    found = await row(
        conn,
        """SELECT (SELECT count(*) FROM subscriptions
                    WHERE closes_at IS NOT NULL AND period_start < %(ends)s AND period_end > %(starts)s),
                  (SELECT count(*) FROM late_events l
                    WHERE l.due_at IS NOT NULL
                      AND ((l.occurred_at >= %(starts)s AND l.occurred_at < %(ends)s)
                           OR EXISTS (SELECT FROM closed_periods p
                                       WHERE p.customer_id = l.customer_id
                                         AND p.period_start <= l.occurred_at AND p.period_end > l.occurred_at
                                         AND p.period_start < %(ends)s AND p.period_end > %(starts)s))),
                  (SELECT count(*) FROM closed_periods p
                    WHERE p.period_start < %(ends)s AND p.period_end > %(starts)s
                      AND p.period_end = (SELECT max(period_end) FROM closed_periods o
                                           WHERE o.customer_id = p.customer_id)
                      AND EXISTS (SELECT FROM usage_hours u JOIN ingest_batches b ON b.batch = u.batch
                                   WHERE u.customer_id = p.customer_id AND u.hour >= date_trunc('hour', p.period_start)
                                     AND u.hour < p.period_end AND b.position > p.position))""",
        {"starts": month.span.start, "ends": month.span.end},
    )
    assert found is not None
    return Needed(*found)


# Rows on their way ----------------------------------------------------------------------------------------


_SAID: Final = {
    OWNER: places.OWNER,
    "received_at": places.RECEIVED_AT,
    "timed": "e.timed IS TRUE",
    "leaf": "uuid_send(e.leaf)",
}
"""How the database says what a file says in other words."""
_STORED: Final = [name for name in COLUMNS if name != OWNER]

Row = tuple[Any, ...]
"""The values of `COLUMNS` as a file keeps them; what PostgreSQL has no exact twin for elsewhere is text."""


@asynccontextmanager
async def reading(conn: Conn, partition: str, *, leaves: bool) -> AsyncIterator["Rows"]:
    """A partition's rows in order of (customer_id, occurred_at, id), with `leaves` each followed by the leaf that its
    facts give, None where they give none. To be used within one snapshot."""
    chosen = ", ".join(
        f"{said}::text" if kind is Kind.TEXT else said
        for name, kind in COLUMNS.items()
        for said in (_SAID.get(name, f"e.{name}"),)
    )
    leaf = f", {LEAF}" if leaves else ""
    async with conn.cursor(name=f"reading_{'leaves' if leaves else 'rows'}") as cursor:
        cursor.itersize = PAGE
        await cursor.execute(
            sql.SQL(f"SELECT {chosen}{leaf} FROM ")
            + sql.Identifier(partition)
            + sql.SQL(f" e ORDER BY e.customer_id, {IN_ORDER}")
        )
        yield Rows(cursor)


PAGE: Final = 5_000


class Rows:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    async def page(self) -> list[Row]:
        """The next rows; none when that was all."""
        found: list[Row] = await self._cursor.fetchmany(PAGE)
        return found


async def put(conn: Conn, table: str, batches: Iterable[Sequence[Row]]) -> None:
    """Copy rows, as a file keeps them, into a table like `events`."""
    await _copy(conn, sql.Identifier(table), batches)


async def _copy(conn: Conn, table: sql.Identifier, batches: Iterable[Sequence[Row]]) -> None:
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(table, sql.SQL(", ").join(map(sql.Identifier, _STORED)))
    async with conn.cursor() as cursor, cursor.copy(into) as copy:
        for batch in batches:
            for each in batch:
                await copy.write_row(_as_stored(dict(zip(COLUMNS, each, strict=True))))


def _as_stored(told: dict[str, Any]) -> list[Any]:
    """As a batch was written: what goes without saying is not said."""
    if told["received_at"] == told["occurred_at"]:
        told["received_at"] = None
    told["timed"] = told["timed"] or None
    told["leaf"] = None if told["leaf"] is None else UUID(bytes=told["leaf"])
    return [told[name] for name in _STORED]


async def note(conn: Conn, archived: Archived, shares: Iterable[Share]) -> None:
    await conn.execute(
        """INSERT INTO archived_months (month, starts, ends, file_name, bytes, sha256, events, leaves, archived_at, note)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            archived.month.first,
            archived.month.span.start,
            archived.month.span.end,
            archived.file_name,
            archived.size_bytes,
            archived.sha256,
            archived.events,
            archived.leaves,
            archived.archived_at,
            archived.note,
        ),
    )
    async with conn.cursor() as many:
        await many.executemany(
            "INSERT INTO archived_shares VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(archived.month.first, *each) for each in shares],
        )


async def forget(conn: Conn, month: Month) -> None:
    """It is back."""
    await conn.execute("DELETE FROM archived_months WHERE month = %s", (month.first,))


async def note_voided_costs(conn: Conn, partition: str) -> None:
    """What AI calls cost that were taken back is not to be summed up once their events are gone."""
    await conn.execute(
        sql.SQL(
            """UPDATE ai_costs c SET voided = e.voided FROM {} e
                WHERE e.voided IS NOT NULL AND c.voided IS NULL AND c.customer_id = e.customer_id
                  AND c.event_id = e.id"""
        ).format(sql.Identifier(partition))
    )


async def move_from_default(conn: Conn, month: Month) -> int:
    """What came for an archived month since goes into its table; how many events those were."""
    cursor = await conn.execute(
        sql.SQL(
            """WITH gone AS (DELETE FROM events_any WHERE occurred_at >= %s AND occurred_at < %s RETURNING *)
               INSERT INTO {} SELECT * FROM gone"""
        ).format(sql.Identifier(month.partition)),
        (month.span.start, month.span.end),
    )
    return cursor.rowcount


# Reading archived events as if they were here -------------------------------------------------------------

_BESIDE: Final = "tallystick_archive_"


async def open_beside(conn: Conn, name: str) -> str:
    """A schema with a view `events` of what is here and what will be put beside it; its name.

    Who has it first in the search path reads both. Its `archived_months` are those that were not put there.
    """
    schema = f"{_BESIDE}{name}"
    shown = ", ".join(_STORED)
    for statement in (
        "CREATE SCHEMA {0}",
        "CREATE UNLOGGED TABLE {0}.archived (LIKE events INCLUDING ALL)",
        "CREATE TABLE {0}.here (month date PRIMARY KEY)",
        f"CREATE VIEW {{0}}.events AS SELECT {shown} FROM events UNION ALL SELECT {shown} FROM {{0}}.archived",
        "CREATE VIEW {0}.archived_months AS SELECT * FROM archived_months WHERE month NOT IN (SELECT month FROM {0}.here)",
    ):
        await conn.execute(sql.SQL(statement).format(sql.Identifier(schema)))
    return schema


async def put_beside(conn: Conn, schema: str, month: Month, batches: Iterable[Sequence[Row]]) -> None:
    await _copy(conn, sql.Identifier(schema, "archived"), batches)
    await conn.execute(
        sql.SQL("INSERT INTO {} VALUES (%s)").format(sql.Identifier(schema, "here")), (month.first,)
    )


async def analyze_beside(conn: Conn, schema: str) -> None:
    await conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, "archived")))


async def close_beside(conn: Conn, schema: str) -> None:
    await conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


async def left_beside(conn: Conn) -> list[str]:
    """Schemas whose maker is gone: each is named by the process id of the connection that made it."""
    found = await rows(
        conn,
        """SELECT nspname FROM pg_namespace
            WHERE starts_with(nspname, %(prefix)s)
              AND substr(nspname, length(%(prefix)s) + 1) NOT IN (SELECT pid::text FROM pg_stat_activity)""",
        {"prefix": _BESIDE},
    )
    return [each[0] for each in found]
