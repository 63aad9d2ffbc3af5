"""Every measurement for the docs in one run of some minutes, and the page that shows them.

python -m bench.everything [--write docs/benchmarks.md] [--json]
python -m bench.everything --quick    # a minute, and no number of it means anything
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import psycopg
from rich.console import Console

from bench import (
    growth,
    growth_report,
    ingest,
    prepaid,
    prepaid_report,
    report,
    server,
    storage,
    visible,
    workers,
)
from bench.catalogue import Refused
from bench.month import console, say
from bench.page import Document, page, picture, written
from bench.pour import Unexpected

T = TypeVar("T")


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        document = measured(quick=given.quick)
    except (server.ServerTrouble, Refused, Unexpected, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.write:
        image = given.write.with_suffix(".svg")
        image.write_text(picture(document))
        before = given.write.read_text() if given.write.exists() else None
        given.write.write_text(written(before, page(document, image=image.name)))
    if given.json:
        sys.stdout.write(as_json(document).decode() + "\n")
    else:
        show(document, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if document.is_right else 1


def measured(*, quick: bool) -> Document:
    """Each part as its own command does it, on servers of its own."""
    began = time.perf_counter()
    few = ["--customers", "10", "--seconds", "0.5"] if quick else []
    alone = ["--workers", "1"] if quick else []
    lanes = ["--connections", "4", "--batch-connections", "2", *alone] if quick else []
    bulks = ["--bulk-connections", "1"] if quick else []
    window = [*few, *alone, *bulks, "--shared-buffers", "tenth"] if quick else ["--seconds", "10"]

    def part(name: str, measure: Callable[[], T]) -> T:
        say(f"{time.perf_counter() - began:.0f} s: {name}")
        return measure()

    taken = part("ingest", lambda: ingest.measured(ingest.arguments([*few, *lanes, *bulks])))
    pair = ["--connections", "2"] if quick else []
    several = part("workers", lambda: workers.measured(workers.arguments([*few, *pair])))
    there = part(
        "visible", lambda: visible.measured(visible.arguments(["--events", "10", *alone] if quick else []))
    )
    few_events = ["--events", "2000", "--customers", "10"] if quick else []
    stored = part("storage", lambda: storage.measured(storage.arguments(few_events)))
    paid = part("prepaid", lambda: prepaid.measured(prepaid.arguments([*few, *lanes])))
    keys = "2000" if quick else "1000000"
    grown = part("growth", lambda: growth.measured(growth.arguments(["--keys", keys, *window])))
    return Document(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d"),
        took_s=time.perf_counter() - began,
        quick=quick,
        machine=server.machine(),
        ingest=taken,
        workers=several,
        visible=there,
        storage=stored,
        prepaid=paid,
        growth=grown,
    )


def show(document: Document, console: Console) -> None:
    for told in (
        partial(report.show, document.ingest),
        partial(workers.show, document.workers),
        partial(visible.show, document.visible),
        partial(storage.show, document.storage),
        partial(prepaid_report.show, document.prepaid),
        partial(growth_report.show, document.growth),
    ):
        told(console)
        console.print()
    console.print(f"all of it took {document.took_s:.0f} s")


def as_json(document: Document) -> bytes:
    """Each part as its own command's `--json` has it."""
    told = msgspec.to_builtins(document)
    for name, part in (
        ("ingest", report.as_json(document.ingest)),
        ("workers", workers.as_json(document.workers)),
        ("visible", visible.as_json(document.visible)),
        ("storage", storage.as_json(document.storage)),
        ("prepaid", prepaid_report.as_json(document.prepaid)),
        ("growth", growth_report.as_json(document.growth)),
    ):
        told[name] = msgspec.json.decode(part)
    return msgspec.json.format(msgspec.json.encode(told))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.everything", description="every measurement, and its page"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE.md", help="write the page, and its picture beside it"
    )
    parser.add_argument("--quick", action="store_true", help="a minute; no number of it means anything")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(words)
    if given.write and given.quick:
        parser.error("a quick run is not worth a page")
    return given


if __name__ == "__main__":
    sys.exit(main())
