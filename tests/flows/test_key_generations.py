"""A key counts once, in whichever generation it came: while one is frozen, without a filter, and after a kill."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import httpx
import psycopg
import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.events import UsageEvent
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft, Outcome
from tallystick.flows.ingest import ingest
from tallystick.flows.key_filters import Filters
from tallystick.flows.key_generations import OpenGeneration, build_filters, freeze_if_full
from tallystick.flows.open_organization import open_organization
from tallystick.flows.sieve import bytes_for
from tallystick.store import db, key_generations
from tallystick.store.db import CONNECTION, Database
from tallystick.store.event_keys import TOGETHER
from tests.audit import audit, organization_id, select
from tests.conftest import MakeOrganization, Organization, beside_the_server, serving
from tests.flows.test_limits import counters, limit_to
from tests.literals import at
from tests.scenarios.purses import balance_shop, pools
from tests.shop import API, Json, done, open_shop, own_id, refused, set_clock, track, track_batch

OPENED = "2026-03-10T09:00:00Z"
NOW = "2026-03-10T12:00:00Z"
KEEPERS_LOCK = int.from_bytes(b"keygener", signed=True)


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """When the test is over, the books must balance, and no key may be in two generations."""
    made = make_organization(clock=OPENED)
    yield made
    audit(database_url, made)
    nothing_twice(database_url)


def nothing_twice(database_url: str) -> None:
    assert not select(database_url, "SELECT key_hash FROM event_keys GROUP BY 1 HAVING count(*) > 1")


def freeze(database_url: str) -> int:
    """The number of the new generation; tries again when somebody was in the way."""

    async def act(database: Database) -> int:
        async with database.reading() as conn:
            for _ in range(50):
                number = await freeze_if_full(conn, bytes_max=0)
                if number is not None:
                    return number
        raise AssertionError("it could not be frozen")

    return beside_the_server(database_url, act)


def all_filters(database_url: str) -> Filters:
    """Built, and brought."""

    async def act(database: Database) -> Filters:
        filters = Filters()
        async with database.reading() as conn:
            await build_filters(conn)
            await filters.load(conn)
        return filters

    return beside_the_server(database_url, act)


@pytest.fixture(params=["without a filter", "with its filter"])
def frozen(request: pytest.FixtureRequest, database_url: str) -> "Frozen":
    return Frozen(database_url, with_filter=request.param == "with its filter")


class Frozen:
    """Freezes; then either the server has the filter of what is frozen, or there is none."""

    def __init__(self, database_url: str, *, with_filter: bool) -> None:
        self.database_url, self.with_filter = database_url, with_filter

    def __call__(self) -> None:
        number = freeze(self.database_url)
        if self.with_filter:
            all_filters(self.database_url)
            time.sleep(0.1)  # whether the server has brought it by now is the server's affair
        else:
            with psycopg.connect(self.database_url, autocommit=True) as conn:
                conn.execute("DELETE FROM key_filters WHERE generation = %s", (number - 1,))


# What a repeat is told ------------------------------------------------------------------------------------


def test_a_key_of_a_frozen_generation_is_a_duplicate(shop: Organization, frozen: Frozen) -> None:
    open_shop(shop, "ada", "bob")
    set_clock(shop, NOW)
    first = done(track(shop, key="k", value=3))
    frozen()
    details = refused(track(shop, key="k", value=3), 409, "duplicate")["details"]
    assert (details["id"], details["identical"]) == (first["id"], True)
    details = refused(track(shop, key="k", value=4), 409, "duplicate")["details"]
    assert (details["id"], details["identical"]) == (first["id"], False)
    assert done(track(shop, "bob", key="k", value=3))["id"] != first["id"], "another customer's"
    frozen()
    answer = track_batch(
        shop,
        [
            {"customerId": customer, "featureCode": "api_calls", "eventId": key, "value": 3}
            for customer, key in (("ada", "k"), ("bob", "k"), ("ada", "new"), ("ada", "new"), ("bob", "new"))
        ],
    )
    assert [each["index"] for each in answer["failed"]] == [0, 1, 3]
    assert {each["code"] for each in answer["failed"]} == {"duplicate"}
    assert len(answer["successful"]) == 2


def test_a_header_of_a_frozen_generation_replays(shop: Organization, frozen: Frozen) -> None:
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    keyed, headed = done(track(shop, key="k", header="h1")), done(track(shop, header="h2"))
    batch = [{"customerId": "ada", "featureCode": "api_calls", "value": each} for each in range(3)]
    taken = track_batch(shop, batch, header="h3")
    frozen()
    assert done(track(shop, key="k", header="h1")) == keyed
    assert done(track(shop, header="h2")) == headed
    refused(track(shop, header="h2", value=9), 409, "idempotency_key_mismatch")
    assert track_batch(shop, batch, header="h3") == taken


@pytest.mark.parametrize("has_filters", [True, False], ids=["with filters", "without"])
def test_many_generations_are_asked_together(
    shop: Organization, database_url: str, has_filters: bool
) -> None:
    """More than one statement asks; each key is told by its own event."""
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    stored = []
    for number in range(TOGETHER + 2):
        stored.append(done(track(shop, key=f"k{number}"))["id"])
        freeze(database_url)
    keys = ["new", *(f"k{number}" for number in reversed(range(len(stored)))), "k0"]

    async def act(database: Database) -> Sequence[Outcome]:
        books = Books()
        async with database.reading() as conn:
            if has_filters:
                await build_filters(conn)
                await books.filters.load(conn)
            sent = [Draft(UsageEvent("api_calls", "ada", key=key)) for key in keys]
            told = await ingest(conn, books, organization_id(shop), sent, wall=wall())
            sieve = (await books.known(conn, organization_id(shop))).sieve
            assert sieve is not None and sieve.asks_all is not has_filters
            return told

    new, *old = beside_the_server(database_url, act)
    assert isinstance(new, Accepted) and not new.replayed
    assert [told_id(each) for each in old] == [*reversed(stored), stored[0]]


def test_who_has_not_heard_of_a_freeze_tells_what_was_frozen(shop: Organization, database_url: str) -> None:
    """A process that stored nothing meanwhile, but has brought the new filter."""
    open_shop(shop, "ada")
    set_clock(shop, NOW)

    async def act(database: Database) -> list[Outcome]:
        books, told = Books(), list[Outcome]()
        async with database.reading() as conn:
            # Up to the first of those that are asked together: of them, none is before it.
            while await key_generations.current(conn) % TOGETHER:
                await freeze_if_full(conn, bytes_max=0)
            for _ in range(2):
                told += await ingest(
                    conn,
                    books,
                    organization_id(shop),
                    [Draft(UsageEvent("api_calls", "ada", key="k"))],
                    wall=wall(),
                )
                await freeze_if_full(conn, bytes_max=0)
                await build_filters(conn)
                await books.filters.load(conn)
        return told

    first, again = beside_the_server(database_url, act)
    assert isinstance(first, Accepted)
    assert told_id(again) == ids.show(ids.EVENT, first.event.id)


def told_id(outcome: Outcome) -> str:
    """Of the event that a duplicate is told to be."""
    assert isinstance(outcome, Problem) and outcome.code == "duplicate", outcome
    assert isinstance(outcome.details, Mapping)
    return str(outcome.details["id"])


def test_an_event_is_taken_back_once_in_whichever_generation(
    shop: Organization, frozen: Frozen, database_url: str
) -> None:
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    event = done(track(shop, value=5))
    frozen()
    there = f"{API}/usage/events/{event['id']}"
    done(shop.http.request("DELETE", there, json={}))
    frozen()
    with psycopg.connect(database_url, autocommit=True) as conn:  # as one sees it who read before the void
        (batch,) = conn.execute(
            "UPDATE events SET voided = NULL WHERE id = %s RETURNING batch", (own_id(ids.EVENT, event["id"]),)
        ).fetchone() or (None,)
        assert batch is not None
        refused(shop.http.request("DELETE", there, json={}), 409, "duplicate")
        conn.execute(
            "UPDATE events e SET voided = v.batch FROM events v WHERE v.customer_id = e.customer_id AND v.voids = e.id AND e.id = %s",
            (own_id(ids.EVENT, event["id"]),),
        )


def test_at_the_limit_an_old_key_is_a_duplicate_and_takes_nothing(
    shop: Organization, frozen: Frozen, database_url: str
) -> None:
    limit_to(shop, 10)
    done(track(shop, key="k", value=7))
    frozen()
    refused(track(shop, key="k", value=7), 409, "duplicate")
    done(track(shop, key="other", value=3))
    frozen()
    for key, value in (("k", 7), ("other", 3)):
        refused(track(shop, key=key, value=value), 409, "duplicate")
    assert counters(database_url, shop) == [10]


def test_an_old_key_is_not_paid_again(shop: Organization, frozen: Frozen, database_url: str) -> None:
    """By the statement that pays in short, and wallet in hand."""
    balance_shop(shop, 10_000)
    done(track(shop, key="k", feature="call", value=2))
    frozen()
    sent = [
        {"customerId": "ada", "featureCode": "call", "eventId": key, "value": 2}
        for key in ("k", "second", "k")
    ]
    for company in ([], [{"featureCode": "call", "customerId": "nobody"}]):
        answer = track_batch(shop, sent + company)
        assert {each["index"] for each in answer["failed"] if each["code"] == "duplicate"} >= {0, 2}
    assert pools(database_url, shop)[0] == 10_000 - 400


# Filters --------------------------------------------------------------------------------------------------


def test_a_filter_may_be_built_by_several_at_once(shop: Organization, database_url: str) -> None:
    """As when a process goes on with it that has lost its lock meanwhile."""
    open_shop(shop, "ada")
    done(track(shop, key="k"))
    number = freeze(database_url)
    with psycopg.connect(database_url) as conn:
        conn.execute("DELETE FROM key_filters WHERE generation = %s", (number - 1,))

    async def act(database: Database) -> None:
        all_there = asyncio.Barrier(4)

        async def build() -> None:
            async with database.reading() as conn:
                await all_there.wait()
                await build_filters(conn)

        await asyncio.gather(*(build() for _ in range(4)))

    beside_the_server(database_url, act)
    sieve = all_filters(database_url).before(number)
    assert sieve is not None and not sieve.asks_all
    refused(track(shop, key="k"), 409, "duplicate")


def test_a_filter_spares_looking_for_strangers(shop: Organization, database_url: str) -> None:
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    done(track(shop, key="k"))
    number = freeze(database_url)
    sieve = all_filters(database_url).before(number)
    assert sieve is not None
    ((key_hash,),) = select(
        database_url,
        "SELECT k.key_hash FROM event_keys k JOIN customers c ON c.id = k.customer_id "
        "WHERE c.organization_id = %s",
        organization_id(shop),
    )
    assert sieve.may_hold([key_hash.bytes])[number - 1] == [0]
    assert not sieve.may_hold([bytes(reversed(key_hash.bytes))])


def test_a_filter_that_is_damaged_or_lost_is_built_again(shop: Organization, database_url: str) -> None:
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    done(track(shop, key="k"))
    number = freeze(database_url)
    whole = all_filters(database_url)
    for harm in (
        "UPDATE key_filters SET bits = decode(repeat('00', octet_length(bits)), 'hex') WHERE generation = %s",
        "DELETE FROM key_filters WHERE generation = %s",
    ):

        async def act(database: Database) -> None:
            filters = Filters()
            async with database.reading() as conn:
                await filters.load(conn)
                sieve = filters.before(number)
                assert sieve is not None
                assert (number - 1) in sieve.may_hold([bytes(16)]), "whatever is asked"
                await build_filters(conn)
                await filters.load(conn)
            assert filters.size == whole.size

        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("SELECT pg_advisory_lock(%s)", (KEEPERS_LOCK,))  # else the server mends it meanwhile
            conn.execute(harm, (number - 1,))
            beside_the_server(database_url, act)
    refused(track(shop, key="k"), 409, "duplicate")


def test_the_server_freezes_what_is_large_and_builds_its_filter(
    shop: Organization, database_url: str
) -> None:
    open_shop(shop, "ada")
    before = freeze(database_url)
    with (
        serving(database_url, environment={"TALLYSTICK_KEY_GENERATION_MB": "1"}) as server,
        httpx.Client(base_url=server.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http,
    ):
        bulk = [{"customerId": "ada", "featureCode": "api_calls", "eventId": f"b{n}"} for n in range(8_000)]
        assert len(done(http.post(f"{API}/usage/events/bulk", json={"events": bulk}))["successful"]) == 8_000
        deadline = time.monotonic() + 120
        while True:
            found = select(database_url, "SELECT filter_bytes FROM key_generations WHERE number = %s", before)
            if found and found[0][0]:
                break
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.2)
        assert bytes_for(5_000) <= found[0][0] <= bytes_for(10_000)
        again = done(http.post(f"{API}/usage/events/bulk", json={"events": bulk[:500]}))
        assert {each["code"] for each in again["failed"]} == {"duplicate"}
        deadline = time.monotonic() + 120
        while "tallystick_key_filter_bytes 0.0" in http.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_what_was_not_there_yet_when_a_filter_was_begun_is_told_later(
    shop: Organization, database_url: str
) -> None:
    """Also what a transaction has stored by then that ends after all have been read."""
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    for number in range(3):
        done(track(shop, key=f"k{number}"))
    freeze(database_url)

    async def act() -> None:
        async with (
            await db.connect(database_url, CONNECTION) as conn,
            await db.connect(database_url, CONNECTION) as writer,
        ):
            number = await key_generations.current(conn)

            async def keys(since: str | None = None) -> set[bytes]:
                found = b""
                for page in await key_generations.pages(conn, generation=number):
                    found += await key_generations.keys_on(conn, page, generation=number, since=since)
                return {found[at : at + 16] for at in range(0, len(found), 16)}

            async def store(key: bytes) -> None:
                async with writer.transaction():
                    await writer.execute(
                        f"""INSERT INTO {key_generations.table(number)}
                                   (generation, customer_id, key_hash, event_id, occurred_at)
                            VALUES ({number:d}, gen_random_uuid(), %s, gen_random_uuid(), now())""",
                        (UUID(bytes=key),),
                    )

            early, open_long, late = (os.urandom(16) for _ in range(3))
            try:
                await store(early)
                async with writer.transaction():
                    await store(open_long)
                    horizon = await key_generations.horizon(conn)
                    assert {early} <= await keys() and open_long not in await keys()
                await store(late)
                assert await keys(horizon) == {open_long, late}
                assert {early, open_long, late} <= await keys()
                assert await keys(await key_generations.horizon(conn)) == set()
            finally:
                await writer.execute(
                    f"DELETE FROM {key_generations.table(number)} WHERE key_hash = ANY(%s)",
                    ([UUID(bytes=each) for each in (early, open_long, late)],),
                )

    asyncio.run(act())


async def fill(conn: db.Conn, generation: int, keys: int) -> None:
    """Store so many keys of nobody, in the order in which they come."""
    await conn.execute(
        f"""INSERT INTO {key_generations.table(generation)} (generation, customer_id, key_hash, event_id, occurred_at)
            SELECT {generation:d}, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now()
              FROM generate_series(1, {keys:d})"""
    )


def test_a_filter_that_was_made_while_its_generation_filled_misses_no_key(
    shop: Organization, database_url: str
) -> None:
    """Neither those that came last, nor who came into the middle, where room had been left, nor who was long in coming."""
    freeze(database_url)

    async def act() -> None:
        async with (
            await db.connect(database_url, CONNECTION) as conn,
            await db.connect(database_url, CONNECTION) as writer,
            await db.connect(database_url, CONNECTION) as slow,
        ):
            number = await key_generations.current(conn)
            table = key_generations.table(number)

            try:
                await fill(writer, number, 30_000)
                full = int(await key_generations.size(conn, generation=number) * 1.3)
                followed = OpenGeneration(conn, bytes_max=full)
                assert await followed.look() is None
                async with writer.transaction(force_rollback=True):
                    await fill(writer, number, 3_000)
                await fill(writer, number, 1_000)
                async with slow.transaction():
                    await fill(slow, number, 10)
                    await fill(writer, number, 1_000)
                    assert await followed.look() is None
                    await writer.execute(f"VACUUM {table}")
                    await fill(writer, number, 1_000)
                    assert await followed.look() is None
                assert await followed.look() is None
                await fill(writer, number, 9_000)
                assert await followed.look() == number + 1
                assert not followed.is_followed
                keys = [each.bytes for (each,) in await db.rows(conn, f"SELECT key_hash FROM {table}")]
                filters = Filters()
                await filters.load(conn)
                sieve = filters.before(number + 1)
                assert sieve is not None and not sieve.asks_all
                assert sieve.may_hold(keys)[number] == list(range(42_010))
            finally:
                await writer.execute(f"DELETE FROM {table}")

    asyncio.run(act())


def test_a_filter_that_was_begun_too_small_is_made_anew(shop: Organization, database_url: str) -> None:
    """The table was large already with what a transaction had yet to commit, of which nothing could be counted."""
    freeze(database_url)

    async def act() -> None:
        async with (
            await db.connect(database_url, CONNECTION) as conn,
            await db.connect(database_url, CONNECTION) as writer,
        ):
            number = await key_generations.current(conn)
            table = key_generations.table(number)

            try:
                async with writer.transaction():
                    await fill(writer, number, 3_000)
                    full = await key_generations.size(conn, generation=number)
                    followed = OpenGeneration(conn, bytes_max=full)
                    assert await followed.look() is None
                    assert followed.is_followed
                await fill(writer, number, 1_000)
                assert await followed.look() == number + 1
                keys = [each.bytes for (each,) in await db.rows(conn, f"SELECT key_hash FROM {table}")]
                made = next(each for each in await key_generations.filters(conn) if each.generation == number)
                assert made.size >= bytes_for(len(keys))
                filters = Filters()
                await filters.load(conn)
                sieve = filters.before(number + 1)
                assert sieve is not None
                assert sieve.may_hold(keys)[number] == list(range(4_000))
            finally:
                await writer.execute(f"DELETE FROM {table}")

    asyncio.run(act())


# Races ----------------------------------------------------------------------------------------------------


def test_an_organization_that_is_being_made_holds_the_generation(
    shop: Organization, database_url: str
) -> None:
    """Its head cannot be seen yet, so it could not be moved."""
    open_shop(shop, "ada")

    async def act(database: Database) -> None:
        async with database.reading() as freezing:
            async with database.transaction() as conn:
                made, _ = await open_organization(
                    conn, name="New", mode="sandbox", timezone="UTC", clock=None, wall=at(NOW)
                )
                assert await freeze_if_full(freezing, bytes_max=0) is None
            async with database.reading() as conn:
                before = (await Books().current(conn, made.id)).version
                number = await freeze_if_full(freezing, bytes_max=0)
                book = await Books().current(conn, made.id)
                assert (book.version, book.generation) == (before + 1, number)

    beside_the_server(database_url, act)


def test_a_statement_that_began_before_stores_nothing_after(shop: Organization, database_url: str) -> None:
    """It has added its keys and waits for the head, while the generation is frozen; then it must begin anew."""
    open_shop(shop, "ada")
    set_clock(shop, NOW)
    done(track(shop, key="first"))

    async def act() -> int:
        async with await db.connect(database_url, CONNECTION) as conn:
            number = await key_generations.current(conn)
            await key_generations.freeze(conn, number=number)  # so that only the one below is left to do
            number += 1
            async with conn.transaction():
                await conn.execute(
                    "SELECT FROM organization_heads WHERE organization_id = %s FOR NO KEY UPDATE",
                    (organization_id(shop),),
                )
                waiting = asyncio.create_task(asyncio.to_thread(track, shop, key="second"))
                await asyncio.sleep(0.5)
                assert not waiting.done()
                await key_generations.freeze(conn, number=number)
            done(await waiting)
        return number

    frozen_last = asyncio.run(act())
    ((generation,),) = select(
        database_url,
        "SELECT k.generation FROM event_keys k JOIN events e ON e.customer_id = k.customer_id AND e.id = k.event_id "
        "WHERE e.customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND e.event_key = 'second'",
        organization_id(shop),
    )
    assert generation == frozen_last + 1


def test_everybody_hammers_the_same_keys_while_generations_change_and_servers_die(
    shop: Organization, database_url: str
) -> None:
    open_shop(shop, "ada", "bob")
    set_clock(shop, NOW)
    over = threading.Event()
    sent, frozen = set[str](), list[int]()

    def hammer(worker: int, base_url: str) -> Counter[str]:
        """Of every key, how often this client was told that it was stored."""
        stored: Counter[str] = Counter()
        with httpx.Client(base_url=base_url, headers={"x-api-key": shop.api_key}, timeout=60) as http:
            turn = 0
            while not over.is_set():
                keys = [f"k{turn + each * 7}" for each in range(20)]  # new ones, and older and older ones
                events: list[Json] = [
                    {"customerId": ("ada", "bob")[number % 2], "featureCode": "api_calls", "eventId": key}
                    for number, key in enumerate(keys)
                ]
                sent.update(f"{each['customerId']} {each['eventId']}" for each in events)
                with suppress(httpx.TransportError):
                    answer = http.post(f"{API}/usage/events/batch", json={"events": events})
                    if answer.status_code == 503:
                        continue
                    stored.update(
                        f"{each['customerId']} {each['eventId']}" for each in done(answer)["successful"]
                    )
                turn += 1 + worker % 2
        return stored

    def keep_freezing() -> None:
        while not over.is_set():
            frozen.append(freeze(database_url))
            time.sleep(0.15)

    with serving(database_url, workers=2) as server, ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(hammer, worker, server.base_url) for worker in range(4)]
        freezing = pool.submit(keep_freezing)
        try:
            for _ in range(6):
                time.sleep(0.8)
                with suppress(ProcessLookupError):
                    os.kill(server.serving()[0], signal.SIGKILL)
            limit = time.monotonic() + 60  # however slow the database is
            while (len(sent) < 400 or len(frozen) < 10) and time.monotonic() < limit:
                time.sleep(0.1)
        finally:
            over.set()
        freezing.result()
        told = sum((each.result() for each in clients), Counter[str]())
    assert len(frozen) > 5
    assert max(told.values()) == 1, "nobody else was told that it was stored"
    found = select(
        database_url,
        """SELECT c.external_id || ' ' || e.event_key, count(*)
             FROM events e JOIN customers c ON c.id = e.customer_id WHERE c.organization_id = %s GROUP BY 1""",
        organization_id(shop),
    )
    assert max(count for _, count in found) == 1
    assert set(told) <= {each for each, _ in found} <= sent
    assert len(found) > 200
    ((generations,),) = select(
        database_url,
        "SELECT count(DISTINCT generation) FROM event_keys k JOIN customers c ON c.id = k.customer_id "
        "WHERE c.organization_id = %s",
        organization_id(shop),
    )
    assert generations > 3
