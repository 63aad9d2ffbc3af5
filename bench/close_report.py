"""What closing came to, as JSON and as tables for people."""

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from bench.close_ceilings import Ceiling, Checked
from bench.memory import Resident
from bench.stages import Stage, Statement


class Options(msgspec.Struct, frozen=True, rename="camel"):
    subscriptions: int
    features: int
    events_per_feature: int
    percentage: bool


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    options: Options
    loaded_s: float
    closed_s: float
    cpu_s: float  # of this process, while it closed
    postgres_cpu_s: float  # of all of PostgreSQL's processes, in the same time
    invoices_per_s: float
    events_per_s: float
    memory: Resident
    stages: list[Stage]
    statements: list[Statement]
    checked: Checked
    ceilings: list[Ceiling]


def as_json(reports: Sequence[Report]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(reports))


def show(reports: Sequence[Report], console: Console) -> None:
    console.print(_facts(reports[0]))
    console.print(_closing(reports))
    if len(reports) == 2:
        console.print(_growth(*reports))
    for report in reports:
        console.print(_stages(report))
        console.print(_ceilings(report))


def _facts(report: Report) -> str:
    machine, options = report.machine, report.options
    settings = ", ".join(
        f"{name} {value}" for name, value in report.postgres.items() if name != "server_version"
    )
    return "\n".join(
        [
            f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}",
            f"PostgreSQL {report.postgres['server_version']}: {settings}",
            f"a month of {options.features} features, {options.events_per_feature:,} events each",
        ]
    )


def _closing(reports: Sequence[Report]) -> Table:
    """A column for each size: what grows with it, and what does not."""
    table = Table("closing", title="periods closed as the sweep closes them", title_justify="left")
    for report in reports:
        table.add_column(f"{report.options.subscriptions:,} subscriptions", justify="right")

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    row("loaded before, s", *(f"{each.loaded_s:,.1f}" for each in reports))
    row("closed, s", *(f"{each.closed_s:,.1f}" for each in reports))
    row("invoices/s", *(f"{each.invoices_per_s:,.1f}" for each in reports))
    row("events/s, aggregated and digested", *(f"{each.events_per_s:,.0f}" for each in reports))
    row("ms an invoice", *(f"{_each(report, report.closed_s):.2f}" for report in reports))
    row("Python's processor time, ms an invoice", *(f"{_each(each, each.cpu_s):.2f}" for each in reports))
    row("PostgreSQL's, ms an invoice", *(f"{_each(each, each.postgres_cpu_s):.2f}" for each in reports))
    row("memory before, MiB", *(_mib(each.memory.before) for each in reports))
    row("memory at each quarter, MiB", *(" ".join(map(_mib, each.memory.quarters)) for each in reports))
    row("memory at most, MiB", *(_mib(each.memory.peak) for each in reports))
    row("of it, added by closing", *(_mib(each.memory.peak - each.memory.before) for each in reports))
    row("invoices, one a period", *(f"{each.checked.invoices:,}" for each in reports))
    row("lines, which add up to the totals", *(f"{each.checked.lines:,}" for each in reports))
    row("events behind the lines", *(f"{each.checked.events_on_lines:,}" for each in reports))
    row("all as it must be", *("yes" if each.checked.is_right else "NO" for each in reports))
    return table


def _growth(small: Report, large: Report) -> Table:
    """1.00 is linear growth: what one invoice takes is the same however many there are."""
    times = large.options.subscriptions / small.options.subscriptions
    table = Table("growth", title=f"{times:,.0f} times as many subscriptions", title_justify="left")
    table.add_column("larger ÷ smaller", justify="right")

    def row(name: str, ratio: float) -> None:
        table.add_row(name, f"{ratio:.2f}")

    processor_s = [(each, each.cpu_s + each.postgres_cpu_s) for each in (small, large)]
    before, after = (_each(report, seconds) for report, seconds in processor_s)
    row("time an invoice", _each(large, large.closed_s) / _each(small, small.closed_s))
    row("processor time an invoice", after / before)
    row("memory at most", large.memory.peak / small.memory.peak)
    return table


def _each(report: Report, seconds: float) -> float:
    """Milliseconds an invoice."""
    return seconds / report.options.subscriptions * 1e3


def _stages(report: Report) -> Table:
    title = f"where the time of {report.options.subscriptions:,} closes went"
    table = Table("stage", title=title, title_justify="left")
    for heading in ("share", "ms a close", "round trips a close"):
        table.add_column(heading, justify="right")
    for each in report.stages:
        trips = f"{each.round_trips_per_close:.1f}" if each.round_trips_per_close else ""
        table.add_row(each.name, f"{each.share:.1%}", f"{each.ms_per_close:.2f}", trips)
    return table


def _ceilings(report: Report) -> Table:
    title = f"beside this machine's ceilings, {report.options.subscriptions:,} subscriptions"
    table = Table("ceiling", title=title, title_justify="left")
    for heading in ("rows", "s", "rows/s", "invoices/s", "ours ÷ it"):
        table.add_column(heading, justify="right")
    for each in report.ceilings:
        rate = each.invoices / each.seconds
        table.add_row(
            each.name,
            f"{each.rows:,}",
            f"{each.seconds:.2f}",
            f"{each.rows / each.seconds:,.0f}",
            f"{rate:,.0f}",
            f"{report.invoices_per_s / rate:.1%}",
        )
    return table


def _mib(memory: int) -> str:
    return f"{memory / 2**20:.0f}"
