"""Servers to measure: our own in a directory that goes away, the raw handler, and what a process weighs."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Self

import psycopg

from tallystick.store.embedded import DEFAULT_SETTINGS, embedded_postgres

READY_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 60.0
HOST: Final = "127.0.0.1"
REPOSITORY: Final = Path(__file__).resolve().parents[1]
TALLYSTICK: Final = Path(sys.executable).parent / "tallystick"


class ServerTrouble(Exception):
    """A server did not start, stop or answer a command; the message carries its last words."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Tallystick:
    """A server of our own: the same command, the same data directory, as often as it is started.

    With `settings`, PostgreSQL has them instead of its usual ones: we start it, the server finds it running and
    joins, and it stops when both have left.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings, self._embedded = settings, ExitStack()
        self._root = Path(tempfile.mkdtemp(prefix="tallystick-bench-"))
        self._root.chmod(0o711)  # started by root, PostgreSQL runs as somebody else and must get through
        self._data, self._log = self._root / "data", self._root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._embedded.close()
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerTrouble("the server is not running")
        return self._process.pid

    @property
    def conninfo(self) -> str:
        """Of the PostgreSQL that runs for it; a start may move the socket."""
        with embedded_postgres(self._data) as embedded:
            return embedded.conninfo

    def start(self, *, workers: int, cores: Collection[int] = ()) -> None:
        """Spawn and return at once. With `cores`, the server and its PostgreSQL keep to those."""
        if self._settings:
            ours, self._settings = {**DEFAULT_SETTINGS, **self._settings}, None
            self._embedded.enter_context(embedded_postgres(self._data, settings=ours))
        port = free_port()
        command = [str(TALLYSTICK), "serve", "--host", HOST, "--port", str(port)]
        command += ["--workers", str(workers), "--data-dir", str(self._data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._root
            )
        if cores:  # whoever it starts follows it
            os.sched_setaffinity(self._process.pid, cores)
        self.url = f"http://{HOST}:{port}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while status_of(self.url, "/health/ready") != 200:
            self.must_live(deadline)
            time.sleep(0.05)

    def must_live(self, deadline: float = math.inf) -> None:
        code = self._process.poll() if self._process else None
        if code is not None or time.monotonic() > deadline:
            fate = "is not ready in time" if code is None else f"ended with {code}"
            words = self._log.read_text(errors="replace").splitlines()[-30:]
            raise ServerTrouble("\n".join([f"the server {fate}; its last words:", *words]))

    def command(self, *words: str) -> dict[str, object]:
        """A `tallystick` command that answers one JSON document."""
        given = [str(TALLYSTICK), *words, "--data-dir", str(self._data), "--json"]
        done = subprocess.run(given, capture_output=True, text=True, timeout=120, cwd=self._root, check=False)
        if done.returncode:
            raise ServerTrouble(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def stop(self) -> None:
        """SIGTERM, as an operator does it; a server that does not end is killed and that is an error."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerTrouble(f"the server did not stop within {STOP_TIMEOUT_S:.0f} s") from None


@contextmanager
def raw_handler(*, workers: int) -> Iterator[str]:
    """The raw handler on uvicorn; the address it listens on."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.raw:app", "--host", HOST, "--port", str(port)]
    command += ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
    command += ["--lifespan", "off", "--no-access-log", "--log-level", "warning"]
    url = f"http://{HOST}:{port}"
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while status_of(url, "/") != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerTrouble("the raw handler did not start")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def status_of(
    url: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> int:
    """The status of one request on a connection of its own; 0 when nobody answered."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def postmaster_of(conninfo: str) -> int:
    """The process id of the PostgreSQL behind a local connection: its backend's parent."""
    with psycopg.connect(conninfo) as conn:
        pid = conn.info.backend_pid
        return _parents()[pid]


def memory_of(*roots: int, without: int | None = None) -> int:
    """Bytes that these processes and their descendants take, shared pages divided among their sharers; `without` one of
    them and its own descendants. PostgreSQL's come and go, and share much: no difference of two sums tells the others.
    """
    others = set() if without is None else _family(without)
    return sum(_weight(each, "Pss") for each in _family(*roots) - others)


def shared_memory_of(root: int) -> int:
    """Bytes of those that lie in memory which processes share: of PostgreSQL's, what was touched of its buffers."""
    return sum(_weight(each, "Pss_Shmem") for each in _family(root))


def cpu_of(*roots: int) -> float:
    """Seconds of processor that these processes took, their descendants, and those of them that have ended."""
    return sum(map(_cpu_s, _family(*roots)))


def _family(*roots: int) -> set[int]:
    family, grown = set(roots), True
    parents = _parents()
    while grown:
        children = {pid for pid, parent in parents.items() if parent in family} - family
        family |= children
        grown = bool(children)
    return family


def _parents() -> dict[int, int]:
    """Each process's parent. The command's name may hold anything, hence from the last bracket on."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    return parents


def _weight(pid: int, kind: str) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith(f"{kind}:"))


def _cpu_s(pid: int) -> float:
    """User and system time, and that of children it has waited for, in the kernel's ticks."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """How many we may run on."""
    return len(os.sched_getaffinity(0))


def idle_s() -> float:
    """Seconds, since the machine started, that our cores had nothing to do, or waited for a disk; of all of them together."""
    ours = {f"cpu{each}" for each in os.sched_getaffinity(0)}
    each_core = map(str.split, Path("/proc/stat").read_text().splitlines())
    idle = sum(int(each) for times in each_core if times[0] in ours for each in times[4:6])
    return idle / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """Facts without which no number means anything."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "cores": cores(),
        "processor": model,
        "memoryBytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": sys.version.split()[0],
    }


def postgres(conninfo: str) -> dict[str, object]:
    """The version and the settings that decide what a commit costs."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "max_wal_size")
    with psycopg.connect(conninfo) as conn:
        rows = conn.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [list(names)]
        ).fetchall()
    held: dict[str, object] = dict(rows)
    return {name: held[name] for name in names}
