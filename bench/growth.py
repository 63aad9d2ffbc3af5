"""Does a long history make taking events in slower? The same loads on an empty and on a full database, in turns.

python -m bench.growth [--keys 20000000] [--events] [--shared-buffers tenth] [--seconds 30] [--json]
"""

import argparse
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from typing import Final

import psycopg
from rich.console import Console

from bench import history, server
from bench.caches import evict, evicting
from bench.catalogue import Refused
from bench.events import CUSTOMERS, Batches
from bench.growth_report import Compared, Report, Side, as_json, show
from bench.load import Load, drive, warm_up
from bench.month import console, say, settle
from bench.place import Place, metered, own_place
from bench.relations import Relation, sizes
from bench.report import complain
from tallystick.core.limits import KEY_GENERATION_MB
from tallystick.store.embedded import DEFAULT_SETTINGS

LOADED_WITHIN_S: Final = 120
LOADS: Final = {
    "bulks of 1,000, keys in order": (1_000, False),
    "bulks of 1,000, random keys": (1_000, True),
    "batches of 100, keys in order": (100, False),
    "batches of 100, random keys": (100, True),
}


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = measured(given)
    except (server.ServerTrouble, Refused, psycopg.Error, OSError) as trouble:
        console.print(f"{type(trouble).__name__}: {trouble}", style="bold red", markup=False)
        return 1
    if given.json:
        sys.stdout.write(as_json(report).decode() + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    return 1 if report.errors else 0


def measured(given: argparse.Namespace) -> Report:
    """Both databases have a server of their own, of which one rests while the other is measured."""
    settings = {"shared_buffers": _shared_buffers(given)}
    os.environ["TALLYSTICK_KEY_GENERATION_MB"] = str(given.generation_mb)  # the servers inherit it
    open_one = partial(own_place, metered(given.customers), workers=given.workers, settings=settings)
    with open_one() as empty, open_one() as full:
        say(f"{given.keys:,} keys{' with events' if given.events else ''} of the past")
        with psycopg.connect(full.conninfo) as conn:
            history.fill(
                conn,
                given.keys,
                events=given.events,
                per_generation=given.generation_mb * 2**20 // history.BYTES_PER_KEY,
            )
        _until_loaded(full, history.wait_for_filters(full.conninfo) * given.workers)
        settle(full.conninfo)
        held = sizes(full.conninfo)
        evicted = evict(full.conninfo)
        compared = []
        for nth, (name, (size, random_keys)) in enumerate(LOADS.items()):
            say(f"{name}, on the empty and on the full database")
            on = partial(_load, given, name, size, random_keys)
            if nth % 2:  # whatever else a machine does in the course of time, neither always comes first
                loaded_full, loaded_empty = on(full), on(empty)
            else:
                loaded_empty, loaded_full = on(empty), on(full)
            compared.append(Compared(name, loaded_empty, loaded_full))
        return Report(
            machine=server.machine(),
            postgres=server.postgres(full.conninfo) | _memory_settings(full.conninfo),
            keys=given.keys,
            events=given.events,
            seconds=given.seconds,
            workers=given.workers,
            evicted_bytes=evicted,
            evict_every_s=given.evict_every,
            compared=compared,
            history=_of_history(held, events=given.events),
            empty=_side(empty),
            full=_side(full),
        )


def _until_loaded(place: Place, wanted: int) -> None:
    """Until all of its processes together have so many bytes of filters in memory."""
    deadline = time.monotonic() + LOADED_WITHIN_S
    while time.monotonic() < deadline:
        if place.filter_bytes >= wanted:
            return
        time.sleep(0.5)
    raise server.ServerTrouble("the filters of the history are not in memory")


def _of_history(held: Mapping[Relation, int], *, events: bool) -> dict[str, int]:
    """Of keys, rows and primary keys of all generations together."""
    found: Counter[str] = Counter()
    for each, size in held.items():
        if each.table.startswith("event_keys"):
            found[f"event_keys, {'rows' if each.part == 'rows' else 'primary keys'}"] += size
        elif each.table == "key_filters" or (events and each.table.startswith("events")):
            found[", ".join(each)] += size
    return dict(found)


def _load(given: argparse.Namespace, name: str, size: int, random_keys: bool, place: Place) -> Load:
    """A window with a checkpoint right before it and one in its middle, beginning with cold files."""
    target = replace(place.target, random_keys=random_keys)
    connections = given.bulk_connections if size > 100 else given.batch_connections
    talk = partial(Batches, target, secrets.token_hex(4), events_per_batch=size)
    evict(place.conninfo)
    with (
        _checkpoint_after(place.conninfo, warm_up(given.seconds) + given.seconds / 2),
        evicting(place.conninfo, given.evict_every) if given.evict_every else nullcontext(),
    ):
        load = drive(target, talk, connections=connections, seconds=given.seconds)
    complain(name, load, console)
    return load


@contextmanager
def _checkpoint_after(conninfo: str, seconds: float) -> Iterator[None]:
    is_over = Event()

    def checkpoint() -> None:
        if not is_over.wait(seconds):
            with psycopg.connect(conninfo, autocommit=True) as conn:
                conn.execute("CHECKPOINT")

    thread = Thread(target=checkpoint)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _side(place: Place) -> Side:
    """What each process tree weighs after the loads; filters that a server keeps of its keys would be in it."""
    server_root, postmaster = place.roots
    try:
        return Side(server.memory_of(server_root, without=postmaster), server.memory_of(postmaster))
    except PermissionError:
        return Side(None, None)


def _memory_settings(conninfo: str) -> dict[str, object]:
    names = ["shared_buffers", "work_mem", "maintenance_work_mem", "effective_cache_size", "wal_buffers"]
    with psycopg.connect(conninfo) as conn:
        return dict(
            conn.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [names]
            ).fetchall()
        )


def _shared_buffers(given: argparse.Namespace) -> str:
    if given.shared_buffers != "tenth":
        return str(given.shared_buffers)
    return f"{max(16, given.keys * history.BYTES_PER_KEY // 10 // 2**20)}MB"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description="does a history slow it down?"
    )
    parser.add_argument("--keys", type=int, default=20_000_000, help="that the full database holds")
    parser.add_argument("--events", action="store_true", help="and as many events in the table of events")
    parser.add_argument(
        "--shared-buffers",
        default=DEFAULT_SETTINGS["shared_buffers"],
        help="PostgreSQL's own memory, as the server gives it; `tenth` is about a tenth of what the keys take",
    )
    parser.add_argument(
        "--evict-every",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="put files out of the operating system's cache again and again, not only before each window",
    )
    parser.add_argument(
        "--generation-mb",
        type=int,
        default=KEY_GENERATION_MB,
        help="how large a generation of keys becomes before it is frozen",
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="each window, a checkpoint in its middle")
    parser.add_argument("--bulk-connections", type=int, default=16, help="connections for bulks")
    parser.add_argument("--batch-connections", type=int, default=64, help="connections for batches")
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help="of whom keys and events are")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes of each server; by default what `serve` starts",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
