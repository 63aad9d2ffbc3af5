"""Events whose keys may be old are looked at apart: nobody else waits for them, and each is told what it would be told in
its place."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import psycopg
import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.events import UsageEvent
from tallystick.errors import Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft, Outcome
from tallystick.flows.key_filters import FAR_S, FEW, Filters
from tallystick.flows.key_generations import build_filters
from tallystick.flows.sieve import KeyFilter, bytes_for
from tallystick.store.db import Database
from tallystick.store.key_generations import table
from tests.audit import audit, count_events, organization_id
from tests.conftest import MakeOrganization, Organization, beside_the_server
from tests.flows.test_key_generations import freeze, nothing_twice
from tests.shop import API, done, open_shop, own_id, track

OLD = 40
T = TypeVar("T")


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """With forty events."""
    made = make_organization()
    open_shop(made, "ada")
    for number in range(OLD):
        done(track(made, key=f"old-{number}"))
    yield made
    audit(database_url, made)
    nothing_twice(database_url)


@pytest.fixture
def old(shop: Organization, database_url: str) -> int:
    """The generation where those keys are."""
    return freeze(database_url) - 1


def drafts(*keys: str) -> list[Draft]:
    return [Draft(UsageEvent("api_calls", "ada", Decimal(1), key=key)) for key in keys]


def told(outcomes: Sequence[Outcome]) -> list[str]:
    return ["stored" if isinstance(each, Accepted) else each.code for each in outcomes]


def beside(
    database_url: str, shop: Organization, act: Callable[[Batcher, UUID], Awaitable[T]], *, wide: bool = False
) -> T:
    """With a batcher whose process has the filters, for which they are far. `wide`: they take every key for an old one."""

    async def acted(database: Database) -> T:
        books = Books(Filters(far_s=0))
        async with database.reading() as conn:
            await build_filters(conn)
            await books.filters.load(conn)
        if wide:
            widen(books)
        batcher = Batcher(database_url, books, wall)
        batcher.start()
        try:
            return await act(batcher, organization_id(shop))
        finally:
            await batcher.stop()

    return beside_the_server(database_url, acted)


def widen(books: Books) -> None:
    shelves = books.filters._shelves
    generations = sorted(shelves.generations)
    shelves.all = ()
    for generation in generations:
        for _ in shelves.adding(KeyFilter(generation, b"\xff" * bytes_for(OLD))):
            pass


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("wide", [False, True], ids=["exact", "everything may be old"])
def test_each_is_answered_in_its_place(shop: Organization, database_url: str, wide: bool) -> None:
    async def act(batcher: Batcher, owner: UUID) -> list[list[str]]:
        sent = drafts("new-0", "old-3", "new-1", "new-0", "old-3", "old-39", "new-2")
        return [told(each) for each in (await batcher.submit(owner, sent), await batcher.submit(owner, sent))]

    first, again = beside(database_url, shop, act, wide=wide)
    assert first == ["stored", "duplicate", "stored", "duplicate", "duplicate", "duplicate", "stored"]
    assert again == ["duplicate"] * 7
    assert count_events(database_url, shop) == OLD + 3


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("wide", [False, True], ids=["exact", "everything may be old"])
def test_those_who_share_a_commit_have_their_own_answers(
    shop: Organization, database_url: str, wide: bool
) -> None:
    """Half of them repeat what is old, beside something new."""

    async def act(batcher: Batcher, owner: UUID) -> list[list[str]]:
        sent = [
            drafts(f"new-{each}", f"old-{each}") if each % 2 else drafts(f"new-{each}") for each in range(OLD)
        ]
        answers = await asyncio.gather(*(batcher.submit(owner, each) for each in sent))
        return [told(each) for each in answers]

    answers = beside(database_url, shop, act, wide=wide)
    assert answers == [["stored", "duplicate"] if each % 2 else ["stored"] for each in range(OLD)]
    assert count_events(database_url, shop) == 2 * OLD


def test_nobody_waits_for_them_but_who_sent_them(shop: Organization, old: int, database_url: str) -> None:
    """What is old cannot be read for a while: only they are not answered meanwhile, and stopping waits for them."""

    async def act(batcher: Batcher, owner: UUID) -> list[str]:
        await batcher.submit(owner, drafts("first"))
        with psycopg.connect(database_url) as reader:
            reader.execute(f"LOCK TABLE {table(old)} IN ACCESS EXCLUSIVE MODE")
            both = asyncio.create_task(batcher.submit(owner, drafts("old-1", "beside-it")))
            alone = asyncio.create_task(batcher.submit(owner, drafts("old-2")))
            for number in range(20):
                (outcome,) = await asyncio.wait_for(batcher.submit(owner, drafts(f"new-{number}")), 30)
                assert isinstance(outcome, Accepted)
            assert not both.done() and not alone.done()
            assert batcher.rows_waiting == 2
            stopping = asyncio.create_task(batcher.stop())
            await asyncio.sleep(0.05)
            assert not stopping.done()
            with pytest.raises(Problem, match="Too much is waiting"):
                await batcher.submit(owner, drafts("too late"))
        await stopping
        return told([*await both, *await alone])

    assert beside(database_url, shop, act) == ["duplicate", "stored", "duplicate"]
    assert count_events(database_url, shop) == OLD + 22


@pytest.mark.usefixtures("old")
def test_what_changed_meanwhile_is_told_first(shop: Organization, database_url: str) -> None:
    """Nothing is stored of what is old altogether; it is judged by an up to date book all the same."""
    key_id = done(shop.http.post(f"{API}/api-keys", json={"name": "soon gone"}))["id"]

    async def act(batcher: Batcher, owner: UUID) -> list[str]:
        (draft,) = drafts("old-7")
        sent = [draft._replace(api_key_id=own_id(ids.API_KEY, key_id))]
        before = await batcher.submit(owner, sent)
        done(shop.http.delete(f"{API}/api-keys/{key_id}"))
        return told([*before, *await batcher.submit(owner, sent)])

    assert beside(database_url, shop, act) == ["duplicate", "unauthorized"]


@pytest.mark.parametrize(
    ("keys", "seconds", "far"),
    [
        (1, FAR_S * FEW * 0.9, False),
        (1, FAR_S * FEW * 1.1, True),
        (50, FAR_S * 50 * 0.9, False),
        (50, FAR_S * 50 * 1.1, True),
    ],
)
def test_they_are_set_apart_where_looking_for_them_takes_long(keys: int, seconds: float, far: bool) -> None:
    filters = Filters()
    filters.took(seconds, keys)
    once = filters.old_are_far
    for _ in range(30):
        filters.took(seconds, keys)
    assert (once, filters.old_are_far) == (False, far)
    for _ in range(30):
        filters.took(seconds / 2, keys)
    assert not filters.old_are_far
