"""Three years of real commits, in the order in which they arrived, for every customer there is: what was billed under
each policy for what is late, beside what plain folds over the file say.

TALLYSTICK_SHARED=… python -m bench.commits [--commits FILE] [--customers N] [--json]
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table
from tests import shop
from tests.audit import select
from tests.conftest import open_one, serving
from tests.scenarios.commits import (
    BEGAN,
    POLICIES,
    WHOLE,
    Arrival,
    billed,
    differences,
    folds,
    live,
    three_years,
)

from bench import server
from tallystick.core import ids
from tallystick.store.embedded import EmbeddedError, embedded_postgres
from tallystick.store.migrate import migrate

REQUEST_TIMEOUT_S: Final = 120
console: Final = Console(stderr=True)


class Lived(msgspec.Struct, frozen=True, rename="camel"):
    """What came of one policy."""

    policy: str
    customers: int
    events: int
    late_events: int
    invoices: int
    adjustments: int
    billed_minor: int
    expected_minor: int
    differences: list[str]  # of customer, feature and usage period
    seconds: float


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    lived: list[Lived]


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arrivals = three_years(given.commits, given.customers)
    try:
        report = _lived_by_all(arrivals)
    except (EmbeddedError, psycopg.Error, OSError, subprocess.CalledProcessError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        _show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if any(each.differences for each in report.lived) else 0


def _lived_by_all(arrivals: Sequence[Arrival]) -> Report:
    """An organization for each policy, one after the other, on one server."""
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as folder:
        Path(folder).chmod(0o711)  # started by root, PostgreSQL runs as somebody else and must get through
        with embedded_postgres(Path(folder) / "data") as embedded:
            migrate(embedded.conninfo)
            with serving(embedded.conninfo) as running:
                lived = [_lived(embedded.conninfo, running.base_url, arrivals, each) for each in POLICIES]
            return Report(server.machine(), server.postgres(embedded.conninfo), lived)


def _lived(conninfo: str, base_url: str, arrivals: Sequence[Arrival], policy: str) -> Lived:
    console.print(f"… {policy}", style="dim", highlight=False)
    organization = open_one(conninfo, base_url, clock=BEGAN.isoformat())
    organization.http.timeout = REQUEST_TIMEOUT_S
    began = time.perf_counter()
    zones = live(organization, arrivals, [policy])
    seconds = time.perf_counter() - began
    everything, _, late = folds(arrivals, zones)
    expected = {key: owes for key, owes in everything.items() if key[1].startswith(f"{policy}_")}
    told = billed(conninfo, organization)
    organization.http.close()
    ((invoices, adjustments),) = select(
        conninfo,
        """SELECT count(*), count(*) FILTER (WHERE invoice_type = 'adjustment')
             FROM invoices WHERE organization_id = %s""",
        shop.own_id(ids.ORGANIZATION, organization.id),
    )
    return Lived(
        policy=policy,
        customers=len(zones),
        events=len(arrivals),
        late_events=len(late),
        invoices=invoices,
        adjustments=adjustments,
        billed_minor=sum(minor for _, minor in told.values()),
        expected_minor=sum(minor for _, minor in expected.values()),
        differences=differences(expected, told),
        seconds=seconds,
    )


def _show(report: Report, console: Console) -> None:
    machine, first = report.machine, report.lived[0]
    console.print(
        f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}\n"
        f"PostgreSQL {report.postgres['server_version']}\n"
        f"{first.customers:,} customers, {first.events:,} commits, {first.late_events:,} of them late"
    )
    table = Table(
        "policy", title="three years of commits, lived through by the test clock", title_justify="left"
    )
    for heading in ("invoices", "adjustments", "billed", "Σ billed = independent fold", "s"):
        table.add_column(heading, justify="right")
    for each in report.lived:
        table.add_row(
            each.policy,
            f"{each.invoices:,}",
            f"{each.adjustments:,}",
            f"{each.billed_minor / 100:,.2f}",
            f"NO, {len(each.differences):,} differ"
            if each.differences
            else "yes, each period of each feature",
            f"{each.seconds:,.1f}",
        )
    console.print(table)
    for each in report.lived:
        for difference in each.differences[:10]:
            console.print(f"{each.policy}: {difference}", markup=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.commits", description="real commits, lived through"
    )
    parser.add_argument("--commits", type=Path, default=WHOLE, help="the file of commits (gzip, a line each)")
    parser.add_argument("--customers", type=int, help="only so many, the busiest (default: all)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    given = parser.parse_args()
    if not given.commits.is_file():
        parser.error(f"there is no file {given.commits}: --commits, or TALLYSTICK_SHARED with data/ in it")
    return given


if __name__ == "__main__":
    sys.exit(main())
