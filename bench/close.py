"""Closing periods: invoices per second of what the sweep does, where the time goes, and this machine's ceilings.

python -m bench.close [--subscriptions 1000] [--features 5] [--events-per-feature 100] [--json]
python -m bench.close --growth    # and once more with ten times as many: is the time of one the same?
"""

import argparse
import gc
import signal
import subprocess
import sys
import time
from typing import Final

import msgspec
import psycopg
import uvloop
from rich.console import Console

from bench import close_ceilings, memory, server
from bench.close_report import Options, Report, as_json, show
from bench.month import Progress, console, own_database, say, settle, store_month
from bench.portfolio import CLOSES_AT, Size
from bench.stages import Stages, Watched
from tallystick.flows.close_due import close_due
from tallystick.store.embedded import EmbeddedError

GROWTH: Final = 10


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        reports = _grown(given) if given.growth else [_measured(given)]
    except (EmbeddedError, psycopg.Error, OSError, subprocess.CalledProcessError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(reports).decode() + "\n")
    else:
        show(reports, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if all(report.checked.is_right for report in reports) else 1


def _grown(given: argparse.Namespace) -> list[Report]:
    """Each size in a process of its own, so that neither has the other's memory."""
    reports = []
    for count in (given.subscriptions, given.subscriptions * GROWTH):
        command = [sys.executable, "-m", "bench.close", "--json", "--subscriptions", str(count)]
        command += ["--features", str(given.features)]
        command += ["--events-per-feature", str(given.events_per_feature)]
        command += ["--percentage"] if given.percentage else []
        done = subprocess.run(command, stdout=subprocess.PIPE, cwd=server.REPOSITORY, check=True)
        reports += msgspec.json.decode(done.stdout, type=list[Report])
    return reports


def _measured(given: argparse.Namespace) -> Report:
    size = Size(given.subscriptions, given.features, given.events_per_feature, given.percentage)
    with own_database() as conninfo:
        began = time.perf_counter()
        uvloop.run(store_month(conninfo, size))
        loaded_s = time.perf_counter() - began
        settle(conninfo)
        postmaster = server.postmaster_of(conninfo)
        before_s = server.cpu_of(postmaster)
        stages, resident = uvloop.run(_close(conninfo, size))
        postgres_cpu_s = server.cpu_of(postmaster) - before_s
        say("checking, and the ceilings")
        return Report(
            machine=server.machine(),
            postgres=server.postgres(conninfo),
            options=Options(size.subscriptions, size.features, size.events_per_feature, size.percentage),
            loaded_s=loaded_s,
            closed_s=stages.seconds,
            cpu_s=stages.cpu_s,
            postgres_cpu_s=postgres_cpu_s,
            invoices_per_s=size.subscriptions / stages.seconds,
            events_per_s=size.events / stages.seconds,
            memory=resident,
            stages=stages.told(size.subscriptions),
            statements=sorted(stages.statements.values(), key=lambda each: -each.seconds),
            checked=close_ceilings.check(conninfo, size),
            ceilings=close_ceilings.measured(conninfo, size),
        )


async def _close(conninfo: str, size: Size) -> tuple[Stages, memory.Resident]:
    stages, progress = Stages(), Progress("periods closed", size.subscriptions)
    database = Watched(conninfo, stages, size=16)
    await database.open()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # as every server process does
    memory.forget_peak()
    before = memory.resident()
    with stages:
        await close_due(database, now=CLOSES_AT, closed=progress.more)
    await database.close()
    return stages, memory.Resident(before, progress.resident, memory.peak())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.close", description="period closes, measured")
    parser.add_argument("--subscriptions", type=int, default=1_000, help="periods to close, one each")
    parser.add_argument(
        "--features", type=int, default=5, help="usage features of the plan, each with overage"
    )
    parser.add_argument("--events-per-feature", type=int, default=100, help="of each subscription")
    parser.add_argument(
        "--percentage", action="store_true", help="every fifth price is a percentage of each event's amount"
    )
    parser.add_argument("--growth", action="store_true", help=f"and once more with {GROWTH} times as many")
    parser.add_argument("--json", action="store_true", help="JSON on stdout: a list of runs")
    given = parser.parse_args()
    for name in ("subscriptions", "features", "events_per_feature"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return given


if __name__ == "__main__":
    sys.exit(main())
