"""A Citus cluster to try things on: a coordinator and its workers, on this machine, gone when it is stopped.

TALLYSTICK_CITUS_BIN=/usr/lib/postgresql/15/bin python -m tests.citus.cluster

`TALLYSTICK_CITUS_BIN` is the bin directory of a PostgreSQL in which Citus is installed. The first line it prints is
the URL to set TALLYSTICK_TEST_DATABASE_URL to; it serves until it is interrupted. Every node listens on 127.0.0.1
only and trusts whoever comes: never keep anything in it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tallystick.store.embedded_paths import Account, account_for, give
from tests.conftest import free_port, private_dir

BIN = "TALLYSTICK_CITUS_BIN"
_SETTINGS = {
    "shared_preload_libraries": "citus",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "200",
    "wal_level": "logical",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "citus.enable_statistics_collection": "off",
}


@dataclass(frozen=True)
class Node:
    """One PostgreSQL with the extension."""

    bin_dir: Path
    home: Path
    account: Account
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def begin(self) -> None:
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
            settings.write(f"port = {self.port}\n")
        self.start()
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("CREATE EXTENSION citus")

    @property
    def data(self) -> Path:
        return self.home / "data"

    def start(self) -> None:
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.home / "log"))

    def stop(self, how: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", how)

    def run(self, program: str, *arguments: str) -> None:
        lent = self.account.popen()
        lent["env"] |= {
            "HOME": str(self.home)
        }  # where libpq looks for certificates when one node calls another
        done = subprocess.run(
            [self.bin_dir / program, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            **lent,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stderr.decode()}")


@contextmanager
def cluster(bin_dir: Path, *, workers: int) -> Iterator[list[Node]]:
    """The coordinator, then its workers."""
    folder = private_dir("tallystick-citus-")
    account = account_for(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        nodes = []
        for number in range(workers + 1):
            home = folder / str(number)
            home.mkdir(mode=0o700)
            give(home, account)
            node = Node(bin_dir, home, account, free_port())
            node.begin()
            stack.callback(node.stop, "immediate")
            nodes.append(node)
        coordinator, *others = nodes
        with psycopg.connect(coordinator.url, autocommit=True) as conn:
            conn.execute("SELECT citus_set_coordinator_host('127.0.0.1', %s)", (coordinator.port,))
            for each in others:
                conn.execute("SELECT citus_add_node('127.0.0.1', %s)", (each.port,))
        yield nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if BIN not in os.environ:
        sys.exit(f"{BIN} must name the bin directory of a PostgreSQL with Citus")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster(Path(os.environ[BIN]), workers=chosen.workers) as nodes:
        print(nodes[0].url, flush=True)
        for number, each in enumerate(nodes[1:], start=1):
            print(f"worker {number}: {each.url}", file=sys.stderr, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


if __name__ == "__main__":
    main()
