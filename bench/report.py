"""The result as a value, as one JSON document, and as tables for people."""

import msgspec
from rich.console import Console
from rich.table import Table

from bench.ceilings import Written
from bench.load import Load


class Ceilings(msgspec.Struct, frozen=True, rename="camel"):
    handler_singles: Load
    handler_batches: Load
    handler_bulks: Load
    insert_singles: Written | None  # as many rows a commit as there are connections
    insert_batch: Written | None  # one batch a commit
    insert_bulk: Written | None  # one bulk a commit
    insert_gathered: Written | None  # as much a commit as comes at once, and the server takes
    copy: Written | None


class Options(msgspec.Struct, frozen=True, rename="camel"):
    seconds: float
    connections: int
    batch_connections: int
    events_per_batch: int
    bulk_connections: int
    events_per_bulk: int
    workers: int | None  # unknown when the server was given


class Restart(msgspec.Struct, frozen=True, rename="camel"):
    """A server with one worker, started on the data directory that was just measured."""

    first_event_s: float  # from spawning the process to the first event answered 2xx
    idle_memory_bytes: int | None  # proportional set size, PostgreSQL included; null where /proc is closed


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object] | None
    options: Options
    singles: Load
    batches: Load
    bulks: Load
    ceilings: Ceilings
    restart: Restart | None

    @property
    def loads(self) -> dict[str, Load]:
        return {
            "single events": self.singles,
            f"batches of {self.options.events_per_batch}": self.batches,
            f"bulks of {self.options.events_per_bulk:,}": self.bulks,
            "raw handler, single events": self.ceilings.handler_singles,
            "raw handler, batches": self.ceilings.handler_batches,
            "raw handler, bulks": self.ceilings.handler_bulks,
        }

    @property
    def errors(self) -> int:
        return sum(load.errors for load in self.loads.values())

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Ours divided by each ceiling it can be compared with, in events per second."""
        ceilings = self.ceilings
        found = {
            "singles": _rates(ceilings.handler_singles, insert=ceilings.insert_singles, copy=ceilings.copy),
            "batches": _rates(
                ceilings.handler_batches,
                insert=ceilings.insert_batch,
                insertGathered=ceilings.insert_gathered,
                copy=ceilings.copy,
            ),
            "bulks": _rates(
                ceilings.handler_bulks,
                insert=ceilings.insert_bulk,
                insertGathered=ceilings.insert_gathered,
                copy=ceilings.copy,
            ),
        }
        ours = {"singles": self.singles, "batches": self.batches, "bulks": self.bulks}
        return {
            kind: {name: ours[kind].events_per_s / rate for name, rate in rates.items() if rate}
            for kind, rates in found.items()
        }


def _rates(handler: Load, **written: Written | None) -> dict[str, float]:
    return {"handler": handler.events_per_s} | {
        name: one.rows_per_s for name, one in written.items() if one is not None
    }


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report)
    document |= {"ratios": report.ratios, "errors": report.errors}
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    console.print(_facts(report))
    console.print(_measured(report))
    console.print(_compared(report))
    if report.restart is not None:
        memory = report.restart.idle_memory_bytes
        console.print(f"start to first accepted event, 1 worker: {report.restart.first_event_s:.2f} s")
        weight = "not readable here" if memory is None else f"{memory / 2**20:.0f} MiB"
        console.print(f"idle memory, 1 worker, PostgreSQL included: {weight}")
    if report.postgres is None:
        console.print("without --database-url there are no ceilings of PostgreSQL")


def complain(name: str, load: Load, console: Console) -> None:
    if load.errors:
        console.print(f"{name}: {load.errors} errors, for instance", style="bold red")
    for sample in load.error_samples:
        console.print(f"  {sample}", markup=False, highlight=False)


def _facts(report: Report) -> str:
    machine, options = report.machine, report.options
    lines = [f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}"]
    if report.postgres is not None:
        version = report.postgres["server_version"]
        rest = ", ".join(f"{k} {v}" for k, v in report.postgres.items() if k != "server_version")
        lines.append(f"PostgreSQL {version}: {rest}")
    workers = "unknown" if options.workers is None else options.workers
    lines.append(
        f"workers: {workers}; {options.seconds:g} s each after the warm-up; one event in ten is a repeat"
    )
    return "\n".join(lines)


def _measured(report: Report) -> Table:
    table = Table("Tallystick", title="measured over HTTP", title_justify="left")
    for heading in (
        "connections",
        "requests/s",
        "events/s",
        "stored/s",
        "p50 ms",
        "p99 ms",
        "client CPU",
        "client µs",
        "errors",
    ):
        table.add_column(heading, justify="right")
    for name, load in list(report.loads.items())[:3]:
        rates = [f"{rate:,.0f}" for rate in (load.requests_per_s, load.events_per_s, load.stored_per_s)]
        times = [f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}", f"{load.generator_cpu:.0%}"]
        times.append(f"{load.generator_us:.0f}")
        table.add_row(name, str(load.connections), *rates, *times, str(load.errors))
    return table


def _compared(report: Report) -> Table:
    table = Table("ceiling", title="beside this machine's ceilings", title_justify="left")
    for heading in (
        "events/s",
        "p50 ms",
        "p99 ms",
        "client CPU",
        *(f"{kind} ÷ it" for kind in report.ratios),
    ):
        table.add_column(heading, justify="right")
    ceilings, options = report.ceilings, report.options

    def row(name: str, one: Load | Written | None, **compared: str) -> None:
        """`compared`: which ratio of each kind of ours stands beside it."""
        if one is None:
            return
        rate, cpu = (
            (one.events_per_s, f"{one.generator_cpu:.0%}") if isinstance(one, Load) else (one.rows_per_s, "")
        )
        shares = [
            f"{ratios[compared[kind]]:.0%}" if compared.get(kind) in ratios else ""
            for kind, ratios in report.ratios.items()
        ]
        table.add_row(name, f"{rate:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", cpu, *shares)

    def rows(one: Written | None) -> str:
        return "" if one is None else f"{one.rows_per_commit:,}"

    row("raw handler, single events", ceilings.handler_singles, singles="handler")
    row(f"raw handler, batches of {options.events_per_batch}", ceilings.handler_batches, batches="handler")
    row(f"raw handler, bulks of {options.events_per_bulk:,}", ceilings.handler_bulks, bulks="handler")
    for one, compared in (
        (ceilings.insert_singles, {"singles": "insert"}),
        (ceilings.insert_batch, {"batches": "insert"}),
        (ceilings.insert_bulk, {"bulks": "insert"}),
        (ceilings.insert_gathered, {"batches": "insertGathered", "bulks": "insertGathered"}),
    ):
        row(f"durable insert, {rows(one)} rows a commit", one, **compared)
    row(
        f"COPY without an index, {rows(ceilings.copy)} rows a commit",
        ceilings.copy,
        singles="copy",
        batches="copy",
        bulks="copy",
    )
    return table
