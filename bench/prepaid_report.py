"""What prepaid usage came to beside metered usage: as a value, as one JSON document, and as tables for people."""

import msgspec
from rich.console import Console
from rich.table import Table

from bench.load import Load, ratio
from bench.stretch import Stretch


class Options(msgspec.Struct, frozen=True, rename="camel"):
    seconds: float
    connections: int
    batch_connections: int
    events_per_batch: int
    checks_per_s: float
    workers: int


class Books(msgspec.Struct, frozen=True, rename="camel"):
    """Of every wallet there is. Amounts are exact, as text, credits and rate units together."""

    wallets: int
    events: int
    deducted: str  # by the events, each for itself
    posted: str  # to the ledger, a batch at a time
    wrong: int  # wallets whose events, ledger and pools disagree


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    options: Options
    metered: Stretch
    balance: Stretch
    metered_batches: Stretch
    balance_batches: Stretch
    hot: Stretch
    beside: Load  # the events that came in while checks were asked
    checks_paced: Load
    checks: Load
    books: Books

    @property
    def stretches(self) -> dict[str, tuple[Stretch, Stretch]]:
        """Each with the metered one it is compared with."""
        return {
            "metered, single events": (self.metered, self.metered),
            "balance, single events": (self.balance, self.metered),
            "one hot wallet": (self.hot, self.metered),
            f"metered, batches of {self.options.events_per_batch}": (
                self.metered_batches,
                self.metered_batches,
            ),
            f"balance, batches of {self.options.events_per_batch}": (
                self.balance_batches,
                self.metered_batches,
            ),
        }

    @property
    def asked(self) -> dict[str, Load]:
        return {
            f"checks, {self.options.checks_per_s:,.0f} a second": self.checks_paced,
            "checks, as many as are answered": self.checks,
            "the events beside them": self.beside,
        }

    @property
    def errors(self) -> int:
        loads = [stretch.load for stretch, _ in self.stretches.values()] + list(self.asked.values())
        return sum(load.errors for load in loads)

    @property
    def ratios(self) -> dict[str, float]:
        """Events per second divided by those of a metered plan."""
        singles, batches = self.metered.load.events_per_s, self.metered_batches.load.events_per_s
        return {
            "singles": ratio(self.balance.load.events_per_s, singles),
            "batches": ratio(self.balance_batches.load.events_per_s, batches),
            "hot": ratio(self.hot.load.events_per_s, singles),
        }

    @property
    def is_right(self) -> bool:
        return not self.errors and not self.books.wrong and self.books.events > 0


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report)
    document |= {"ratios": report.ratios, "errors": report.errors}
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    machine, options, books = report.machine, report.options, report.books
    console.print(f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}")
    console.print(f"workers: {options.workers}; {options.seconds:g} s each; one event in ten is a repeat")
    console.print(_measured(report))
    console.print(_asked(report))
    verdict = "all agree" if not books.wrong else f"{books.wrong} DISAGREE"
    console.print(
        f"{books.wallets:,} wallets: {books.events:,} events took {books.deducted}, the ledger moved "
        f"{books.posted}; events, ledger and wallet: {verdict}"
    )


def _measured(report: Report) -> Table:
    table = Table("tracking", title="measured over HTTP", title_justify="left")
    for heading in (
        "connections",
        "events/s",
        "÷ metered",
        "p50 ms",
        "p99 ms",
        "server µs",
        "PostgreSQL µs",
        "errors",
    ):
        table.add_column(heading, justify="right")
    for name, (one, metered) in report.stretches.items():
        load = one.load
        rate, share = (
            f"{load.events_per_s:,.0f}",
            f"{ratio(load.events_per_s, metered.load.events_per_s):.0%}",
        )
        times = [f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"]
        cpu = [f"{one.server_us:.0f}", f"{one.postgres_us:.0f}"]
        table.add_row(
            name, str(load.connections), rate, "" if one is metered else share, *times, *cpu, str(load.errors)
        )
    return table


def _asked(report: Report) -> Table:
    table = Table("asking while events come in", title_justify="left")
    for heading in ("connections", "requests/s", "p50 ms", "p99 ms", "client CPU", "errors"):
        table.add_column(heading, justify="right")
    for name, load in report.asked.items():
        times = [f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}", f"{load.generator_cpu:.0%}"]
        table.add_row(name, str(load.connections), f"{load.requests_per_s:,.0f}", *times, str(load.errors))
    return table
