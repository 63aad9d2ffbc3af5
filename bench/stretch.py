"""A load with the processor time that an event of it took, apart by who took it."""

import time
from collections.abc import Callable

import msgspec

from bench import server
from bench.load import GONE_AFTER_S, Load


class Stretch(msgspec.Struct, frozen=True, rename="camel"):
    """Microseconds are user and system time of whole process trees ÷ events as expected, warm-up included."""

    load: Load
    server_us: float  # of the server's own processes
    postgres_us: float
    busy: float  # share of the time of all cores that somebody used: at 1 there is no room for more


def stretched(load: Callable[[], Load], server_root: int, postmaster: int) -> Stretch:
    before, began, idle = _cpu(server_root, postmaster), time.monotonic(), server.idle_s()
    done = load()
    took_s = time.monotonic() - began - GONE_AFTER_S  # in that pause nobody does anything
    unused = (server.idle_s() - idle) / server.cores() - GONE_AFTER_S
    after = _cpu(server_root, postmaster)
    ours, theirs = (1e6 * (b - a) / max(done.events, 1) for a, b in zip(before, after, strict=True))
    return Stretch(done, ours, theirs, min(1.0, 1 - unused / took_s))


def _cpu(server_root: int, postmaster: int) -> tuple[float, float]:
    """Of the server's processes without PostgreSQL, whoever is its parent; and of PostgreSQL."""
    theirs = server.cpu_of(postmaster)
    return server.cpu_of(server_root, postmaster) - theirs, theirs
