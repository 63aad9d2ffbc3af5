"""What a process remembers follows the database: never behind what another lane has read, never ahead of the truth."""

import asyncio
from uuid import UUID

import pytest

from tallystick.flows.books import Books
from tallystick.flows.open_organization import change_organization
from tallystick.store import db
from tallystick.store.db import Conn, Database
from tests.audit import organization_id
from tests.conftest import MakeOrganization, beside_the_server


@pytest.fixture
def organization(make_organization: MakeOrganization) -> UUID:
    return organization_id(make_organization())


async def rename(conn: Conn, organization: UUID, name: str) -> None:
    await change_organization(conn, organization_id=organization, changes={"name": name})


async def until_somebody_waits(conn: Conn, table: str) -> None:
    query = "SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
    while not await db.rows(conn, query, (table,)):
        await conn.execute("SELECT pg_sleep(0.01)")


@pytest.mark.parametrize("known_before", [False, True])
def test_a_slow_reader_does_not_replace_what_a_quick_one_has_brought(
    database_url: str, organization: UUID, known_before: bool
) -> None:
    async def act(database: Database) -> None:
        books = Books()
        async with database.reading() as slow, database.reading() as watch:
            if known_before:
                await books.known(slow, organization)
                await rename(watch, organization, "Slow")
            async with database.transaction() as quick:
                await quick.execute("LOCK TABLE features IN ACCESS EXCLUSIVE MODE")
                slowly = asyncio.create_task(books.refreshed(slow, organization))
                await until_somebody_waits(watch, "features")
                await rename(quick, organization, "Quick")
                newest = await books.refreshed(quick, organization)
            assert await slowly is newest
            assert books.seen(organization) is newest
            assert newest.organization.name == "Quick"

    beside_the_server(database_url, act)


class ChangedTheirMind(Exception):
    """Whatever undoes a transaction."""


def test_what_was_read_in_a_transaction_that_was_undone_is_forgotten(
    database_url: str, organization: UUID
) -> None:
    async def act(database: Database) -> None:
        books = Books()
        async with database.reading() as conn:
            before = await books.known(conn, organization)
        with pytest.raises(ChangedTheirMind):
            async with database.transaction() as conn:
                await rename(conn, organization, "Undone")
                assert (await books.refreshed(conn, organization)).organization.name == "Undone"
                raise ChangedTheirMind
        async with database.reading() as conn:
            found = await books.current(conn, organization)
        assert (found.version, found.organization) == (before.version, before.organization)

    beside_the_server(database_url, act)
