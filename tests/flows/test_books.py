"""What a process remembers follows the database: never behind what another lane has read, never ahead of the truth."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from psycopg import AsyncConnection

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.flows.key_generations import freeze_if_full
from tallystick.flows.open_organization import change_organization
from tallystick.store.db import CONNECTION, Conn, Database
from tests.audit import audit, organization_id
from tests.conftest import MakeOrganization, beside_the_server
from tests.shop import add_customer, add_feature, add_plan, overage, subscribe


@pytest.fixture
def organization(make_organization: MakeOrganization) -> UUID:
    return organization_id(make_organization())


async def rename(conn: Conn, organization: UUID, name: str) -> None:
    await change_organization(conn, organization_id=organization, changes={"name": name})


class Hesitant(AsyncConnection[Any]):
    """It stops before it reads features, until it may go on."""

    stopped: asyncio.Event
    may_go_on: asyncio.Event

    async def execute(self, query: Any, *args: Any, **named: Any) -> Any:
        if "FROM features" in query:
            self.stopped.set()
            await self.may_go_on.wait()
        return await super().execute(query, *args, **named)


@pytest.mark.parametrize("known_before", [False, True])
def test_a_slow_reader_does_not_replace_what_a_quick_one_has_brought(
    database_url: str, organization: UUID, known_before: bool
) -> None:
    async def act(database: Database) -> None:
        books = Books()
        async with (
            database.reading() as quick,
            await Hesitant.connect(database_url, **CONNECTION) as slow,
        ):
            slow.stopped, slow.may_go_on = asyncio.Event(), asyncio.Event()
            if known_before:
                await books.known(quick, organization)
                await rename(quick, organization, "Slow")
            slowly = asyncio.create_task(books.refreshed(slow, organization))
            await slow.stopped.wait()
            await rename(quick, organization, "Quick")
            newest = await books.refreshed(quick, organization)
            slow.may_go_on.set()
            assert await slowly is newest
            assert books.seen(organization) is newest
            assert newest.organization.name == "Quick"

    beside_the_server(database_url, act)


class Forgetful(AsyncConnection[Any]):
    """While it stores, another lane has learnt so many customers that the book forgets all the others."""

    books: Books

    async def execute(self, query: Any, *args: Any, **named: Any) -> Any:
        if "INSERT INTO events" in query:
            for book in self.books._books.values():
                book.standings.clear()
        return await super().execute(query, *args, **named)


def test_a_batch_is_stored_once_and_answered_though_the_book_forgets_its_customers(
    database_url: str, make_organization: MakeOrganization
) -> None:
    shop = make_organization()
    add_feature(shop)
    add_plan(shop, "metered", promises={"api_calls": overage("0.01")})
    add_customer(shop, "ada")
    subscribe(shop, "ada", "metered")

    async def act(database: Database) -> None:
        books = Books()
        drafts = [Draft(UsageEvent("api_calls", "ada")) for _ in range(3)]
        async with database.reading() as other, await Forgetful.connect(database_url, **CONNECTION) as conn:
            conn.books = books
            for each in (
                other,
                conn,
            ):  # the first sees that nothing limits them, so the second stores in short
                outcomes = await ingest(each, books, organization_id(shop), drafts, wall=wall())
                assert [each.reference for each in outcomes if isinstance(each, Accepted)] == ["ada"] * 3

    beside_the_server(database_url, act)
    audit(database_url, shop)


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


def test_a_version_that_was_undone_and_given_to_another_change_is_read_anew(
    database_url: str, organization: UUID
) -> None:
    async def act(database: Database) -> None:
        books = Books()
        async with database.reading() as conn:
            await books.known(conn, organization)
        with pytest.raises(ChangedTheirMind):
            async with database.transaction() as conn:
                await rename(conn, organization, "Undone")
                undone = await books.current(conn, organization)
                raise ChangedTheirMind
        async with database.reading() as conn:
            await rename(conn, organization, "Done")
            found = await books.current(conn, organization)
        assert (found.version, found.organization.name) == (undone.version, "Done")

    beside_the_server(database_url, act)


def test_another_generation_of_keys_makes_nobody_and_nothing_else_forgotten(
    database_url: str, make_organization: MakeOrganization
) -> None:
    shop = make_organization()
    add_customer(shop, "ada")
    organization = organization_id(shop)

    async def act(database: Database) -> None:
        books = Books()
        async with database.reading() as conn:
            before = await books.known(conn, organization)
            await books.learn(conn, before, {"ada"})
            await frozen(conn)
            after = await books.current(conn, organization)
            assert after.generation > before.generation
            assert after.version == before.version + 1
            assert after.standings == before.standings != {}
            assert after.catalogue is before.catalogue
            await frozen(conn)
            await rename(conn, organization, "Together")
            both = await books.current(conn, organization)
            assert both.generation > after.generation
            assert (both.organization.name, both.standings) == ("Together", {})

    beside_the_server(database_url, act)


async def frozen(conn: Conn) -> None:
    """Another generation is open; tries again when somebody was in the way."""
    for _ in range(50):
        if await freeze_if_full(conn, bytes_max=0) is not None:
            return
    raise AssertionError("it could not be frozen")
