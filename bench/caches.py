"""Making a database cold: what the operating system keeps of its files in memory is forgotten."""

import os
from contextlib import suppress
from pathlib import Path

import psycopg


def evict(conninfo: str) -> int:
    """Write everything out, then forget the files' pages; how many bytes of files that was, 0 where we may not.

    What PostgreSQL keeps in its own `shared_buffers` stays.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
        row = conn.execute("SELECT current_setting('data_directory')").fetchone()
    assert row is not None
    forgotten = 0
    for file in Path(row[0], "base").rglob("*"):
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
