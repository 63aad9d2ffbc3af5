"""Half of what it can do, for long: does memory or p99 grow, is every answer the right one, is all of it stored?

python -m bench.soak [--minutes 30] [--share 0.5] [--plot soak.svg] [--json]
"""

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

import psycopg
from rich.console import Console

from bench import server
from bench.catalogue import Refused
from bench.events import CUSTOMERS, Mixed
from bench.load import Span, Watch, drive, percentile
from bench.month import console, say
from bench.place import Place, metered, own_place
from bench.report import complain
from bench.soak_report import Minute, Report, as_json, picture, show

EVENTS_PER_BATCH: Final = 100


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.plot:
        given.plot.write_text(picture(report))
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if report.is_right else 1


def measured(given: argparse.Namespace) -> Report:
    """On a server of its own: a short stretch at full speed, then the long one at a share of its rate."""
    with own_place(metered(given.customers), workers=given.workers) as place:
        load = partial(drive, place.target, connections=given.connections)
        say("single events and batches, as many as are answered")
        full = load(_talk(place), seconds=given.full_seconds)
        complain("at full speed", full, console)
        pace = full.requests_per_s * given.share
        say(f"{pace:,.0f} requests a second for {given.minutes:g} minutes")
        notes = _Notes(place)
        soaked = load(
            _talk(place),
            seconds=given.minutes * 60,
            requests_per_s=max(pace, 1.0),
            watch=Watch(given.every_s, notes.spans.put),
        )
        minutes = notes.end()
        complain("the long stretch", soaked, console)
        return Report(
            machine=server.machine(),
            postgres=server.postgres(place.conninfo),
            workers=given.workers,
            share=given.share,
            full=full,
            soaked=soaked,
            minutes=minutes,
            answered=full.stored + soaked.stored,
            stored=_stored(place),
        )


def _talk(place: Place) -> "partial[Mixed]":
    return partial(Mixed, place.target, secrets.token_hex(4), events_per_batch=EVENTS_PER_BATCH)


def _stored(place: Place) -> int:
    with psycopg.connect(place.conninfo) as conn:
        found = conn.execute("SELECT count(*) FROM events").fetchone()
    assert found is not None
    return int(found[0])


class _Notes:
    """Takes each span from the load, looks at what processes weigh, and says it. In a thread of its own, so that the
    load does not wait for it."""

    def __init__(self, place: Place) -> None:
        self.spans: SimpleQueue[Span | None] = SimpleQueue()
        self._place, self._roots, self._conninfo = place, place.roots, place.conninfo
        self._minutes: list[Minute] = []
        self._wal_before = _on_disk(place.conninfo)[0]
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def end(self) -> list[Minute]:
        self.spans.put(None)
        self._thread.join()
        return self._minutes

    def _listen(self) -> None:
        while (span := self.spans.get()) is not None:
            server_root, postmaster = self._roots
            wal, database = _on_disk(self._conninfo)
            ordered = sorted(span.latencies)
            minute = Minute(
                at_min=(span.began_s + span.seconds) / 60,
                events_per_s=span.events / span.seconds,
                p50_ms=percentile(ordered, 0.50),
                p99_ms=percentile(ordered, 0.99),
                server_bytes=server.memory_of(server_root, without=postmaster),
                filter_bytes=self._place.filter_bytes,
                postgres_bytes=server.memory_of(postmaster),
                buffer_bytes=server.shared_memory_of(postmaster),
                errors=span.errors,
                wal_bytes=wal - self._wal_before,
                database_bytes=database,
            )
            self._wal_before = wal
            self._minutes.append(minute)
            console.print(minute.line, highlight=False, soft_wrap=True)


def _on_disk(conninfo: str) -> tuple[int, int]:
    """Bytes of write-ahead log since the beginning of time, and of the database now."""
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(
            "SELECT (pg_current_wal_lsn() - '0/0')::int8, pg_database_size(current_database())"
        ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="half load, for long")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the paced load goes on")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the rate that is reached when nothing waits"
    )
    parser.add_argument(
        "--full-seconds", type=float, default=15.0, help="how long that rate is looked for beforehand"
    )
    parser.add_argument("--every-s", type=float, default=60.0, help="a line, and a point of the picture")
    parser.add_argument(
        "--connections", type=int, default=64, help="one waits for its answer before it sends the next"
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="over whom the events are spread")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of the server; by default what `serve` starts",
    )
    parser.add_argument("--plot", type=Path, help="write memory and p99 over time there, as SVG")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
