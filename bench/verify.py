"""How many events a second `tallystick verify` derives and hashes again, beside PostgreSQL hashing them and no more.

python -m bench.verify [--events 1000000] [--events-per-line 100] [--workers auto] [--repetitions 3] [--json]
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from bench import server
from bench.month import console, own_database, say, settle, store_month
from bench.portfolio import CLOSES_AT, Size
from tallystick import settings
from tallystick.cli.verify import run
from tallystick.flows.close_due import close_due
from tallystick.flows.verify_all import Report as Verified
from tallystick.flows.verify_all import Wanted
from tallystick.store.db import PROOF_CONNECTION, Database
from tallystick.store.embedded import EmbeddedError
from tallystick.store.proving import LEAF

FEATURES: Final = 5
GOAL: Final = 100_000  # events a second, derived and hashed again


class Wrong(Exception):
    """What was measured did not do what it should have."""


class Run(msgspec.Struct, frozen=True, rename="camel"):
    """One act, over all events, as often as it was repeated."""

    what: str
    events: int  # that it hashes; `--all` does so twice, for the lines and for the chain
    wall_s: list[float]
    cpu_s: list[float]  # of all our processes and all of PostgreSQL's

    @property
    def events_per_s(self) -> float:
        return self.events / median(self.wall_s)

    @property
    def events_per_cpu_s(self) -> float:
        return self.events / median(self.cpu_s)


class Options(msgspec.Struct, frozen=True, rename="camel"):
    subscriptions: int
    features: int
    events_per_line: int
    workers: int
    repetitions: int


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    options: Options
    verified: list[Run]
    ceilings: list[Run]

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        return {
            each.what: {ceiling.what: each.events_per_s / ceiling.events_per_s for ceiling in self.ceilings}
            for each in self.verified
        }


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = _measured(given)
    except (EmbeddedError, psycopg.Error, OSError, Wrong) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 0


def _measured(given: argparse.Namespace) -> Report:
    subscriptions = max(1, given.events // (FEATURES * given.events_per_line))
    size = Size(subscriptions, FEATURES, given.events_per_line, percentage=False, keyed=True)
    with own_database() as conninfo:
        uvloop.run(store_month(conninfo, size))
        uvloop.run(_close(conninfo))
        settle(conninfo)
        meter = _Meter(os.getpid(), server.postmaster_of(conninfo), given.repetitions)
        organization_id = _organization(conninfo)
        lines = Wanted(organization_id=organization_id, chains=False)
        say("verifying every invoice, and then the chain and the keys as well")
        verified = [
            meter.measure(
                "verify --organization", size.events, lambda: _verify(conninfo, lines, given, size)
            ),
            meter.measure("verify --all", 2 * size.events, lambda: _verify(conninfo, Wanted(), given, size)),
        ]
        say("the ceilings")
        ceilings = [
            meter.measure(
                f"PostgreSQL alone, {_processes(count)}", size.events, _hashing(conninfo, count, size)
            )
            for count in sorted({1, given.workers})
        ]
        return Report(
            machine=server.machine(),
            postgres=server.postgres(conninfo),
            options=Options(subscriptions, FEATURES, given.events_per_line, given.workers, given.repetitions),
            verified=verified,
            ceilings=ceilings,
        )


async def _close(conninfo: str) -> None:
    say("closing the month")
    database = Database(conninfo)
    await database.open()
    await close_due(database, now=CLOSES_AT)
    await database.close()


def _organization(conninfo: str) -> UUID:
    with psycopg.connect(conninfo) as conn:
        found = conn.execute("SELECT id FROM organizations").fetchone()
    assert found is not None
    identity: UUID = found[0]
    return identity


class _Meter:
    """Takes the time and the processor time of all who take part."""

    def __init__(self, ours: int, postmaster: int, repetitions: int) -> None:
        self._roots = (ours, postmaster)
        self._repetitions = repetitions

    def measure(self, what: str, events: int, act: Callable[[], object]) -> Run:
        wall, cpu = [], []
        for _ in range(self._repetitions):
            began, before = time.perf_counter(), server.cpu_of(*self._roots)
            act()
            wall.append(time.perf_counter() - began)
            cpu.append(server.cpu_of(*self._roots) - before)
        return Run(what, events, wall, cpu)


class _Silent:
    def expect(self, events: int) -> None: ...

    def looked(self, events: int) -> None: ...


def _verify(conninfo: str, wanted: Wanted, given: argparse.Namespace, size: Size) -> None:
    """As the command does it, the start of its processes included. A fast wrong answer is none."""

    async def act() -> Verified:
        return await run(Database(conninfo), wanted, _Silent(), workers=given.workers)

    report = asyncio.run(act())
    found = (report.invoices, report.lines, report.events, report.chained)
    expected = (size.subscriptions, size.lines, size.events, size.events if wanted.chains else 0)
    if report.different or found != expected:
        raise Wrong(f"invoices, lines and events verified are {found}, not {expected}")


def _hashing(conninfo: str, processes: int, size: Size) -> Callable[[], None]:
    """Every row's leaf, in one plain statement that keeps nothing; or in a share of it for each process.

    The properties of a leaf are sorted by a subquery, which PostgreSQL does not run in parallel by itself.
    """
    options: dict[str, Any] = PROOF_CONNECTION | {"conninfo": conninfo}

    def hashed(share: int) -> int:
        with psycopg.connect(**options) as conn:
            found = conn.execute(
                f"SELECT count({LEAF}) FROM events e WHERE e.batch %% {processes} = %s".encode(), (share,)
            ).fetchone()
        return 0 if found is None else int(found[0])

    def act() -> None:
        with ThreadPoolExecutor(processes) as threads:
            found = sum(threads.map(hashed, range(processes)))
        if found != size.events:
            raise Wrong(f"{found} events have a leaf, not {size.events}")

    return act


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report) | {"ratios": report.ratios, "goal": GOAL}
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    machine, options = report.machine, report.options
    console.print(
        f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, "
        f"PostgreSQL {report.postgres['server_version']}"
    )
    console.print(
        f"{options.subscriptions:,} invoices of {options.features} features, {options.events_per_line:,} events each; "
        f"{_processes(options.workers)} of ours; median of {options.repetitions}"
    )
    table = Table(
        "", title=f"events derived and hashed again; the goal is {GOAL:,} a second", title_justify="left"
    )
    for heading in ("hashed", "s", "events/s", "s of CPU", "events/s of CPU"):
        table.add_column(heading, justify="right")
    for each in report.ceilings:
        table.add_column(each.what.replace("PostgreSQL alone, ", "÷ "), justify="right")
    for each in (*report.verified, *report.ceilings):
        ratios = report.ratios.get(each.what, {}).values()
        table.add_row(
            each.what,
            f"{each.events:,}",
            f"{median(each.wall_s):,.2f}",
            f"{each.events_per_s:,.0f}",
            f"{median(each.cpu_s):,.2f}",
            f"{each.events_per_cpu_s:,.0f}",
            *(f"{ratio:.0%}" for ratio in ratios),
        )
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.verify", description="proof, measured")
    parser.add_argument("--events", type=int, default=1_000_000, help="of one organization, in one month")
    parser.add_argument("--events-per-line", type=int, default=100, help="of each feature of each customer")
    parser.add_argument("--workers", default="auto", help="processes that verify: a number, or auto")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    for name in ("events", "events_per_line", "repetitions"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        given.workers = settings.workers(given.workers)
    except settings.BadSetting as error:
        parser.error(str(error))
    return given


if __name__ == "__main__":
    sys.exit(main())
