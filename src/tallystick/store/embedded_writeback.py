"""What PostgreSQL leaves in the operating system's cache goes to the disk soon, and in small pieces (docs/decisions/0033).

A table grows by pages of zeros, which Linux keeps for half a minute and then writes at once, tens or hundreds of
megabytes; every commit waits for the disk behind them. PostgreSQL asks for what it writes itself to be written soon
(`checkpoint_flush_after` and its like), but not for these.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.25
LOOK_EVERY_S: Final = 10.0
LARGE_BYTES: Final = 1 << 20
"""What a smaller file can keep back is not worth an open file."""

_SYNC_FILE_RANGE_WRITE: Final = 2  # begin to write what is dirty, and do not wait for it


def _sync_file_range() -> Callable[[int], None] | None:
    """Of a whole file; None where the system has no such call."""
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is None:
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda fd: found(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


class GrowingFiles:
    """The large files of a cluster's tables and indexes that were written to lately."""

    def __init__(self, cluster: Path) -> None:
        self._base = cluster / "base"
        self._open: list[int] = []

    def __len__(self) -> int:
        return len(self._open)

    def look(self, since: float) -> None:
        """Which they are, those that were written to at `since` or later, in seconds of the wall clock."""
        self.close()
        with suppress(OSError):  # it is about to be made, or not ours to read
            for database in os.scandir(self._base):
                if database.name.isdigit():
                    for each in os.scandir(database.path):
                        self._take(each, since)

    def _take(self, file: "os.DirEntry[str]", since: float) -> None:
        with suppress(OSError):  # dropped meanwhile
            found = file.stat()
            if found.st_size >= LARGE_BYTES and found.st_mtime >= since:
                self._open.append(os.open(file.path, os.O_RDONLY))

    def write(self, begin: Callable[[int], None]) -> None:
        for each in self._open:
            begin(each)

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())


@contextmanager
def written_soon(cluster: Path) -> Iterator[None]:
    """As long as this lasts, in a thread."""
    begin = _sync_file_range()
    if begin is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_write, args=(cluster, begin, over), name="writeback", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write(cluster: Path, begin: Callable[[int], None], over: threading.Event) -> None:
    files = GrowingFiles(cluster)
    looked_at = 0.0
    while not over.wait(EVERY_S):
        if time.monotonic() >= looked_at + LOOK_EVERY_S:
            looked_at = time.monotonic()
            files.look(time.time() - LOOK_EVERY_S)
        files.write(begin)
    files.close()
