"""Making a database cold: what the operating system keeps of its files in memory is forgotten."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import psycopg


def evict(conninfo: str) -> int:
    """Write everything out, then forget the files' pages; how many bytes of files that was, 0 where we may not.

    What PostgreSQL keeps in its own `shared_buffers` stays.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    return _forget_all(_files_of(conninfo))


@contextmanager
def evicting(conninfo: str, every_s: float) -> Iterator[None]:
    """The same every so many seconds, without a checkpoint: of pages that are still to be written nothing is forgotten."""
    files, is_over = _files_of(conninfo), Event()

    def forget() -> None:
        while not is_over.wait(every_s):
            _forget_all(files)

    thread = Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _files_of(conninfo: str) -> Path:
    with psycopg.connect(conninfo) as conn:
        row = conn.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    return Path(row[0], "base")


def _forget_all(folder: Path) -> int:
    forgotten = 0
    with suppress(OSError):  # not ours to look into
        for file in folder.rglob("*"):
            with suppress(OSError):  # it went away meanwhile, or it is somebody else's
                forgotten += _forget(file)
    return forgotten


def _forget(file: Path) -> int:
    if not file.is_file():
        return 0
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
