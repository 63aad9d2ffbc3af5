"""What PostgreSQL leaves in the system's cache is written soon: asked of the kernel, page by page, by `cachestat`."""

import ctypes
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.store.test_embedded import a_room

from tallystick.cli.watchdog import kept_running
from tallystick.store.embedded import embedded_postgres
from tallystick.store.embedded_writeback import LARGE_BYTES, LOOK_EVERY_S, GrowingFiles, written_soon

CACHESTAT = 451
KERNEL_WRITES_AFTER_S = 30.0  # unless somebody asks; `vm.dirty_expire_centisecs`, as Linux comes
SOON_S = LOOK_EVERY_S + 5
assert SOON_S < KERNEL_WRITES_AFTER_S


def dirty_pages(*paths: Path) -> int:
    """In the cache, and neither on the disk nor on their way."""
    total = 0
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        told = ctypes.create_string_buffer(40)  # cached, dirty, under writeback, evicted, lately evicted
        failed = ctypes.CDLL(None).syscall(CACHESTAT, fd, struct.pack("QQ", 0, 0), told, 0)
        os.close(fd)
        if failed:
            pytest.skip("this system has no cachestat (Linux 6.5): nobody can say which pages are dirty")
        total += struct.unpack("5Q", told.raw)[1]
    return total


def dirtied(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def until(done: Callable[[], bool], within_s: float) -> bool:
    over = time.monotonic() + within_s
    while not done() and time.monotonic() < over:
        time.sleep(0.1)
    return done()


@pytest.fixture
def disk() -> Iterator[Path]:
    with a_room() as room:
        probe = dirtied(room / "probe", LARGE_BYTES)
        with probe.open("rb") as opened:
            os.fsync(opened.fileno())
        if dirty_pages(probe):
            pytest.skip("temporary files are on no disk here")
        yield room


def test_a_table_that_grows_is_written_long_before_the_kernel_would(disk: Path) -> None:
    with (
        embedded_postgres(disk / "data") as embedded,
        kept_running(embedded, print),
        psycopg.connect(embedded.conninfo, autocommit=True) as conn,
    ):
        conn.execute("CREATE TABLE notches AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        where = conn.execute("SELECT pg_relation_filepath('notches')").fetchone()
        assert where is not None
        table = embedded.cluster / where[0]
        assert table.stat().st_size > 10 * LARGE_BYTES
        assert until(lambda: dirty_pages(table) == 0, SOON_S)


def test_only_large_files_of_databases_that_were_written_lately_are_asked_for(disk: Path) -> None:
    now = time.time()
    growing = dirtied(disk / "base/5/16384", 2 * LARGE_BYTES)
    others = [
        dirtied(disk / "base/5/16385", LARGE_BYTES - 1),
        dirtied(disk / "base/pgsql_tmp/16386", 2 * LARGE_BYTES),
        dirtied(disk / "base/5/16387", 2 * LARGE_BYTES),
    ]
    os.utime(others[-1], (now - 60, now - 60))
    files = GrowingFiles(disk)
    files.look(now - 30)
    assert len(files) == 1
    files.write(os.fdatasync)
    assert dirty_pages(growing) == 0
    assert all(dirty_pages(each) for each in others)
    growing.unlink()
    files.look(now - 30)
    assert len(files) == 0


def test_before_there_is_a_cluster_nothing_is_done(disk: Path) -> None:
    with written_soon(disk / "not there"):
        time.sleep(0.5)
