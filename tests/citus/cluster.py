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
    "citus.shard_count": "8",  # what is asked of all customers is asked of each shard
    "citus.recover_2pc_interval": "3s",  # what a crash left half committed is finished before a test loses patience
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

    def restart(self) -> None:
        """As after a power cut."""
        self.stop("immediate")
        self.start()

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


class Cluster:
    """The coordinator, then its workers."""

    def __init__(self, bin_dir: Path, folder: Path, stack: ExitStack) -> None:
        self.nodes: list[Node] = []
        self._bin_dir, self._folder, self._stack = bin_dir, folder, stack
        self._account = account_for(folder)
        with psycopg.connect(self.start().url, autocommit=True) as conn:
            conn.execute("SELECT citus_set_coordinator_host('127.0.0.1', %s)", (self.nodes[0].port,))

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> Node:
        """A node that the others do not know yet."""
        home = self._folder / str(len(self.nodes))
        home.mkdir(mode=0o700)
        give(home, self._account)
        node = Node(self._bin_dir, home, self._account, free_port())
        node.begin()
        self._stack.callback(node.stop, "immediate")
        self.nodes.append(node)
        return node

    def add(self) -> Node:
        node = self.start()
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("SELECT citus_add_node('127.0.0.1', %s)", (node.port,))
        return node


@contextmanager
def cluster(bin_dir: Path, *, workers: int) -> Iterator[Cluster]:
    folder = private_dir("tallystick-citus-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(bin_dir, folder, stack)
        for _ in range(workers):
            made.add()
        yield made


@contextmanager
def database_beside(url: str, name: str) -> Iterator[str]:
    """A database of its own on the nodes of a cluster, where nothing is laid out yet."""
    with psycopg.connect(url, autocommit=True) as conn:
        nodes = conn.execute(
            "SELECT groupid, nodename, nodeport FROM pg_dist_node ORDER BY groupid"
        ).fetchall()

    def on_every_node(statement: str, **where: str) -> None:
        for _, host, port in nodes:
            node = psycopg.conninfo.make_conninfo(url, host=host, port=port, **where)
            with psycopg.connect(node, autocommit=True) as conn:
                conn.execute(statement.encode())

    on_every_node(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    on_every_node(f"CREATE DATABASE {name}")
    on_every_node("CREATE EXTENSION citus", dbname=name)
    made = psycopg.conninfo.make_conninfo(url, dbname=name)
    with psycopg.connect(made, autocommit=True) as conn:
        for group, host, port in nodes:
            if group == 0:
                conn.execute("SELECT citus_set_coordinator_host(%s, %s)", (host, port))
            else:
                conn.execute("SELECT citus_add_node(%s, %s)", (host, port))
    yield made
    on_every_node(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if BIN not in os.environ:
        sys.exit(f"{BIN} must name the bin directory of a PostgreSQL with Citus")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with cluster(Path(os.environ[BIN]), workers=chosen.workers) as made:
        print(made.url, flush=True)
        for number, each in enumerate(made.nodes[1:], start=1):
            print(f"worker {number}: {each.url}", file=sys.stderr, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


if __name__ == "__main__":
    main()
