"""What it costs to hand a batch's columns to PostgreSQL: psycopg's lists beside our packers.

    python -m bench.columns

Times only the dumping, which happens in this process; nothing is sent.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.adapt import PyFormat, Transformer

from tallystick.store import columns

ROWS = 1_600  # of a chunk of an import
ROUNDS = 50


def main() -> None:
    ids = [UUID(bytes=os.urandom(16)) for _ in range(ROWS)]
    hashes = [os.urandom(16) for _ in range(ROWS)]
    keys = [f"req_{each.hex}" for each in ids]
    moments = [datetime.now(UTC)] * ROWS
    print(f"{ROWS} rows a column, {ROUNDS} rounds; µs a value")
    print(f"{'column':<12} {'psycopg list':>13} {'packed':>8} {'ratio':>7}")
    for name, values, pack in (
        ("uuid", ids, columns.uuids),
        ("bytea(16)", hashes, columns.hashes),
        ("text", keys, columns.texts),
        ("timestamptz", moments, columns.instants),
        ("bool", [True] * ROWS, columns.flags),
    ):
        listed = _per_value(lambda values=values: _dump(values))  # type: ignore[misc]
        packed = _per_value(lambda pack=pack, values=values: _dump(pack(values)))  # type: ignore[misc]
        print(f"{name:<12} {listed:>13.3f} {packed:>8.3f} {listed / packed:>6.1f}x")


def _dump(value: Any) -> None:
    Transformer().dump_sequence([value], [PyFormat.AUTO])


def _per_value(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(ROUNDS):
        act()
    return (time.perf_counter() - started) / ROUNDS / ROWS * 1e6


if __name__ == "__main__":
    main()
