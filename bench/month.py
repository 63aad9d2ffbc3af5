"""A month in a database of its own: where it lies, how it gets there, and how far that is."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console

from bench import memory
from bench.portfolio import Size, subscribe_everybody, use_everything
from tallystick.store.db import Database
from tallystick.store.embedded import embedded_postgres
from tallystick.store.migrate import migrate

QUARTERS: Final = 4
console: Final = Console(stderr=True)


@contextmanager
def own_database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as folder:
        Path(folder).chmod(0o711)  # started by root, PostgreSQL runs as somebody else and must get through
        with embedded_postgres(Path(folder) / "data") as embedded:
            migrate(embedded.conninfo)
            yield embedded.conninfo


async def store_month(conninfo: str, size: Size) -> None:
    database = Database(conninfo)
    await database.open()
    organization_id = await subscribe_everybody(database, size)
    await database.close()
    await use_everything(conninfo, organization_id, size, Progress("events stored", size.events).more)


def settle(conninfo: str) -> None:
    """What autovacuum and checkpoints would have done in a month."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("VACUUM (ANALYZE)")
        conn.execute("CHECKPOINT")


class Progress:
    """Tells each quarter of the way, or each of more parts, and keeps how much memory this process had there."""

    def __init__(self, what: str, total: int, *, parts: int = QUARTERS) -> None:
        self.resident: list[int] = []
        self._what, self._total, self._done, self._parts = what, total, 0, parts
        self._began = time.perf_counter()

    def more(self, count: int) -> None:
        self._done += count
        told = len(self.resident)
        while self._done * self._parts >= (len(self.resident) + 1) * self._total:
            self.resident.append(memory.resident())
        if told < len(self.resident) and self._done < self._total:
            so_far = time.perf_counter() - self._began
            rate = self._done / so_far
            left = (self._total - self._done) / rate
            say(
                f"{self._done:,} of {self._total:,} {self._what} in {so_far:.0f} s, "
                f"{rate:,.0f} a second, about {left:.0f} s to go"
            )


def say(what: str) -> None:
    console.print(f"… {what}", style="dim", highlight=False)
