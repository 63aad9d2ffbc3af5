"""The result as a value, as one JSON document, and as tables for people."""

import msgspec
from rich.console import Console
from rich.table import Table

from bench.ceilings import Written
from bench.load import Load


class Ceilings(msgspec.Struct, frozen=True, rename="camel"):
    handler_singles: Load
    handler_batches: Load
    insert_singles: Written | None  # as many rows a commit as there are connections
    insert_batch: Written | None  # one batch a commit
    insert_gathered: Written | None  # as many batches a commit as there are connections
    copy: Written | None


class Options(msgspec.Struct, frozen=True, rename="camel"):
    seconds: float
    connections: int
    batch_connections: int
    events_per_batch: int
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
    ceilings: Ceilings
    restart: Restart | None

    @property
    def loads(self) -> dict[str, Load]:
        return {
            "single events": self.singles,
            f"batches of {self.options.events_per_batch}": self.batches,
            "raw handler, single events": self.ceilings.handler_singles,
            "raw handler, batches": self.ceilings.handler_batches,
        }

    @property
    def errors(self) -> int:
        return sum(load.errors for load in self.loads.values())

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Ours divided by each ceiling it can be compared with, in events per second."""
        ceilings = self.ceilings
        singles = {"handler": ceilings.handler_singles.events_per_s} | _rates(
            insert=ceilings.insert_singles, copy=ceilings.copy
        )
        batches = {"handler": ceilings.handler_batches.events_per_s} | _rates(
            insert=ceilings.insert_batch, insertGathered=ceilings.insert_gathered, copy=ceilings.copy
        )
        return {
            "singles": {name: self.singles.events_per_s / rate for name, rate in singles.items() if rate},
            "batches": {name: self.batches.events_per_s / rate for name, rate in batches.items() if rate},
        }


def _rates(**written: Written | None) -> dict[str, float]:
    return {name: one.rows_per_s for name, one in written.items() if one is not None}


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
        "errors",
    ):
        table.add_column(heading, justify="right")
    for name, load in list(report.loads.items())[:2]:
        rates = [f"{rate:,.0f}" for rate in (load.requests_per_s, load.events_per_s, load.stored_per_s)]
        times = [f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}", f"{load.generator_cpu:.0%}"]
        table.add_row(name, str(load.connections), *rates, *times, str(load.errors))
    return table


def _compared(report: Report) -> Table:
    table = Table("ceiling", title="beside this machine's ceilings", title_justify="left")
    for heading in ("events/s", "p50 ms", "p99 ms", "client CPU", "singles ÷ it", "batches ÷ it"):
        table.add_column(heading, justify="right")
    ceilings, singles, batches = report.ceilings, report.ratios["singles"], report.ratios["batches"]

    def row(name: str, rate: float, one: Load | Written, single: str | None, batch: str | None) -> None:
        shares = [
            "" if key is None or key not in of else f"{of[key]:.0%}"
            for key, of in ((single, singles), (batch, batches))
        ]
        cpu = f"{one.generator_cpu:.0%}" if isinstance(one, Load) else ""
        table.add_row(name, f"{rate:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", cpu, *shares)

    handler, many = ceilings.handler_singles, ceilings.handler_batches
    row("raw handler, single events", handler.events_per_s, handler, "handler", None)
    row(
        f"raw handler, batches of {report.options.events_per_batch}", many.events_per_s, many, None, "handler"
    )
    inserts = {
        "insert": ceilings.insert_singles,
        "batch": ceilings.insert_batch,
        "many": ceilings.insert_gathered,
    }
    keys = {"insert": ("insert", None), "batch": (None, "insert"), "many": (None, "insertGathered")}
    for kind, written in inserts.items():
        if written is not None:
            name = f"durable insert, {written.rows_per_commit:,} rows a commit"
            row(name, written.rows_per_s, written, *keys[kind])
    if ceilings.copy is not None:
        name = f"COPY without an index, {ceilings.copy.rows_per_commit:,} rows a commit"
        row(name, ceilings.copy.rows_per_s, ceilings.copy, "copy", "copy")
    return table
