"""How long usage summaries take over millions of events of one customer, beside what PostgreSQL could do at best.

python -m bench.read [--events 2000000] [--distinct 50000] [--repetitions 15] [--json]
"""

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPConnection
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import server
from bench.catalogue import Api, Refused
from bench.events import VERSION, Target
from tallystick.core import ids

CUSTOMER: Final = "reader"
MONTH: Final = {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
RAGGED: Final = {"start": "2026-01-01T00:10:00Z", "end": "2026-01-31T23:50:00Z"}
CALLS: Final = {"featureCode": "api_calls"}
USERS: Final = {"featureCode": "active_users"}
QUESTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "total": CALLS | MONTH,
    "total, both ends inside an hour": CALLS | RAGGED,
    "series by day": CALLS | MONTH | {"window": "day"},
    "series by day, 45 minutes off the hour": CALLS | MONTH | {"window": "day", "timezone": "Asia/Kathmandu"},
    "series by hour": CALLS | MONTH | {"window": "hour"},
    "grouped by one property": CALLS | MONTH | {"groupBy": "region"},
    "series by day, grouped": CALLS | MONTH | {"window": "day", "groupBy": "region"},
    "unique total": USERS | MONTH,
    "unique total, both ends inside an hour": USERS | RAGGED,
    "unique, series by day": USERS | MONTH | {"window": "day"},
    "unique, grouped by one property": USERS | MONTH | {"groupBy": "region"},
}
FEATURES: Final[Mapping[str, dict[str, str]]] = {
    "api_calls": {"type": "usage", "eventCode": "call"},
    "active_users": {
        "type": "usage",
        "eventCode": "call",
        "aggregation": "unique",
        "aggregationProperty": "user",
    },
}
SETTLING_S: Final = 2.0
console: Final = Console(stderr=True)


