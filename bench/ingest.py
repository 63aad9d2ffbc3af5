"""Events per second and latency of the ingest routes, beside this machine's ceilings.

python -m bench.ingest [--seconds 5] [--connections 64] [--workers N] [--json]
python -m bench.ingest --url http://127.0.0.1:8000 --api-key KEY [--database-url URL]
"""

import argparse
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import psycopg
from rich.console import Console

from bench import ceilings, server
from bench.catalogue import Refused, prepare
from bench.events import CUSTOMERS, FEATURE, SINGLE_PATH, SPREAD, VERSION, Batches, Singles, Talk, Target
from bench.load import Load, drive
from bench.month import say
from bench.place import metered, own_place
from bench.report import Ceilings, Options, Report, Restart, as_json, complain, show
from tallystick.core.limits import EVENTS_PER_BATCH_MAX, ROWS_PER_COMMIT_MAX

SETTLING_S: Final = 3.0
console: Final = Console(stderr=True)


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = _given_server(given) if given.url else measured(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if report.errors else 0


def measured(given: argparse.Namespace) -> Report:
    """On a server of its own."""
    with own_place(metered(given.customers), workers=given.workers) as place:
        report = _measure(given, place.target, place.conninfo, workers=given.workers)
        say("starting it again")
        place.ours.stop()
        restart = _restart(place.ours, place.target.api_key)
    return msgspec.structs.replace(report, restart=restart)


def _given_server(given: argparse.Namespace) -> Report:
    offer = metered(given.customers)
    target = Target(given.url, given.api_key, crowd=offer.crowd)
    say("preparing the catalogue and its customers")
    prepare(target, offer)
    return _measure(given, target, given.database_url, workers=None)


def _measure(
    given: argparse.Namespace, target: Target, conninfo: str | None, *, workers: int | None
) -> Report:
    say("single events")
    singles = _load(given, target)
    say("batches")
    batches = _load(given, target, given.events_per_batch)
    say("bulks")
    bulks = _load(given, target, given.events_per_bulk)
    return Report(
        machine=server.machine(),
        postgres=None if conninfo is None else server.postgres(conninfo),
        options=Options(
            given.seconds,
            given.connections,
            given.batch_connections,
            given.events_per_batch,
            given.bulk_connections,
            given.events_per_bulk,
            workers,
        ),
        singles=singles,
        batches=batches,
        bulks=bulks,
        ceilings=_ceilings(given, conninfo, workers=workers or 1),
        restart=None,
    )


def _load(given: argparse.Namespace, target: Target, together: int = 1) -> Load:
    """So many events a request."""
    run = secrets.token_hex(4)  # no run ever meets the event ids of another
    if together == 1:
        name, connections = "single events", given.connections
        talk: Callable[[int], Talk] = partial(Singles, target, run)
    else:
        is_bulk = together > EVENTS_PER_BATCH_MAX
        name, connections = (
            ("bulks", given.bulk_connections) if is_bulk else ("batches", given.batch_connections)
        )
        talk = partial(Batches, target, run, events_per_batch=together)
    load = drive(target, talk, connections=connections, seconds=given.seconds)
    complain(name, load, console)
    return load


def _ceilings(given: argparse.Namespace, conninfo: str | None, *, workers: int) -> Ceilings:
    say("ceiling: the handler without a database")
    with server.raw_handler(workers=workers) as url:
        raw = Target(url, repeats=False)
        singles = _load(given, raw)
        batches, bulks = _load(given, raw, given.events_per_batch), _load(given, raw, given.events_per_bulk)
    if conninfo is None:
        return Ceilings(singles, batches, bulks, None, None, None, None, None)
    say("ceiling: the database without a handler")
    insert = partial(ceilings.insert, conninfo, seconds=given.seconds)
    batched = given.events_per_batch * given.batch_connections
    gathered = min(max(batched, given.events_per_bulk * given.bulk_connections), ROWS_PER_COMMIT_MAX)
    return Ceilings(
        singles,
        batches,
        bulks,
        insert(rows_per_commit=given.connections),
        insert(rows_per_commit=given.events_per_batch),
        insert(rows_per_commit=given.events_per_bulk),
        insert(rows_per_commit=gathered),
        ceilings.copy(conninfo, seconds=given.seconds),
    )


def _restart(ours: server.Tallystick, api_key: str) -> Restart:
    """From spawning to the first accepted event on a prepared data directory; then what it weighs at rest."""
    run, tries = secrets.token_hex(4), 0
    headers = {"x-api-key": api_key, "commet-version": VERSION, "content-type": "application/json"}
    began = time.perf_counter()
    deadline = time.monotonic() + server.READY_TIMEOUT_S
    ours.start(workers=1)
    while True:
        tries += 1
        event = {"customerId": SPREAD.names[0], "featureCode": FEATURE, "eventId": f"{run}-start-{tries}"}
        body = json.dumps(event | {"value": 1}).encode()
        if 200 <= server.status_of(ours.url, SINGLE_PATH, body=body, headers=headers) < 300:
            break
        ours.must_live(deadline)
        time.sleep(0.005)
    first_event_s = time.perf_counter() - began
    postmaster = server.postmaster_of(ours.conninfo)
    time.sleep(SETTLING_S)
    try:
        return Restart(first_event_s, server.memory_of(ours.pid, postmaster))
    except PermissionError:
        return Restart(first_event_s, None)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says; a measurement is started with the same words from elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description="events per second, measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each stretch is measured")
    parser.add_argument("--connections", type=int, default=64, help="connections for single events")
    parser.add_argument("--batch-connections", type=int, default=64, help="connections for batches")
    parser.add_argument("--events-per-batch", type=int, default=100, choices=range(1, 101), metavar="1…100")
    parser.add_argument("--bulk-connections", type=int, default=16, help="connections for bulks")
    parser.add_argument(
        "--events-per-bulk", type=int, default=1_000, choices=range(101, 10_001), metavar="101…10000"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of our own server, and of the raw handler; by default what `serve` starts",
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="over whom the events are spread")
    parser.add_argument("--url", help="measure this server instead of starting one")
    parser.add_argument("--api-key", help="a key of a sandbox organization of that server")
    parser.add_argument(
        "--database-url", help="its PostgreSQL, for the ceilings; a scratch schema comes and goes"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(words)
    if bool(given.url) != bool(given.api_key):
        parser.error("--url and --api-key go together")
    return given


if __name__ == "__main__":
    sys.exit(main())
