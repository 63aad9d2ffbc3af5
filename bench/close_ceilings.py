"""Whether all was closed, in one statement; and what this machine does at best with the very same rows."""

import time
from typing import Final, LiteralString

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.string import TextLoader

from bench.portfolio import Size
from tallystick.core.limits import CLOSES_PER_CLAIM

ROWS_PER_FETCH: Final = 10_000
COMMITS_MAX: Final = 1_000  # enough to know what one takes

CHECK: Final[LiteralString] = """
    SELECT (SELECT count(*) FROM subscriptions), (SELECT count(*) FROM closed_periods),
           count(*), count(DISTINCT i.subscription_id), count(*) FILTER (WHERE i.total = l.amount),
           sum(l.lines), sum(l.events)
      FROM invoices i
     CROSS JOIN LATERAL (
           SELECT count(*) AS lines, sum(amount) AS amount,
                  sum((evidence->'events'->>'count')::bigint) AS events
             FROM invoice_lines WHERE invoice_id = i.id) l"""


class Checked(msgspec.Struct, frozen=True, rename="camel"):
    is_right: bool
    subscriptions: int
    closed: int
    invoices: int
    subscriptions_invoiced: int
    totals_equal_to_lines: int
    lines: int
    events_on_lines: int


class Ceiling(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    invoices: int  # that these rows make, or are made of
    rows: int
    seconds: float


def check(conninfo: str, size: Size) -> Checked:
    """Every period has one invoice, every total is the sum of its lines, every event is behind one of them."""
    with psycopg.connect(conninfo) as conn:
        found = [int(each or 0) for each in conn.execute(CHECK).fetchone() or ()]
    return Checked(found == [size.subscriptions] * 5 + [size.lines, size.events], *found)


def measured(conninfo: str, size: Size) -> list[Ceiling]:
    return [
        _read(conninfo, "usage_hours", size.subscriptions),
        _read(conninfo, "events", size.subscriptions),
        _write(conninfo, size.subscriptions, invoices_per_commit=CLOSES_PER_CLAIM),
        _write(conninfo, min(size.subscriptions, COMMITS_MAX), invoices_per_commit=1),
    ]


def _read(conninfo: str, table: str, invoices: int) -> Ceiling:
    """Every row into this process, over one connection."""
    with psycopg.connect(conninfo) as conn, conn.cursor(name="every") as cursor:
        cursor.itersize = ROWS_PER_FETCH
        rows, began = 0, time.perf_counter()
        for _ in cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))):
            rows += 1
        return Ceiling(f"SELECT * FROM {table}", invoices, rows, time.perf_counter() - began)


def _write(conninfo: str, invoices: int, *, invoices_per_commit: int) -> Ceiling:
    """Invoices and lines once more, into tables with the same indexes; reading them is not timed."""
    rows, seconds = 0, 0.0
    with psycopg.connect(conninfo) as ours, psycopg.connect(conninfo, autocommit=True) as alone:
        ours.adapters.register_loader("jsonb", TextLoader)  # as it is, so that nothing is encoded anew
        alone.execute("CREATE SCHEMA alone")
        alone.execute("CREATE TABLE alone.invoices (LIKE invoices INCLUDING ALL)")
        alone.execute("CREATE TABLE alone.invoice_lines (LIKE invoice_lines INCLUDING ALL)")
        every = ours.cursor(name="every")
        every.execute("SELECT * FROM invoices")
        written = 0
        while written < invoices and (some := every.fetchmany(invoices_per_commit)):
            lines = ours.execute(
                "SELECT * FROM invoice_lines WHERE invoice_id = ANY(%s)", ([each[0] for each in some],)
            ).fetchall()
            began = time.perf_counter()
            with alone.transaction(), alone.cursor() as cursor:
                for table, content in (("invoices", some), ("invoice_lines", lines)):
                    places = ", ".join(["%s"] * len(content[0]))
                    cursor.executemany(f"INSERT INTO alone.{table} VALUES ({places})".encode(), content)
            seconds += time.perf_counter() - began
            written += len(some)
            rows += len(some) + len(lines)
        alone.execute("SET client_min_messages = warning")
        alone.execute("DROP SCHEMA alone CASCADE")
    commits = "each alone" if invoices_per_commit == 1 else f"{invoices_per_commit} a commit"
    return Ceiling(f"executemany of invoices, {commits}", written, rows, seconds)
