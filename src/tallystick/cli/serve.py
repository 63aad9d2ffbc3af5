"""`tallystick serve`: the database, the migrations, the first organization, and the server processes."""

import os
import resource
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Annotated, Any

import psycopg
import typer
import uvicorn

from tallystick import settings
from tallystick.api.short_cut import ShortCutProtocol
from tallystick.app import wall
from tallystick.cli import logs, terminal
from tallystick.cli.cores import here, own_cores
from tallystick.cli.terminal import DatabaseUrl, DataDir
from tallystick.cli.watchdog import kept_running
from tallystick.cli.workers import run_workers
from tallystick.flows.open_organization import open_organization
from tallystick.flows.sort_months import make_ahead
from tallystick.settings import BadSetting, Settings
from tallystick.store import migrate, organizations
from tallystick.store.db import Database
from tallystick.store.embedded import EmbeddedError, embedded_postgres, server_lock


def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", envvar="TALLYSTICK_HOST")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.", envvar="TALLYSTICK_PORT")] = None,
    workers: Annotated[
        str | None, typer.Option(help="Server processes: a number, or auto.", envvar="TALLYSTICK_WORKERS")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Serve the API. Starts the embedded PostgreSQL unless a database URL is given. Ctrl-C stops everything."""
    found = terminal.chosen(data_dir, database_url)
    try:
        found = replace(
            found,
            host=host or found.host,
            port=found.port if port is None else port,
            workers=found.workers if workers is None else settings.workers(workers),
        )
    except BadSetting as error:
        terminal.fail(str(error))
    with prepared(found) as ready:
        terminal.run(ready.database_url or "", lambda database: _greet(database, ready))
        _serve(ready)
    terminal.say("stopped")


@contextmanager
def prepared(found: Settings) -> Iterator[Settings]:
    """All that a server process needs: a free port, and a migrated database, in the settings handed back."""
    _free_port(found)
    _open_files()
    # A server process that is asked to end raises the same signal again when it is done. Left alone, that
    # would end this process before the embedded PostgreSQL is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _database(found) as conninfo:
            migrate.migrate(conninfo)
            terminal.run(conninfo, _make_months)  # before anything can happen in them
            yield replace(found, database_url=conninfo, own_cores=own_cores(found))
    except typer.Exit:  # a RuntimeError too, and already explained
        raise
    except EmbeddedError as error:
        terminal.fail(str(error))
    except psycopg.OperationalError as error:
        terminal.fail(f"the database cannot be reached: {str(error).strip()}")
    except RuntimeError as error:
        terminal.fail(str(error))


def _open_files() -> None:
    """Each connection is an open file: as many as we may have, where shells and service managers allow 1,024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # "no limit" is more than some systems take at their word
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _free_port(found: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in found.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((found.host, found.port))
        except OSError as error:
            terminal.fail(f"cannot listen on {found.host}:{found.port}: {error.strerror}")


@contextmanager
def _database(found: Settings) -> Iterator[str]:
    if found.database_url is not None:
        yield found.database_url
        return
    with (
        server_lock(found.data_dir),
        embedded_postgres(found.data_dir) as embedded,
        kept_running(embedded, terminal.say),
    ):
        yield embedded.conninfo


async def _make_months(database: Database) -> None:
    async with database.reading() as conn:
        with suppress(psycopg.errors.LockNotAvailable):  # then the sweep makes them
            await make_ahead(conn, now=wall())


async def _greet(database: Database, found: Settings) -> None:
    """On the first start there is nobody yet: make a sandbox organization and show how to begin."""
    async with database.transaction() as conn:
        first = not await organizations.every(conn)
        if first:
            _, key = await open_organization(
                conn, name="My sandbox", mode="sandbox", timezone="UTC", clock=None, wall=wall()
            )
    terminal.say(f"[bold]Tallystick[/] serves on [link]{found.base_url}[/link]")
    terminal.say(f"  API reference  {found.base_url}/api/reference")
    terminal.say(f"  Health         {found.base_url}/health/ready")
    if first:
        terminal.say("\nA sandbox organization is ready. Its API key is shown only now; keep it:\n")
        terminal.people.print(f"  {key.secret}\n", soft_wrap=True)
        terminal.say("Make a customer with it:\n")
        terminal.people.print(
            f"  curl {found.base_url}/api/v1/customers -H 'x-api-key: {key.secret}' "
            "-H 'content-type: application/json' "
            """-d '{"id": "user_123", "email": "ada@example.com"}'\n""",
            soft_wrap=True,
        )


def _serve(found: Settings) -> None:
    with ExitStack() as stack:
        if found.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
            run_workers(server_options(found), cores=here() if found.own_cores else [None] * found.workers)
        else:
            uvicorn.run(**server_options(found))


def server_options(found: Settings) -> dict[str, Any]:
    """How our server processes run. They read their settings from the environment; what was decided here goes there:
    the database, how many they are, whether each has a core of its own, and how often a key may call."""
    os.environ["TALLYSTICK_DATABASE_URL"] = found.database_url or ""
    os.environ["TALLYSTICK_WORKERS"] = str(found.workers)
    os.environ["TALLYSTICK_OWN_CORES"] = "yes" if found.own_cores else "no"
    os.environ["TALLYSTICK_RATE_LIMIT"] = str(found.rate_limit)
    return {
        "app": "tallystick.app:create",
        "factory": True,
        "host": found.host,
        "port": found.port,
        "loop": "uvloop",
        "http": ShortCutProtocol,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": logs.config(found.log_level),
        "server_header": False,
        "proxy_headers": False,
        "backlog": 4096,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 30,
    }
