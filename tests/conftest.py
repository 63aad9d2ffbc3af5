"""The real parts every test stands on: a PostgreSQL, a server process, organizations of its own."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import hypothesis
import psycopg
import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.times import parse_instant
from tallystick.flows.open_organization import open_organization
from tallystick.store import migrate
from tallystick.store.db import Database
from tallystick.store.embedded import embedded_postgres
from tests.citus import holds

# A build must not depend on dice: the same examples every time. `make search` looks for new ones.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, max_examples=3_000)
hypothesis.settings.load_profile("steady")

T = TypeVar("T")

PROGRAM = Path(sys.executable).parent / "tallystick"


@dataclass
class Server:
    """A `tallystick serve` process with its data directory."""

    base_url: str
    port: int
    data_dir: Path
    database_url: str | None
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")
        } | self.environment
        command = [str(PROGRAM), "serve", "--port", str(self.port), "--workers", str(self.workers)]
        command += ["--data-dir", str(self.data_dir)]
        if self.database_url:
            command += ["--database-url", self.database_url]
        log = self.log_file.open("ab")
        self.process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=self.data_dir.parent
        )
        log.close()
        self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            assert self.process is None or self.process.poll() is None, self.log()
            try:
                if httpx.get(f"{self.base_url}/health/ready", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the server did not become ready:\n{self.log()}")

    @property
    def log_file(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def log(self) -> str:
        return self.log_file.read_text()[-4000:]

    def serving(self) -> list[int]:
        """The processes that answer, where there are several."""
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [pid for pid in map(int, listed) if b"spawn_main" in _command_line(pid)]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None
            self._wait_until_let_go()

    def _wait_until_let_go(self, timeout_s: float = 60) -> None:
        """The workers of a server that was killed end by themselves, a moment after it."""
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self.port))
                return
            time.sleep(0.02)
        raise AssertionError(f"port {self.port} is still taken:\n{self.log()}")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # it ended while we looked
        return b""


@dataclass
class Organization:
    """An organization with the key and the client that speak for it."""

    id: str
    api_key: str
    http: httpx.Client
    base_url: str
    made: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def private_dir(prefix: str) -> Path:
    """A folder that the unprivileged user of the embedded PostgreSQL can pass through."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Iterator[Path]:
    folder = private_dir("tallystick-test-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_url(data_folder: Path) -> Iterator[str]:
    """TALLYSTICK_TEST_DATABASE_URL, else the embedded PostgreSQL; migrated."""
    given = os.environ.get("TALLYSTICK_TEST_DATABASE_URL")
    if given:
        migrate.migrate(given)
        if is_citus(given):
            migrate.spread(given)
        yield given
        return
    with embedded_postgres(data_folder / "data") as embedded:
        migrate.migrate(embedded.conninfo)
        yield embedded.conninfo


def is_citus(url: str) -> bool:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT FROM pg_extension WHERE extname = 'citus'").fetchone() is not None


@pytest.fixture(scope="session")
def cluster_url(request: pytest.FixtureRequest) -> str:
    """The coordinator of a Citus cluster, laid out."""
    given = os.environ.get("TALLYSTICK_TEST_DATABASE_URL")
    if not given or not is_citus(given):
        pytest.skip(
            "needs TALLYSTICK_TEST_DATABASE_URL to name a Citus cluster: python -m tests.citus.cluster makes one"
        )
    return str(request.getfixturevalue("database_url"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what holds on a Citus cluster too (`tests/citus/holds.py`)."""
    for item in items:
        module = item.nodeid.partition("::")[0]
        name = getattr(item, "originalname", item.name)
        if module.startswith("tests/citus/") or (module in holds.MODULES and name not in holds.BUT):
            item.add_marker("citus")


@pytest.fixture(scope="session")
def server(data_folder: Path, database_url: str) -> Iterator[Server]:
    """One server for the whole session; tests keep apart by organization."""
    port = free_port()
    given = os.environ.get("TALLYSTICK_TEST_DATABASE_URL")
    running = Server(f"http://127.0.0.1:{port}", port, data_folder / "data", given)
    running.start()
    yield running
    running.stop()


@contextmanager
def serving(
    database_url: str, *, workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Another server on the same database, with settings of its own."""
    folder = private_dir("tallystick-beside-")
    port = free_port()
    running = Server(
        f"http://127.0.0.1:{port}", port, folder / "data", database_url, workers, dict(environment or {})
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


MakeOrganization = Callable[..., Organization]


@pytest.fixture
def make_organization(server: Server, database_url: str) -> Iterator[MakeOrganization]:
    """Make an organization in the server's database; `clock` starts its test clock."""
    clients: list[httpx.Client] = []

    def make(*, clock: str | None = None, mode: str = "sandbox", timezone: str = "UTC") -> Organization:
        made = open_one(database_url, server.base_url, clock=clock, mode=mode, timezone=timezone)
        clients.append(made.http)
        return made

    yield make
    for client in clients:
        client.close()


def beside_the_server(database_url: str, act: Callable[[Database], Awaitable[T]]) -> T:
    """Do what a command does: our own code on the server's database, in a process of its own."""

    async def inside() -> T:
        database = Database(database_url, size=4)
        await database.open()
        try:
            return await act(database)
        finally:
            await database.close()

    return asyncio.run(inside())


def open_one(
    database_url: str,
    base_url: str,
    *,
    clock: str | None = None,
    mode: str = "sandbox",
    timezone: str = "UTC",
) -> Organization:
    async def act(database: Database) -> tuple[str, str]:
        async with database.transaction() as conn:
            made, key = await open_organization(
                conn,
                name="Test & Sons",
                mode=mode,
                timezone=timezone,
                clock=parse_instant(clock) if clock else None,
                wall=wall(),
            )
        return ids.show(ids.ORGANIZATION, made.id), key.secret

    identity, secret = beside_the_server(database_url, act)
    client = httpx.Client(base_url=base_url, headers={"x-api-key": secret}, timeout=30)
    return Organization(identity, secret, client, base_url)
