"""A cluster grows, and loses a node: on one that the test starts for itself."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tallystick.flows.key_generations import freeze_if_full
from tallystick.store import migrate
from tallystick.store.db import Database
from tests.audit import audit
from tests.citus.cluster import BIN, Cluster, cluster
from tests.conftest import Organization, beside_the_server, open_one, serving
from tests.flows.test_key_generations import freeze, nothing_twice
from tests.shop import API, done, open_shop, refused, set_clock, track, track_batch


@pytest.fixture
def growing() -> Iterator[Cluster]:
    if BIN not in os.environ:
        pytest.skip(f"needs {BIN}: the bin directory of a PostgreSQL in which Citus is installed")
    with cluster(Path(os.environ[BIN]), workers=1) as made:
        migrate.migrate(made.url)
        migrate.spread(made.url)
        yield made


def test_a_node_is_added_and_takes_its_share_while_events_come_in(growing: Cluster) -> None:
    customers = [f"customer_{number}" for number in range(12)]
    with serving(growing.url) as server:
        shop = open_one(growing.url, server.base_url, clock="2025-01-15T00:00:00Z")
        open_shop(shop, *customers)

        def send(key: str) -> None:
            sent = [{"featureCode": "api_calls", "customerId": each, "eventId": key} for each in customers]
            assert track_batch(shop, sent)["failed"] == []

        send("before")
        freeze(growing.url)
        growing.add()
        with psycopg.connect(growing.url, autocommit=True) as conn:
            conn.execute("SELECT citus_rebalance_start()")
            number = 0
            while _rebalancing(conn):
                send(f"while it moves {number}")
                if number % 10 == 5:
                    beside_the_server(growing.url, freeze_where_there_is_room)
                number += 1
            shares = [
                count
                for (count,) in conn.execute(
                    """SELECT count(*) FROM citus_shards WHERE table_name = 'event_keys'::regclass GROUP BY nodeport"""
                )
            ]
        assert number > 5
        assert len(shares) == 2 and 3 * min(shares) >= sum(shares)
        freeze(growing.url)
        send("after")
        assert audit(growing.url, shop) == 12 * (number + 2)
        nothing_twice(growing.url)
        for key in ("before", "while it moves 0"):
            refused(track(shop, customers[0], key=key), 409, "duplicate")
        set_clock(shop, "2025-03-01T00:00:00Z")
        audit(growing.url, shop)
        shop.http.close()


async def freeze_where_there_is_room(database: Database) -> None:
    """While a shard moves there is none, and that is no error: it is tried again later."""
    async with database.reading() as conn:
        await freeze_if_full(conn, bytes_max=0)


def _rebalancing(conn: "psycopg.Connection[tuple[object, ...]]") -> bool:
    found = conn.execute("SELECT state::text FROM citus_rebalance_status()").fetchone()
    assert found is None or found[0] not in ("failed", "failing"), conn.execute(
        "SELECT details FROM citus_rebalance_status()"
    ).fetchall()
    return found is not None and found[0] != "finished"


def test_a_node_that_is_gone_stores_nothing_and_is_caught_up_with(growing: Cluster) -> None:
    with serving(growing.url) as server:
        shop = open_one(growing.url, server.base_url, clock="2025-01-15T00:00:00Z")
        open_shop(shop, "ada")
        done(track(shop, key="before"))
        growing.nodes[1].stop("immediate")
        assert track(shop, key="meanwhile").status_code == 503
        growing.nodes[1].start()
        limit = time.monotonic() + 30
        while (answer := track(shop, key="meanwhile")).status_code == 503 and time.monotonic() < limit:
            time.sleep(0.2)
        done(answer)
        assert audit(growing.url, shop) == 2
        shop.http.close()


def test_what_was_acknowledged_is_there_once_whatever_was_killed(growing: Cluster) -> None:
    """A worker, the coordinator and the server are killed in turn, while a client sends each batch until it is told."""
    growing.add()
    with psycopg.connect(growing.url, autocommit=True) as conn:
        conn.execute("SELECT rebalance_table_shards()")
    customers = [f"customer_{number}" for number in range(6)]
    with serving(growing.url) as server:
        shop = open_one(growing.url, server.base_url, clock="2025-01-15T00:00:00Z")
        open_shop(shop, *customers)
        acknowledged: list[str] = []
        over = threading.Event()

        def pour() -> None:
            while not over.is_set():
                key = f"k{len(acknowledged)}"
                sent = [
                    {"featureCode": "api_calls", "customerId": each, "eventId": key} for each in customers
                ]
                while not _is_there(shop, sent):
                    time.sleep(0.1)
                acknowledged.append(key)

        def kill() -> None:
            server.stop(signal.SIGKILL)
            server.start()

        client = threading.Thread(target=pour)
        client.start()
        try:
            for harm in (growing.nodes[2].restart, growing.nodes[0].restart, growing.nodes[1].restart, kill):
                before = len(acknowledged)
                time.sleep(1)
                harm()
                limit = time.monotonic() + 90
                while len(acknowledged) < before + 5 and time.monotonic() < limit:
                    time.sleep(0.1)
                assert len(acknowledged) >= before + 5, server.log()
        finally:
            over.set()
            client.join()
        assert audit(growing.url, shop) == len(customers) * len(acknowledged)
        set_clock(shop, "2025-03-01T00:00:00Z")
        audit(growing.url, shop)
        shop.http.close()


def _is_there(shop: Organization, sent: list[dict[str, str]]) -> bool:
    try:
        answer = shop.http.post(f"{API}/usage/events/batch", json={"events": sent})
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    return all(each["code"] == "duplicate" for each in answer.json()["failed"])
