"""Bytes on disk for an event, by table and by index, of keyed events that came in over HTTP.

python -m bench.storage [--events 1000000] [--json]
"""

import argparse
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import server
from bench.catalogue import Refused
from bench.events import CUSTOMERS, Batches
from bench.month import Progress, console, say
from bench.place import metered, own_place
from bench.pour import Unexpected, pour
from bench.relations import sizes

GOAL_BYTES: Final = 320
EVENTS_PER_BULK: Final = 1_000
CONNECTIONS: Final = 4


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """A table's rows, its long values, or one of its indexes."""

    table: str
    part: str
    bytes_per_event: float


class Stored(msgspec.Struct, frozen=True, rename="camel"):
    events: int
    properties: int  # of each event
    per_customer_and_hour: float  # events, on average: they share a list of the index over `events`
    parts: list[Part]  # the largest first; what grew by less than a tenth of a byte an event is one of them
    bytes_per_event: float

    @property
    def is_within_goal(self) -> bool:
        return self.bytes_per_event <= GOAL_BYTES


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    plain: Stored
    with_properties: Stored
    goal_bytes: int = GOAL_BYTES


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, Unexpected, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0


def measured(given: argparse.Namespace) -> Report:
    plain = _stored(given, properties=False)
    return Report(server.machine(), plain, _stored(given, properties=True))


def _stored(given: argparse.Namespace, *, properties: bool) -> Stored:
    """On a server of its own, so that indexes grow from nothing; nothing is vacuumed by us."""
    with own_place(metered(given.customers), workers=1) as place:
        target = replace(place.target, repeats=False, random_keys=True, properties=properties)
        before = sizes(place.conninfo)
        say(f"{given.events:,} events {'with two' if properties else 'without'} properties")
        talk = partial(Batches, target, secrets.token_hex(4), events_per_batch=EVENTS_PER_BULK)
        requests = max(1, given.events // EVENTS_PER_BULK)
        progress = Progress("events", requests * EVENTS_PER_BULK)
        connections = min(CONNECTIONS, requests)
        events = pour(target, talk, requests=requests, connections=connections, stored=progress.more)
        after = sizes(place.conninfo)
        together = _per_customer_and_hour(place.conninfo)
    grown = {each: (size - before.get(each, 0)) / events for each, size in after.items()}
    parts = [Part(*each, size) for each, size in sorted(grown.items(), key=lambda pair: -pair[1])]
    small = sum(part.bytes_per_event for part in parts if part.bytes_per_event < 0.1)
    parts = [part for part in parts if part.bytes_per_event >= 0.1]
    parts += [Part("others", "each below a tenth of a byte", small)] if small else []
    return Stored(events, 2 if properties else 0, together, parts, sum(grown.values()))


def _per_customer_and_hour(conninfo: str) -> float:
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(
            "SELECT avg(events)::float8 FROM (SELECT count(*) AS events FROM events GROUP BY customer_id, hour_of(occurred_at)) e"
        ).fetchone()
    assert found is not None
    return float(found[0])


def as_json(report: Report) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report))


def show(report: Report, console: Console) -> None:
    for stored in (report.plain, report.with_properties):
        what = f"{stored.properties} properties" if stored.properties else "no properties"
        title = f"{stored.events:,} keyed events, {what}, {stored.per_customer_and_hour:,.0f} of a customer in an hour"
        table = Table("table", "part", title=title, title_justify="left")
        table.add_column("bytes an event", justify="right")
        for part in stored.parts:
            table.add_row(part.table, part.part, f"{part.bytes_per_event:.1f}")
        table.add_row("all", "", f"{stored.bytes_per_event:.1f}", style="bold")
        console.print(table)
    within = "within it" if report.plain.is_within_goal else "above it"
    console.print(
        f"goal: {report.goal_bytes} bytes an event without properties; "
        f"{report.plain.bytes_per_event:.1f} is {within}"
    )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description="bytes an event, measured")
    parser.add_argument("--events", type=int, default=1_000_000, help="to store, in bulks of 1,000")
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="over whom the events are spread")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
