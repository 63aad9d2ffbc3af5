"""A command that stays keeps its PostgreSQL running, and its disk evenly busy."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tallystick.store.embedded import Embedded, EmbeddedError
from tallystick.store.embedded_writeback import written_soon

_WATCH_EVERY_S: Final = 0.5


@contextmanager
def kept_running(embedded: Embedded, say: Callable[[str], None]) -> Iterator[None]:
    """Start PostgreSQL again when something kills it meanwhile; and have written soon what it leaves to the system."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCH_EVERY_S):
            if not embedded.is_running():
                say("PostgreSQL is gone; starting it again")
                try:
                    embedded.restart()
                except EmbeddedError as error:
                    say(f"it did not start: {error}")

    thread = threading.Thread(target=watch, name="postgres watchdog", daemon=True)
    thread.start()
    try:
        with written_soon(embedded.cluster):
            yield
    finally:
        over.set()
        thread.join()
