"""A long run: its minutes, which way memory and p99 went, and the verdict."""

from collections.abc import Sequence
from math import fsum, sqrt
from statistics import linear_regression, pstdev
from typing import Final

import msgspec
from rich.console import Console

from bench.load import Load
from bench.plot import Line, lines

SETTLING_SHARE: Final = 0.2
"""Of the run: in it caches fill, so that it says nothing about what grows for ever."""


class Minute(msgspec.Struct, frozen=True, rename="camel"):
    at_min: float  # when it ended, since the warm-up
    events_per_s: float
    p50_ms: float
    p99_ms: float
    server_bytes: int  # proportional set size of the server's processes
    filter_bytes: int  # of those, the filters over frozen keys
    postgres_bytes: int
    buffer_bytes: int  # of those, what was touched of its shared buffers
    errors: int
    wal_bytes: int  # written in this minute
    database_bytes: int

    @property
    def line(self) -> str:
        memory = (
            f"server {_mib(self.server_bytes)} (filters {_mib(self.filter_bytes)}), "
            f"PostgreSQL {_mib(self.postgres_bytes)} (buffers {_mib(self.buffer_bytes)})"
        )
        disk = f"log {_mib(self.wal_bytes)}, database {_mib(self.database_bytes)}"
        return (
            f"{self.at_min:6.1f} min  {self.events_per_s:8,.0f} events/s  p50 {self.p50_ms:6.1f} ms  "
            f"p99 {self.p99_ms:6.1f} ms  {memory}  {disk}  errors {self.errors}"
        )


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    postgres: dict[str, object]
    workers: int
    share: float
    full: Load
    soaked: Load
    minutes: list[Minute]
    answered: int  # events that were answered as new, in both stretches
    stored: int  # events in the table

    @property
    def settled(self) -> Sequence[Minute]:
        return self.minutes[int(len(self.minutes) * SETTLING_SHARE) :]

    @property
    def server_bytes_per_hour(self) -> float:
        return slope([(each.at_min / 60, each.server_bytes) for each in self.settled])

    @property
    def filter_bytes_per_hour(self) -> float:
        return slope([(each.at_min / 60, each.filter_bytes) for each in self.settled])

    @property
    def postgres_bytes_per_hour(self) -> float:
        return slope([(each.at_min / 60, each.postgres_bytes) for each in self.settled])

    @property
    def buffer_bytes_per_hour(self) -> float:
        return slope([(each.at_min / 60, each.buffer_bytes) for each in self.settled])

    @property
    def p99_ms_per_hour(self) -> float:
        return slope(self._p99s)

    @property
    def p99_ms_per_hour_error(self) -> float:
        """A standard error: less than two of them is no growth that these minutes show."""
        return slope_error(self._p99s)

    @property
    def _p99s(self) -> Sequence[tuple[float, float]]:
        return [(each.at_min / 60, each.p99_ms) for each in self.settled]

    @property
    def errors(self) -> int:
        return self.full.errors + self.soaked.errors

    @property
    def is_right(self) -> bool:
        return not self.errors and self.answered == self.stored


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that is nearest to the points; nought where there are too few for one."""
    if len(points) < 2:
        return 0.0
    rise, _ = linear_regression(*zip(*points, strict=True))
    return float(rise)


def slope_error(points: Sequence[tuple[float, float]]) -> float:
    """The standard error of that slope, from how far the points are off the line; nought where there are too few to tell."""
    count = len(points)
    if count < 3:
        return 0.0
    xs, ys = zip(*points, strict=True)
    rise, base = linear_regression(xs, ys)
    off = fsum((y - base - rise * x) ** 2 for x, y in points) / (count - 2)
    return float(sqrt(off / count) / pstdev(xs))


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report)
    document |= {
        "errors": report.errors,
        "serverBytesPerHour": report.server_bytes_per_hour,
        "filterBytesPerHour": report.filter_bytes_per_hour,
        "postgresBytesPerHour": report.postgres_bytes_per_hour,
        "bufferBytesPerHour": report.buffer_bytes_per_hour,
        "p99MsPerHour": report.p99_ms_per_hour,
        "p99MsPerHourError": report.p99_ms_per_hour_error,
    }
    return msgspec.json.format(msgspec.json.encode(document))


def picture(report: Report) -> str:
    """Memory and p99 over time."""
    each = report.minutes
    return lines(
        f"{report.share:.0%} of full load: {report.soaked.events_per_s:,.0f} events a second",
        [
            Line("memory of the server", [(one.at_min, one.server_bytes / 2**20) for one in each], "MiB"),
            Line("memory of PostgreSQL", [(one.at_min, one.postgres_bytes / 2**20) for one in each], "MiB"),
            Line("p99", [(one.at_min, one.p99_ms) for one in each], "ms"),
        ],
    )


def show(report: Report, console: Console) -> None:
    full, soaked = report.full, report.soaked
    console.print(
        f"{report.machine['cores']} cores, {report.machine['processor']}; workers: {report.workers}"
    )
    console.print(
        f"full: {full.events_per_s:,.0f} events/s, p99 {full.p99_ms:.1f} ms; "
        f"at {report.share:.0%} of it: {soaked.events_per_s:,.0f} events/s, p99 {soaked.p99_ms:.1f} ms"
    )
    console.print(
        f"an hour, after the first {SETTLING_SHARE:.0%}: server {report.server_bytes_per_hour / 2**20:+.1f} MiB, of which "
        f"filters of keys {report.filter_bytes_per_hour / 2**20:+.1f} MiB; "
        f"PostgreSQL {report.postgres_bytes_per_hour / 2**20:+.1f} MiB, of which its buffers "
        f"{report.buffer_bytes_per_hour / 2**20:+.1f} MiB; p99 {report.p99_ms_per_hour:+.1f} ± {report.p99_ms_per_hour_error:.1f} ms"
    )
    verdict = "as many as" if report.answered == report.stored else "NOT as many as"
    console.print(
        f"{report.answered:,} events were answered as new, {report.stored:,} are stored: {verdict} must be; "
        f"errors: {report.errors}"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
