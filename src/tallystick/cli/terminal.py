"""What all commands share: where the database is, how to speak to people and to machines, how to fail."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar
from uuid import UUID

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tallystick import settings
from tallystick.cli.watchdog import kept_running
from tallystick.core import ids
from tallystick.errors import TallystickError
from tallystick.settings import Settings
from tallystick.store import migrate, organizations
from tallystick.store.db import Database
from tallystick.store.embedded import EmbeddedError, embedded_postgres
from tallystick.store.organizations import Organization

T = TypeVar("T")

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where the embedded PostgreSQL lives.", envvar="TALLYSTICK_DATA_DIR"),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="Use this PostgreSQL instead.", envvar="TALLYSTICK_DATABASE_URL"),
]
WhichOrganization = Annotated[
    str | None,
    typer.Option(
        "--organization",
        help="org_…; may be left out when there is only one.",
        envvar="TALLYSTICK_ORGANIZATION",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

_WIDE_CHARS: Final = 200
people = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """For people; never on stdout, which belongs to results."""
    people.print(text)


def result(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def show(table: Table) -> None:
    """A result that people read: on stdout, and whole where it goes to a file or another program."""
    Console(width=None if sys.stdout.isatty() else _WIDE_CHARS, highlight=False).print(table)


def fail(message: str) -> NoReturn:
    people.print(f"[bold red]✗[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(1)


def chosen(data_dir: Path | None = None, database_url: str | None = None) -> Settings:
    """Flags over environment over `.env` over defaults."""
    try:
        found = settings.load()
    except settings.BadSetting as error:
        fail(str(error))
    if data_dir is not None:
        found = replace(found, data_dir=data_dir)
    if database_url is not None:
        found = replace(found, database_url=database_url)
    return found


@contextmanager
def reachable(found: Settings, *, stays: bool = False) -> Iterator[str]:
    """The database's address: the one given, or the embedded one, started or joined. Migrated either way.

    Who `stays` for long has the embedded one started again when something kills it.
    """
    try:
        if found.database_url is not None:
            migrate.migrate(found.database_url)
            yield found.database_url
        else:
            with embedded_postgres(found.data_dir) as embedded:
                migrate.migrate(embedded.conninfo)
                with kept_running(embedded, say) if stays else nullcontext():
                    yield embedded.conninfo
    except EmbeddedError as error:
        fail(str(error))
    except psycopg.OperationalError as error:
        fail(f"the database cannot be reached: {str(error).strip()}")


def run(conninfo: str, act: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with a pool of connections; refusals become a message and exit code 1."""

    async def inside() -> T:
        database = Database(conninfo, size=4)
        await database.open()
        try:
            return await act(database)
        finally:
            await database.close()

    try:
        return asyncio.run(inside())
    except TallystickError as error:
        fail(getattr(error, "message", str(error)))


def identity(prefix: str, shown: str | None) -> UUID | None:
    """The id that was named; None when none was."""
    found = None if shown is None else ids.read(prefix, shown)
    if shown is not None and found is None:
        raise typer.BadParameter(f"{shown!r} is not the id it should be: {prefix}_…")
    return found


async def the_organization(database: Database, given: str | None) -> Organization:
    """The one that was named, or the only one there is."""
    async with database.reading() as conn:
        if given is not None:
            identity: UUID | None = ids.read(ids.ORGANIZATION, given)
            found = None
            if identity is not None:
                found = await organizations.get(conn, organization_id=identity)
            if found is None:
                fail(f"there is no organization {given}")
            return found
        every = await organizations.every(conn)
    if len(every) == 1:
        return every[0]
    if not every:
        fail("there is no organization yet: `tallystick organizations create --name …` makes one")
    names = ", ".join(f"{ids.show(ids.ORGANIZATION, each.id)} ({each.name})" for each in every[:8])
    fail(f"say which organization with --organization: {names}")
