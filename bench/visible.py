"""Is an event that was answered there at once? Each is followed by questions over other connections.

python -m bench.visible [--events 200] [--workers N] [--json]

After each 201, and before the next event is sent, the usage summary and the feature's access are asked of a customer
of a metered plan, and the access with its balance of a customer of a balance plan. An answer that does not count the
event is asked for again until it does, and counts as late; one late answer makes the command exit 1.
"""

import argparse
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from http.client import HTTPConnection
from itertools import cycle
from typing import Any, Final

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import server
from bench.catalogue import BALANCE, Refused
from bench.events import FEATURE, VERSION, Singles, Target
from bench.load import percentile
from bench.month import console, say
from bench.place import crowded, metered, own_place
from bench.pour import Unexpected, talking

ASKERS: Final = 16
"""Connections that ask in turn, so that each worker has some of them."""
WAIT_S_MAX: Final = 10.0
UNIT_PRICE: Final = Decimal("0.01")  # what `catalogue` charges for a unit


class Seen(msgspec.Struct, frozen=True, rename="camel"):
    """One kind of question, asked once after each event."""

    question: str
    asked: int
    late: int  # first answers that did not count the event yet
    latest_ms: float  # from the 201 until the slowest event was counted; the question's own time included
    p50_ms: float  # of the first answers, from the question until it is read
    p99_ms: float


class Report(msgspec.Struct, frozen=True, rename="camel"):
    machine: dict[str, object]
    workers: int
    seen: list[Seen]

    @property
    def late(self) -> int:
        return sum(each.late for each in self.seen)


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, Unexpected, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if report.late else 0


def measured(given: argparse.Namespace) -> Report:
    """One customer of each plan, on a server of its own."""
    plain, paid = metered(1), crowded(BALANCE, 1)
    with own_place(plain, paid, workers=given.workers) as place:
        say(f"{given.events:,} events of each plan, each asked for at once")
        told = [*_after_each(replace(place.of(plain), repeats=False), _METERED, given.events)]
        told += _after_each(replace(place.of(paid), repeats=False), _BALANCE, given.events)
    return Report(server.machine(), given.workers, told)


Question = tuple[str, str, Callable[[Any], Decimal]]
"""Its name, its path with the customer left open, and the events that its answer counts."""
_ACCESS: Final = f"/feature-access/{FEATURE}?customerId={{customer}}"
_METERED: Final[tuple[Question, ...]] = (
    (
        "usage/summary",
        f"/usage/summary?customerId={{customer}}&featureCode={FEATURE}",
        lambda answer: Decimal(answer["total"]["quantity"]),
    ),
    ("feature-access", _ACCESS, lambda answer: Decimal(answer["consumption"]["unitsUsed"])),
)
_BALANCE: Final[tuple[Question, ...]] = (
    (
        "balance: units used",
        _ACCESS,
        lambda answer: Decimal(answer["consumption"]["unitsUsed"]),
    ),
    (
        "balance: money spent",
        _ACCESS,
        lambda answer: Decimal(answer["consumption"]["spent"]["amountDecimal"]) / UNIT_PRICE,
    ),
)


class _Asked:
    """What came of one kind of question, so far."""

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.late, self.latest_ns = 0, 0


def _after_each(target: Target, questions: Sequence[Question], events: int) -> Iterator[Seen]:
    talk = Singles(target, secrets.token_hex(4), 0)
    askers = cycle([HTTPConnection(target.address.netloc, timeout=30) for _ in range(ASKERS)])
    asked = [_Asked() for _ in questions]
    paths = [path.format(customer=target.crowd.names[0]) for _, path, _ in questions]
    for path in (*paths, *paths):
        for _ in range(ASKERS):  # each connection is open, and each worker knows what it will be asked
            _ask(next(askers), target, path)
    with talking(target) as say_next:
        for sent in range(1, events + 1):
            say_next(talk)
            answered = time.perf_counter_ns()
            for path, (_, _, counted), told in zip(paths, questions, asked, strict=True):
                began = time.perf_counter_ns()
                is_there = counted(_ask(next(askers), target, path)) == sent
                told.firsts.append(time.perf_counter_ns() - began)
                told.late += not is_there
                while not is_there:
                    if time.perf_counter_ns() - answered > WAIT_S_MAX * 1e9:
                        raise Unexpected(f"{path} does not count event {sent} within {WAIT_S_MAX:.0f} s")
                    is_there = counted(_ask(next(askers), target, path)) == sent
                told.latest_ns = max(told.latest_ns, time.perf_counter_ns() - answered)
    for (name, _, _), told in zip(questions, asked, strict=True):
        ordered = sorted(told.firsts)
        p50, p99 = percentile(ordered, 0.50), percentile(ordered, 0.99)
        yield Seen(name, len(ordered), told.late, told.latest_ns / 1e6, p50, p99)


def _ask(connection: HTTPConnection, target: Target, path: str) -> Any:
    headers = {"x-api-key": target.api_key, "commet-version": VERSION}
    connection.request("GET", f"{target.address.path.rstrip('/')}/api/v1{path}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise Unexpected(f"GET {path} answered {answer.status}: {body[:500].decode(errors='replace')}")
    return json.loads(body, parse_float=Decimal)


def as_json(report: Report) -> bytes:
    document = msgspec.to_builtins(report) | {"late": report.late}
    return msgspec.json.format(msgspec.json.encode(document))


def show(report: Report, console: Console) -> None:
    table = Table("asked right after the answer", title=f"workers: {report.workers}", title_justify="left")
    for heading in ("events", "not yet there", "p50 ms", "p99 ms", "latest ms after the answer"):
        table.add_column(heading, justify="right")
    for each in report.seen:
        times = [f"{each.p50_ms:.1f}", f"{each.p99_ms:.1f}", f"{each.latest_ms:.1f}"]
        table.add_row(each.question, f"{each.asked:,}", str(each.late), *times)
    console.print(table)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.visible", description="read your own writes, timed"
    )
    parser.add_argument("--events", type=int, default=200, help="of each plan, one after the other")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of the server; by default what `serve` starts",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
