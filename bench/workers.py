"""Two workers beside one: events per second of bulks, and the processor time an event takes. And beside one that has a
single core, with its PostgreSQL: how much each further core brings.

python -m bench.workers [--seconds 5] [--workers 2] [--rounds 1] [--json]
"""

import argparse
import os
import secrets
import signal
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import server
from bench.catalogue import Refused
from bench.events import CUSTOMERS, Batches
from bench.load import drive, ratio
from bench.month import console, say
from bench.place import metered, own_place
from bench.report import complain
from bench.stretch import Stretch, stretched

EVENTS_PER_BULK: Final = 1_000


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    workers: int
    one: list[Stretch]  # a round each
    several: list[Stretch]
    cramped: list[Stretch]  # one worker and its PostgreSQL on one core; the client has all of them

    @property
    def ratio(self) -> float:
        """Events per second of several ÷ one, of the median rounds."""
        return ratio(_median(self.several), _median(self.one))

    @property
    def ratio_ceiling(self) -> float:
        """What the ratio would be if an event cost the same and no core were ever idle."""
        return ratio(1.0, statistics.median(each.busy for each in self.one))

    @property
    def ratio_cramped(self) -> float:
        """Events per second of several ÷ one that has a single core."""
        return ratio(_median(self.several), _median(self.cramped))

    @property
    def verdict(self) -> str:
        return (
            f"{self.workers} workers ÷ one: {self.ratio:.2f}; with no core ever idle, and an event as dear, it would be "
            f"{self.ratio_ceiling:.2f}. ÷ one that shares a single core with its PostgreSQL: {self.ratio_cramped:.2f}."
        )

    @property
    def rows(self) -> list[tuple[str, Stretch]]:
        """What had so many workers, a round after the other."""
        rounds = zip(self.cramped, self.one, self.several, strict=True)
        names = ("1, on one core", "1", str(self.workers))
        return [pair for each in rounds for pair in zip(names, each, strict=True)]

    @property
    def errors(self) -> int:
        return sum(each.load.errors for _, each in self.rows)


def _median(rounds: Sequence[Stretch]) -> float:
    return statistics.median(each.load.events_per_s for each in rounds)


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if report.errors else 0


def measured(given: argparse.Namespace) -> Report:
    """They take turns, each time on a server of its own."""
    one, several, cramped = [], [], []
    for _ in range(given.rounds):
        cramped.append(_stretch(given, workers=1, cores=[min(os.sched_getaffinity(0))]))
        one.append(_stretch(given, workers=1))
        several.append(_stretch(given, workers=given.workers))
    return Report(server.machine(), given.workers, one, several, cramped)


def _stretch(given: argparse.Namespace, *, workers: int, cores: Sequence[int] = ()) -> Stretch:
    with own_place(metered(given.customers), workers=workers, cores=cores) as place:
        say(f"bulks, workers: {workers}{', on one core' if cores else ''}")
        talk = partial(Batches, place.target, secrets.token_hex(4), events_per_batch=EVENTS_PER_BULK)
        load = partial(drive, place.target, talk, connections=given.connections, seconds=given.seconds)
        done = stretched(load, *place.roots)
    complain("bulks", done.load, console)
    return done


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report) | {
        "ratio": report.ratio,
        "ratioCeiling": report.ratio_ceiling,
        "ratioCramped": report.ratio_cramped,
        "errors": report.errors,
    }
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    table = Table("workers", title=f"bulks of {EVENTS_PER_BULK:,}", title_justify="left")
    for heading in (
        "events/s",
        "p50 ms",
        "p99 ms",
        "client CPU",
        "server µs",
        "PostgreSQL µs",
        "machine busy",
        "errors",
    ):
        table.add_column(heading, justify="right")
    for workers, one in report.rows:
        load = one.load
        cells = [f"{load.events_per_s:,.0f}", f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"]
        cells += [
            f"{load.generator_cpu:.0%}",
            f"{one.server_us:.1f}",
            f"{one.postgres_us:.1f}",
            f"{one.busy:.0%}",
        ]
        table.add_row(workers, *cells, str(load.errors))
    console.print(table)
    console.print(report.verdict)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description="workers, compared")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each stretch is measured")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server that has several")
    parser.add_argument("--rounds", type=int, default=1, help="all take turns so often")
    parser.add_argument("--connections", type=int, default=16, help="connections for bulks")
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="over whom the events are spread")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