class Timing(msgspec.Struct, frozen=True, rename="camel"):
    """Milliseconds from sending the question until the answer is read."""

    what: str
    median_ms: float
    p99_ms: float


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    events: int
    distinct: int
    repetitions: int
    load_s: float  # inserting the events
    backfill_s: dict[str, float]  # folding them, as the server does when a feature is created
    answers: list[Timing]
    ceilings: list[Timing]


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with server.Tallystick() as ours:
            report = _measure(ours, given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        _show(report, Console(width=None if sys.stdout.isatty() else 110))
    return 0


def _measure(ours: server.Tallystick, given: argparse.Namespace) -> Report:
    _say("starting a server in a directory of its own")
    ours.start(workers=1)
    ours.wait_until_ready()
    made = ours.command("organizations", "create", "--name", "Bench", "--mode", "sandbox")
    conninfo = str(ours.command("doctor")["databaseUrl"])
    target = Target(ours.url, str(made["apiKey"]))
    api = Api(target)
    customer = api.post("/customers", {"id": CUSTOMER, "email": "reader@example.com"}) or {}
    with psycopg.connect(conninfo, autocommit=True) as conn:
        _say(f"storing {given.events:,} events of January, {given.distinct:,} users at random, 8 regions")
        load_s = _timed(partial(_load, conn, str(customer["id"]), given))
        _say("creating the features, which folds them")
        backfill_s = {
            code: _timed(partial(api.post, "/features", feature | {"code": code, "name": code}))
            for code, feature in FEATURES.items()
        }
        conn.execute("VACUUM ANALYZE")
        time.sleep(SETTLING_S)
        _say("asking")
        answers = [_ask(target, what, query, given.repetitions) for what, query in QUESTIONS.items()]
        _check(conn, target)
        ceilings = [_count(conn, what, columns, given.repetitions) for what, columns in CEILINGS.items()]
    return Report(
        machine=server.machine(),
        postgres=server.postgres(conninfo),
        events=given.events,
        distinct=given.distinct,
        repetitions=given.repetitions,
        load_s=load_s,
        backfill_s=backfill_s,
        answers=answers,
        ceilings=ceilings,
    )


def _load(conn: psycopg.Connection[Any], customer: str, given: argparse.Namespace) -> None:
    """Evenly over the month, as they would have been stored: in order of time, in batches of a thousand.

    The events alone: keys and the chain of batches are not read by summaries, and stay as they are.
    """
    conn.execute(
        """INSERT INTO events (customer_id, occurred_at, id, batch, feature_code, value, event_key, timed, properties)
           SELECT %(customer)s, at, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000'
                                     || '8000' || lpad(to_hex(number), 12, '0'))::uuid,
                  number / 1000, 'call', number %% 17 + 0.25, 'key_' || number, true,
                  jsonb_build_object('user', 'user_' || (hashint8(number) & 2147483647) %% %(distinct)s,
                                     'region', 'region_' || number %% 8, 'path', '/v1/things')
             FROM (SELECT number, timestamptz '2026-01-01 00:00:00Z'
                                  + number * (interval '31 days' / %(events)s) AS at
                     FROM generate_series(0::bigint, %(events)s - 1) AS numbers (number)) AS made""",
        {
            "customer": ids.read(ids.CUSTOMER, customer),
            "events": given.events,
            "distinct": given.distinct,
        },
    )


CEILINGS: Final = {
    "count(*) of the same events, index only": "count(*)",
    "count(DISTINCT user) of the same events": "count(DISTINCT properties ->> 'user')",
    "sum(value) of the same events": "sum(value)",
}


def _count(conn: psycopg.Connection[Any], what: str, columns: str, repetitions: int) -> Timing:
    query = f"SELECT {columns} FROM events WHERE occurred_at >= '2026-01-01Z' AND occurred_at < '2026-02-01Z'"
    return _repeated(what, lambda: conn.execute(query.encode()).fetchall(), repetitions)


def _ask(target: Target, what: str, query: Mapping[str, str], repetitions: int) -> Timing:
    connection = HTTPConnection(target.address.netloc, timeout=120)
    try:
        return _repeated(what, partial(_answer, connection, target, query), repetitions)
    finally:
        connection.close()


def _answer(connection: HTTPConnection, target: Target, query: Mapping[str, str]) -> dict[str, Any]:
    headers = {"x-api-key": target.api_key, "commet-version": VERSION}
    asked = urlencode({"customerId": CUSTOMER, **query})
    connection.request("GET", f"/api/v1/usage/summary?{asked}", headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise Refused(f"{asked} answered {answer.status}: {content[:500].decode(errors='replace')}")
    found: dict[str, Any] = json.loads(content)
    return found


def _check(conn: psycopg.Connection[Any], target: Target) -> None:
    """A fast wrong answer is none."""
    found = conn.execute(
        "SELECT sum(value), count(DISTINCT properties ->> 'user') FROM events WHERE feature_code = 'call'"
    ).fetchone()
    assert found is not None
    connection = HTTPConnection(target.address.netloc, timeout=120)
    for query, expected in zip((CALLS, USERS), found, strict=True):
        told = _answer(connection, target, query | MONTH)["total"]["quantity"]
        if float(told) != float(expected):
            raise Refused(f"{query['featureCode']} of the month is {expected}, the server says {told}")
    connection.close()


def _repeated(what: str, act: Callable[[], object], repetitions: int) -> Timing:
    act()
    times = sorted(_timed(act) * 1000 for _ in range(repetitions))
    return Timing(what, median(times), times[math.ceil(len(times) * 0.99) - 1])


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _show(report: Report, to: Console) -> None:
    machine = report.machine
    to.print(f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}")
    to.print(f"PostgreSQL {report.postgres['server_version']}; one worker; {report.repetitions} repetitions")
    folded = ", ".join(f"{code} {seconds:.1f} s" for code, seconds in report.backfill_s.items())
    to.print(
        f"{report.events:,} events, {report.distinct:,} users: stored in {report.load_s:.1f} s, folded: {folded}"
    )
    floor = report.ceilings[0].median_ms
    table = Table("GET /usage/summary", title="one customer, one month", title_justify="left")
    for heading in ("median ms", "p99 ms", "÷ index-only count"):
        table.add_column(heading, justify="right")
    for each in report.answers:
        table.add_row(
            each.what, f"{each.median_ms:,.1f}", f"{each.p99_ms:,.1f}", f"{each.median_ms / floor:.2f}"
        )
    table.add_section()
    for each in report.ceilings:
        table.add_row(
            each.what, f"{each.median_ms:,.1f}", f"{each.p99_ms:,.1f}", f"{each.median_ms / floor:.2f}"
        )
    to.print(table)


def _say(what: str) -> None:
    console.print(f"… {what}", style="dim", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.read", description="usage summaries, measured")
    parser.add_argument("--events", type=int, default=2_000_000, help="of one customer, in one month")
    parser.add_argument("--distinct", type=int, default=50_000, help="users they are of, at random")
    parser.add_argument("--repetitions", type=int, default=15, help="of each question, after one to warm up")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    if min(given.events, given.distinct, given.repetitions) < 1:
        parser.error("every number must be at least 1")
    return given


if __name__ == "__main__":
    sys.exit(main())
