"""What a history costs: as a value, as one JSON document, and as tables for people."""

from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.load import Load, ratio

GOAL_RATIO: Final = 0.80
WORST_S: Final = 5


class Compared(msgspec.Struct, frozen=True, rename="camel"):
    """The same load on both, one after the other."""

    name: str
    empty: Load
    full: Load

    @property
    def ratio(self) -> float:
        return ratio(self.full.events_per_s, self.empty.events_per_s)

    @property
    def worst_ratio(self) -> float:
        return ratio(self.full.worst(WORST_S), self.empty.worst(WORST_S))


class Side(msgspec.Struct, frozen=True, rename="camel"):
    """Proportional set sizes; null where /proc is closed."""

    server_bytes: int | None
    postgres_bytes: int | None


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    keys: int
    events: bool  # were events made up as well
    seconds: float
    workers: int
    evicted_bytes: int  # files whose pages were forgotten before each window
    evict_every_s: float  # and in it; 0: not
    compared: list[Compared]
    history: dict[str, int]  # bytes of each relation before the loads
    empty: Side
    full: Side

    @property
    def errors(self) -> int:
        return sum(each.empty.errors + each.full.errors for each in self.compared)


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report)
    for shown, each in zip(document["compared"], report.compared, strict=True):
        shown |= {"ratio": each.ratio, "worstRatio": each.worst_ratio}
        shown |= {"emptyWorst": each.empty.worst(WORST_S), "fullWorst": each.full.worst(WORST_S)}
    document |= {"errors": report.errors, "goalRatio": GOAL_RATIO}
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    console.print(f"{report.machine['cores']} cores, {report.machine['processor']}")
    console.print("PostgreSQL: " + ", ".join(f"{name} {value}" for name, value in report.postgres.items()))
    console.print(_compared(report))
    total = sum(report.history.values())
    what = "keys with events" if report.events else "keys"
    console.print(f"{report.keys:,} {what} take {_mib(total)}, {total / max(report.keys, 1):.0f} bytes each:")
    for name, size in sorted(report.history.items(), key=lambda pair: -pair[1]):
        console.print(f"  {name}: {_mib(size)}", highlight=False)
    cold = f"{_mib(report.evicted_bytes)} of files were" if report.evicted_bytes else "NOTHING could be"
    again = f" and every {report.evict_every_s:g} s in it" if report.evict_every_s else ""
    console.print(f"{cold} put out of the operating system's cache before each window{again}")
    for name, side in (("empty", report.empty), ("full", report.full)):
        console.print(
            f"memory, {name}: server {_mib(side.server_bytes)}, PostgreSQL {_mib(side.postgres_bytes)}"
        )


def _compared(report: Report) -> Table:
    table = Table(
        "events/s",
        title=f"windows of {report.seconds:g} s, a checkpoint before and in the middle; goal ≥ {GOAL_RATIO:.2f}",
        title_justify="left",
    )
    worst = f"worst {WORST_S} s"
    for heading in ("empty", "full", "÷", worst, worst, "÷", "p99 ms", "p99 ms", "errors"):
        table.add_column(heading, justify="right")
    for each in report.compared:
        empty, full = each.empty, each.full
        cells = [f"{empty.events_per_s:,.0f}", f"{full.events_per_s:,.0f}", f"{each.ratio:.2f}"]
        cells += [f"{empty.worst(WORST_S):,.0f}", f"{full.worst(WORST_S):,.0f}", f"{each.worst_ratio:.2f}"]
        cells += [f"{empty.p99_ms:.0f}", f"{full.p99_ms:.0f}", str(empty.errors + full.errors)]
        table.add_row(each.name, *cells)
    return table


def _mib(size: int | None) -> str:
    return "not readable here" if size is None else f"{size / 2**20:,.0f} MiB"
