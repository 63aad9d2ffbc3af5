"""Whoever looks for events says customer, hour and bunch, and reads no others; and hours end where they end.

What a statement reads is counted by PostgreSQL, so no plan need be understood: on tables without statistics and with
them, planned for its values and for any.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any, Final

import psycopg
import pytest
from tests.literals import P, U, at

from tallystick.core.events import StoredEvent
from tallystick.core.meters import Aggregation, Meter
from tallystick.core.times import Period, hour_of, whole_hours
from tallystick.core.windows import Ruled
from tallystick.store import (
    digesting,
    event_keys,
    events,
    measuring,
    migrate,
    proving,
    reconcile,
    usage,
    wallets,
)
from tallystick.store.db import CONNECTION, INGEST_CONNECTION, PROOF_CONNECTION, Conn, connect, new_ids
from tallystick.store.places import BUNCH, Bunches
from tallystick.store.portions import Place, Portion

SHOP, OTHERS, CUSTOMER = U(1), U(2), U(3)
SUM = Meter(U(10), U(11), "api_calls", 1, "api_calls", Aggregation.SUM)
USERS = Meter(U(12), U(13), "users", 1, "api_calls", Aggregation.UNIQUE, property_name="user")
MONTH = P("2026-01-01/2026-02-01")
HOUR, TICK = timedelta(hours=1), timedelta(microseconds=1)
EVENTS: Final = 40_000
PER_HOUR: Final = EVENTS // (31 * 24) + 3  # with those on its edges
PER_BATCH: Final = 500
PAGE: Final = 200


def instants() -> list[datetime]:
    """All over the month; and at each full hour, and the last microsecond before it."""
    step = (MONTH.end - MONTH.start) / EVENTS
    edges = [MONTH.start + number * HOUR for number in range(31 * 24)]
    spread = [MONTH.start + number * step for number in range(EVENTS)]
    return sorted([*spread, *edges[1:], *(each - TICK for each in edges[1:])])


INSTANTS: Final = instants()


def count_in(span: Period) -> int:
    return sum(each in span for each in INSTANTS)


@pytest.fixture(scope="module")
def filled(database_url: str) -> Iterator[dict[str, str]]:
    """Two databases with the same events, of which one has no statistics."""
    names = {"never analyzed": "places_here", "analyzed": "places_analyzed"}
    with psycopg.connect(database_url, autocommit=True) as conn:
        for name in names.values():
            conn.execute(f"DROP DATABASE IF EXISTS {name}")
        conn.execute("CREATE DATABASE places_here")
        url = psycopg.conninfo.make_conninfo(database_url, dbname="places_here")
        migrate.migrate(url)
        with psycopg.connect(url) as filling:
            fill(filling)
        conn.execute("CREATE DATABASE places_analyzed TEMPLATE places_here")
        urls = {
            what: psycopg.conninfo.make_conninfo(database_url, dbname=name) for what, name in names.items()
        }
        with psycopg.connect(urls["analyzed"], autocommit=True) as analyzing:
            analyzing.execute("ANALYZE")
        yield urls
        for name in names.values():
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fill(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET session_replication_role = replica")  # nobody asks for the organization itself
    bunches = Bunches()
    for table in ("events_any", "event_keys_g0", "ingest_batches"):
        conn.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    made = [
        (bunches.place(identity, who, hour_of(when)), who, when)
        for who, times in ((OTHERS, INSTANTS[::7]), (CUSTOMER, INSTANTS))
        for identity, when in zip(new_ids(len(times)), times, strict=True)
    ]
    with conn.cursor() as cursor:
        with cursor.copy(
            """COPY events (id, customer_id, occurred_at, batch, feature_code, value, timed, properties, leaf) FROM STDIN"""
        ) as copy:
            for place, (identity, who, when) in enumerate(made):
                properties = f'{{"user": "{place % 100}"}}'
                copy.write_row(
                    (
                        identity,
                        who,
                        when,
                        place // PER_BATCH + 1,
                        "api_calls",
                        1,
                        True,
                        properties,
                        identity,
                    )
                )
        with cursor.copy(
            "COPY event_keys_g0 (generation, customer_id, key_hash, event_id, occurred_at) FROM STDIN"
        ) as copy:
            for identity, who, when in made:
                copy.write_row((0, who, identity, identity, when))
    for who in (OTHERS, CUSTOMER):
        conn.execute(
            "INSERT INTO customers (id, organization_id, email, created_at, updated_at) VALUES (%s, %s, '', now(), now())",
            (who, SHOP),
        )
    for (who, hour), count in Counter((who, hour_of(when)) for _, who, when in made).items():
        conn.execute(
            "INSERT INTO usage_hours (customer_id, meter_id, hour, events, quantity, batch) VALUES (%s, %s, %s, %s, %s, 1)",
            (who, SUM.id, hour, count, count),
        )
    for number in range(len(made) // PER_BATCH + 1):
        conn.execute(
            "INSERT INTO ingest_batches VALUES (%s, %s, %s, %s, %s, '', '')",
            (SHOP, number + 1, number + 1, made[number * PER_BATCH][0], PER_BATCH),
        )


# What is read ---------------------------------------------------------------------------------------------


async def some(conn: Conn, number: int = 5) -> list[StoredEvent]:
    """Events of the customer, here and there."""
    cursor = await conn.execute(
        "SELECT id FROM events WHERE customer_id = %s ORDER BY occurred_at", (CUSTOMER,)
    )
    there = [each[0] for each in await cursor.fetchall()]
    found = [
        await events.get(conn, organization_id=SHOP, event_id=each) for each in there[:: EVENTS // number]
    ]
    return [each for each in found if each is not None]


async def by_key(conn: Conn, known: list[StoredEvent]) -> None:
    places = [(each.customer_id, each.id.bytes) for each in known]
    found = await event_keys.held(
        conn, event_keys.Looked(0, [who for who, _ in places], [key for _, key in places])
    )
    assert {each.event_id for each in found.values()} == {each.id for each in known}


async def by_id(conn: Conn, known: list[StoredEvent]) -> None:
    found = await events.at(conn, {each.id: (each.customer_id, each.occurred_at) for each in known})
    assert found == {each.id: each for each in known}


async def marked(conn: Conn, known: list[StoredEvent]) -> None:
    await events.mark_voided(conn, places=known, number=77)


async def leaf(conn: Conn, known: list[StoredEvent]) -> None:
    for each in known:
        assert await events.carried_leaf(conn, each) == each.id.bytes


async def void(conn: Conn, known: list[StoredEvent]) -> None:
    for each in known:
        assert await events.voids_of(conn, each) == []


RAGGED, SHORT = P("2026-01-17T03:15/2026-01-17T05:45"), P("2026-01-17T18:15/2026-01-17T18:45")


async def first_page(conn: Conn, known: list[StoredEvent]) -> None:
    found = await events.in_span(conn, customer_id=CUSTOMER, feature="api_calls", span=MONTH, limit=PAGE)
    assert [each.occurred_at for each in found] == INSTANTS[:PAGE]


async def later_page(conn: Conn, known: list[StoredEvent]) -> None:
    last = known[2]
    found = await events.in_span(
        conn,
        customer_id=CUSTOMER,
        feature="api_calls",
        span=MONTH,
        after=(last.occurred_at, last.id),
        limit=PAGE,
    )
    place = INSTANTS.index(last.occurred_at) + 1
    assert [each.occurred_at for each in found] == INSTANTS[place : place + PAGE]


async def positions(conn: Conn, known: list[StoredEvent]) -> None:
    wanted = proving.Span(SHOP, CUSTOMER, SUM, MONTH, 10_000, 0)
    async for event, _ in events.stream_positions(conn, wanted, page=PAGE):
        assert event.occurred_at == INSTANTS[0]
        break


async def edges(conn: Conn, known: list[StoredEvent]) -> None:
    hours, beside = whole_hours(RAGGED)
    assert hours is not None
    (total,) = await usage.folds(conn, [usage.Asked(CUSTOMER, SUM, None, beside)])
    assert total.events == count_in(RAGGED) - count_in(hours)


async def measured(conn: Conn, known: list[StoredEvent]) -> None:
    part = Ruled(SUM, (SHORT.start, SHORT.end))
    assert (await measuring.usage_of_pieces(conn, customer_id=CUSTOMER, parts=[part]))[0].events == count_in(
        SHORT
    )


async def distinct(conn: Conn, known: list[StoredEvent]) -> None:
    part = Ruled(USERS, (SHORT.start, SHORT.end))
    found = await measuring.distinct_counts(conn, customer_id=CUSTOMER, parts=[part])
    assert found == {0: count_in(SHORT)}


async def grouped(conn: Conn, known: list[StoredEvent]) -> None:
    found = await measuring.usage_of_groups(
        conn,
        customer_id=CUSTOMER,
        parts=[Ruled(SUM, (RAGGED.start, RAGGED.end))],
        properties=["user"],
        by_piece=False,
        rows_max=1_000,
    )
    assert sum(each.events for each in found.values()) == count_in(RAGGED)


async def digested(conn: Conn, known: list[StoredEvent]) -> None:
    (found,) = await digesting.digests(conn, [digesting.ToDigest(CUSTOMER, SUM, RAGGED)])
    assert found is not None
    assert found.count == count_in(RAGGED)
    there = await events.in_span(conn, customer_id=CUSTOMER, feature="api_calls", span=RAGGED)
    assert found.digest == sha256(b"".join(each.id.bytes for each in there)).hexdigest()


async def summed(conn: Conn, known: list[StoredEvent]) -> None:
    span = proving.Span(SHOP, CUSTOMER, SUM, RAGGED, 10_000, 0)
    (found,) = await proving.sum_spans(conn, [span], amounts=False)
    assert found.events == count_in(RAGGED)


async def taken(conn: Conn, known: list[StoredEvent]) -> None:
    assert await wallets.deducted(conn, customer_id=CUSTOMER, event_code="api_calls", span=RAGGED) == 0


TWO_HOURS = Portion(Place(CUSTOMER, at("2026-01-17T03:00")), Place(CUSTOMER, at("2026-01-17T05:00")))
BETWEEN = Portion(Place(OTHERS, at("2026-01-31T22:00")), Place(CUSTOMER, at("2026-01-01T02:00")))


async def rollups(conn: Conn, known: list[StoredEvent]) -> None:
    for portion in (TWO_HOURS, BETWEEN):
        assert await reconcile.wrong_hours(conn, SHOP, portion, meters=[SUM]) == (0, [])


async def unchained(conn: Conn, known: list[StoredEvent]) -> None:
    for portion in (TWO_HOURS, BETWEEN):
        assert await proving.unchained(conn, portion, organization_id=SHOP, limit=10) == []


Read = Callable[[Conn, list[StoredEvent]], Awaitable[None]]
FEW: Final = 6 * BUNCH
READS: Final[Mapping[Read, int]] = {
    by_key: 0,
    by_id: FEW,
    marked: FEW,
    leaf: FEW,
    void: FEW,
    first_page: PAGE + 2 * PER_HOUR,
    later_page: PAGE + 3 * PER_HOUR,
    positions: PAGE + 2 * PER_HOUR,
    edges: 2 * PER_HOUR,
    measured: PER_HOUR,
    distinct: PER_HOUR,
    grouped: 4 * PER_HOUR,
    digested: 8 * PER_HOUR,  # it reads them twice
    summed: 4 * PER_HOUR,
    taken: 4 * PER_HOUR,
    rollups: 6 * PER_HOUR,
    unchained: 6 * PER_HOUR,
}
"""How many events each may look at."""


async def looked_at(conn: Conn) -> int:
    """How many rows of `events` this transaction has looked at, whether it wanted them or not."""
    cursor = await conn.execute(
        """SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables
            WHERE relid IN (SELECT relid FROM pg_partition_tree('events'))"""
    )
    found = await cursor.fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize(
    "options", [CONNECTION, INGEST_CONNECTION, PROOF_CONNECTION], ids=["pool", "ingest", "proof"]
)
@pytest.mark.parametrize("statistics", ["never analyzed", "analyzed"])
@pytest.mark.parametrize("read", READS, ids=lambda each: each.__name__)
def test_nothing_else_is_read(
    filled: dict[str, str], read: Read, statistics: str, options: Mapping[str, Any]
) -> None:
    async def act() -> int:
        async with await connect(filled[statistics], options) as conn:
            await conn.execute(
                "SET max_parallel_workers_per_gather = 0"
            )  # what others read is not counted here
            known = await some(conn)
            async with conn.transaction(force_rollback=True):
                before = await looked_at(conn)
                await read(conn, known)
                return await looked_at(conn) - before

    looked = asyncio.run(act())
    assert min(1, READS[read]) <= looked <= READS[read] or read is void


# Hours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_an_hour_is_one_everywhere(filled: dict[str, str], zone: str) -> None:
    """In Python, in rollups and in the index; wherever the connection lives."""
    odd = [at(each) for each in ("0001-01-01", "0999-07-07T23:59:59.999999", "9999-12-31T23:59:59.999999")]
    for hour in (at("1969-12-31T23:00"), at("1970-01-01"), at("2026-03-29T01:00"), at("2026-10-25T01:00")):
        odd += [hour, hour - TICK, hour + TICK, hour + timedelta(minutes=45)]
    with psycopg.connect(filled["analyzed"], options=f"-c timezone={zone}") as conn:
        for each in odd:
            found = conn.execute(
                "SELECT hour_of(%s) AT TIME ZONE 'UTC', date_trunc('hour', %s::timestamptz, 'UTC') AT TIME ZONE 'UTC'",
                (each.isoformat(), each.isoformat()),
            ).fetchone()
            assert found == (hour_of(each).replace(tzinfo=None),) * 2


def any_spans() -> Iterator[Period]:
    """Of which the ends are on an hour or a microsecond off it, in an hour of Kathmandu, or anywhere."""
    dice = Random(26)
    for _ in range(60):
        ends = sorted(
            MONTH.start
            + dice.randrange(31 * 24 * 4) * HOUR / 4
            + dice.choice([0, 0, -1, 1, dice.randrange(10**9)]) * TICK
            for _ in range(2)
        )
        yield Period(ends[0], min(ends[1], ends[0] + dice.choice([HOUR / 3, HOUR, 30 * HOUR])))


def test_hours_end_where_they_end(filled: dict[str, str]) -> None:
    spans = [each for each in any_spans() if each.start < each.end]

    async def act() -> list[tuple[int, ...]]:
        async with await connect(filled["analyzed"], CONNECTION) as conn:
            folded = await usage.folds(conn, [usage.Asked(CUSTOMER, SUM, None, (each,)) for each in spans])
            digests = await digesting.digests(
                conn, [digesting.ToDigest(CUSTOMER, SUM, each) for each in spans]
            )
            sums = await proving.sum_spans(
                conn, [proving.Span(SHOP, CUSTOMER, SUM, each, 10_000, 0) for each in spans], amounts=False
            )
            listed = [
                await events.in_span(conn, customer_id=CUSTOMER, feature="api_calls", span=each)
                for each in spans
            ]
            return [
                (fold.events, digest.count if digest else -1, summed.events, len(found))
                for fold, digest, summed, found in zip(folded, digests, sums, listed, strict=True)
            ]

    assert asyncio.run(act()) == [(count_in(each),) * 4 for each in spans]


# Bunches --------------------------------------------------------------------------------------------------


def test_ids_of_a_bunch_go_up_as_they_did() -> None:
    bunches = Bunches()
    made = [bunches.place(each, U(nth % 3), MONTH.start) for nth, each in enumerate(new_ids(1_000))]
    assert made == sorted(set(made))


def test_a_bunch_is_of_one_customer_and_hour_and_has_its_size() -> None:
    bunches = Bunches()
    sizes: Counter[int] = Counter()
    of_whom: dict[int, tuple[int, datetime]] = {}
    for nth, each in enumerate(new_ids(3 * 2 * BUNCH * 5)):
        customer, hour = nth % 3, MONTH.start + nth % 2 * HOUR
        number = bunches.place(each, U(customer), hour).int & 0xFFFF
        sizes[number] += 1
        assert of_whom.setdefault(number, (customer, hour)) == (customer, hour)
    assert set(sizes.values()) == {BUNCH}


def test_the_index_tells_bunches_by_the_end_of_an_id(filled: dict[str, str]) -> None:
    with psycopg.connect(filled["analyzed"]) as conn:
        for each in new_ids(100):
            assert conn.execute("SELECT bunch_of(%s)", (each,)).fetchone() == (each.int & 0xFFFF,)
